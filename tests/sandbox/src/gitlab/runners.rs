//! Runners over REST: who makes them, lists them, changes them and removes them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::{delete, get, post};
use serde_json::{Value, json};

use super::rest::{Answer, Asked, Params, Refusal, check_project, find_group, nothing, refuse, say, wrong};
use super::rules::{Kept, Scope, status};
use super::{GitLab, answers};
use crate::ci::Registration;

/// What a runner's maximum time may be at least, in seconds.
const SHORTEST_TIMEOUT: u64 = 600;

pub fn routes() -> Router<GitLab> {
    Router::new()
        .route("/user/runners", post(create))
        .route("/runners", post(register).delete(unregister))
        .route("/runners/managers", delete(leave))
        .route("/runners/verify", post(verify))
        .route("/runners/all", get(list_all))
        .route("/runners/{id}", get(one).put(change).delete(remove))
        .route("/runners/{id}/jobs", get(jobs))
        .route("/projects/{id}/runners", get(list_project))
        .route("/groups/{id}/runners", get(list_group))
}

/// Makes a runner out of what was asked for.
fn make(gitlab: &GitLab, params: &Params, scope: Scope) -> Answer {
    let (tags, untagged) = (
        params.list("tag_list").unwrap_or_default(),
        params.switch("run_untagged")?.unwrap_or(true),
    );
    let timeout = params.number("maximum_timeout")?;
    if tags.is_empty() && !untagged {
        return refuse(
            400,
            "400 Bad request - Tags list can not be empty when runner is not allowed to pick untagged jobs",
        );
    }
    if timeout.is_some_and(|timeout| timeout < SHORTEST_TIMEOUT) {
        return refuse(400, "400 Bad request - Maximum timeout needs to be at least 10 minutes");
    }
    let kept = Kept {
        scope,
        paused: params.switch("paused")?.unwrap_or(false),
        locked: params.switch("locked")?.unwrap_or(false),
        run_untagged: untagged,
        maximum_timeout: timeout,
        access_level: params.text("access_level").unwrap_or_else(|| "not_protected".into()),
        note: params.text("maintenance_note").unwrap_or_default(),
        created: SystemTime::now(),
        info: BTreeMap::new(),
        cancels_gracefully: false,
    };
    let name = params.text("description").unwrap_or_default();
    let (id, token) = gitlab.change(|state| {
        let id = state.fresh_id();
        let token = format!("glrt-t{}_{}", scope.number(), gitlab.own().secret(&format!("runner {id}"), 20));
        state.add_runner(Registration::new(id, &name, tags, token.clone(), kept));
        (id, token)
    });
    Ok(say(
        StatusCode::CREATED,
        json!({ "id": id, "token": token, "token_expires_at": null }),
    ))
}

async fn create(Shared(gitlab): Shared<GitLab>, Query(query): Asked, headers: HeaderMap, body: Bytes) -> Answer {
    let params = Params::read(&query, &headers, &body)?;
    let scope = match params.text("runner_type").as_deref() {
        None => return wrong("runner_type is missing"),
        Some("instance_type") if gitlab.own().options.admin => Scope::Instance,
        Some("instance_type") => return refuse(403, "403 Forbidden - Insufficient permissions"),
        Some("group_type") => match params.number("group_id")? {
            None => return wrong("group_id is missing"),
            Some(id) => Scope::Group(find_group(&gitlab, &id.to_string()).or_else(|_| no_scope())?.0),
        },
        Some("project_type") => match params.number("project_id")? {
            None => return wrong("project_id is missing"),
            Some(id) => check_project(&gitlab, &id.to_string())
                .or_else(|_| no_scope())
                .map(|()| Scope::Project)?,
        },
        Some(_) => return wrong("runner_type does not have a valid value"),
    };
    make(&gitlab, &params, scope)
}

fn no_scope<T>() -> Result<T, Refusal> {
    refuse(400, "400 Bad request - Missing/invalid scope")
}

