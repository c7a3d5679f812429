//! Running again, and cancelling.

use super::GitLabState;
use super::rules::status;
use crate::ci::{Run, RunId, Status};

/// What GitLab lets run again: also a job that succeeded, and one whose runner has not confirmed yet that it is cancelled. Source:
/// `app/models/ci/processable.rb`.
const RETRYABLE: [&str; 4] = ["success", "failed", "canceled", "canceling"];

impl GitLabState {
    /// Executes a job again; the new execution's id. Nothing when that is not allowed.
    pub fn retry_job(&mut self, id: u64) -> Option<u64> {
        let run = self.runs.iter().find(|run| run.jobs.iter().any(|job| job.id == id))?;
        let job = run.jobs.iter().find(|job| job.id == id && RETRYABLE.contains(&status(job)))?;
        let (run, key) = (run.id, job.spec.key.clone());
        self.retry(run, std::slice::from_ref(&key));
        let run = self.runs.iter().find(|one| one.id == run)?;
        run.jobs.iter().find(|job| job.spec.key == key).map(|job| job.id)
    }

    /// Executes the failed and canceled jobs of a pipeline again.
    pub fn retry_pipeline(&mut self, id: RunId) {
        let Some(run) = self.runs.iter().find(|run| run.id == id) else {
            return;
        };
        let lost = run.jobs.iter().filter(|job| matches!(status(job), "failed" | "canceled"));
        let keys: Vec<String> = lost.map(|job| job.spec.key.clone()).collect();
        if !keys.is_empty() {
            self.retry(id, &keys);
        }
    }

    /// What was skipped for the sake of these jobs waits for them again, in the same execution.
    fn retry(&mut self, id: RunId, keys: &[String]) {
        self.repeat(id, keys, |_, job| job.attempt + 1);
        let Some(run) = self.runs.iter_mut().find(|run| run.id == id) else {
            return;
        };
        let followers = run.with_dependents(keys.to_vec());
        let skipped = |job: &&mut crate::ci::Job| job.status == Status::Ended("skipped");
        for job in run.jobs.iter_mut().filter(skipped) {
            if followers.contains(&job.spec.key) {
                job.unskip();
            }
        }
    }

    /// Cancels jobs. One that runs goes on until its runner knows, unless that cannot be told or is not waited for.
    pub fn cancel_jobs(&mut self, ids: &[u64], force: bool) {
        for id in ids {
            let Some(job) = self.job(*id).filter(|job| job.status.conclusion().is_none()) else {
                continue;
            };
            job.cancel = true;
            let (waits, hosted) = (job.status == Status::Waiting, job.spec.is_hosted());
            let runner = job.runner.as_ref().map(|(runner, _)| *runner);
            let runner = runner.and_then(|runner| self.runner(runner));
            let knows = hosted || runner.is_some_and(|runner| runner.own.cancels_gracefully);
            if waits || force || !knows {
                self.complete(*id, "cancelled");
            }
        }
    }

    /// The pipeline that a job, or an earlier execution of one, is in.
    pub fn pipeline_of(&self, job: u64) -> Option<&Run> {
        self.runs
            .iter()
            .find(|run| run.past.iter().chain(&run.jobs).any(|one| one.id == job))
    }
}
