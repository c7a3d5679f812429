//! The service that runners speak to. GitHub's own protocol is private; this one is ours, between this service and the stand-in runner.

use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::order::Work;
use super::registry::Purpose;
use super::{GitHub, lock};

/// How long a poll for the next job is held.
const POLL: Duration = Duration::from_secs(20);

pub fn routes() -> Router<GitHub> {
    Router::new()
        .route("/_runner/register", post(register))
        .route("/_runner/remove", post(remove))
        .route("/_runner/session", post(session))
        .route("/_runner/next", post(next))
        .route("/_runner/renew", post(renew))
        .route("/_runner/log", post(log))
        .route("/_runner/done", post(done))
        .route("/_runner/leave", post(leave))
        .route("/_assets/{number}/{name}", get(asset))
}

/// The files that a configured runner has.
pub fn files(github: &GitHub, id: u64, name: &str, secret: &str, work: &str, ephemeral: bool) -> [(&'static str, String); 2] {
    let runner = json!({
        "agentId": id, "agentName": name, "poolId": 1, "poolName": "Default", "serverUrl": github.url(), "workFolder": work,
        "ephemeral": ephemeral,
    });
    let credentials = json!({ "scheme": "OAuth", "data": { "clientId": secret } });
    // The runner writes its settings with a byte order mark.
    [(".runner", format!("\u{feff}{runner}")), (".credentials", credentials.to_string())]
}

#[derive(Serialize, Deserialize)]
struct Register {
    token: String,
    name: String,
    labels: Vec<String>,
    ephemeral: bool,
    work: String,
    replace: bool,
}

async fn register(Shared(github): Shared<GitHub>, Json(body): Json<Register>) -> Response {
    github.change(|state| {
        if !state.takes(&body.token, Purpose::Register) {
            return StatusCode::NOT_FOUND.into_response();
        }
        let replaced = body
            .replace
            .then(|| state.replace(&body.name, body.labels.clone(), body.ephemeral))
            .flatten();
        let is_new = replaced.is_none();
        match replaced.or_else(|| state.register(&body.name, body.labels, body.ephemeral)) {
            None => StatusCode::CONFLICT.into_response(),
            Some((id, secret)) => {
                let files = files(&github, id, &body.name, &secret, &body.work, body.ephemeral);
                Json(json!({ "new": is_new, "files": files })).into_response()
            }
        }
    })
}

#[derive(Deserialize)]
struct Remove {
    token: String,
    id: u64,
}

async fn remove(Shared(github): Shared<GitHub>, Json(body): Json<Remove>) -> StatusCode {
    github.change(|state| {
        if !state.takes(&body.token, Purpose::Remove) {
            return StatusCode::NOT_FOUND;
        }
        match state.runner(body.id) {
            Some(runner) if !runner.jobs.is_empty() => StatusCode::UNPROCESSABLE_ENTITY,
            Some(_) => {
                state.remove_runner(body.id);
                StatusCode::OK
            }
            None => StatusCode::NOT_FOUND,
        }
    })
}

/// Who speaks.
#[derive(Deserialize)]
struct Who {
    id: u64,
    secret: String,
    #[serde(default)]
    job: u64,
    #[serde(default)]
    success: bool,
    #[serde(default)]
    cancelled: bool,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    log: String,
}

impl Who {
    /// Notes a word of a runner: whether it is registered.
    fn speaks(&self, github: &GitHub) -> bool {
        github.change(|state| {
            let Some(runner) = state.runner(self.id).filter(|runner| runner.secret == self.secret) else {
                return false;
            };
            if self.version.is_some() {
                runner.version.clone_from(&self.version);
            }
            state.hear(self.id, 0)
        })
    }
}

/// The beginning of a session; a runner has one at a time.
async fn session(Shared(github): Shared<GitHub>, Json(who): Json<Who>) -> StatusCode {
    if github.state().runner(who.id).is_some_and(|runner| runner.polls > 0) {
        StatusCode::CONFLICT
    } else if who.speaks(&github) {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn next(Shared(github): Shared<GitHub>, Json(who): Json<Who>) -> Response {
    if github.state().book.ghosts.contains(&who.id) {
        tokio::time::sleep(POLL).await;
        return StatusCode::NO_CONTENT.into_response();
    }
    if !who.speaks(&github) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let _poll = github.poll(who.id);
    let work = github.hold(POLL, |state| {
        if state.book.ghosts.contains(&who.id) {
            return None;
        }
        let Some(runner) = state.runner(who.id) else {
            return Some(None);
        };
        let order = runner.own.pop_front().map(Work::Order);
        order.or_else(|| Some(Work::Job(Box::new(state.assign(who.id)?)))).map(Some)
    });
    match work.await {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(None) => StatusCode::NOT_FOUND.into_response(),
        Some(Some(Work::Job(message))) => Json(Work::Job(Box::new(github.complete(*message)))).into_response(),
        Some(Some(order)) => Json(order).into_response(),
    }
}

/// A runner renews the lock of its job, and learns whether to cancel it.
async fn renew(Shared(github): Shared<GitHub>, Json(who): Json<Who>) -> Response {
    if !who.speaks(&github) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let mut state = github.state();
    match state.job(who.job) {
        Some(job) if job.status.conclusion().is_none() => {
            job.renewed = Instant::now();
            job.acquired = true;
            Json(json!({ "cancel": job.cancel })).into_response()
        }
        _ => StatusCode::GONE.into_response(),
    }
}

/// What a job writes.
async fn log(Shared(github): Shared<GitHub>, Json(who): Json<Who>) -> StatusCode {
    let key = github.state().job(who.job).map(|job| job.spec.key.clone());
    let Some(key) = key.filter(|_| who.speaks(&github)) else {
        return StatusCode::NOT_FOUND;
    };
    for line in who.log.lines() {
        github.tell_output(&key, line);
    }
    StatusCode::OK
}

async fn done(Shared(github): Shared<GitHub>, Json(who): Json<Who>) -> StatusCode {
    if !who.speaks(&github) {
        return StatusCode::NOT_FOUND;
    }
    let conclusion = match (who.cancelled, who.success) {
        (true, _) => "cancelled",
        (false, true) => "success",
        (false, false) => "failure",
    };
    github.change(|state| state.complete(who.job, conclusion));
    StatusCode::OK
}

/// The end of a session.
async fn leave(Shared(github): Shared<GitHub>, Json(who): Json<Who>) -> StatusCode {
    github.change(|state| state.leave(who.id));
    StatusCode::OK
}

async fn asset(Shared(github): Shared<GitHub>, Path((number, _)): Path<(usize, String)>) -> Response {
    match lock(&github.own().archives).get(number) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