/// The way before GitLab 16, which an instance must allow.
async fn register(Shared(gitlab): Shared<GitLab>, Query(query): Asked, headers: HeaderMap, body: Bytes) -> Answer {
    let params = Params::read(&query, &headers, &body)?;
    let Some(token) = params.text("token") else {
        return wrong("token is missing");
    };
    match &gitlab.own().options.registration_token {
        None => refuse(410, "410 Gone - runner registration disallowed"),
        Some(known) if *known == token => make(&gitlab, &params, Scope::Project),
        Some(_) => refuse(403, "403 Forbidden - invalid token supplied"),
    }
}

/// The runner whose token was given.
fn by_token(gitlab: &GitLab, params: &Params) -> Result<u64, Refusal> {
    let Some(token) = params.text("token") else {
        return wrong("token is missing");
    };
    let found = gitlab.state().runner_with(&token);
    found.map_or_else(|| refuse(403, "403 Forbidden"), Ok)
}

async fn verify(Shared(gitlab): Shared<GitLab>, Query(query): Asked, headers: HeaderMap, body: Bytes) -> Answer {
    let params = Params::read(&query, &headers, &body)?;
    let id = by_token(&gitlab, &params)?;
    gitlab.change(|state| state.hear(id, 0));
    let body = json!({ "id": id, "token": params.text("token"), "token_expires_at": null });
    Ok(say(StatusCode::OK, body))
}

