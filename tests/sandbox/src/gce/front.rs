//! What every request passes first: faults, the token, the log, the recording; and where tokens come from.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::resume_unwind;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::answers::{Refusal, error, missing};
use super::{Gce, PROJECT, Request, instances, lock, offers, operations};
use crate::faults::Effect;
use crate::form;

/// Whom the federation's tokens are for.
pub const AUDIENCE: &str = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/sandbox/providers/sandbox";
/// What the command proves its identity with.
const SUBJECT: &str = "sandbox.subject.token";
/// A command's token, and that of a machine's account.
const TOKEN: &str = "ya29.sandbox-command";
pub const MACHINE_TOKEN: &str = "ya29.sandbox-machine";

type Words = BTreeMap<String, String>;

pub fn app(gce: &Gce) -> Router {
    Router::new()
        .route("/identity", get(identity))
        .route("/v1/token", post(token))
        .fallback(front)
        .with_state(gce.clone())
}

/// As a CI gives its jobs: to whoever has the job's own token, which here is any that is long enough.
async fn identity(headers: HeaderMap) -> Response {
    let held = headers.get("authorization").and_then(|held| held.to_str().ok()).unwrap_or_default();
    if held.len() < "Bearer ".len() + 16 {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(json!({"value": SUBJECT})).into_response()
}

/// An identity for a token, as the token service exchanges them.
async fn token(State(gce): State<Gce>, body: String) -> Response {
    lock(&gce.0.log).push(Request {
        call: "token".into(),
        path: "/v1/token".into(),
        body: Value::Null,
    });
    if let Some(Effect::Answer { status, body, .. }) = gce.0.faults.strike("token") {
        return (StatusCode::from_u16(status).unwrap_or_default(), body).into_response();
    }
    let form = form::parse(&body);
    let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let is_good = get("grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange"
        && get("audience") == AUDIENCE
        && get("subject_token") == SUBJECT
        && get("scope").contains("https://www.googleapis.com/auth/cloud-platform");
    if !is_good {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    }
    Json(json!({
        "access_token": TOKEN,
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 3600,
    }))
    .into_response()
}

async fn front(State(gce): State<Gce>, method: Method, uri: Uri, Query(query): Query<Words>, headers: HeaderMap, body: String) -> Response {
    let path = uri.path().strip_prefix("/compute/v1/").unwrap_or_default().to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let call = call(&method, &parts);
    let sent: Option<Value> = if body.is_empty() {
        Some(Value::Null)
    } else {
        serde_json::from_str(&body).ok()
    };
    note(&gce, call, &method, &uri, sent.as_ref());
    let mut lose = false;
    match gce.0.faults.strike(call) {
        None => {}
        Some(Effect::Reset) => hang_up(),
        Some(Effect::LoseAnswer) => lose = true,
        Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
        Some(Effect::Hold(gate)) => gate.pass().await,
        Some(Effect::Answer { status, body, .. }) => return json_text(status, body),
    }
    let answer = match (is_known(&headers), sent) {
        (false, _) => Err(Refusal(401, "authError", "Invalid Credentials".into())),
        (true, None) => Err(Refusal(400, "parseError", "Parse Error".into())),
        (true, Some(sent)) => allowed(call, &query).and_then(|()| act(&gce, call, &parts, &query, &sent)),
    };
    if lose {
        hang_up();
    }
    match answer {
        Ok(body) => json_text(200, body.to_string()),
        Err(Refusal(status, reason, message)) => json_text(status, error(status, reason, &message).to_string()),
    }
}

fn note(gce: &Gce, call: &str, method: &Method, uri: &Uri, sent: Option<&Value>) {
    let body = sent.cloned().unwrap_or_default();
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    if let Some(file) = &gce.0.record {
        let line = json!({"method": method.as_str(), "path": path, "body": body});
        let _ = lock(file).write_all(format!("{line}\n").as_bytes());
    }
    lock(&gce.0.log).push(Request {
        call: call.to_owned(),
        path,
        body,
    });
}

/// Closes the connection without a word; unwinding skips the panic hook, and ends only the connection's own task.
fn hang_up() -> ! {
    resume_unwind(Box::new("the connection is closed on purpose"))
}

fn json_text(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("content-type", "application/json; charset=UTF-8")], body).into_response()
}

