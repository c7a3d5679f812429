//! What GitHub keeps of runners, and the rules by which it gives them jobs and takes them back.

use std::collections::VecDeque;
use std::time::Duration;

use super::order::Order;
use super::{GitHubState, Own};
use crate::ci::{Job, JobSpec, Registration, Rules};

/// A runner without a word for this long is offline.
const OFFLINE: Duration = Duration::from_secs(1);

/// What a token given out by the REST API is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Register,
    Remove,
}

/// What only GitHub remembers.
#[derive(Default)]
pub struct Book {
    /// Runners whose registration is gone, which are not told so.
    pub ghosts: Vec<u64>,
    /// Registration tokens and remove tokens that were given out.
    tokens: Vec<(String, Purpose)>,
}

/// What a runner is told to do besides jobs.
pub type Orders = VecDeque<Order>;

impl Rules for Own {
    type Runner = Orders;
    type Book = Book;

    /// Whether it is free, and carries every label that the job asks for; GitHub compares without case.
    fn takes(runner: &Registration<Orders>, job: &JobSpec) -> bool {
        let has = |label: &String| runner.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
        runner.jobs.is_empty() && job.labels.iter().all(has)
    }

    fn is_there(runner: &Registration<Orders>) -> bool {
        runner.is_heard(OFFLINE)
    }

    /// It fails; one that no runner has taken up is queued again.
    fn on_silence(state: &mut GitHubState, job: u64) {
        if state.job(job).is_some_and(|job| job.acquired) {
            state.complete(job, "failure");
        } else {
            state.queue_again(job);
        }
    }

    fn on_timeout(job: &mut Job) {
        job.cancel = true;
    }
}

impl GitHubState {
    /// Gives out a token.
    pub fn give_token(&mut self, purpose: Purpose) -> String {
        let token = format!("AREG{:026}", self.fresh_id());
        self.book.tokens.push((token.clone(), purpose));
        token
    }

    /// Whether a token was given out for this.
    pub fn takes(&self, token: &str, purpose: Purpose) -> bool {
        self.book
            .tokens
            .iter()
            .any(|(known, good_for)| known == token && *good_for == purpose)
    }

    /// Registers a runner; nothing when its name is taken.
    pub fn register(&mut self, name: &str, labels: Vec<String>, ephemeral: bool) -> Option<(u64, String)> {
        if self.runners.iter().any(|runner| runner.name == name) {
            return None;
        }
        let id = self.fresh_id();
        let secret = format!("session-{id}-{}", std::process::id());
        self.add_runner(Registration {
            ephemeral,
            ..Registration::new(id, name, labels, secret.clone(), Orders::new())
        });
        Some((id, secret))
    }

    /// Gives the registration of this name another owner, as `--replace` does; nothing when there is none.
    pub fn replace(&mut self, name: &str, labels: Vec<String>, ephemeral: bool) -> Option<(u64, String)> {
        let fresh = self.fresh_id();
        let runner = self.runners.iter_mut().find(|runner| runner.name == name)?;
        runner.secret = format!("session-{fresh}-{}", std::process::id());
        runner.labels = labels;
        runner.ephemeral = ephemeral;
        Some((runner.id, runner.secret.clone()))
    }
}
