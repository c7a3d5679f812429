//! Runners over REST, of the repository and of the workspace alike: there is one list of them here.

use std::time::SystemTime;

use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use super::Bitbucket;
use super::answers::{self, RUNNER, number};
use super::rest::{Answer, Asked, NOTHING, Parts, Refusal, check, page, say};
use super::rules::Kept;
use crate::ci::Registration;

/// Labels of a runner besides Bitbucket's own.
const MOST: usize = 10;

pub fn routes() -> Router<Bitbucket> {
    let scopes = ["/repositories/{workspace}/{repo}", "/workspaces/{workspace}"];
    scopes.into_iter().fold(Router::new(), |router, scope| {
        let runners = format!("{scope}/pipelines-config/runners");
        router
            .route(&runners, get(list).post(create))
            .route(&format!("{runners}/{{uuid}}"), get(one).put(change).delete(remove))
    })
}

async fn list(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts, Query(query): Asked) -> Answer {
    check(&bitbucket, &parts)?;
    let all: Vec<Value> = bitbucket
        .state()
        .runners
        .iter()
        .map(|runner| answers::runner(&bitbucket, runner, false))
        .collect();
    let part = |name: &str| parts.get(name).cloned().unwrap_or_default();
    let scope = if parts.contains_key("repo") {
        format!("/repositories/{}/{}", part("workspace"), part("repo"))
    } else {
        format!("/workspaces/{}", part("workspace"))
    };
    Ok(page(&bitbucket, &format!("{scope}/pipelines-config/runners"), &query, all))
}

/// The labels of a request, if Bitbucket takes them.
fn labels(body: &Value) -> Result<Vec<String>, Refusal> {
    let given = body["labels"].as_array().into_iter().flatten();
    let labels: Vec<String> = given.filter_map(|label| label.as_str().map(str::to_owned)).collect();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
    if !labels.iter().all(|label| label.chars().all(legal)) {
        return Err(Refusal(400, "Labels may only contain lowercase alphanumeric characters and dots."));
    }
    let own = ["self.hosted", "linux", "linux.shell"];
    if !labels.iter().any(|label| label == "self.hosted") || !labels.iter().any(|label| own[1..].contains(&label.as_str())) {
        return Err(Refusal(400, "The labels do not say what the runner is."));
    }
    if labels.iter().filter(|label| !own.contains(&label.as_str())).count() > MOST {
        return Err(Refusal(400, "Too many labels."));
    }
    Ok(labels)
}

async fn create(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts, Json(body): Json<Value>) -> Answer {
    check(&bitbucket, &parts)?;
    let labels = labels(&body)?;
    let name = body["name"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or(Refusal(400, "A runner needs a name."))?;
    let made = bitbucket.change(|state| {
        let id = state.fresh_id();
        let kept = Kept {
            cordoned: false,
            created: SystemTime::now(),
        };
        let secret = format!("oauth-{}", bitbucket.own().secret(&format!("runner {id}")));
        state.add_runner(Registration::new(id, name, labels, secret, kept));
        state.runner(id).map(|runner| answers::runner(&bitbucket, runner, true))
    });
    Ok(say(StatusCode::CREATED, made.unwrap_or_default()))
}

/// The runner that a path names.
fn named(parts: &std::collections::BTreeMap<String, String>) -> Result<u64, Refusal> {
    parts.get("uuid").and_then(|uuid| number(RUNNER, uuid)).ok_or(NOTHING)
}

async fn one(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts) -> Answer {
    check(&bitbucket, &parts)?;
    let id = named(&parts)?;
    let mut state = bitbucket.state();
    let runner = state.runner(id).ok_or(NOTHING)?;
    Ok(say(StatusCode::OK, answers::runner(&bitbucket, runner, false)))
}

async fn change(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts, Json(body): Json<Value>) -> Answer {
    check(&bitbucket, &parts)?;
    let id = named(&parts)?;
    let labels = labels(&body)?;
    let changed = bitbucket.change(|state| {
        let runner = state.runner(id)?;
        runner.labels = labels;
        runner.own.cordoned = body["state"]["cordoned"].as_bool().unwrap_or(runner.own.cordoned);
        let (name, cordoned) = (runner.name.clone(), runner.own.cordoned);
        state.tell("runner-cordoned", name, cordoned.to_string());
        state.runner(id).map(|runner| answers::runner(&bitbucket, runner, false))
    });
    Ok(say(StatusCode::OK, changed.ok_or(NOTHING)?))
}

/// Whatever it does: Bitbucket refuses nothing.
async fn remove(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts) -> Answer {
    check(&bitbucket, &parts)?;
    let id = named(&parts)?;
    if bitbucket.change(|state| state.remove_runner(id)) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(NOTHING)
}
