//! The registered runners: who they are, whether they are there, and what happens when they fall silent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::run::{Order, RunnerView};
use super::state::{Job, State, Status};

/// A runner without a word for this long is offline.
const OFFLINE: Duration = Duration::from_secs(1);

/// What a token given out by the REST API is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Register,
    Remove,
}

/// A registered runner.
pub struct Registration {
    pub id: u64,
    pub name: String,
    pub labels: Vec<String>,
    pub ephemeral: bool,
    pub secret: String,
    /// The version that its program told when it connected.
    pub version: Option<String>,
    /// Open long polls.
    pub polls: usize,
    pub seen: Option<Instant>,
    pub online: bool,
    pub job: Option<u64>,
    /// What it is told to do besides jobs.
    pub orders: VecDeque<Order>,
}

impl Registration {
    /// Whether it carries every label that a job asks for; GitHub compares without case.
    fn fits(&self, labels: &[String]) -> bool {
        let has = |label: &String| self.labels.iter().any(|own| own.eq_ignore_ascii_case(label));
        labels.iter().all(has)
    }
}

impl State {
    /// Gives out a token.
    pub fn give_token(&mut self, purpose: Purpose) -> String {
        let token = format!("AREG{:026}", self.fresh_id());
        self.tokens.push((token.clone(), purpose));
        token
    }

    /// Whether a token was given out for this.
    pub fn takes(&self, token: &str, purpose: Purpose) -> bool {
        self.tokens.iter().any(|(known, good_for)| known == token && *good_for == purpose)
    }

    /// Registers a runner; nothing when its name is taken.
    pub fn register(&mut self, name: &str, labels: Vec<String>, ephemeral: bool) -> Option<(u64, String)> {
        if self.runners.iter().any(|runner| runner.name == name) {
            return None;
        }
        let id = self.fresh_id();
        let secret = format!("session-{id}-{}", std::process::id());
        self.tell("runner-registered", name, labels.join(","));
        self.runners.push(Registration {
            id,
            name: name.into(),
            labels,
            ephemeral,
            secret: secret.clone(),
            version: None,
            polls: 0,
            seen: None,
            online: false,
            job: None,
            orders: VecDeque::new(),
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

    pub fn runner(&mut self, id: u64) -> Option<&mut Registration> {
        self.runners.iter_mut().find(|runner| runner.id == id)
    }

    /// Removes a registration: whether there was one.
    pub fn remove_runner(&mut self, id: u64) -> bool {
        let Some(at) = self.runners.iter().position(|runner| runner.id == id) else {
            return false;
        };
        let gone = self.runners.remove(at);
        self.tell("runner-removed", gone.name, "");
        true
    }

    /// Makes a runner's session as good as ended.
    pub fn leave(&mut self, id: u64) {
        if let Some(runner) = self.runner(id) {
            runner.seen = None;
            runner.polls = 0;
        }
        self.look_for_silent();
    }

    /// The first job that waits for a runner like this one.
    pub fn job_for(&self, runner: u64) -> Option<u64> {
        let runner = self.runners.iter().find(|one| one.id == runner && one.job.is_none())?;
        let fits = |job: &&Job| job.is_queued() && !job.spec.is_hosted() && runner.fits(&job.spec.labels);
        self.runs.iter().flat_map(|run| &run.jobs).find(fits).map(|job| job.id)
    }

    /// What happens by itself: runners fall silent, locks end, jobs take too long.
    pub fn tick(&mut self) {
        self.look_for_silent();
        let now = Instant::now();
        let running = |job: &&mut Job| job.status == Status::Running;
        for job in self.runs.iter_mut().flat_map(|run| &mut run.jobs).filter(running) {
            job.cancel |= job.spec.timeout.is_some_and(|timeout| now.duration_since(job.began) > timeout);
        }
        let lock_expiry = self.lock_expiry;
        let expired = |job: &&Job| job.status == Status::Running && !job.spec.is_hosted() && now.duration_since(job.renewed) > lock_expiry;
        let expired = self.runs.iter().flat_map(|run| &run.jobs).filter(expired);
        let expired: Vec<(u64, bool)> = expired.map(|job| (job.id, job.acquired)).collect();
        for (id, acquired) in expired {
            if acquired {
                self.complete(id, "failure");
            } else {
                self.queue_again(id);
            }
        }
    }

    fn look_for_silent(&mut self) {
        let now = Instant::now();
        let mut told = Vec::new();
        for runner in &mut self.runners {
            let there = runner.polls > 0 || runner.seen.is_some_and(|seen| now.duration_since(seen) < OFFLINE);
            if runner.online && !there {
                runner.online = false;
                told.push(("runner-offline", runner.name.clone(), String::new()));
            }
        }
        self.happened.extend(told);
    }

    pub fn runner_views(&self) -> Vec<RunnerView> {
        let view = |runner: &Registration| RunnerView {
            id: runner.id,
            name: runner.name.clone(),
            labels: runner.labels.clone(),
            online: runner.online,
            busy: runner.job.is_some(),
            ephemeral: runner.ephemeral,
        };
        self.runners.iter().map(view).collect()
    }
}
