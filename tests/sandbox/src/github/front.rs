//! What every request passes first: faults, authorisation, the log, the recording.

use std::io::Write as _;
use std::panic::resume_unwind;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::rest::Refusal;
use super::{GitHub, answers, lock, protocol, rest};
use crate::faults::Effect;

/// The path of the API on a GitHub Enterprise Server.
pub const PREFIX: &str = "/api/v3";
/// No request is larger.
const MAX_BODY: usize = 1 << 20;
/// What a user may ask in an hour.
const RATE_LIMIT: usize = 5000;
const RATE_WINDOW: Duration = Duration::from_hours(1);

/// The whole service.
pub fn app(github: &GitHub) -> Router {
    Router::new()
        .nest(PREFIX, rest::routes())
        .merge(protocol::routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, axum::Json(answers::error(404, "Not Found"))) })
        .layer(from_fn_with_state(github.clone(), front))
        .with_state(github.clone())
}

async fn front(State(github): State<GitHub>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let api = path.strip_prefix(PREFIX).map(str::to_owned);
    let name = format!("{} {}", request.method(), api.as_deref().unwrap_or(&path));
    let mut lose = false;
    match github.0.faults.strike(&name) {
        None => {}
        Some(Effect::Reset) => hang_up(),
        Some(Effect::LoseAnswer) => lose = true,
        Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
        Some(Effect::Hold(gate)) => gate.pass().await,
        Some(Effect::Answer { status, headers, body }) => {
            let response = made_up(status, &headers, body);
            if let Some(api) = api {
                // What a fault says is not what we say: it is counted, but not recorded.
                note(&github, &Asked::of(&request, api), status);
            }
            return response;
        }
    }
    let answer = match api {
        Some(api) => answered(&github, request, api, next).await,
        None => next.run(request).await,
    };
    if lose {
        hang_up();
    }
    answer
}

/// Closes the connection without a word; unwinding skips the panic hook, and ends only the connection's own task.
fn hang_up() -> ! {
    resume_unwind(Box::new("the connection is closed on purpose"))
}

fn made_up(status: u16, headers: &[(String, String)], body: String) -> Response {
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/json; charset=utf-8");
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response
        .body(Body::from(body))
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// What was asked.
struct Asked {
    method: String,
    path: String,
    query: String,
    user_agent: String,
}

impl Asked {
    fn of(request: &Request, path: String) -> Self {
        let agent = request.headers().get("user-agent").and_then(|value| value.to_str().ok());
        Self {
            method: request.method().to_string(),
            path,
            query: request.uri().query().unwrap_or_default().into(),
            user_agent: agent.unwrap_or_default().into(),
        }
    }
}

fn note(github: &GitHub, asked: &Asked, status: u16) {
    lock(&github.0.log).push(super::Request {
        method: asked.method.clone(),
        path: asked.path.clone(),
        user_agent: asked.user_agent.clone(),
        status,
        at: Instant::now(),
    });
}

async fn answered(github: &GitHub, request: Request, path: String, next: Next) -> Response {
    let asked = Asked::of(&request, path);
    let (parts, body) = request.into_parts();
    let sent = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let answer = match objection(github, &asked, &parts.headers) {
        None => next.run(Request::from_parts(parts, Body::from(sent.clone()))).await,
        Some(objection) => objection.into_response(),
    };
    let (mut parts, body) = answer.into_parts();
    let said = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let status = parts.status.as_u16();
    note(github, &asked, status);
    record(github, &asked, &sent, status, &said);
    for (name, value) in rate(github) {
        parts.headers.insert(name, HeaderValue::from(value));
    }
    Response::from_parts(parts, Body::from(said))
}

/// What is left of the hour; it is told, and never used up here: a fault can say that it is.
fn rate(github: &GitHub) -> [(&'static str, u64); 4] {
    let used = lock(&github.0.log).len().min(RATE_LIMIT);
    let reset = (SystemTime::now() + RATE_WINDOW).duration_since(SystemTime::UNIX_EPOCH);
    [
        ("x-ratelimit-limit", RATE_LIMIT as u64),
        ("x-ratelimit-used", used as u64),
        ("x-ratelimit-remaining", (RATE_LIMIT - used) as u64),
        ("x-ratelimit-reset", reset.unwrap_or_default().as_secs()),
    ]
}

/// Why a request is not even looked at.
fn objection(github: &GitHub, asked: &Asked, headers: &HeaderMap) -> Option<Refusal> {
    if asked.user_agent.is_empty() {
        return Some(Refusal(
            403,
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header".into(),
        ));
    }
    let Some(said) = headers.get("authorization") else {
        return Some(Refusal(401, "Requires authentication".into()));
    };
    let said = said.to_str().unwrap_or_default();
    let token = said.strip_prefix("Bearer ").or_else(|| said.strip_prefix("token "));
    (token != Some(&github.0.options.token)).then(|| Refusal(401, "Bad credentials".into()))
}

fn record(github: &GitHub, asked: &Asked, sent: &Bytes, status: u16, said: &Bytes) {
    let Some(file) = &github.0.record else { return };
    let body = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
    let line = json!({
        "method": asked.method, "path": asked.path, "query": asked.query, "request_body": body(sent), "status": status, "response_body": body(said),
    });
    let _ = lock(file).write_all(format!("{line}\n").as_bytes());
}
