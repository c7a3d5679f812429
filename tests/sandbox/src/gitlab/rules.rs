//! What GitLab keeps of runners and jobs, and the rules by which it gives one to the other.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::trace::Trace;
use super::{GitLabState, Own};
use crate::ci::{Job, JobSpec, Registration, Rules};

/// A runner that was heard of within this time is online. Source: `Ci::Runner::ONLINE_CONTACT_TIMEOUT`.
const ONLINE: Duration = Duration::from_hours(2);

/// Whom a runner serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Instance,
    Group(u64),
    Project,
}

impl Scope {
    /// GitLab's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance_type",
            Self::Group(_) => "group_type",
            Self::Project => "project_type",
        }
    }

    /// The number in a runner's token.
    pub const fn number(self) -> u8 {
        match self {
            Self::Instance => 1,
            Self::Group(_) => 2,
            Self::Project => 3,
        }
    }
}

/// What GitLab keeps of a runner; its description is its name, and its tags are its labels.
pub struct Kept {
    pub scope: Scope,
    pub paused: bool,
    pub locked: bool,
    pub run_untagged: bool,
    pub maximum_timeout: Option<u64>,
    pub access_level: String,
    pub note: String,
    pub created: SystemTime,
    /// What its program said of itself.
    pub info: BTreeMap<String, String>,
    /// Its program learns of a cancellation, and says when it is done with it.
    pub cancels_gracefully: bool,
}

/// What else it remembers.
#[derive(Default)]
pub struct Book {
    /// The logs of jobs, by the job's id.
    pub traces: BTreeMap<u64, Trace>,
}

/// The tags that a job asks for. `self-hosted`, which scenarios of every forge give, is GitHub's own word.
pub fn tags(job: &JobSpec) -> Vec<&str> {
    job.labels
        .iter()
        .map(String::as_str)
        .filter(|label| *label != "self-hosted")
        .collect()
}

impl Rules for Own {
    type Runner = Kept;
    type Book = Book;

    fn takes(runner: &Registration<Kept>, job: &JobSpec) -> bool {
        let tags = tags(job);
        let fits = if tags.is_empty() {
            runner.own.run_untagged
        } else {
            tags.iter().all(|tag| runner.labels.iter().any(|own| own == tag))
        };
        fits && !runner.own.paused
    }

    fn is_there(runner: &Registration<Kept>) -> bool {
        runner.is_heard(ONLINE)
    }

    fn on_silence(state: &mut GitLabState, job: u64) {
        state.fail(job, "stuck_or_timeout_failure");
    }

    /// The runner sees to it, but on a machine of GitLab's own that is us.
    fn on_timeout(job: &mut Job) {
        job.cancel |= job.spec.is_hosted();
    }
}

impl GitLabState {
    /// Fails a job, for this reason; one that is being cancelled is canceled instead.
    pub fn fail(&mut self, id: u64, reason: &str) {
        if let Some(job) = self.job(id).filter(|job| job.status.conclusion().is_none() && !job.cancel) {
            job.reason = Some(reason.into());
        }
        self.complete(id, "failure");
    }

    /// The id of the runner with this token.
    pub fn runner_with(&self, token: &str) -> Option<u64> {
        self.runners.iter().find(|runner| runner.secret == token).map(|runner| runner.id)
    }
}

/// GitLab's name for where a job is.
pub fn status(job: &Job) -> &'static str {
    match job.status.conclusion() {
        Some("success") => "success",
        Some("failure") => "failed",
        Some("cancelled") => "canceled",
        Some(_) => "skipped",
        None if job.is_queued() => "pending",
        None if job.started.is_none() => "created",
        None if job.cancel => "canceling",
        None => "running",
    }
}