fn is_known(headers: &HeaderMap) -> bool {
    let held = headers.get("authorization").and_then(|held| held.to_str().ok());
    let token = held.and_then(|held| held.strip_prefix("Bearer "));
    token.is_some_and(|token| [TOKEN, MACHINE_TOKEN].contains(&token))
}

/// What Google calls a request.
fn call(method: &Method, parts: &[&str]) -> &'static str {
    match (method.as_str(), parts) {
        ("POST", ["projects", _, "zones", _, "instances"]) => "instances.insert",
        ("GET", ["projects", _, "zones", _, "instances", _]) => "instances.get",
        ("DELETE", ["projects", _, "zones", _, "instances", _]) => "instances.delete",
        ("GET", ["projects", _, "zones", _, "instances", _, "serialPort"]) => "instances.getSerialPortOutput",
        ("GET", ["projects", _, "zones", _, "operations", _]) => "zoneOperations.get",
        ("GET", ["projects", _, "aggregated", "instances"]) => "instances.aggregatedList",
        ("GET", ["projects", _, "aggregated", "machineTypes"]) => "machineTypes.aggregatedList",
        ("GET", ["projects", _, "aggregated", "acceleratorTypes"]) => "acceleratorTypes.aggregatedList",
        ("GET", ["projects", _, "regions", _]) => "regions.get",
        ("GET", ["projects", _, "global", "images", "family", _]) => "images.getFromFamily",
        ("GET", ["projects", _, "global", "images", _]) => "images.get",
        _ => "unknown",
    }
}

/// Refuses query parameters that the call does not have.
fn allowed(call: &str, query: &Words) -> Result<(), Refusal> {
    let known: &[&str] = match call {
        "instances.insert" | "instances.delete" => &["requestId"],
        "instances.getSerialPortOutput" => &["port", "start"],
        call if call.ends_with("aggregatedList") => &["filter", "maxResults", "pageToken"],
        _ => &[],
    };
    match query.keys().find(|name| *name != "fields" && !known.contains(&name.as_str())) {
        Some(unknown) => Err(Refusal(
            400,
            "badRequest",
            format!("Invalid JSON payload received. Unknown name \"{unknown}\": Cannot bind query parameter."),
        )),
        None => Ok(()),
    }
}

fn act(gce: &Gce, call: &str, parts: &[&str], query: &Words, body: &Value) -> Result<Value, Refusal> {
    let part = |number: usize| parts.get(number).copied().unwrap_or_default();
    let (project, base) = (part(1), gce.url());
    if project != PROJECT && !call.starts_with("images.") {
        return Err(Refusal(404, "notFound", format!("Failed to find project {project}")));
    }
    let word = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    if parts.get(2) == Some(&"zones") && !offers::is_zone(part(3)) {
        return Err(missing(&format!("zones/{}", part(3))));
    }
    match call {
        "instances.insert" => instances::insert(gce, part(3), word("requestId"), body),
        "instances.get" => instances::get(gce, part(3), part(5)),
        "instances.delete" => instances::delete(gce, part(3), part(5)),
        "instances.getSerialPortOutput" => instances::console(gce, part(3), part(5)),
        "zoneOperations.get" => operations::get(gce, part(3), part(5)),
        "instances.aggregatedList" => instances::aggregated(gce, word("filter")),
        "machineTypes.aggregatedList" | "acceleratorTypes.aggregatedList" => offers::aggregated(part(3), word("filter")),
        "regions.get" => offers::region(&base, project, part(3)),
        "images.getFromFamily" => offers::family(&base, project, part(5)),
        "images.get" => offers::image(&base, project, part(4)),
        _ => Err(Refusal(404, "notFound", "The requested URL was not found on this server.".into())),
    }
}
