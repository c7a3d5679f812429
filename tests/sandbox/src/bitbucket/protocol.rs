//! What the stand-in runner says: a credential for its OAuth client, then a word every time that it asks for a step, and all about the step.

use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine as _;
use serde_json::{Value, json};

use super::answers::{PIPELINE, REPOSITORY, RUNNER, STEP, WORKSPACE, client, number, uuid};
use super::rest::{Answer, NOTHING, Refusal, say};
use super::{Bitbucket, front};
use crate::standin;

pub fn routes() -> Router<Bitbucket> {
    Router::new()
        .route("/oauth/token", post(token))
        .route("/internal/runners/{uuid}/state", put(state))
        .route("/internal/steps/{uuid}", post(go_on))
        .route("/internal/steps/{uuid}/result", post(result))
        .route("/downloads/{name}", get(archive))
}

fn said<'a>(headers: &'a HeaderMap, kind: &str) -> Option<&'a str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix(kind)
}

fn access(bitbucket: &Bitbucket, runner: u64) -> String {
    bitbucket.own().secret(&format!("access {runner}"))
}

/// The grant `client_credentials`.
async fn token(Shared(bitbucket): Shared<Bitbucket>, headers: HeaderMap, body: String) -> Answer {
    let given = said(&headers, "Basic ").and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    let given = given.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let state = bitbucket.state();
    let is_it = |id: u64, secret: &str| given == format!("{}:{secret}", client(id));
    let found = state.runners.iter().find(|runner| is_it(runner.id, &runner.secret));
    match found {
        Some(runner) if body == "grant_type=client_credentials" => {
            let body = json!({ "access_token": access(&bitbucket, runner.id), "token_type": "Bearer", "expires_in": 3600 });
            Ok(say(StatusCode::OK, body))
        }
        _ => Err(Refusal(401, "invalid_client")),
    }
}

/// A runner says how it is, and asks for a step.
async fn state(Shared(bitbucket): Shared<Bitbucket>, Path(id): Path<String>, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let id = number(RUNNER, &id).ok_or(NOTHING)?;
    if said(&headers, "Bearer ") != Some(&access(&bitbucket, id)) {
        return Err(Refusal(401, "Unauthorized"));
    }
    if !bitbucket.change(|state| state.hear(id, 0)) {
        return Err(NOTHING);
    }
    bitbucket.change(|state| {
        if let Some(runner) = state.runner(id) {
            runner.version = body["version"].as_str().map(str::to_owned);
        }
    });
    if body["status"] != "ONLINE" {
        bitbucket.change(|state| state.leave(id));
        return Ok(say(StatusCode::OK, json!({})));
    }
    let _poll = bitbucket.poll(id);
    let found = bitbucket.hold(bitbucket.own().options.poll, |state| match state.runner(id) {
        None => Some(None),
        Some(_) => state.assign(id).map(Some),
    });
    let Some(message) = found.await else {
        return Ok(say(StatusCode::OK, json!({ "step": null })));
    };
    let message = bitbucket.complete(message.ok_or(NOTHING)?);
    let mut env = front::variables(&message);
    env.extend(message.env.clone());
    let step = json!({
        "accountUuid": uuid(WORKSPACE, 1), "repositoryUuid": uuid(REPOSITORY, 1), "pipelineUuid": uuid(PIPELINE, message.run),
        "stepUuid": uuid(STEP, message.job), "script": message.script, "env": env,
    });
    Ok(say(StatusCode::OK, json!({ "step": step })))
}

/// The step that a runner speaks of, which must be its own and run: its key, and whether it is to stop.
fn enter(bitbucket: &Bitbucket, step: &str, headers: &HeaderMap) -> Result<(u64, String, bool), Refusal> {
    let id = number(STEP, step).ok_or(NOTHING)?;
    bitbucket.change(|state| {
        let job = state.job(id).filter(|job| job.status.conclusion().is_none()).ok_or(NOTHING)?;
        job.renewed = std::time::Instant::now();
        let found = (id, job.spec.key.clone(), job.cancel);
        let runner = job.runner.as_ref().map(|(runner, _)| *runner).ok_or(NOTHING)?;
        if said(headers, "Bearer ") != Some(&access(bitbucket, runner)) {
            return Err(Refusal(401, "Unauthorized"));
        }
        state.hear(runner, 0);
        Ok(found)
    })
}

async fn go_on(Shared(bitbucket): Shared<Bitbucket>, Path(step): Path<String>, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let (_, key, is_cancelled) = enter(&bitbucket, &step, &headers)?;
    for line in body["lines"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        bitbucket.tell_output(&key, line);
    }
    Ok(say(StatusCode::OK, json!({ "stop": is_cancelled })))
}

async fn result(Shared(bitbucket): Shared<Bitbucket>, Path(step): Path<String>, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let (id, ..) = enter(&bitbucket, &step, &headers)?;
    let conclusion = if body["status"] == "PASSED" { "success" } else { "failure" };
    bitbucket.change(|state| state.complete(id, conclusion));
    Ok(say(StatusCode::OK, json!({})))
}

async fn archive(Shared(bitbucket): Shared<Bitbucket>, Path(name): Path<String>) -> Response {
    if name != standin::bitbucket::archive_name() {
        return StatusCode::NOT_FOUND.into_response();
    }
    // Some work in a debug build the first time: many worlds may share this thread.
    let url = bitbucket.url();
    let packed = tokio::task::spawn_blocking(move || standin::bitbucket::archive(&url)).await;
    match packed {
        Ok(Ok(bytes)) => bytes.into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
