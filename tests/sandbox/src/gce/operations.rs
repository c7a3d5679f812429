//! What takes its time: asked for, and done when it is looked at.

use serde_json::{Value, json};

use super::answers::{self, Refusal, missing};
use super::{Gce, PROJECT, lock};

/// One operation.
#[derive(Clone)]
pub struct Operation {
    name: String,
    zone: String,
    kind: &'static str,
    target: String,
    /// The request that began it, by its `requestId`.
    request: Option<String>,
    /// What it ends with.
    code: Option<String>,
    begun: jiff::Timestamp,
}

impl Operation {
    fn json(&self, base: &str, status: &str) -> Value {
        let mut json = json!({
            "kind": "compute#operation",
            "id": self.name.trim_start_matches("operation-"),
            "name": self.name,
            "zone": format!("{base}projects/{PROJECT}/zones/{}", self.zone),
            "operationType": self.kind,
            "targetLink": format!("{base}projects/{PROJECT}/zones/{}/instances/{}", self.zone, self.target),
            "status": status,
            "progress": if status == "DONE" { 100 } else { 0 },
            "insertTime": format!("{:.3}", self.begun),
            "selfLink": format!("{base}projects/{PROJECT}/zones/{}/operations/{}", self.zone, self.name),
        });
        if let (Some(code), "DONE") = (&self.code, status) {
            json["error"] = json!({"errors": [{"code": code, "message": answers::of_operation(code)}]});
            json["httpErrorStatusCode"] = json!(503);
            json["httpErrorMessage"] = json!("SERVICE UNAVAILABLE");
        }
        json
    }
}

/// The operation that a request with this id began before, for this target.
pub fn of_request(gce: &Gce, request: &str, target: &str) -> Option<Result<Value, Refusal>> {
    let operations = lock(&gce.0.operations);
    let known = operations.iter().find(|operation| operation.request.as_deref() == Some(request))?;
    Some(if known.target == target {
        Ok(known.json(&gce.url(), "RUNNING"))
    } else {
        Err(Refusal(400, "invalid", "The request id was used for another request".into()))
    })
}

/// Begins one, which will end with `code` if that is given.
pub fn begin(gce: &Gce, kind: &'static str, zone: &str, target: &str, request: Option<&str>, code: Option<String>) -> Value {
    let mut operations = lock(&gce.0.operations);
    let operation = Operation {
        name: format!("operation-{}", 1000 + operations.len()),
        zone: zone.to_owned(),
        kind,
        target: target.to_owned(),
        request: request.map(str::to_owned),
        code,
        begun: jiff::Timestamp::now(),
    };
    let json = operation.json(&gce.url(), "RUNNING");
    operations.push(operation);
    json
}

/// Looks at one.
pub fn get(gce: &Gce, zone: &str, name: &str) -> Result<Value, Refusal> {
    let operations = lock(&gce.0.operations);
    let found = operations.iter().find(|operation| operation.zone == zone && operation.name == name);
    let found = found.ok_or_else(|| missing(&format!("zones/{zone}/operations/{name}")))?;
    Ok(found.json(&gce.url(), "DONE"))
}
