//! Runners, pipelines and steps as Bitbucket writes them. Source: `https://api.bitbucket.org/swagger.json`.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::rules::Kept;
use super::{Bitbucket, BitbucketState};
use crate::ci::{Job, Registration, Run};
use crate::standin;

/// What a UUID names: its first part.
pub const WORKSPACE: u32 = 1;
pub const REPOSITORY: u32 = 2;
pub const RUNNER: u32 = 3;
pub const PIPELINE: u32 = 4;
pub const STEP: u32 = 5;

/// The branch that everything happens on.
pub const BRANCH: &str = "main";

/// An id as Bitbucket writes it.
pub fn uuid(kind: u32, id: u64) -> String {
    format!("{{{kind:08x}-0000-4000-8000-{id:012x}}}")
}

/// The number in an id of this kind.
pub fn number(kind: u32, uuid: &str) -> Option<u64> {
    let digits = uuid.rsplit('-').next()?.strip_suffix('}')?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (self::uuid(kind, id) == uuid).then_some(id)
}

fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// The commit that a pipeline is of, if it is the first one.
pub fn commit(first: u64) -> String {
    let mut text = standin::sha256(first.to_string().as_bytes());
    text.truncate(40);
    text
}

/// The workspace.
pub fn workspace(bitbucket: &Bitbucket) -> Value {
    let slug = bitbucket.own().options.repository.split('/').next().unwrap_or_default();
    json!({ "type": "workspace", "uuid": uuid(WORKSPACE, 1), "name": slug, "slug": slug, "is_private": true })
}

/// The repository.
pub fn repository(bitbucket: &Bitbucket) -> Value {
    let name = &bitbucket.own().options.repository;
    let slug = name.split('/').nth(1).unwrap_or_default();
    json!({
        "type": "repository", "uuid": uuid(REPOSITORY, 1), "full_name": name, "name": slug, "slug": slug, "is_private": true,
        "workspace": workspace(bitbucket), "mainbranch": { "type": "branch", "name": BRANCH },
    })
}

/// A runner. Its secret is told once.
pub fn runner(bitbucket: &Bitbucket, runner: &Registration<Kept>, is_new: bool) -> Value {
    let status = match runner.seen {
        None => "UNREGISTERED",
        Some(_) if runner.online => "ONLINE",
        Some(_) => "OFFLINE",
    };
    let mut state = json!({
        "type": "pipeline_runner_state", "status": status, "cordoned": runner.own.cordoned, "updated_on": time(SystemTime::now()),
        "version": { "type": "pipeline_runner_version", "version": runner.version },
    });
    if let Some(step) = runner.jobs.first() {
        state["step"] = json!({ "uuid": uuid(STEP, *step) });
    }
    let mut client = json!({
        "type": "pipeline_runner_oauth_client", "id": client(runner.id), "audience": "api.atlassian.com",
        "token_endpoint": format!("{}/oauth/token", bitbucket.url()),
    });
    if is_new {
        client["secret"] = json!(runner.secret);
    }
    json!({
        "type": "pipeline_runner", "uuid": uuid(RUNNER, runner.id), "name": runner.name, "labels": runner.labels, "state": state,
        "created_on": time(runner.own.created), "updated_on": time(SystemTime::now()), "oauth_client": client,
    })
}

/// The OAuth client of a runner.
pub fn client(runner: u64) -> String {
    format!("client-{runner}")
}

fn state_of(ended: Option<&str>, begun: bool) -> Value {
    let result = match ended {
        Some("success") => Some("SUCCESSFUL"),
        Some("failure") => Some("FAILED"),
        Some("skipped") => Some("NOT_RUN"),
        Some(_) => Some("STOPPED"),
        None => None,
    };
    match result {
        Some(name) => json!({ "type": "pipeline_state_completed", "name": "COMPLETED", "result": { "type": "result", "name": name } }),
        None if begun => json!({ "type": "pipeline_state_in_progress", "name": "IN_PROGRESS" }),
        None => json!({ "type": "pipeline_state_pending", "name": "PENDING" }),
    }
}

/// A pipeline.
pub fn pipeline(bitbucket: &Bitbucket, state: &BitbucketState, run: &Run) -> Value {
    let completed = run.jobs.iter().filter_map(|job| job.completed).max().filter(|_| run.ended);
    json!({
        "type": "pipeline", "uuid": uuid(PIPELINE, run.id.0), "build_number": run.id.0, "created_on": time(run.created),
        "completed_on": completed.map(time), "repository": repository(bitbucket),
        "state": state_of(run.ended.then(|| run.conclusion()), run.status() != "queued"),
        "target": {
            "type": "pipeline_ref_target", "ref_type": "branch", "ref_name": BRANCH, "selector": { "type": "default" },
            "commit": { "type": "commit", "hash": commit(state.first(run.id.0)) },
        },
    })
}

/// A step of it.
pub fn step(job: &Job) -> Value {
    json!({
        "type": "pipeline_step", "uuid": uuid(STEP, job.id), "name": job.spec.name, "started_on": job.started.map(time),
        "completed_on": job.completed.map(time), "state": state_of(job.status.conclusion(), job.started.is_some()),
    })
}
