//! Pipelines and their jobs over REST.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use serde_json::Value;

use super::answers;
use super::rest::{Answer, Asked, Params, Refusal, check_project, nothing, refuse, say};
use super::rules::status;
use super::{GitLab, GitLabState};
use crate::ci::{Job, Run, RunId};

pub fn routes() -> Router<GitLab> {
    Router::new()
        .route("/projects/{id}/pipelines", get(list))
        .route("/projects/{id}/pipelines/{pipeline}", get(one))
        .route("/projects/{id}/pipelines/{pipeline}/jobs", get(jobs))
        .route("/projects/{id}/pipelines/{pipeline}/retry", post(retry))
        .route("/projects/{id}/pipelines/{pipeline}/cancel", post(cancel))
        .route("/projects/{id}/jobs/{job}", get(job))
        .route("/projects/{id}/jobs/{job}/retry", post(retry_job))
        .route("/projects/{id}/jobs/{job}/cancel", post(cancel_job))
}

fn show_job(gitlab: &GitLab, state: &GitLabState, run: &Run, job: &Job) -> Value {
    let runner = job
        .runner
        .as_ref()
        .and_then(|(id, _)| state.runners.iter().find(|runner| runner.id == *id));
    answers::job(gitlab, run, job, runner.map(answers::runner).as_ref())
}

/// Shows the pipeline with this id.
fn show(gitlab: &GitLab, status: StatusCode, id: u64) -> Answer {
    let state = gitlab.state();
    let found = state.runs.iter().find(|run| run.id.0 == id);
    found.map_or_else(nothing, |run| Ok(say(status, answers::pipeline(gitlab, run))))
}

/// Shows the execution with this id, whether or not there are later ones.
fn show_one(gitlab: &GitLab, status: StatusCode, id: u64) -> Answer {
    let state = gitlab.state();
    let run = state.pipeline_of(id);
    let found = run.and_then(|run| Some((run, run.past.iter().chain(&run.jobs).find(|job| job.id == id)?)));
    found.map_or_else(nothing, |(run, job)| Ok(say(status, show_job(gitlab, &state, run, job))))
}

async fn list(Shared(gitlab): Shared<GitLab>, Path(id): Path<String>, Query(query): Asked) -> Answer {
    check_project(&gitlab, &id)?;
    let params = Params::read(&query, &HeaderMap::new(), &Bytes::new())?;
    let all = gitlab
        .state()
        .runs
        .iter()
        .rev()
        .map(|run| answers::pipeline(&gitlab, run))
        .collect();
    params.page(&gitlab, &format!("/projects/{}/pipelines", answers::PROJECT), all)
}

async fn one(Shared(gitlab): Shared<GitLab>, Path((id, pipeline)): Path<(String, u64)>) -> Answer {
    check_project(&gitlab, &id)?;
    show(&gitlab, StatusCode::OK, pipeline)
}

/// The jobs of a pipeline, new ones first; earlier executions only when they are asked for.
async fn jobs(Shared(gitlab): Shared<GitLab>, Path((id, pipeline)): Path<(String, u64)>, Query(query): Asked) -> Answer {
    check_project(&gitlab, &id)?;
    let params = Params::read(&query, &HeaderMap::new(), &Bytes::new())?;
    let (retried, scope) = (params.switch("include_retried")?.unwrap_or(false), params.list("scope"));
    let all: Vec<Value> = {
        let state = gitlab.state();
        let Some(run) = state.runs.iter().find(|run| run.id.0 == pipeline) else {
            return nothing();
        };
        let mut all: Vec<&Job> = run.jobs.iter().chain(run.past.iter().filter(|_| retried)).collect();
        all.retain(|job| scope.as_ref().is_none_or(|scope| scope.iter().any(|one| one == status(job))));
        all.sort_by_key(|job| std::cmp::Reverse(job.id));
        all.into_iter().map(|job| show_job(&gitlab, &state, run, job)).collect()
    };
    params.page(&gitlab, &format!("/projects/{}/pipelines/{pipeline}/jobs", answers::PROJECT), all)
}

async fn job(Shared(gitlab): Shared<GitLab>, Path((id, job)): Path<(String, u64)>) -> Answer {
    check_project(&gitlab, &id)?;
    show_one(&gitlab, StatusCode::OK, job)
}

/// Whether there is such a job.
fn check_job(gitlab: &GitLab, project: &str, job: u64) -> Result<(), Refusal> {
    check_project(gitlab, project)?;
    gitlab.state().pipeline_of(job).map_or_else(nothing, |_| Ok(()))
}

async fn retry_job(Shared(gitlab): Shared<GitLab>, Path((id, job)): Path<(String, u64)>) -> Answer {
    check_job(&gitlab, &id, job)?;
    match gitlab.change(|state| state.retry_job(job)) {
        Some(again) => show_one(&gitlab, StatusCode::CREATED, again),
        None => refuse(403, "403 Forbidden - Job is not retryable"),
    }
}

async fn cancel_job(
    Shared(gitlab): Shared<GitLab>,
    Path((id, job)): Path<(String, u64)>,
    Query(query): Asked,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    check_job(&gitlab, &id, job)?;
    let force = Params::read(&query, &headers, &body)?.switch("force")?.unwrap_or(false);
    gitlab.change(|state| state.cancel_jobs(&[job], force));
    show_one(&gitlab, StatusCode::CREATED, job)
}

async fn retry(Shared(gitlab): Shared<GitLab>, Path((id, pipeline)): Path<(String, u64)>) -> Answer {
    check_project(&gitlab, &id)?;
    gitlab.change(|state| state.retry_pipeline(RunId(pipeline)));
    show(&gitlab, StatusCode::CREATED, pipeline)
}

async fn cancel(Shared(gitlab): Shared<GitLab>, Path((id, pipeline)): Path<(String, u64)>) -> Answer {
    check_project(&gitlab, &id)?;
    gitlab.change(|state| {
        let run = state.runs.iter().find(|run| run.id.0 == pipeline);
        let jobs: Vec<u64> = run.iter().flat_map(|run| &run.jobs).map(|job| job.id).collect();
        state.cancel_jobs(&jobs, false);
    });
    show(&gitlab, StatusCode::OK, pipeline)
}

/// Starts what ran last once more, as a pipeline of its own: the file that says what runs has not changed.
pub async fn create(
    Shared(gitlab): Shared<GitLab>,
    Path(id): Path<String>,
    Query(query): Asked,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    check_project(&gitlab, &id)?;
    let branch = Params::read(&query, &headers, &body)?.text("ref");
    let last = gitlab.state().runs.last().map(|run| run.workflow.clone());
    match (branch.as_deref(), last) {
        (Some(answers::BRANCH), Some(workflow)) => {
            let run = gitlab.start_run(workflow);
            show(&gitlab, StatusCode::CREATED, run.0)
        }
        (None, _) => super::rest::wrong("ref is missing"),
        _ => Err(Refusal(400, serde_json::json!({ "message": { "base": ["Reference not found"] } }))),
    }
}