async fn unregister(Shared(gitlab): Shared<GitLab>, Query(query): Asked, headers: HeaderMap, body: Bytes) -> Answer {
    let id = by_token(&gitlab, &Params::read(&query, &headers, &body)?)?;
    gitlab.change(|state| state.remove_runner(id));
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// One machine of a runner leaves; the runner stays.
async fn leave(Shared(gitlab): Shared<GitLab>, Query(query): Asked, headers: HeaderMap, body: Bytes) -> Answer {
    by_token(&gitlab, &Params::read(&query, &headers, &body)?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn one(Shared(gitlab): Shared<GitLab>, Path(id): Path<u64>) -> Answer {
    let mut state = gitlab.state();
    let found = state.runner(id).map(|runner| answers::runner_details(&gitlab, runner));
    found.map_or_else(nothing, |found| Ok(say(StatusCode::OK, found)))
}

async fn change(Shared(gitlab): Shared<GitLab>, Path(id): Path<u64>, Query(query): Asked, headers: HeaderMap, body: Bytes) -> Answer {
    let params = Params::read(&query, &headers, &body)?;
    let paused = params.switch("paused")?.or(params.switch("active")?.map(|active| !active));
    let (untagged, locked, timeout) = (
        params.switch("run_untagged")?,
        params.switch("locked")?,
        params.number("maximum_timeout")?,
    );
    let (name, tags) = (params.text("description"), params.list("tag_list"));
    let is_one = paused.is_some() || untagged.is_some() || locked.is_some() || timeout.is_some() || name.is_some() || tags.is_some();
    if !is_one {
        return wrong(
            "description, active, paused, tag_list, run_untagged, locked, access_level, maximum_timeout, maintenance_note are missing, at least one parameter must be provided",
        );
    }
    let found = gitlab.change(|state| {
        let runner = state.runner(id)?;
        runner.own.paused = paused.unwrap_or(runner.own.paused);
        runner.own.run_untagged = untagged.unwrap_or(runner.own.run_untagged);
        runner.own.locked = locked.unwrap_or(runner.own.locked);
        runner.own.maximum_timeout = timeout.or(runner.own.maximum_timeout);
        if let Some(name) = name {
            runner.name = name;
        }
        if let Some(tags) = tags {
            runner.labels = tags;
        }
        Some(answers::runner_details(&gitlab, runner))
    });
    found.map_or_else(nothing, |found| Ok(say(StatusCode::OK, found)))
}

/// It is not refused while the runner has a job, which goes on.
async fn remove(Shared(gitlab): Shared<GitLab>, Path(id): Path<u64>) -> Answer {
    if gitlab.change(|state| state.remove_runner(id)) {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        nothing()
    }
}

/// The jobs that a runner has or had, new ones first.
async fn jobs(Shared(gitlab): Shared<GitLab>, Path(id): Path<u64>, Query(query): Asked) -> Answer {
    let params = Params::read(&query, &HeaderMap::new(), &Bytes::new())?;
    let wanted = params.text("status");
    let all = {
        let mut state = gitlab.state();
        if state.runner(id).is_none() {
            return nothing();
        }
        let all = state
            .runs
            .iter()
            .flat_map(|run| run.past.iter().chain(&run.jobs).map(move |job| (run, job)));
        let mut all: Vec<_> = all
            .filter(|(_, job)| job.runner.as_ref().is_some_and(|(runner, _)| *runner == id))
            .filter(|(_, job)| wanted.as_ref().is_none_or(|wanted| status(job) == wanted))
            .collect();
        all.sort_by_key(|(_, job)| std::cmp::Reverse(job.id));
        all.into_iter().map(|(run, job)| answers::job(&gitlab, run, job, None)).collect()
    };
    params.page(&gitlab, &format!("/runners/{id}/jobs"), all)
}

/// The runners that a filter lets through.
fn list(gitlab: &GitLab, query: &BTreeMap<String, String>, path: &str, is_seen: impl Fn(Scope) -> bool) -> Answer {
    let params = Params::read(query, &HeaderMap::new(), &Bytes::new())?;
    let (kind, state, tags) = (params.text("type"), params.text("status"), params.list("tag_list"));
    let paused = params.switch("paused")?;
    if kind
        .as_ref()
        .is_some_and(|kind| !["instance_type", "group_type", "project_type"].contains(&kind.as_str()))
    {
        return wrong("type does not have a valid value");
    }
    let known = ["active", "paused", "online", "offline", "never_contacted", "stale"];
    if state.as_ref().is_some_and(|state| !known.contains(&state.as_str())) {
        return wrong("status does not have a valid value");
    }
    let is_so = |runner: &Registration<Kept>| match state.as_deref() {
        None => true,
        Some("active") => !runner.own.paused,
        Some("paused") => runner.own.paused,
        Some(status) => answers::runner_status(runner) == status,
    };
    let all: Vec<Value> = {
        let state = gitlab.state();
        let found = state.runners.iter().rev().filter(|runner| {
            is_seen(runner.own.scope)
                && kind.as_ref().is_none_or(|kind| runner.own.scope.name() == kind)
                && paused.is_none_or(|paused| runner.own.paused == paused)
                && tags.iter().flatten().all(|tag| runner.labels.contains(tag))
                && is_so(runner)
        });
        found.map(answers::runner).collect()
    };
    params.page(gitlab, path, all)
}

async fn list_all(Shared(gitlab): Shared<GitLab>, Query(query): Asked) -> Answer {
    if !gitlab.own().options.admin {
        return refuse(403, "403 Forbidden");
    }
    list(&gitlab, &query, "/runners/all", |_| true)
}

async fn list_project(Shared(gitlab): Shared<GitLab>, Path(id): Path<String>, Query(query): Asked) -> Answer {
    check_project(&gitlab, &id)?;
    list(&gitlab, &query, &format!("/projects/{}/runners", answers::PROJECT), |_| true)
}

/// A group's own, and those of the groups that it is in.
async fn list_group(Shared(gitlab): Shared<GitLab>, Path(id): Path<String>, Query(query): Asked) -> Answer {
    let (id, _) = find_group(&gitlab, &id)?;
    let is_seen = move |scope: Scope| match scope {
        Scope::Group(group) => group <= id,
        Scope::Instance => true,
        Scope::Project => false,
    };
    list(&gitlab, &query, &format!("/groups/{id}/runners"), is_seen)
}
