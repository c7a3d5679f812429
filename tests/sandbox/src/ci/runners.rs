//! The registered runners: who they are, whether they are there, and what happens when they fall silent.

use std::time::{Duration, Instant};

use super::forge::Rules;
use super::run::RunnerView;
use super::state::{Job, State, Status};

/// A registered runner.
pub struct Registration<R> {
    pub id: u64,
    pub name: String,
    pub labels: Vec<String>,
    pub ephemeral: bool,
    /// What its program proves with that it is this runner.
    pub secret: String,
    /// The version that its program told.
    pub version: Option<String>,
    /// Open long polls.
    pub polls: usize,
    pub seen: Option<Instant>,
    pub online: bool,
    /// What it executes.
    pub jobs: Vec<u64>,
    /// What only this forge keeps of it.
    pub own: R,
}

impl<R> Registration<R> {
    /// One that has not been heard of yet.
    pub fn new(id: u64, name: &str, labels: Vec<String>, secret: String, own: R) -> Self {
        Self {
            id,
            name: name.into(),
            labels,
            ephemeral: false,
            secret,
            version: None,
            polls: 0,
            seen: None,
            online: false,
            jobs: Vec::new(),
            own,
        }
    }

    /// Whether it waits for work, or was heard of within this time.
    pub fn is_heard(&self, within: Duration) -> bool {
        self.polls > 0 || self.seen.is_some_and(|seen| seen.elapsed() < within)
    }
}

impl<F: Rules> State<F> {
    /// Adds a registration.
    pub fn add_runner(&mut self, runner: Registration<F::Runner>) {
        self.tell("runner-registered", runner.name.clone(), runner.labels.join(","));
        self.runners.push(runner);
    }

    pub fn runner(&mut self, id: u64) -> Option<&mut Registration<F::Runner>> {
        self.runners.iter_mut().find(|runner| runner.id == id)
    }

    /// Notes a word of a runner: whether it is registered. A poll that begins adds one, and takes it away when it ends.
    pub fn hear(&mut self, id: u64, polls: isize) -> bool {
        let Some(runner) = self.runner(id) else { return false };
        runner.seen = Some(Instant::now());
        runner.polls = runner.polls.saturating_add_signed(polls);
        if !std::mem::replace(&mut runner.online, true) {
            let name = runner.name.clone();
            self.tell("runner-online", name, "");
        }
        true
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
        let runner = self.runners.iter().find(|one| one.id == runner)?;
        let fits = |job: &&Job| job.is_queued() && !job.spec.is_hosted() && F::takes(runner, &job.spec);
        self.runs.iter().flat_map(|run| &run.jobs).find(fits).map(|job| job.id)
    }

    /// What happens by itself: runners fall silent, locks end, jobs take too long.
    pub fn tick(&mut self) {
        self.look_for_silent();
        let now = Instant::now();
        let running = |job: &&mut Job| job.status == Status::Running;
        for job in self
            .runs
            .iter_mut()
            .flat_map(|run| run.jobs.iter_mut().chain(&mut run.past))
            .filter(running)
        {
            if job.spec.timeout.is_some_and(|timeout| now.duration_since(job.began) > timeout) {
                F::on_timeout(job);
            }
        }
        let lock_expiry = self.lock_expiry;
        let silent = |job: &&Job| job.status == Status::Running && !job.spec.is_hosted() && now.duration_since(job.renewed) > lock_expiry;
        let silent = self
            .runs
            .iter()
            .flat_map(|run| run.jobs.iter().chain(&run.past))
            .filter(silent)
            .map(|job| job.id);
        for id in silent.collect::<Vec<_>>() {
            F::on_silence(self, id);
        }
    }

    fn look_for_silent(&mut self) {
        let mut told = Vec::new();
        for runner in &mut self.runners {
            if runner.online && !F::is_there(runner) {
                runner.online = false;
                told.push(("runner-offline", runner.name.clone(), String::new()));
            }
        }
        self.happened.extend(told);
    }

    pub fn runner_views(&self) -> Vec<RunnerView> {
        let view = |runner: &Registration<F::Runner>| RunnerView {
            id: runner.id,
            name: runner.name.clone(),
            labels: runner.labels.clone(),
            online: runner.online,
            busy: !runner.jobs.is_empty(),
            ephemeral: runner.ephemeral,
        };
        self.runners.iter().map(view).collect()
    }
}
