//! Finding the job that a runner had begun before its hook could tell which one it was.

use std::cmp::Reverse;
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::refusal::{self, Permission};
use super::{GitHub, PAGE};
use crate::http::Retry;

/// Times are in whole seconds, those of two machines.
const SLACK: SignedDuration = SignedDuration::from_secs(2);
/// More runs than that are not looked into.
const MAX_RUNS: usize = 30;

/// What is known of the job.
pub struct Wanted<'a> {
    /// The runner that it ran on.
    pub runner: &'a str,
    /// Its display name.
    pub name: Option<&'a str>,
    /// How long ago it began.
    pub age: Duration,
}

#[derive(Deserialize)]
struct Runs {
    workflow_runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    id: u64,
    status: String,
    updated_at: Timestamp,
}

#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    id: u64,
    run_id: u64,
    run_attempt: Option<u32>,
    name: String,
    runner_name: Option<String>,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
}

impl Wanted<'_> {
    /// A runner has one job at a time: what had ended when ours began is not ours.
    fn is(&self, job: &Found, began: Timestamp) -> bool {
        job.runner_name.as_deref() == Some(self.runner)
            && self.name.is_none_or(|name| name == job.name)
            && job.completed_at.is_none_or(|at| at >= began)
    }
}

/// Looks once, in the repository of these actions: the run and its attempt. `None` where GitHub tells of no such job, which may only be
/// too early. Of several the last counts: the others ended in its first second.
pub async fn find(github: &GitHub, actions: &str, wanted: &Wanted<'_>, retry: &Retry) -> Result<Option<(String, u32)>> {
    let path = format!("{actions}/runs");
    let answer = github.call(Method::GET, &path, &[("per_page", PAGE)], None, retry).await?;
    if answer.status != StatusCode::OK {
        return Err(refusal::of(&answer, &github.scope, Permission::Runs));
    }
    let began = answer
        .sent_at()
        .saturating_sub(SignedDuration::try_from(wanted.age)?.saturating_add(SLACK))?;
    let mut runs = answer.json::<Runs>()?.workflow_runs;
    runs.retain(|run| run.status != "completed" || run.updated_at >= began);
    runs.sort_by_key(|run| Reverse(run.updated_at));
    let mut last: Option<Found> = None;
    for run in runs.iter().take(MAX_RUNS) {
        let pages: Vec<Jobs> = github
            .pages(&format!("{path}/{}/jobs", run.id), &[("filter", "latest")], retry, Permission::Runs)
            .await?;
        let ours = pages.into_iter().flat_map(|page| page.jobs).filter(|job| wanted.is(job, began));
        last = last.into_iter().chain(ours).max_by_key(|job| (job.started_at, job.id));
    }
    Ok(last.map(|job| (job.run_id.to_string(), job.run_attempt.unwrap_or(1))))
}
