//! Running again, and cancelling.

use std::time::SystemTime;

use super::run::{JobSpec, RunId};
use super::state::{Job, Run, State, Status};

/// GitHub's own cap of attempts. Source: <https://docs.github.com/en/actions/how-tos/manage-workflow-runs/re-run-workflows-and-jobs>
const MAX_ATTEMPTS: u32 = 50;

/// Which jobs are to run again.
pub enum Again {
    All,
    Failed,
    Job(u64),
}

impl State {
    /// Cancels a run: whether it still ran.
    pub fn cancel(&mut self, id: RunId, force: bool) -> bool {
        let Some(run) = self.runs.iter_mut().find(|run| run.id == id && !run.ended) else {
            return false;
        };
        for job in run.jobs.iter_mut().filter(|job| job.status.conclusion().is_none()) {
            job.cancel = true;
        }
        let now: Vec<u64> = run
            .jobs
            .iter()
            .filter(|job| force || job.status == Status::Waiting)
            .map(|job| job.id)
            .collect();
        for id in now {
            self.complete(id, "cancelled");
        }
        true
    }

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
        let (attempt, name) = (run.attempt + 1, run.workflow.name.clone());
        let specs: Vec<(usize, JobSpec)> = run
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| keys.contains(&job.spec.key))
            .map(|(at, job)| (at, job.spec.clone()))
            .collect();
        let fresh: Vec<(usize, Job)> = specs.into_iter().map(|(at, spec)| (at, self.fresh_job(spec, attempt))).collect();
        self.tell(
            "run-rerun",
            format!("{name} {}", keys.join(",")),
            format!("run {} attempt {attempt}", id.0),
        );
        if let Some(run) = self.runs.iter_mut().find(|run| run.id == id) {
            run.attempt = attempt;
            run.ended = false;
            run.started = SystemTime::now();
            for (at, job) in fresh {
                let past = std::mem::replace(&mut run.jobs[at], job);
                run.past.push(past);
            }
        }
        Ok(())
    }
}

impl Run {
    /// The keys of these jobs and of all that need them.
    fn with_dependents(&self, mut keys: Vec<String>) -> Vec<String> {
        loop {
            let more = self
                .jobs
                .iter()
                .find(|job| !keys.contains(&job.spec.key) && job.spec.needs.iter().any(|need| keys.contains(need)));
            match more {
                Some(job) => keys.push(job.spec.key.clone()),
                None => return keys,
            }
        }
    }
}
