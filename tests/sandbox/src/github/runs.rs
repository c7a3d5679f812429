//! Workflow runs and their jobs over REST.

use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::GitHub;
use super::PREFIX;
use super::again::Again;
use super::answers::Place;
use super::rest::{Answer, Nothing, Page, Refusal, Scope, nothing, read_any, refuse, say};
use crate::ci::{Job, Run, RunId};

/// How a run is to be run again.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Verbosity {
    #[serde(rename = "enable_debug_logging")]
    _logging: bool,
    #[serde(rename = "enable_debugger")]
    _debugger: bool,
}

/// Calls with what an answer is made from.
fn at<T>(github: &GitHub, answer: impl FnOnce(&Place<'_>) -> T) -> T {
    let api = format!("{}{PREFIX}", github.url());
    let options = &github.own().options;
    answer(&Place {
        api: &api,
        owner: &options.owner,
        repo: &options.repo,
    })
}

/// The runs of the repository, new ones first.
pub async fn list(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, Query(page): Query<Page>) -> Answer {
    scope.check(&github)?;
    let all = at(&github, |place| {
        let state = github.state();
        state.runs.iter().rev().map(|run| place.run(run, run.attempt)).collect()
    });
    Ok(page.answer(&github, &format!("{}/actions/runs", scope.path()), "workflow_runs", all))
}

/// Answers something about a run, if there is one.
fn about(github: &GitHub, scope: &Scope, answer: impl FnOnce(&Place<'_>, &Run) -> Option<Value>) -> Result<Value, Refusal> {
    scope.check(github)?;
    let state = github.state();
    let run = match scope.job {
        Some(job) => state.runs.iter().find(|run| executions(run).any(|one| one.id == job)),
        None => state.runs.iter().find(|run| run.id == scope.run()),
    };
    let found = run.and_then(|run| at(github, |place| answer(place, run)));
    found.map_or_else(nothing, Ok)
}

/// Every execution of every job of a run, old ones first.
fn executions(run: &Run) -> impl Iterator<Item = &Job> {
    run.past.iter().chain(&run.jobs)
}

pub async fn one(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    let found = about(&github, &scope, |place, run| Some(place.run(run, run.attempt)))?;
    Ok(say(StatusCode::OK, found))
}

pub async fn attempt(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    let attempt = scope.attempt.unwrap_or_default();
    let is_one = |run: &Run| (1..=run.attempt).contains(&attempt);
    let found = about(&github, &scope, |place, run| is_one(run).then(|| place.run(run, attempt)))?;
    Ok(say(StatusCode::OK, found))
}

pub async fn job(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    let found = about(&github, &scope, |place, run| {
        let job = executions(run).find(|job| Some(job.id) == scope.job)?;
        Some(place.job(run, job))
    });
    Ok(say(StatusCode::OK, found?))
}

/// Some executions of a run's jobs.
fn job_list(github: &GitHub, scope: &Scope, page: &Page, rest: &str, pick: impl FnOnce(&Run) -> Vec<&Job>) -> Answer {
    let all = about(github, scope, |place, run| {
        Some(pick(run).into_iter().map(|job| place.job(run, job)).collect())
    })?;
    let all = all.as_array().cloned().unwrap_or_default();
    let path = format!("{}/actions/runs/{}{rest}/jobs", scope.path(), scope.run().0);
    Ok(page.answer(github, &path, "jobs", all))
}

pub async fn jobs(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, Query(page): Query<Page>) -> Answer {
    match page.filter.as_deref() {
        None | Some("latest") => job_list(&github, &scope, &page, "", |run| run.jobs.iter().collect()),
        Some("all") => job_list(&github, &scope, &page, "", |run| executions(run).collect()),
        Some(_) => refuse(422, "Invalid request."),
    }
}

pub async fn attempt_jobs(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, Query(page): Query<Page>) -> Answer {
    let attempt = scope.attempt.unwrap_or_default();
    job_list(&github, &scope, &page, &format!("/attempts/{attempt}"), |run| {
        run.executions(attempt)
    })
}

fn again(github: &GitHub, scope: &Scope, body: &Bytes, run: RunId, again: &Again) -> Answer {
    scope.check(github)?;
    let Verbosity { .. } = read_any(body)?;
    match github.change(|state| state.rerun(run, again)) {
        Ok(()) => Ok(say(StatusCode::CREATED, json!({}))),
        Err("Not Found") => nothing(),
        Err(message) => refuse(403, message),
    }
}

pub async fn rerun(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, body: Bytes) -> Answer {
    again(&github, &scope, &body, scope.run(), &Again::All)
}

pub async fn rerun_failed(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, body: Bytes) -> Answer {
    again(&github, &scope, &body, scope.run(), &Again::Failed)
}

pub async fn rerun_job(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, body: Bytes) -> Answer {
    let job = scope.job.unwrap_or_default();
    let has = |run: &&Run| executions(run).any(|one| one.id == job);
    let run = github.state().runs.iter().find(has).map(|run| run.id);
    match run {
        Some(run) => again(&github, &scope, &body, run, &Again::Job(job)),
        None => nothing(),
    }
}

fn end(github: &GitHub, scope: &Scope, body: &Bytes, force: bool) -> Answer {
    scope.check(github)?;
    let Nothing {} = read_any(body)?;
    let (known, cancelled) = github.change(|state| {
        let known = state.runs.iter().any(|run| run.id == scope.run());
        (known, state.cancel(scope.run(), force))
    });
    match (known, cancelled) {
        (false, _) => nothing(),
        (true, true) => Ok(say(StatusCode::ACCEPTED, json!({}))),
        (true, false) => refuse(409, "Cannot cancel a workflow run that is completed."),
    }
}

pub async fn cancel(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, body: Bytes) -> Answer {
    end(&github, &scope, &body, false)
}

pub async fn force_cancel(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, body: Bytes) -> Answer {
    end(&github, &scope, &body, true)
}
