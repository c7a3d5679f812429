//! Running an interrupted job again. The rules: <https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs>
//!
//! GitHub re-runs jobs of completed runs only, so the agent waits for the run to end, and past its patience cancels what is left of it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::{GitHub, PAGE, refusal};
use crate::forge::{Declined, Job, Rerun, RerunOutcome, RerunScope};
use crate::http::{Answer, Lost, Retry};

/// How often the run is looked at within the patience.
const LOOKS: u32 = 20;
/// Bounds of the time between two looks.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a re-run whose answer was lost is asked for again.
const TRIES: usize = 3;

#[derive(Deserialize)]
struct Run {
    status: String,
    run_attempt: u32,
}

#[derive(Deserialize)]
struct JobAnswer {
    id: u64,
    conclusion: Option<String>,
    runner_name: Option<String>,
    started_at: Option<String>,
}

/// What a request to run again came to.
enum Asked {
    Taken,
    /// The run is, or is again, in progress.
    Running,
    /// Not in this way; GitHub's words.
    Refused(Answer),
}

pub async fn rerun(github: &GitHub, request: &Rerun) -> Result<RerunOutcome> {
    let conversation = Conversation {
        github,
        request,
        retry: github.retry.within(request.budget),
        runs: format!("/repos/{}/actions/runs/{}", request.job.repository, request.job.run),
    };
    timeout(request.budget, conversation.hold())
        .await
        .unwrap_or_else(|_| {
            Err(anyhow::anyhow!(
                "GitHub did not let it run again within {} s",
                request.budget.as_secs()
            ))
        })
        .with_context(|| format!("running workflow run {} again", request.job.run))
}

struct Conversation<'a> {
    github: &'a GitHub,
    request: &'a Rerun,
    retry: Retry,
    runs: String,
}

