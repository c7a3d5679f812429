//! Running again, and cancelling.

use std::time::SystemTime;

use super::forge::Rules;
use super::run::{JobSpec, RunId};
use super::state::{Job, Run, State, Status};

impl<F: Rules> State<F> {
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

    /// Executes jobs of a run again, each in the attempt that `attempt` says.
    pub fn repeat(&mut self, id: RunId, keys: &[String], attempt: impl Fn(&Run, &Job) -> u32) {
        let Some(run) = self.runs.iter().find(|run| run.id == id) else {
            return;
        };
        let name = run.workflow.name.clone();
        let specs: Vec<(usize, u32, JobSpec)> = run
            .jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| keys.contains(&job.spec.key))
            .map(|(at, job)| (at, attempt(run, job), job.spec.clone()))
            .collect();
        let latest = specs.iter().map(|(_, attempt, _)| *attempt).chain([run.attempt]).max().unwrap_or(1);
        let fresh: Vec<(usize, Job)> = specs
            .into_iter()
            .map(|(at, attempt, spec)| (at, self.fresh_job(spec, attempt)))
            .collect();
        self.tell(
            "run-rerun",
            format!("{name} {}", keys.join(",")),
            format!("run {} attempt {latest}", id.0),
        );
        if let Some(run) = self.runs.iter_mut().find(|run| run.id == id) {
            run.attempt = latest;
            run.ended = false;
            run.started = SystemTime::now();
            for (at, job) in fresh {
                let past = std::mem::replace(&mut run.jobs[at], job);
                run.past.push(past);
            }
        }
    }
}

impl Run {
    /// The keys of these jobs and of all that need them.
    pub fn with_dependents(&self, mut keys: Vec<String>) -> Vec<String> {
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
