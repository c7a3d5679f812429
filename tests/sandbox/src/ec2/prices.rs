//! What instances cost: the prices of spot instances, and the price list, which is another service's.

use serde_json::{Value, json};

use super::answers::{Refusal, items, text};
use super::run::list;
use super::{Form, check};

/// The call of the price list that is known here, and the header that names it.
pub const ACTION: &str = "GetProducts";
pub const TARGET: &str = "AWSPriceListService.GetProducts";

/// What every spot instance costs in every zone, and every other in every region, in USD an hour.
const SPOT: &str = "0.123400";
const LIST: &str = "0.4032000000";

/// Those of Linux only, which is all that there is.
pub fn spot(form: &Form) -> Result<String, Refusal> {
    let kinds = list(form, "InstanceType");
    for kind in &kinds {
        check::kind(kind)?;
    }
    let zone = form.get("AvailabilityZone").map(String::as_str).unwrap_or_default();
    let product = list(form, "ProductDescription").into_iter().find(|product| product == "Linux/UNIX");
    let describe = |kind: &String| {
        let product = product.as_ref()?;
        Some(
            text("instanceType", kind)
                + &text("productDescription", product)
                + &text("spotPrice", SPOT)
                + &text("timestamp", "2026-03-04T05:06:07.000Z")
                + &text("availabilityZone", zone),
        )
    };
    Ok(items("spotPriceHistorySet", kinds.iter().filter_map(describe)))
}

/// The products that a question in JSON is about: with fewer terms than these there are other systems, tenancies and reservations among them.
pub fn products(question: &Value) -> Value {
    let terms = question["Filters"].as_array().into_iter().flatten();
    let value = |field: &str| terms.clone().find(|term| term["Field"] == field).map(|term| term["Value"].clone());
    let narrow = [
        ("operatingSystem", "Linux"),
        ("tenancy", "Shared"),
        ("preInstalledSw", "NA"),
        ("capacitystatus", "Used"),
        ("marketoption", "OnDemand"),
    ];
    let is_narrow =
        question["ServiceCode"] == "AmazonEC2" && narrow.iter().all(|(field, wanted)| value(field).is_some_and(|is| is == *wanted));
    let product = |price: &str| {
        let dimension = json!({ "unit": "Hrs", "pricePerUnit": { "USD": price } });
        let attributes = json!({ "instanceType": value("instanceType"), "regionCode": value("regionCode") });
        let terms = json!({ "OnDemand": { "SKU.TERM": { "priceDimensions": { "SKU.TERM.RATE": dimension } } } });
        json!({ "product": { "attributes": attributes }, "terms": terms }).to_string()
    };
    let prices: &[&str] = if is_narrow { &[LIST] } else { &[LIST, "9.9"] };
    json!({ "FormatVersion": "aws_v1", "PriceList": prices.iter().map(|price| product(price)).collect::<Vec<_>>() })
}
