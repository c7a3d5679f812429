//! What every request passes first: faults, authorisation, the log, the recording.

use std::io::Write as _;
use std::panic::resume_unwind;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request as Incoming, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::forge::Forge;
use super::server::Server;
use crate::faults::Effect;

/// No request is larger.
const MAX_BODY: usize = 1 << 20;

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Without the API's own prefix, as `/api/v3`.
    pub path: String,
    /// Who sent it.
    pub user_agent: String,
    /// What it was answered.
    pub status: u16,
    /// When it was answered.
    pub at: Instant,
}

impl Request {
    /// Whether an agent sent it, not a launcher.
    pub fn from_agent(&self) -> bool {
        self.user_agent.starts_with("cml-agent/")
    }
}

/// A service whose every request passes here first.
pub fn guarded<F: Forge>(server: &Server<F>, app: Router<Server<F>>) -> Router {
    app.layer(from_fn_with_state(server.clone(), front::<F>)).with_state(server.clone())
}

async fn front<F: Forge>(State(server): State<Server<F>>, request: Incoming, next: Next) -> Response {
    let whole = request.uri().path().to_owned();
    let (path, is_api) = server.own().name(&whole);
    let api = is_api.then(|| path.to_owned());
    let name = format!("{} {path}", request.method());
    let mut lose = false;
    match server.faults().strike(&name) {
        None => {}
        Some(Effect::Reset) => hang_up(),
        Some(Effect::LoseAnswer) => lose = true,
        Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
        Some(Effect::Hold(gate)) => gate.pass().await,
        Some(Effect::Answer { status, headers, body }) => {
            let response = made_up(status, &headers, body);
            if let Some(api) = api {
                // What a fault says is not what we say: it is counted, but not recorded.
                note(&server, &Asked::of(&request, api), status);
            }
            return response;
        }
    }
    let answer = match api {
        Some(api) => answered(&server, request, api, next).await,
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
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub user_agent: String,
}

impl Asked {
    fn of(request: &Incoming, path: String) -> Self {
        let agent = request.headers().get("user-agent").and_then(|value| value.to_str().ok());
        Self {
            method: request.method().to_string(),
            path,
            query: request.uri().query().unwrap_or_default().into(),
            user_agent: agent.unwrap_or_default().into(),
        }
    }
}

fn note<F: Forge>(server: &Server<F>, asked: &Asked, status: u16) {
    server.log().push(Request {
        method: asked.method.clone(),
        path: asked.path.clone(),
        user_agent: asked.user_agent.clone(),
        status,
        at: Instant::now(),
    });
}

async fn answered<F: Forge>(server: &Server<F>, request: Incoming, path: String, next: Next) -> Response {
    let asked = Asked::of(&request, path);
    let (parts, body) = request.into_parts();
    let sent = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let answer = match server.own().objection(&asked, &parts.headers) {
        None => next.run(Incoming::from_parts(parts, Body::from(sent.clone()))).await,
        Some(objection) => objection,
    };
    let (mut parts, body) = answer.into_parts();
    let said = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let status = parts.status.as_u16();
    note(server, &asked, status);
    record(server, &asked, &sent, status, &said);
    let used = server.log().len();
    for (name, value) in server.own().rate(used) {
        parts
            .headers
            .extend(HeaderValue::try_from(value).map(|value| (HeaderName::from_static(name), value)));
    }
    Response::from_parts(parts, Body::from(said))
}

fn record<F: Forge>(server: &Server<F>, asked: &Asked, sent: &Bytes, status: u16, said: &Bytes) {
    let Some(mut file) = server.record() else { return };
    let body = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
    let line = json!({
        "method": asked.method, "path": asked.path, "query": asked.query, "request_body": body(sent), "status": status, "response_body": body(said),
    });
    let _ = file.write_all(format!("{line}\n").as_bytes());
}
