//! The public list of prices, which asks for no token.

use serde_json::{Value, json};

use super::answers::{Answer, Refusal};

/// What a Linux machine of any type costs, and what it costs as a spot machine.
const PRICES: [(&str, &str, f64); 5] = [
    ("Virtual Machines Series", "", 0.5),
    ("Virtual Machines Series", " Spot", 0.0625),
    ("Virtual Machines Series", " Low Priority", 0.1),
    ("Virtual Machines Series Windows", "", 0.9),
    ("Virtual Machines Series Windows", " Spot", 0.2),
];

/// `$filter` is terms `KEY eq 'VALUE'` with `and` in between.
pub fn list(query: Vec<(String, String)>) -> Result<Answer, Refusal> {
    let filter = query
        .into_iter()
        .find(|(key, _)| key == "$filter")
        .map(|(_, value)| value)
        .unwrap_or_default();
    let term = |name: &str| {
        let values = filter.split(" and ").filter_map(|term| term.split_once(" eq "));
        let value = values
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim_matches('\''));
        value.ok_or_else(|| {
            Refusal(
                400,
                "BadRequest",
                format!("Invalid OData parameters supplied: no {name} in '{filter}'"),
            )
        })
    };
    let (region, kind, sold) = (term("armRegionName")?, term("armSkuName")?, term("priceType")?);
    let item = |(product, suffix, price): &(&str, &str, f64)| {
        let name = format!("{}{suffix}", kind.trim_start_matches("Standard_").replace('_', " "));
        json!({
            "currencyCode": "USD",
            "tierMinimumUnits": 0.0,
            "retailPrice": price,
            "unitPrice": price,
            "armRegionName": region,
            "productName": product,
            "skuName": name,
            "meterName": name,
            "serviceName": "Virtual Machines",
            "unitOfMeasure": "1 Hour",
            "type": sold,
            "armSkuName": kind,
        })
    };
    let items: Vec<Value> = PRICES.iter().map(item).collect();
    Ok(Answer::ok(
        json!({ "BillingCurrency": "USD", "Items": items, "NextPageLink": null, "Count": items.len() }),
    ))
}
