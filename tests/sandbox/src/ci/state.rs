//! Runs, attempts and jobs: the state machine of every forge, under one lock.

use std::time::{Duration, Instant, SystemTime};

use super::forge::{Forge, Rules};
use super::run::{JobSpec, JobView, Message, RunId, RunView, Workflow};
use super::runners::Registration;

/// Everything that a forge remembers.
pub struct State<F: Rules> {
    pub runners: Vec<Registration<F::Runner>>,
    pub runs: Vec<Run>,
    /// What only this forge remembers.
    pub book: F::Book,
    /// What happened since the state was last looked at: kind, subject, detail.
    pub happened: Vec<(&'static str, String, String)>,
    /// After this time without a word of its runner something is done about a job.
    pub lock_expiry: Duration,
    next_id: u64,
}

/// A run.
pub struct Run {
    pub id: RunId,
    pub workflow: Workflow,
    pub attempt: u32,
    pub created: SystemTime,
    /// When the latest attempt began.
    pub started: SystemTime,
    /// The latest execution of each job.
    pub jobs: Vec<Job>,
    /// Earlier executions.
    pub past: Vec<Job>,
    pub ended: bool,
}

/// One execution of a job.
#[derive(Clone)]
pub struct Job {
    pub id: u64,
    pub spec: JobSpec,
    pub attempt: u32,
    pub status: Status,
    pub runner: Option<(u64, String)>,
    pub created: SystemTime,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
    /// The last word of who executes it.
    pub renewed: Instant,
    /// When it was last given to somebody.
    pub began: Instant,
    /// Whether who it was given to has taken it up.
    pub acquired: bool,
    pub cancel: bool,
    /// Why it failed, in the forge's own word.
    pub reason: Option<String>,
    announced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Waiting,
    Running,
    Ended(&'static str),
}

impl Status {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "queued",
            Self::Running => "in_progress",
            Self::Ended(_) => "completed",
        }
    }

    pub const fn conclusion(self) -> Option<&'static str> {
        match self {
            Self::Ended(conclusion) => Some(conclusion),
            _ => None,
        }
    }
}

impl Job {
    /// Whether it waits for a runner.
    pub fn is_queued(&self) -> bool {
        self.announced && self.status == Status::Waiting
    }

    /// Makes a job that was skipped wait for its needs again.
    pub fn unskip(&mut self) {
        self.status = Status::Waiting;
        self.announced = false;
    }
}

impl Run {
    /// The executions of an attempt, in the order of the workflow file.
    pub fn executions(&self, attempt: u32) -> Vec<&Job> {
        self.past.iter().chain(&self.jobs).filter(|job| job.attempt == attempt).collect()
    }

    /// What the latest attempt came to.
    pub fn conclusion(&self) -> &'static str {
        conclusion(&self.jobs.iter().collect::<Vec<_>>())
    }

    pub fn status(&self) -> &'static str {
        match () {
            () if self.ended => "completed",
            () if self.jobs.iter().any(|job| job.status != Status::Waiting) => "in_progress",
            () => "queued",
        }
    }
}

impl<F: Rules> State<F> {
    pub fn new(lock_expiry: Duration) -> Self {
        Self {
            runners: Vec::new(),
            runs: Vec::new(),
            book: F::Book::default(),
            happened: Vec::new(),
            lock_expiry,
            next_id: 1000,
        }
    }

    pub fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn tell(&mut self, what: &'static str, subject: impl Into<String>, detail: impl Into<String>) {
        self.happened.push((what, subject.into(), detail.into()));
    }

    pub fn start_run(&mut self, workflow: Workflow) -> RunId {
        let id = RunId(self.fresh_id());
        self.tell("run-started", workflow.name.clone(), format!("run {} attempt 1", id.0));
        let specs = workflow.jobs.clone();
        let jobs = specs.into_iter().map(|spec| self.fresh_job(spec, 1)).collect();
        self.runs.push(Run {
            id,
            workflow,
            attempt: 1,
            created: SystemTime::now(),
            started: SystemTime::now(),
            jobs,
            past: Vec::new(),
            ended: false,
        });
        id
    }

    pub fn fresh_job(&mut self, spec: JobSpec, attempt: u32) -> Job {
        Job {
            id: self.fresh_id(),
            spec,
            attempt,
            status: Status::Waiting,
            runner: None,
            created: SystemTime::now(),
            started: None,
            completed: None,
            renewed: Instant::now(),
            began: Instant::now(),
            acquired: false,
            cancel: false,
            reason: None,
            announced: false,
        }
    }

    /// An execution; an earlier one may still have its end before it.
    pub fn job(&mut self, id: u64) -> Option<&mut Job> {
        let mut all = self.runs.iter_mut().flat_map(|run| run.jobs.iter_mut().chain(&mut run.past));
        all.find(|job| job.id == id)
    }

    /// Ends a job; one that has ended already stays as it is.
    pub fn complete(&mut self, id: u64, conclusion: &'static str) {
        let Some(job) = self.job(id) else { return };
        if job.status.conclusion().is_some() {
            return;
        }
        // A job that ends well before it learns of the cancellation has ended well.
        let conclusion = match conclusion {
            "failure" if job.cancel => "cancelled",
            other => other,
        };
        job.status = Status::Ended(conclusion);
        job.completed = Some(SystemTime::now());
        let (key, runner) = (job.spec.key.clone(), job.runner.clone());
        self.tell("job-completed", key, conclusion);
        if let Some(runner) = runner.and_then(|(id, _)| self.runner(id)) {
            runner.jobs.retain(|job| *job != id);
            let (id, ephemeral) = (runner.id, runner.ephemeral);
            if ephemeral {
                self.remove_runner(id);
            }
        }
    }

