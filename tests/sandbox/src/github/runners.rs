//! Runners over REST: tokens, registrations, the runner program.

use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::registry::{Orders, Purpose};
use super::rest::{Answer, Nothing, Page, Scope, nothing, read, read_any, refuse, say};
use super::{GitHub, answers, protocol};
use crate::ci::Registration;
use crate::standin;

/// How long a registration token is valid.
const TOKEN_LIFE: Duration = Duration::from_hours(1);
/// The one group of runners.
const GROUP: u64 = 1;
/// A runner has at most this many labels of its own.
const MAX_LABELS: usize = 100;

fn token(github: &GitHub, scope: &Scope, body: &Bytes, purpose: Purpose) -> Answer {
    scope.check(github)?;
    let Nothing {} = read_any(body)?;
    let token = github.change(|state| state.give_token(purpose));
    let ends = answers::time(SystemTime::now() + TOKEN_LIFE);
    Ok(say(StatusCode::CREATED, json!({ "token": token, "expires_at": ends })))
}

pub async fn registration_token(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, body: Bytes) -> Answer {
    token(&github, &scope, &body, Purpose::Register)
}

pub async fn remove_token(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, body: Bytes) -> Answer {
    token(&github, &scope, &body, Purpose::Remove)
}

pub async fn list(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, Query(page): Query<Page>) -> Answer {
    scope.check(&github)?;
    let all: Vec<Value> = {
        let state = github.state();
        let named = |runner: &&Registration<Orders>| page.name.as_ref().is_none_or(|name| runner.name == *name);
        state.runners.iter().filter(named).map(answers::runner).collect()
    };
    Ok(page.answer(&github, &format!("{}/actions/runners", scope.path()), "runners", all))
}

pub async fn one(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    scope.check(&github)?;
    let mut state = github.state();
    match state.runner(scope.id.unwrap_or_default()) {
        Some(runner) => Ok(say(StatusCode::OK, answers::runner(runner))),
        None => nothing(),
    }
}

pub async fn remove(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    scope.check(&github)?;
    let id = scope.id.unwrap_or_default();
    github.change(|state| {
        let Some(runner) = state.runner(id) else {
            return nothing();
        };
        if !runner.jobs.is_empty() {
            // The odd quote is GitHub's own.
            let message = format!("Bad request - Runner \"{}\" is still running a job\"", runner.name);
            return refuse(422, &message);
        }
        state.remove_runner(id);
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jit {
    name: String,
    runner_group_id: u64,
    labels: Vec<String>,
    #[serde(default)]
    work_folder: Option<String>,
}

pub async fn jit(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, body: Bytes) -> Answer {
    scope.check(&github)?;
    let body: Jit = read(&body)?;
    if body.runner_group_id != GROUP {
        return nothing();
    }
    if body.labels.is_empty() || body.labels.len() > MAX_LABELS || body.name.is_empty() {
        return refuse(422, "Invalid request.");
    }
    let work = body.work_folder.unwrap_or_else(|| "_work".into());
    github.change(|state| {
        let Some((id, secret)) = state.register(&body.name, body.labels, true) else {
            return refuse(409, "Already exists - A runner with the name already exists.");
        };
        let files = protocol::files(&github, id, &body.name, &secret, &work, true);
        let files: Map<String, Value> = files
            .map(|(name, text)| (name.into(), json!(STANDARD.encode(text))))
            .into_iter()
            .collect();
        let config = STANDARD.encode(Value::Object(files).to_string());
        let runner = state.runner(id).map(|runner| answers::runner(runner));
        Ok(say(StatusCode::CREATED, json!({ "runner": runner, "encoded_jit_config": config })))
    })
}

pub async fn downloads(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    scope.check(&github)?;
    let one = |arch: &str| {
        let mut offer = json!({
            "os": "linux", "architecture": arch, "download_url": github.archive_url(), "filename": standin::archive_name(arch),
        });
        if let Some(sha256) = github.own().options.checksum.of(&github.own().sha256) {
            offer["sha256_checksum"] = json!(sha256);
        }
        offer
    };
    Ok(say(StatusCode::OK, json!([one("x64"), one("arm64")])))
}
