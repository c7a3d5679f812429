//! Azure's public [list of prices][api]. Pure.
//!
//! [api]: https://learn.microsoft.com/en-us/rest/api/cost-management/retail-prices/azure-retail-prices

use anyhow::{Context as _, Result};
use serde::Deserialize;
use url::Url;

use crate::cloud::Offer;

const PATH: &str = "/api/retail/prices";
const HOUR: &str = "1 Hour";
const CURRENCY: &str = "USD";

/// An answer; what is sold as one type fits on one page.
#[derive(Debug, Deserialize)]
pub struct List {
    #[serde(rename = "Items")]
    items: Vec<Item>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Item {
    currency_code: String,
    retail_price: f64,
    unit_of_measure: String,
    product_name: String,
    sku_name: String,
    meter_name: String,
}

/// What to ask for: everything that is sold as this type, by the hour.
pub fn address(base: &str, offer: &Offer) -> Result<String> {
    let quoted = |text: &str| text.replace('\'', "''");
    let filter = format!(
        "serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '{}' and armSkuName eq '{}'",
        quoted(&offer.region),
        quoted(&offer.kind)
    );
    let mut url = Url::parse(&format!("{base}{PATH}")).context("building the address of the list of prices")?;
    url.query_pairs_mut().append_pair("$filter", &filter);
    Ok(url.into())
}

impl List {
    /// The one price of a Linux machine, spot or not; none where there is none, or more than one.
    pub fn hourly(&self, spot: bool) -> Option<f64> {
        let mut prices = self.items.iter().filter(|item| item.is_sold(spot)).map(|item| item.retail_price);
        let first = prices.next()?;
        // A machine of another make may be sold under the same name: that is no fact about this one.
        prices.all(|other| other.total_cmp(&first).is_eq()).then_some(first)
    }
}

impl Item {
    fn is_sold(&self, spot: bool) -> bool {
        let names = |word: &str| self.sku_name.contains(word) || self.meter_name.contains(word);
        self.unit_of_measure == HOUR
            && self.currency_code == CURRENCY
            && self.retail_price > 0.0
            && !self.product_name.contains("Windows")
            && !names("Low Priority")
            && names("Spot") == spot
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::{List, address};
    use crate::cloud::Offer;

    fn item(price: f64, product: &str, sku: &str) -> Value {
        json!({
            "currencyCode": "USD",
            "retailPrice": price,
            "unitPrice": price,
            "unitOfMeasure": "1 Hour",
            "productName": product,
            "skuName": sku,
            "meterName": sku,
            "armSkuName": "Standard_F8s_v2",
            "type": "Consumption",
        })
    }

    fn hourly(items: &[Value], spot: bool) -> Option<f64> {
        let list: List = serde_json::from_value(json!({ "Items": items, "NextPageLink": null, "Count": items.len() })).unwrap();
        list.hourly(spot)
    }

    #[test]
    fn a_linux_machine_has_one_price_and_a_spot_machine_another() {
        let (linux, windows) = ("Virtual Machines FSv2 Series", "Virtual Machines FSv2 Series Windows");
        let all = [
            item(0.706, windows, "F8s v2"),
            item(0.338, linux, "F8s v2"),
            item(0.067, linux, "F8s v2 Low Priority"),
            item(0.071, linux, "F8s v2 Spot"),
            item(0.148, windows, "F8s v2 Spot"),
        ];
        assert_eq!((hourly(&all, false), hourly(&all, true)), (Some(0.338), Some(0.071)));
        assert_eq!(
            (hourly(&all[..1], false), hourly(&all[..3], true), hourly(&[], false)),
            (None, None, None)
        );
    }

    #[test]
    fn what_is_not_one_price_an_hour_in_dollars_is_none() {
        let good = item(0.3, "Virtual Machines", "F8s v2");
        assert_eq!(hourly(&[good.clone(), good.clone()], false), Some(0.3));
        assert_eq!(hourly(&[good.clone(), item(0.4, "Virtual Machines", "F8s v2")], false), None);
        for (key, other) in [
            ("currencyCode", json!("EUR")),
            ("unitOfMeasure", json!("1/Month")),
            ("retailPrice", json!(0.0)),
        ] {
            let mut bad = good.clone();
            bad[key] = other;
            assert_eq!(hourly(&[bad], false), None, "{key}");
        }
    }

    #[test]
    fn the_question_is_about_one_type_in_one_region() {
        let offer = Offer {
            kind: "Standard_F8s_v2".into(),
            region: "west'us2".into(),
            zone: None,
            spot: false,
        };
        let asked = address("https://prices.azure.com", &offer).unwrap();
        assert!(asked.starts_with("https://prices.azure.com/api/retail/prices?%24filter=serviceName+eq+%27Virtual+Machines%27+and+"));
        assert!(
            asked.ends_with("armRegionName+eq+%27west%27%27us2%27+and+armSkuName+eq+%27Standard_F8s_v2%27"),
            "{asked}"
        );
    }
}
