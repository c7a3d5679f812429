//! Running an interrupted job again. The rules: <https://docs.gitlab.com/api/jobs/#retry-a-job>
//!
//! GitLab runs single jobs again, and healthy ones of the same pipeline are left alone. It would run one again that ended well, and one that
//! was run again already: both are for us to refuse.

use anyhow::{Context as _, Result};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::GitLab;
use crate::forge::{Declined, Interrupted, Rerun, RerunOutcome, RerunScope, lost, pace};

/// The part of the budget after which our own job is cancelled; nobody else's ever is.
const OWN_PART: u32 = 4;

#[derive(Debug, Deserialize)]
struct Job {
    id: u64,
    name: String,
    status: String,
    #[serde(default)]
    pipeline: Option<Pipeline>,
}

#[derive(Debug, Deserialize)]
struct Pipeline {
    id: u64,
}

impl Job {
    /// Whether it has been run again: GitLab makes a new job of the same name.
    fn has_successor(&self, executions: &[Self]) -> bool {
        executions.iter().any(|other| other.name == self.name && other.id > self.id)
    }
}

pub async fn rerun(gitlab: &GitLab, request: &Rerun) -> Result<RerunOutcome> {
    timeout(request.budget, request_again(gitlab, request)).await.unwrap_or_else(|_| {
        Err(anyhow::anyhow!(
            "GitLab did not let the interrupted job run again within {} s",
            request.budget.as_secs()
        ))
    })
}

async fn request_again(gitlab: &GitLab, request: &Rerun) -> Result<RerunOutcome> {
    // Its runner tells the id of a job with its first word of it.
    let Interrupted::Known(job) = &request.job else {
        return Ok(RerunOutcome::Declined(Declined::Unknown));
    };
    let scope = gitlab.scope().await?;
    // What told us of the job may be forged: it must not lead our token to jobs that are none of ours.
    let (project, id) = (scope.project(&job.repository), job.run.parse::<u64>().ok());
    let (Some(project), Some(id)) = (project, id) else {
        anyhow::bail!("job `{}` of `{}` does not belong to the {scope}", job.run, job.repository);
    };
    let conversation = Conversation {
        gitlab,
        request,
        project,
        id,
    };
    conversation.hold().await.with_context(|| format!("running job {id} again"))
}

struct Conversation<'a> {
    gitlab: &'a GitLab,
    request: &'a Rerun,
    /// The path of the job's project.
    project: String,
    id: u64,
}

impl Conversation<'_> {
    async fn hold(&self) -> Result<RerunOutcome> {
        let job = match self.ended().await? {
            Ok(job) => job,
            Err(declined) => return Ok(RerunOutcome::Declined(declined)),
        };
        let pipeline = job.pipeline.as_ref().context("GitLab does not tell the job's pipeline")?.id;
        let executions = self.executions(pipeline).await?;
        if let Some(declined) = self.guard(&job, &executions) {
            return Ok(RerunOutcome::Declined(declined));
        }
        let launch = self.request.launch.as_ref().filter(|launch| launch.run == pipeline.to_string());
        let launch = launch.and_then(|launch| launch.runner.parse::<u64>().ok());
        let launch = executions.iter().find(|other| Some(other.id) == launch);
        let mut scope = RerunScope::FailedJobs;
        if let Some(launch) = launch {
            // Before ours, which would wait for a machine for ever if this one died in between. Once is enough.
            if !launch.has_successor(&executions) {
                self.again(launch, pipeline).await?;
            }
            scope = RerunScope::LaunchJob;
        }
        self.again(&job, pipeline).await?;
        Ok(RerunOutcome::Requested(scope))
    }

    /// Why the job must be left alone.
    fn guard(&self, job: &Job, executions: &[Job]) -> Option<Declined> {
        let count = executions.iter().filter(|other| other.name == job.name).count();
        let attempts = u32::try_from(count).unwrap_or(u32::MAX);
        if job.has_successor(executions) {
            Some(Declined::AlreadyRerun)
        } else if attempts >= self.request.max_attempts {
            Some(Declined::AttemptsUsedUp(attempts))
        } else {
            None
        }
    }

    /// Waits until the job has ended for GitLab, or until there is a reason to leave it alone. One whose runner died without a word is
    /// cancelled: else GitLab would take it for running for an hour more.
    async fn ended(&self) -> Result<Result<Job, Declined>> {
        let patience = self.request.patience.min(self.request.budget / OWN_PART);
        let began = Instant::now();
        let mut cancelled = false;
        let mut refusal = None;
        loop {
            let Some(job) = self.job().await? else {
                return Ok(Err(Declined::Unknown));
            };
            match job.status.as_str() {
                "success" => return Ok(Err(Declined::Succeeded)),
                // By a person, who does not want it any more.
                "canceled" | "canceling" if !cancelled => return Ok(Err(Declined::Cancelled)),
                // A runner that is gone cannot confirm it, and GitLab does not ask for that.
                "failed" | "canceled" | "canceling" => return Ok(Ok(job)),
                _ => {}
            }
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            if !cancelled && began.elapsed() >= patience {
                tracing::warn!("GitLab still takes the job for running: cancelling it, so that it can run again");
                let answer = self
                    .gitlab
                    .call(Method::POST, &format!("{}/jobs/{}/cancel", self.project, self.id))
                    .await?;
                // Asked more than once, the first time may have been taken.
                cancelled = answer.status.is_success() || answer.tries > 1;
                if !answer.status.is_success() {
                    // It may have ended just now.
                    refusal = Some(self.gitlab.refused(&answer));
                    continue;
                }
            }
            sleep(pace::interval(patience)).await;
        }
    }

    /// Asks once for sure: when the answer is lost, the pipeline tells whether it was taken.
    async fn again(&self, job: &Job, pipeline: u64) -> Result<()> {
        let path = format!("{}/jobs/{}/retry", self.project, job.id);
        for _ in 0..lost::TRIES {
            let request = self.gitlab.request(Method::POST, &path).await?;
            let answer = lost::send_once(request, &self.gitlab.api.retry).await?;
            if answer.as_ref().is_some_and(|answer| answer.status == StatusCode::CREATED) {
                return Ok(());
            }
            // Lost, or refused because somebody was faster.
            if job.has_successor(&self.executions(pipeline).await?) {
                return Ok(());
            }
            if let Some(answer) = answer {
                return Err(self.gitlab.refused(&answer));
            }
        }
        Err(lost::give_up())
    }

    async fn job(&self) -> Result<Option<Job>> {
        let answer = self.gitlab.call(Method::GET, &format!("{}/jobs/{}", self.project, self.id)).await?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.gitlab.refused(&answer)),
        }
    }

    /// Every execution of every job of the pipeline.
    async fn executions(&self, pipeline: u64) -> Result<Vec<Job>> {
        let path = format!("{}/pipelines/{pipeline}/jobs", self.project);
        self.gitlab.pages(&path, &[("include_retried", "true")]).await
    }
}
