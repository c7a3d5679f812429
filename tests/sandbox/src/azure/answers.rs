//! Azure's answers, and its words for a refusal.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// A refusal: status, code, message.
pub struct Refusal(pub u16, pub &'static str, pub String);

/// An answer: status, headers, body.
pub struct Answer(pub u16, pub Vec<(&'static str, String)>, pub Value);

impl Answer {
    pub const fn ok(body: Value) -> Self {
        Self(200, Vec::new(), body)
    }

    pub fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = if self.2.is_null() {
            status.into_response()
        } else {
            (status, [("content-type", "application/json; charset=utf-8")], self.2.to_string()).into_response()
        };
        for (name, value) in self.1 {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

pub fn error(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}

/// Status and words of a code that a test asks for.
pub fn known(code: &str) -> (u16, &'static str) {
    match code {
        "AuthorizationFailed" | "RequestDisallowedByPolicy" => (403, "The client does not have authorization to perform action."),
        "InvalidAuthenticationToken" => (401, "The access token is invalid."),
        "SubscriptionNotFound" => (404, "The subscription could not be found."),
        "MissingSubscriptionRegistration" => (409, "The subscription is not registered to use namespace 'Microsoft.Compute'."),
        "OperationNotAllowed" => (
            409,
            "Operation could not be completed as it results in exceeding approved standardDASv5Family Cores quota.",
        ),
        "SkuNotAvailable" => (409, "The requested VM size is currently not available in this location."),
        "TooManyRequests" => (429, "The request is being throttled."),
        "InternalServerError" => (500, "An internal error occurred."),
        _ => (400, "The request is invalid."),
    }
}