impl Conversation<'_> {
    async fn hold(&self) -> Result<RerunOutcome> {
        let mut began = Instant::now();
        loop {
            if let Some(declined) = self.wait_completed(began).await? {
                return Ok(RerunOutcome::Declined(declined));
            }
            let jobs = self.jobs().await?;
            if self.succeeded(&jobs) {
                return Ok(RerunOutcome::Declined(Declined::Succeeded));
            }
            if let Some(scope) = self.request_any(&jobs).await? {
                return Ok(RerunOutcome::Requested(scope));
            }
            // It runs, though it had ended a moment ago: the two halves of GitHub do not agree yet, or somebody else was faster.
            sleep(self.interval()).await;
            began = Instant::now();
        }
    }

    /// Waits until the run has ended, or until there is a reason to leave it alone.
    async fn wait_completed(&self, began: Instant) -> Result<Option<Declined>> {
        let patience = self.request.patience;
        let mut cancels = [(patience, "cancel"), (patience * 2, "force-cancel")].into_iter().peekable();
        loop {
            let Some(run) = self.run().await? else {
                return Ok(Some(Declined::Unknown));
            };
            if let Some(declined) = guard(&run, &self.request.job, self.request.max_attempts) {
                return Ok(Some(declined));
            }
            if run.status == "completed" {
                return Ok(None);
            }
            if let Some((_, verb)) = cancels.next_if(|(after, _)| began.elapsed() >= *after) {
                // Healthy jobs die with it, so only when ours cannot run again otherwise.
                if self.succeeded(&self.jobs().await?) {
                    return Ok(Some(Declined::Succeeded));
                }
                tracing::warn!("the run has other jobs that do not end: `{verb}`, so that ours can run again");
                // Refused means that it has ended meanwhile: the next look tells.
                self.post(&format!("{}/{verb}", self.runs), &self.retry).await?;
            }
            sleep(self.interval()).await;
        }
    }

    fn interval(&self) -> Duration {
        (self.request.patience / LOOKS).clamp(LOOK_EVERY.0, LOOK_EVERY.1)
    }

    /// Asks in the order that keeps most of what was done, and always makes a machine.
    async fn request_any(&self, jobs: &[JobAnswer]) -> Result<Option<RerunScope>> {
        let launch = self.request.launch.as_ref().filter(|launch| launch.run == self.request.job.run);
        let mut ways = Vec::new();
        if let Some(launch) = launch {
            // Were only the failed jobs run, nobody would launch a machine for them: they would wait for ever.
            let job = latest(jobs.iter().filter(|job| job.runner_name.as_deref() == Some(&launch.runner)));
            ways.extend(job.map(|job| (RerunScope::LaunchJob, self.job_path(job.id))));
        } else {
            ways.push((RerunScope::FailedJobs, format!("{}/rerun-failed-jobs", self.runs)));
        }
        ways.push((RerunScope::WholeRun, format!("{}/rerun", self.runs)));
        let mut refused = None;
        for (scope, path) in ways {
            match self.ask(&path).await? {
                Asked::Taken => return Ok(Some(scope)),
                Asked::Running => return Ok(None),
                Asked::Refused(answer) => {
                    tracing::info!("GitHub will not re-run {scope:?}: {}", refusal::message(&answer));
                    refused = Some(answer);
                }
            }
        }
        match refused {
            Some(answer) => Err(refusal::of(&answer, &self.github.scope, refusal::Permission::Runs)),
            None => Ok(None),
        }
    }

    fn job_path(&self, id: u64) -> String {
        format!("/repos/{}/actions/jobs/{id}/rerun", self.request.job.repository)
    }

    /// Asks once for sure: when the answer is lost, the run's attempt tells whether it was taken.
    async fn ask(&self, path: &str) -> Result<Asked> {
        for _ in 0..TRIES {
            match self.post(path, &self.retry.once()).await {
                Ok(answer) if answer.status == StatusCode::CREATED => return Ok(Asked::Taken),
                Ok(answer) if answer.status == StatusCode::FORBIDDEN && refusal::message(&answer).contains("already running") => {
                    return Ok(Asked::Running);
                }
                Ok(answer) => return Ok(Asked::Refused(answer)),
                Err(error) if error.chain().any(|link| link.is::<Lost>()) || error.downcast_ref::<Lost>().is_some() => {
                    if self.run().await?.is_some_and(|run| run.run_attempt > self.request.job.attempt) {
                        return Ok(Asked::Taken);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        anyhow::bail!("the answer was lost {TRIES} times")
    }

    /// Whether our job ended well after all: the last that our runner had in this run.
    fn succeeded(&self, jobs: &[JobAnswer]) -> bool {
        let ours = latest(jobs.iter().filter(|job| job.runner_name.as_deref() == Some(&self.request.runner)));
        ours.is_some_and(|job| job.conclusion.as_deref() == Some("success"))
    }

    async fn run(&self) -> Result<Option<Run>> {
        let answer = self.github.call(Method::GET, &self.runs, &[], None, &self.retry).await?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal::of(&answer, &self.github.scope, refusal::Permission::Runs)),
        }
    }

    /// The latest execution of every job, those of earlier attempts included: the launch job may have run in one.
    async fn jobs(&self) -> Result<Vec<JobAnswer>> {
        #[derive(Deserialize)]
        struct Page {
            jobs: Vec<JobAnswer>,
        }
        let mut found = Vec::new();
        for number in 1..=super::MAX_PAGES {
            let query = [("filter", "latest"), ("per_page", PAGE), ("page", &number.to_string())];
            let answer = self
                .github
                .call(Method::GET, &format!("{}/jobs", self.runs), &query, None, &self.retry)
                .await?;
            if answer.status != StatusCode::OK {
                return Err(refusal::of(&answer, &self.github.scope, refusal::Permission::Runs));
            }
            let more = answer.header("link").is_some_and(|link| link.contains("rel=\"next\""));
            found.extend(answer.json::<Page>()?.jobs);
            if !more {
                break;
            }
        }
        Ok(found)
    }

    async fn post(&self, path: &str, retry: &Retry) -> Result<Answer> {
        self.github.call(Method::POST, path, &[], None, retry).await
    }
}

/// Why a run must be left alone.
fn guard(run: &Run, job: &Job, max_attempts: u32) -> Option<Declined> {
    if run.run_attempt > job.attempt {
        Some(Declined::AlreadyRerun)
    } else if run.run_attempt >= max_attempts {
        Some(Declined::AttemptsUsedUp(run.run_attempt))
    } else {
        None
    }
}

/// The one that started last; times are RFC 3339 in UTC, so their order is that of their text.
fn latest<'a>(jobs: impl Iterator<Item = &'a JobAnswer>) -> Option<&'a JobAnswer> {
    jobs.max_by(|a, b| a.started_at.cmp(&b.started_at))
}
