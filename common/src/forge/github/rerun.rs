//! Running an interrupted job again. The rules: <https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs>
//!
//! GitHub re-runs jobs of completed runs only, so the agent waits for the run to end, and past its patience cancels what is left of it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::GitHub;
use super::find::{self, Wanted};
use super::refusal::{self, Permission};
use crate::forge::{Declined, Interrupted, Rerun, RerunOutcome, RerunScope, lost, pace};
use crate::http::{Answer, Retry};

/// How GitHub writes that a job or a run ended well.
const SUCCESS: &str = "success";

#[derive(Deserialize)]
struct Run {
    status: String,
    conclusion: Option<String>,
    #[serde(rename = "run_attempt")]
    attempt: u32,
}

#[derive(Deserialize)]
struct JobAnswer {
    id: u64,
    conclusion: Option<String>,
    runner_name: Option<String>,
    started_at: Option<String>,
}

impl JobAnswer {
    fn ran_on(&self, runner: &str) -> bool {
        self.runner_name.as_deref() == Some(runner)
    }
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
    timeout(request.budget, request_again(github, request)).await.unwrap_or_else(|_| {
        Err(anyhow::anyhow!(
            "GitHub did not let the interrupted job run again within {} s",
            request.budget.as_secs()
        ))
    })
}

async fn request_again(github: &GitHub, request: &Rerun) -> Result<RerunOutcome> {
    let retry = github.api.retry.within(request.budget);
    let (actions, run, attempt) = match &request.job {
        // Job code can reach what tells us of jobs: it must not lead our token to runs that are none of ours.
        Interrupted::Known(job) => {
            let known = github.scope.repository(&job.repository).filter(|_| job.run.parse::<u64>().is_ok());
            let known = known.with_context(|| format!("run `{}` of `{}` does not belong to the {}", job.run, job.repository, github.scope));
            (known? + "/actions", job.run.clone(), job.attempt)
        }
        Interrupted::Begun { name, age } => {
            let repository = github.scope.own_repository().with_context(|| {
                format!(
                    "the job had not told yet which one it is, and GitHub lists no runs of the whole {}",
                    github.scope
                )
            });
            let actions = repository? + "/actions";
            let wanted = Wanted {
                runner: &request.runner,
                name: name.as_deref(),
                age: *age,
            };
            match found(github, &actions, &wanted, request.patience, &retry).await? {
                Some((run, attempt)) => (actions, run, attempt),
                None => return Ok(RerunOutcome::Declined(Declined::Unknown)),
            }
        }
    };
    let conversation = Conversation {
        github,
        request,
        retry,
        run: format!("{actions}/runs/{run}"),
        actions,
        id: run,
        attempt,
    };
    conversation
        .hold()
        .await
        .with_context(|| format!("running workflow run {} again", conversation.id))
}

/// Looks until GitHub tells of the job, or the patience ends.
async fn found(github: &GitHub, actions: &str, wanted: &Wanted<'_>, patience: Duration, retry: &Retry) -> Result<Option<(String, u32)>> {
    let began = Instant::now();
    loop {
        let age = wanted.age + began.elapsed();
        let found = find::find(github, actions, &Wanted { age, ..*wanted }, retry).await;
        let found = found.context("finding the interrupted job")?;
        if found.is_some() || began.elapsed() >= patience {
            return Ok(found);
        }
        sleep(pace::interval(patience)).await;
    }
}

struct Conversation<'a> {
    github: &'a GitHub,
    request: &'a Rerun,
    retry: Retry,
    /// The path of everything about workflows in the job's repository.
    actions: String,
    /// The path of the run.
    run: String,
    /// Its id.
    id: String,
    /// The attempt that was interrupted.
    attempt: u32,
}

