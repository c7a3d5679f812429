//! What instances cost: of spot instances EC2 itself says so, of others the price list.

use std::time::SystemTime;

use aws_config::{Region, SdkConfig};
use aws_sdk_ec2::types::SpotPrice;
use aws_sdk_pricing::types::{Filter, FilterType};
use aws_smithy_types::DateTime;
use serde_json::Value;

use crate::{Client, Error, Result};

/// As what spot instances are sold that need no licence.
const LINUX: &str = "Linux/UNIX";
/// Where the list of all regions [is read][endpoints].
///
/// [endpoints]: https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
const PLACE: &str = "us-east-1";
const SERVICE: &str = "AmazonEC2";
/// What else makes a price that of a Linux instance on demand, with nothing sold along with it.
const SOLD: [(&str, &str); 5] = [
    ("operatingSystem", "Linux"),
    ("tenancy", "Shared"),
    ("preInstalledSw", "NA"),
    ("capacitystatus", "Used"),
    ("marketoption", "OnDemand"),
];

/// A client for the price list.
pub fn client(shared: &SdkConfig) -> aws_sdk_pricing::Client {
    let config = aws_sdk_pricing::config::Builder::from(shared).region(Region::new(PLACE));
    aws_sdk_pricing::Client::from_conf(config.build())
}

impl Client {
    /// What a spot instance of this type costs in this zone now, in USD an hour; none where it is not sold.
    pub async fn spot_price(&self, kind: &str, zone: &str) -> Result<Option<f64>> {
        let request = self
            .sdk
            .describe_spot_price_history()
            .instance_types(kind.into())
            .product_descriptions(LINUX)
            .availability_zone(zone)
            // From now on: that which is in force, and no history.
            .start_time(SystemTime::now().into());
        let answer = request.send().await.map_err(Error::of)?;
        Ok(newest(answer.spot_price_history()))
    }

    /// What any other instance of this type costs in this region, in USD an hour; none where the list has no price, or more than one.
    pub async fn list_price(&self, kind: &str, region: &str) -> Result<Option<f64>> {
        let own = [("instanceType", kind), ("regionCode", region)];
        let mut filters = Vec::new();
        for (field, value) in own.into_iter().chain(SOLD) {
            let filter = Filter::builder().r#type(FilterType::TermMatch).field(field).value(value);
            filters.push(filter.build().map_err(|error| Error::unreadable(&error.to_string()))?);
        }
        let request = self.pricing.get_products().service_code(SERVICE).set_filters(Some(filters));
        let answer = request.send().await.map_err(Error::of)?;
        Ok(only(answer.price_list()))
    }
}

/// The newest of some prices; a text that is no number is none.
fn newest(prices: &[SpotPrice]) -> Option<f64> {
    let newest = prices.iter().max_by_key(|price| price.timestamp().map(DateTime::secs))?;
    read(newest.spot_price()?)
}

/// The one price an hour of some products, each a document in JSON.
fn only(products: &[String]) -> Option<f64> {
    let products: Vec<Value> = products.iter().filter_map(|product| serde_json::from_str(product).ok()).collect();
    let terms = products
        .iter()
        .filter_map(|product| product.pointer("/terms/OnDemand")?.as_object());
    let dimensions = terms
        .flat_map(serde_json::Map::values)
        .filter_map(|term| term.get("priceDimensions")?.as_object());
    let hourly = dimensions
        .flat_map(serde_json::Map::values)
        .filter(|dimension| dimension.get("unit").is_some_and(|unit| unit == "Hrs"));
    let mut prices = hourly.filter_map(|dimension| read(dimension.pointer("/pricePerUnit/USD")?.as_str()?));
    let first = prices.next()?;
    prices.all(|other| other.total_cmp(&first).is_eq()).then_some(first)
}

/// Nothing that runs is free: a zero stands for what is paid in another way.
fn read(price: &str) -> Option<f64> {
    price.parse().ok().filter(|price: &f64| price.is_finite() && *price > 0.0)
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::SpotPrice;
    use aws_smithy_types::DateTime;
    use serde_json::json;

    use super::{newest, only};

    #[test]
    fn the_newest_price_of_a_spot_instance_is_in_force() {
        let price = |at, price: &str| SpotPrice::builder().timestamp(DateTime::from_secs(at)).spot_price(price).build();
        assert_eq!(newest(&[]), None);
        let prices = [price(1, "0.30"), price(3, "0.1234"), price(2, "0.20")];
        assert_eq!(newest(&prices), Some(0.1234));
        for unreadable in ["", "free", "NaN", "inf", "0.0000"] {
            assert_eq!(newest(&[price(1, unreadable)]), None, "{unreadable}");
        }
    }

    fn product(unit: &str, price: &str) -> String {
        let dimension = json!({ "unit": unit, "beginRange": "0", "endRange": "Inf", "pricePerUnit": { "USD": price } });
        let term = json!({ "priceDimensions": { "A.B.C": dimension }, "sku": "A", "termAttributes": {} });
        json!({ "product": { "sku": "A" }, "terms": { "OnDemand": { "A.B": term } } }).to_string()
    }

    #[test]
    fn a_price_of_the_list_is_the_only_one_an_hour() {
        let one = product("Hrs", "0.4032000000");
        assert_eq!(only(std::slice::from_ref(&one)), Some(0.4032));
        assert_eq!(only(&[one.clone(), one.clone(), product("Hrs", "0.0000000000")]), Some(0.4032));
        assert_eq!(only(&[one, product("Hrs", "0.5")]), None);
        for unreadable in [
            product("Quantity", "3"),
            product("Hrs", "free"),
            "{}".to_owned(),
            "no JSON".to_owned(),
        ] {
            assert_eq!(only(&[unreadable]), None);
        }
    }
}
