//! How the API server refuses: a Status. <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>

use serde_json::{Value, json};

/// A status code, a reason, and a message.
#[derive(Debug)]
pub struct Refusal(pub u16, pub &'static str, pub String);

impl Refusal {
    /// As it is sent.
    pub fn body(&self) -> Value {
        status(self.0, self.1, &self.2)
    }
}

pub fn not_found(resource: &str, name: &str) -> Refusal {
    Refusal(404, "NotFound", format!("{resource} \"{name}\" not found"))
}

pub fn invalid(what: &str, why: &str) -> Refusal {
    Refusal(422, "Invalid", format!("{what} is invalid: {why}"))
}

/// What a server answers that refuses for one of these reasons.
pub fn known(reason: &str) -> (u16, Value) {
    let (code, reason, message) = match reason {
        "Unauthorized" => (401, "Unauthorized", "Unauthorized"),
        "Forbidden" => (
            403,
            "Forbidden",
            "jobs.batch is forbidden: User \"launcher\" cannot create resource \"jobs\" in API group \"batch\" in the namespace \"ci\"",
        ),
        "QuotaExceeded" => (
            403,
            "Forbidden",
            "jobs.batch \"x\" is forbidden: exceeded quota: objects, requested: count/jobs.batch=1, used: count/jobs.batch=4, limited: count/jobs.batch=4",
        ),
        "TooManyRequests" => (
            429,
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        ),
        "Invalid" => (422, "Invalid", "Job.batch \"x\" is invalid: spec: Invalid value"),
        "ServiceUnavailable" => (503, "ServiceUnavailable", "the server is currently unable to handle the request"),
        _ => (500, "InternalError", "Internal error occurred"),
    };
    (code, status(code, reason, message))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}
