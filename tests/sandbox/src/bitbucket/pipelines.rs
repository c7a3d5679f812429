//! Pipelines over REST.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use super::answers::{self, BRANCH, PIPELINE, STEP, number};
use super::rest::{Answer, Asked, NOTHING, Parts, Refusal, check, page, say};
use super::{Bitbucket, BitbucketState};
use crate::ci::{Run, RunId};

pub fn routes() -> Router<Bitbucket> {
    const ALL: &str = "/repositories/{workspace}/{repo}/pipelines";
    Router::new()
        .route(&format!("{ALL}/"), get(list).post(start))
        .route(&format!("{ALL}/{{uuid}}"), get(one))
        .route(&format!("{ALL}/{{uuid}}/steps/"), get(steps))
        .route(&format!("{ALL}/{{uuid}}/steps/{{step}}"), get(step))
        .route(&format!("{ALL}/{{uuid}}/stopPipeline"), post(stop))
}

fn named<'a>(state: &'a BitbucketState, parts: &BTreeMap<String, String>) -> Result<&'a Run, Refusal> {
    let id = parts.get("uuid").and_then(|uuid| number(PIPELINE, uuid)).ok_or(NOTHING)?;
    state.runs.iter().find(|run| run.id.0 == id).ok_or(NOTHING)
}

/// The newest first, whatever is asked for.
async fn list(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts, Query(query): Asked) -> Answer {
    check(&bitbucket, &parts)?;
    let wanted = query.get("target.commit.hash");
    let all: Vec<Value> = {
        let state = bitbucket.state();
        let runs: Vec<&Run> = match wanted {
            Some(hash) => state.of_commit(hash).collect(),
            None => state.runs.iter().collect(),
        };
        runs.iter().rev().map(|run| answers::pipeline(&bitbucket, &state, run)).collect()
    };
    let path = format!("/repositories/{}/pipelines/", bitbucket.own().options.repository);
    Ok(page(&bitbucket, &path, &query, all))
}

/// Starts one of a target: what ran there before runs anew.
async fn start(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts, Json(body): Json<Value>) -> Answer {
    check(&bitbucket, &parts)?;
    let target = &body["target"];
    if target["ref_type"] != "branch" || target["ref_name"] != BRANCH {
        return Err(Refusal(400, "There is no such target."));
    }
    let hash = target["commit"]["hash"].as_str().unwrap_or_default();
    let started = bitbucket.change(|state| {
        let first = state.of_commit(hash).next()?;
        let (first, workflow) = (first.id.0, first.workflow.clone());
        state.tell("run-rerun", workflow.name.clone(), format!("pipeline {first}"));
        let id = state.start_run(workflow);
        state.book.first.insert(id.0, first);
        Some(id)
    });
    let id = started.ok_or(Refusal(400, "There is no such commit."))?;
    let state = bitbucket.state();
    let run = state.runs.iter().find(|run| run.id == id).ok_or(NOTHING)?;
    Ok(say(StatusCode::CREATED, answers::pipeline(&bitbucket, &state, run)))
}

async fn one(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts) -> Answer {
    check(&bitbucket, &parts)?;
    let state = bitbucket.state();
    Ok(say(StatusCode::OK, answers::pipeline(&bitbucket, &state, named(&state, &parts)?)))
}

async fn steps(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts, Query(query): Asked) -> Answer {
    check(&bitbucket, &parts)?;
    let all: Vec<Value> = named(&bitbucket.state(), &parts)?.jobs.iter().map(answers::step).collect();
    Ok(page(&bitbucket, "/steps/", &query, all))
}

async fn step(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts) -> Answer {
    check(&bitbucket, &parts)?;
    let id = parts.get("step").and_then(|uuid| number(STEP, uuid)).ok_or(NOTHING)?;
    let state = bitbucket.state();
    let job = named(&state, &parts)?.jobs.iter().find(|job| job.id == id).ok_or(NOTHING)?;
    Ok(say(StatusCode::OK, answers::step(job)))
}

async fn stop(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts) -> Answer {
    check(&bitbucket, &parts)?;
    let id: RunId = named(&bitbucket.state(), &parts)?.id;
    if bitbucket.change(|state| state.cancel(id, false)) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(Refusal(400, "The pipeline has completed already."))
}
