//! What Bitbucket keeps of runners, and the rules by which it gives steps to them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::answers::commit;
use super::{BitbucketState, Own};
use crate::ci::{Job, JobSpec, Registration, Rules, Run};

/// A runner that was heard of within this time is online, on Bitbucket for some minutes.
const ONLINE: Duration = Duration::from_secs(2);

/// What Bitbucket keeps of a runner.
pub struct Kept {
    pub cordoned: bool,
    pub created: SystemTime,
}

/// What else it remembers.
#[derive(Default)]
pub struct Book {
    /// Which pipeline each was first, of those that were started anew.
    pub first: BTreeMap<u64, u64>,
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
    type Book = Book;

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
    /// The first pipeline of the commit that one is of.
    pub fn first(&self, pipeline: u64) -> u64 {
        self.book.first.get(&pipeline).copied().unwrap_or(pipeline)
    }

    /// The pipelines of a commit, the newest last.
    pub fn of_commit(&self, hash: &str) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.iter().filter(move |run| commit(self.first(run.id.0)) == hash)
    }

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
