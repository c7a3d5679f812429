//! What Bitbucket keeps of runners, and the rules by which it gives steps to them.

use std::time::{Duration, SystemTime};

use super::{BitbucketState, Own};
use crate::ci::{Job, JobSpec, Registration, Rules};

/// A runner that was heard of within this time is online, on Bitbucket for some minutes.
const ONLINE: Duration = Duration::from_secs(2);

/// What Bitbucket keeps of a runner.
pub struct Kept {
    pub cordoned: bool,
    pub created: SystemTime,
}

/// The labels that a step asks for. `self-hosted`, which scenarios of every forge give, is GitHub's own word.
fn labels(job: &JobSpec) -> impl Iterator<Item = &String> {
    job.labels.iter().filter(|label| *label != "self-hosted")
}

/// Whether a runner has every label that a step asks for.
fn fits(runner: &Registration<Kept>, job: &JobSpec) -> bool {
    labels(job).all(|label| runner.labels.contains(label)) && !runner.own.cordoned
}

impl Rules for Own {
    type Runner = Kept;
    type Book = ();

    fn takes(runner: &Registration<Kept>, job: &JobSpec) -> bool {
        fits(runner, job) && runner.jobs.is_empty()
    }

    fn is_there(runner: &Registration<Kept>) -> bool {
        runner.is_heard(ONLINE)
    }

    fn on_silence(state: &mut BitbucketState, job: u64) {
        state.complete(job, "failure");
    }

    fn on_timeout(job: &mut Job) {
        job.cancel = true;
    }
}

impl BitbucketState {
    /// A step fails at once when no runner for it is online, however soon one would be.
    pub fn fail_without_runner(&mut self) {
        let waits = |job: &&Job| job.is_queued() && !job.spec.is_hosted();
        let has_runner = |job: &&Job| self.runners.iter().any(|runner| runner.online && fits(runner, &job.spec));
        let all = self.runs.iter().flat_map(|run| &run.jobs);
        let lost: Vec<u64> = all.filter(waits).filter(|job| !has_runner(job)).map(|job| job.id).collect();
        for id in lost {
            self.complete(id, "failure");
        }
    }
}