impl Conversation<'_> {
    async fn hold(&self) -> Result<RerunOutcome> {
        let mut began = Instant::now();
        loop {
            let run = match self.completed(began).await? {
                Ok(run) => run,
                Err(declined) => return Ok(RerunOutcome::Declined(declined)),
            };
            let jobs = self.jobs().await?;
            if self.succeeded(&run, &jobs) {
                return Ok(RerunOutcome::Declined(Declined::Succeeded));
            }
            if let Some(scope) = self.request_any(&jobs).await? {
                return Ok(RerunOutcome::Requested(scope));
            }
            // It runs, though it had ended a moment ago: the two halves of GitHub do not agree yet, or somebody else was faster.
            sleep(pace::interval(self.request.patience)).await;
            began = Instant::now();
        }
    }

    /// Waits until the run has ended, or until there is a reason to leave it alone.
    async fn completed(&self, began: Instant) -> Result<Result<Run, Declined>> {
        let patience = self.request.patience;
        let mut cancels = [(patience, "cancel"), (patience * 2, "force-cancel")].into_iter().peekable();
        loop {
            let Some(run) = self.run().await? else {
                return Ok(Err(Declined::Unknown));
            };
            if let Some(declined) = guard(&run, self.attempt, self.request.max_attempts) {
                return Ok(Err(declined));
            }
            // An earlier attempt than ours is an answer out of date.
            if run.status == "completed" && run.attempt == self.attempt {
                return Ok(Ok(run));
            }
            if let Some((_, verb)) = cancels.next_if(|(after, _)| began.elapsed() >= *after) {
                // Healthy jobs die with it, so only when ours cannot run again otherwise.
                if self.succeeded(&run, &self.jobs().await?) {
                    return Ok(Err(Declined::Succeeded));
                }
                tracing::warn!("the run does not end by itself: `{verb}`, so that the interrupted job can run again");
                self.cancel(verb).await?;
            }
            sleep(pace::interval(patience)).await;
        }
    }

    async fn cancel(&self, verb: &str) -> Result<()> {
        let answer = self
            .github
            .call(Method::POST, &format!("{}/{verb}", self.run), &[], None, &self.retry)
            .await?;
        match answer.status {
            // A conflict: it has ended meanwhile; the next look tells.
            StatusCode::ACCEPTED | StatusCode::CONFLICT => Ok(()),
            _ => Err(refusal::of(&answer, &self.github.scope, Permission::Runs)),
        }
    }

    /// Asks in the order that keeps most of what was done, and always makes a machine.
    async fn request_any(&self, jobs: &[JobAnswer]) -> Result<Option<RerunScope>> {
        let launch = self.request.launch.as_ref().filter(|launch| launch.run == self.id);
        let whole = (RerunScope::WholeRun, format!("{}/rerun", self.run));
        // Were only the failed jobs run, nobody would launch a machine for them: they would wait for ever.
        let ways = match launch.map(|launch| launch_job(jobs, &launch.runner)) {
            Some(Some(job)) => vec![(RerunScope::LaunchJob, format!("{}/jobs/{}/rerun", self.actions, job.id)), whole],
            Some(None) => vec![whole],
            // Refused at times for a run whose jobs were cancelled rather than failed.
            None => vec![(RerunScope::FailedJobs, format!("{}/rerun-failed-jobs", self.run)), whole],
        };
        let mut refused = None;
        for (scope, path) in ways {
            match self.ask(&path).await? {
                Asked::Taken => return Ok(Some(scope)),
                Asked::Running => return Ok(None),
                Asked::Refused(answer) => {
                    tracing::info!("GitHub does not take {scope:?}: {}", refusal::message(&answer));
                    refused = Some(answer);
                }
            }
        }
        refused.map_or(Ok(None), |answer| Err(refusal::of(&answer, &self.github.scope, Permission::Runs)))
    }

    /// Asks once for sure: when the answer is lost, the run's attempt tells whether it was taken.
    async fn ask(&self, path: &str) -> Result<Asked> {
        for _ in 0..lost::TRIES {
            let request = self.github.request(Method::POST, path);
            let Some(answer) = lost::send_once(request, &self.retry).await? else {
                if self.run().await?.is_some_and(|run| run.attempt > self.attempt) {
                    return Ok(Asked::Taken);
                }
                continue;
            };
            let running = answer.status == StatusCode::FORBIDDEN && refusal::message(&answer).contains("already running");
            return Ok(match answer.status {
                StatusCode::CREATED => Asked::Taken,
                _ if running => Asked::Running,
                _ => Asked::Refused(answer),
            });
        }
        Err(lost::give_up())
    }

    /// Whether our job, the last that our runner had in this run, ended well after all; where GitHub names no job of ours, the run tells.
    fn succeeded(&self, run: &Run, jobs: &[JobAnswer]) -> bool {
        let ours = jobs.iter().filter(|job| job.ran_on(&self.request.runner));
        // Times are RFC 3339 in UTC, so their order is that of their text.
        let last = ours.max_by(|a, b| a.started_at.cmp(&b.started_at));
        let conclusion = last.map_or(&run.conclusion, |job| &job.conclusion);
        conclusion.as_deref() == Some(SUCCESS)
    }

    async fn run(&self) -> Result<Option<Run>> {
        let answer = self.github.call(Method::GET, &self.run, &[], None, &self.retry).await?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal::of(&answer, &self.github.scope, Permission::Runs)),
        }
    }

    /// The latest execution of every job, those of earlier attempts included: the launch job may have run in one.
    async fn jobs(&self) -> Result<Vec<JobAnswer>> {
        #[derive(Deserialize)]
        struct Page {
            jobs: Vec<JobAnswer>,
        }
        let path = format!("{}/jobs", self.run);
        let pages: Vec<Page> = self
            .github
            .pages(&path, &[("filter", "latest")], &self.retry, Permission::Runs)
            .await?;
        Ok(pages.into_iter().flat_map(|page| page.jobs).collect())
    }
}

/// Why a run must be left alone.
fn guard(run: &Run, attempt: u32, max_attempts: u32) -> Option<Declined> {
    if run.attempt > attempt {
        Some(Declined::AlreadyRerun)
    } else if run.attempt >= max_attempts {
        Some(Declined::AttemptsUsedUp(run.attempt))
    } else {
        None
    }
}

/// The job that launched the machine: the one that ended well on that runner. Several of them leave open which it was (runners of our
/// own, and GitHub's too, take more than one job), and running the wrong one again would launch nothing.
fn launch_job<'a>(jobs: &'a [JobAnswer], runner: &str) -> Option<&'a JobAnswer> {
    let mut found = jobs
        .iter()
        .filter(|job| job.ran_on(runner) && job.conclusion.as_deref() == Some(SUCCESS));
    found.next().filter(|_| found.next().is_none())
}
