//! Running again.

use super::GitHubState;
use crate::ci::{RunId, Status};

/// GitHub's own cap of attempts. Source: <https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs>
const MAX_ATTEMPTS: u32 = 50;

/// Which jobs are to run again.
pub enum Again {
    All,
    Failed,
    Job(u64),
}

impl GitHubState {
    /// Runs jobs again, as a new attempt; GitHub's words where it refuses.
    pub fn rerun(&mut self, id: RunId, again: &Again) -> Result<(), &'static str> {
        let run = self.runs.iter().find(|run| run.id == id).ok_or("Not Found")?;
        if !run.ended {
            return Err("This workflow is already running");
        }
        let keys: Vec<String> = match again {
            Again::All => run.jobs.iter().map(|job| job.spec.key.clone()).collect(),
            Again::Failed => {
                let failed = run
                    .jobs
                    .iter()
                    .filter(|job| matches!(job.status, Status::Ended("failure" | "cancelled")));
                run.with_dependents(failed.map(|job| job.spec.key.clone()).collect())
            }
            Again::Job(id) => {
                if run.past.iter().any(|job| job.id == *id) {
                    return Err("Only jobs from the current attempt can be re-run");
                }
                let job = run.jobs.iter().filter(|job| job.id == *id);
                run.with_dependents(job.map(|job| job.spec.key.clone()).collect())
            }
        };
        if keys.is_empty() || run.attempt >= MAX_ATTEMPTS {
            return Err("This workflow run cannot be retried");
        }
        self.repeat(id, &keys, |run, _| run.attempt + 1);
        Ok(())
    }
}
