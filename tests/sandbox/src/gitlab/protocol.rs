//! What GitLab's runners say: they ask for work, and tell how it goes. Source: `lib/api/ci/runner.rb`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post, put};
use axum::{Json, http::HeaderName};
use serde_json::{Value, json};

use std::time::Instant;

use super::rules::status;
use super::{GitLab, job, trace};

/// The header that tells the stand-in runner to be quick, in milliseconds; the real one does not know it.
pub const PACE: &str = "x-sandbox-pace";

pub fn routes() -> Router<GitLab> {
    Router::new()
        .route("/jobs/request", post(request))
        .route("/jobs/{id}", put(update))
        .route("/jobs/{id}/trace", patch(trace::patch))
}

/// A refusal; a job that does not run any more has a status.
pub struct Forbidden(Option<&'static str>);

impl IntoResponse for Forbidden {
    fn into_response(self) -> Response {
        let because = self.0.map_or("", |_| " - Job is not running");
        let status = self.0.filter(|status| !status.is_empty()).map(|status| [("job-status", status)]);
        let body = Json(json!({ "message": format!("403 Forbidden{because}") }));
        match status {
            Some(status) => (StatusCode::FORBIDDEN, status, body).into_response(),
            None => (StatusCode::FORBIDDEN, body).into_response(),
        }
    }
}

fn said<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Notes what a runner's program says of itself.
fn meet(gitlab: &GitLab, id: u64, body: &Value) {
    gitlab.change(|state| {
        let Some(runner) = state.runner(id) else { return };
        let info = body["info"].as_object().into_iter().flatten();
        let texts = info.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        runner.own.info = texts.collect();
        runner.own.cancels_gracefully = body["info"]["features"]["cancel_gracefully"] == true;
        runner.version = runner.own.info.get("version").cloned();
    });
}

async fn request(Shared(gitlab): Shared<GitLab>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let token = body["token"]
        .as_str()
        .or_else(|| said(&headers, "runner-token"))
        .unwrap_or_default();
    let Some(id) = gitlab.state().runner_with(token) else {
        return Forbidden(None).into_response();
    };
    meet(&gitlab, id, &body);
    let options = &gitlab.own().options;
    let pace = [(PACE, options.pace.as_millis().to_string())];
    let last_update = [("x-gitlab-last-update", gitlab.own().secret("queue", 20))];
    let nothing = (StatusCode::NO_CONTENT, pace.clone(), last_update).into_response();
    if gitlab.state().runner(id).is_some_and(|runner| runner.own.paused) {
        gitlab.change(|state| state.hear(id, 0));
        return nothing;
    }
    let _poll = gitlab.poll(id);
    let found = gitlab.hold(options.poll, |state| {
        if state.runner(id).is_none() {
            return Some(None);
        }
        let message = state.assign(id)?;
        let limit = state.runner(id).and_then(|runner| runner.own.maximum_timeout);
        let job = state.job(message.job)?;
        job.acquired = true;
        let timeout = job.spec.timeout.map(|timeout| timeout.as_secs().max(1));
        Some(Some((message, timeout.into_iter().chain(limit).min())))
    });
    match found.await {
        None => nothing,
        Some(None) => Forbidden(None).into_response(),
        Some(Some((message, timeout))) => {
            let payload = job::payload(gitlab.own(), &gitlab.complete(message), timeout);
            (StatusCode::CREATED, pace, Json(payload)).into_response()
        }
    }
}

/// What a runner learns of its job with every answer.
pub fn headers(gitlab: &GitLab, id: u64) -> [(HeaderName, String); 2] {
    let status = gitlab.state().job(id).map_or("", |job| status(job));
    [
        (HeaderName::from_static("job-status"), status.to_owned()),
        (HeaderName::from_static("x-gitlab-trace-update-interval"), "1".to_owned()),
    ]
}

/// Lets a runner speak of its job, which must run: the job's key. A runner that was deleted still may.
pub fn enter(gitlab: &GitLab, id: u64, headers: &HeaderMap, given: Option<&str>) -> Result<String, Forbidden> {
    let token = given.or_else(|| said(headers, "job-token")).unwrap_or_default();
    if gitlab.state().pipeline_of(id).is_none() || token != job::token(gitlab.own(), id) {
        return Err(Forbidden(None));
    }
    let entered = gitlab.change(|state| {
        let job = state.job(id)?;
        let (key, status) = (job.spec.key.clone(), status(job));
        if !["running", "canceling"].contains(&status) {
            return Some(Err(status));
        }
        job.renewed = Instant::now();
        let runner = job.runner.as_ref().map(|(runner, _)| *runner);
        if let Some(runner) = runner {
            state.hear(runner, 0);
        }
        Some(Ok(key))
    });
    // A job that was retried has another execution; this one has ended.
    entered.unwrap_or(Err("")).map_err(|status| Forbidden(Some(status)))
}

/// How a job goes, or how it went.
async fn update(Shared(gitlab): Shared<GitLab>, Path(id): Path<u64>, said: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let key = match enter(&gitlab, id, &said, body["token"].as_str()) {
        Ok(key) => key,
        Err(refusal) => return refusal.into_response(),
    };
    let state = body["state"].as_str().unwrap_or_default();
    if state != "running" {
        let rest = gitlab.change(|state| state.book.traces.get_mut(&id).map(super::trace::Trace::rest));
        for line in rest.into_iter().flatten() {
            gitlab.tell_output(&key, &line);
        }
    }
    let reason = body["failure_reason"].as_str().unwrap_or("unknown_failure");
    gitlab.change(|all| match state {
        // One that is being cancelled is canceled, however it went.
        "success" | "failed" if all.job(id).is_some_and(|job| job.cancel) => all.complete(id, "cancelled"),
        "success" => all.complete(id, "success"),
        "failed" => all.fail(id, reason),
        _ => {}
    });
    let text = [(header::CONTENT_TYPE, "text/plain")];
    (StatusCode::OK, headers(&gitlab, id), text, "200").into_response()
}