    /// Takes a job back from a runner that never took it up.
    pub fn queue_again(&mut self, id: u64) {
        let Some(job) = self.job(id) else { return };
        if job.cancel {
            self.complete(id, "cancelled");
            return;
        }
        job.status = Status::Waiting;
        job.started = None;
        let (key, runner) = (job.spec.key.clone(), job.runner.take());
        if let Some(runner) = runner.and_then(|(id, _)| self.runner(id)) {
            runner.jobs.retain(|job| *job != id);
        }
        self.tell("job-queued", key, "again");
    }

    /// The first job for a runner, which is assigned to it.
    pub fn assign(&mut self, runner: u64) -> Option<Message> {
        let id = self.job_for(runner)?;
        let registration = self.runner(runner)?;
        registration.jobs.push(id);
        let name = registration.name.clone();
        self.begin(id, runner, &name)
    }

    fn begin(&mut self, id: u64, runner: u64, name: &str) -> Option<Message> {
        let run = self.runs.iter_mut().find(|run| run.jobs.iter().any(|job| job.id == id))?;
        let (run_id, attempt, workflow) = (run.id.0, run.attempt, run.workflow.name.clone());
        let job = run.jobs.iter_mut().find(|job| job.id == id)?;
        job.status = Status::Running;
        job.started = Some(SystemTime::now());
        job.renewed = Instant::now();
        job.began = Instant::now();
        job.acquired = false;
        job.runner = Some((runner, name.into()));
        let message = Message {
            job: id,
            run: run_id,
            attempt,
            key: job.spec.key.clone(),
            name: job.spec.name.clone(),
            workflow,
            repository: String::new(),
            server: String::new(),
            script: job.spec.script.clone(),
            env: job.spec.env.clone(),
            runner: name.into(),
        };
        self.tell("job-started", message.key.clone(), format!("on {name}"));
        Some(message)
    }

    /// Queues what has become ready, skips what cannot, ends runs that are through.
    pub fn schedule(&mut self) {
        let mut told = Vec::new();
        for run in &mut self.runs {
            while let Some((at, ready)) = next_step(run) {
                let key = run.jobs[at].spec.key.clone();
                run.jobs[at].announced = true;
                if ready {
                    told.push(("job-queued", key, run.jobs[at].spec.labels.join(",")));
                } else {
                    run.jobs[at].status = Status::Ended("skipped");
                }
            }
            if !run.ended && run.jobs.iter().all(|job| job.status.conclusion().is_some()) {
                run.ended = true;
                told.push(("run-completed", run.workflow.name.clone(), run.conclusion().into()));
            }
        }
        self.happened.extend(told);
    }

    pub fn run_view(&self, id: RunId) -> Option<RunView> {
        let run = self.runs.iter().find(|run| run.id == id)?;
        let jobs = run.jobs.iter().map(|job| JobView {
            id: job.id,
            key: job.spec.key.clone(),
            name: job.spec.name.clone(),
            attempt: job.attempt,
            status: job.status.name().into(),
            conclusion: job.status.conclusion().map(str::to_owned),
            runner_name: job.runner.as_ref().map(|(_, name)| name.clone()),
            started: job.started,
        });
        Some(RunView {
            attempt: run.attempt,
            status: run.status().into(),
            conclusion: run.ended.then(|| run.conclusion().into()),
            jobs: jobs.collect(),
        })
    }
}

impl<F: Forge> State<F> {
    /// Starts the hosted jobs that wait; a machine of the forge's own is always free.
    pub fn start_hosted(&mut self) -> Vec<Message> {
        let waits = |job: &&Job| job.is_queued() && job.spec.is_hosted();
        let ids: Vec<u64> = self.runs.iter().flat_map(|run| &run.jobs).filter(waits).map(|job| job.id).collect();
        ids.into_iter().filter_map(|id| self.begin(id, 0, &F::machine(id))).collect()
    }
}

/// What executions come to together.
pub fn conclusion(jobs: &[&Job]) -> &'static str {
    let any = |what| jobs.iter().any(|job| job.status == Status::Ended(what));
    match () {
        () if any("failure") => "failure",
        () if any("cancelled") => "cancelled",
        () => "success",
    }
}

/// The next job of a run whose needs are decided: its place, and whether they succeeded.
fn next_step(run: &Run) -> Option<(usize, bool)> {
    let conclusion = |key: &String| {
        run.jobs
            .iter()
            .find(|job| job.spec.key == *key)
            .and_then(|job| job.status.conclusion())
    };
    run.jobs.iter().enumerate().find_map(|(at, job)| {
        if job.announced || job.status != Status::Waiting {
            return None;
        }
        let needs: Vec<_> = job.spec.needs.iter().map(conclusion).collect();
        if needs.iter().all(|need| *need == Some("success")) {
            Some((at, true))
        } else if needs.iter().any(|need| need.is_some_and(|need| need != "success")) {
            Some((at, false))
        } else {
            None
        }
    })
}
