//! What every request passes first: its name, faults, its token, the log, the recording.

use std::io::Write as _;
use std::panic::resume_unwind;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::answers::{Answer, Refusal, error};
use super::{Asked, Azure, CLIENT, SUBSCRIPTION, TENANT, groups, identities, lock, machines, operations, prices, roles};
use crate::faults::Effect;

/// No body is longer.
const LONGEST: usize = 1 << 20;
/// The launcher's token, which is as good as another here.
const LAUNCHER: &str = "launcher-token";
/// Before a machine's token: its identity follows.
pub const MACHINE: &str = "machine-token-";

pub fn app(azure: &Azure) -> Router {
    Router::new().fallback(front).with_state(azure.clone())
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The launcher.
    Launcher,
    /// A machine, as this identity.
    Machine(String),
}

/// A request to Resource Manager.
pub struct Call<'a> {
    pub azure: &'a Azure,
    pub who: Caller,
    /// The parts of the path below the subscription, as they were written.
    pub parts: Vec<&'a str>,
    pub query: Vec<(String, String)>,
    pub body: Value,
}

impl Call<'_> {
    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

async fn front(State(azure): State<Azure>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let bytes = to_bytes(body, LONGEST).await.unwrap_or_default();
    let (method, path) = (head.method.as_str().to_owned(), head.uri.path().to_owned());
    let name = name(&method, &path);
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let line = format!("{method} {path}");
    lock(&azure.0.log).push(Asked {
        call: name.clone(),
        line: line.clone(),
        body: body.clone(),
    });
    if let Some(file) = &azure.0.record
        && method != "GET"
        && path.starts_with("/subscriptions/")
    {
        let record = json!({ "line": line, "query": head.uri.query(), "body": body });
        let _ = lock(file).write_all(format!("{record}\n").as_bytes());
    }
    let mut lose = false;
    match azure.0.faults.strike(&name) {
        None => {}
        Some(Effect::Reset) => hang_up(),
        Some(Effect::LoseAnswer) => lose = true,
        Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
        Some(Effect::Hold(gate)) => gate.pass().await,
        Some(Effect::Answer { status, body, .. }) => {
            return Answer(status, Vec::new(), serde_json::from_str(&body).unwrap_or_default()).into_response();
        }
    }
    let query = crate::form::parse(head.uri.query().unwrap_or_default()).into_iter().collect();
    let answer = match name.as_str() {
        "POST token" => Ok(token(&azure, &path, &String::from_utf8_lossy(&bytes))),
        "GET prices" => prices::list(query),
        "GET log" => return machines::log(&azure, &path).into_response(),
        _ => act(&azure, &head.headers, &name, &path, query, body),
    };
    if lose {
        hang_up();
    }
    match answer {
        Ok(answer) => answer.into_response(),
        Err(Refusal(status, code, message)) => Answer(status, Vec::new(), error(code, &message)).into_response(),
    }
}

/// Closes the connection without a word; unwinding skips the panic hook, and ends only the connection's own task.
fn hang_up() -> ! {
    resume_unwind(Box::new("the connection is closed on purpose"))
}

/// What a request is for, as faults name it.
fn name(method: &str, path: &str) -> String {
    let lower = path.to_ascii_lowercase();
    let parts: Vec<&str> = lower.trim_start_matches('/').split('/').collect();
    let what = match parts.as_slice() {
        [_, "oauth2", "v2.0", "token"] => "token",
        ["subscriptions", _, "resourcegroups"] => "groups",
        ["subscriptions", _, "resourcegroups", _] => "group",
        ["subscriptions", _, "providers", _, "locations", _, "operations", _] => "operation",
        ["subscriptions", _, "resourcegroups", _, "providers", _, kind, rest @ ..] => match (*kind, rest) {
            ("permissions", []) => "permissions",
            ("roleassignments", [_]) => "role",
            ("userassignedidentities", [_]) => "identity",
            ("tags", ["default"]) => "tags",
            ("virtualnetworks", [_]) => "network",
            ("publicipaddresses", []) => "addresses",
            ("virtualmachines", [_]) => "machine",
            ("virtualmachines", [_, "retrievebootdiagnosticsdata"]) => "console",
            _ => "unknown",
        },
        ["console", _] => "log",
        ["api", "retail", "prices"] => "prices",
        _ => "unknown",
    };
    format!("{method} {what}")
}

/// The authority: the client's secret for a token.
fn token(azure: &Azure, path: &str, body: &str) -> Answer {
    let form = crate::form::parse(body);
    let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let secret = lock(&azure.0.state).secret.clone();
    let good = path == format!("/{TENANT}/oauth2/v2.0/token")
        && get("grant_type") == "client_credentials"
        && get("client_id") == CLIENT
        && get("client_secret") == secret
        && get("scope") == "https://management.azure.com/.default";
    if !good {
        let words = json!({ "error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided." });
        return Answer(401, Vec::new(), words);
    }
    Answer::ok(json!({ "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": LAUNCHER }))
}

fn caller(headers: &HeaderMap) -> Option<Caller> {
    let token = headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
    match token.strip_prefix(MACHINE) {
        Some(identity) => Some(Caller::Machine(identity.to_owned())),
        None => (token == LAUNCHER).then_some(Caller::Launcher),
    }
}

fn act(azure: &Azure, headers: &HeaderMap, name: &str, path: &str, query: Vec<(String, String)>, body: Value) -> Result<Answer, Refusal> {
    let who = caller(headers).ok_or_else(|| Refusal(401, "InvalidAuthenticationToken", "The access token is invalid.".into()))?;
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let known = parts.get(1).is_some_and(|id| id.eq_ignore_ascii_case(SUBSCRIPTION));
    if !known {
        let id = parts.get(1).copied().unwrap_or_default();
        return Err(Refusal(
            404,
            "SubscriptionNotFound",
            format!("The subscription '{id}' could not be found."),
        ));
    }
    if !query.iter().any(|(key, _)| key == "api-version") {
        let words = "The api-version query parameter (?api-version=) is required for all requests.";
        return Err(Refusal(400, "MissingApiVersionParameter", words.into()));
    }
    groups::sweep(azure);
    let call = Call {
        azure,
        who,
        parts: parts.get(2..).unwrap_or_default().to_vec(),
        query,
        body,
    };
    match name {
        "GET groups" => groups::list(&call),
        "PUT group" => groups::put(&call),
        "GET group" => groups::get(&call),
        "DELETE group" => groups::delete(&call),
        "PUT network" => groups::put_network(&call),
        "GET addresses" => groups::addresses(&call),
        "GET permissions" => roles::permissions(&call),
        "PUT role" => roles::assign(&call),
        "PUT identity" => identities::put(&call),
        "PATCH tags" => groups::merge_tags(&call),
        "PUT machine" => machines::put(&call),
        "GET machine" => machines::get(&call),
        "DELETE machine" => machines::delete(&call),
        "POST console" => machines::console(&call),
        "GET operation" => operations::get(&call),
        _ => Err(Refusal(404, "NotFound", format!("The sandbox knows no {name} {path}"))),
    }
}
