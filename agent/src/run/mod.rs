//! The loop: what happens becomes an event, what is decided becomes an effect. The only `select!` of the agent.

mod effect;
mod hooks;
mod report;
mod signals;

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use common::forge::{self, Forge};
use common::secret::Secret;
use common::spec::{Credential, RunnerSpec};
use jiff::Timestamp;
use signal_hook::consts::SIGHUP;
use tokio::time::sleep_until;

use crate::console::Console;
use crate::host::{self, Host, Will};
use crate::lifecycle::{self, Action, Event, Limits, State, Step, StopReason};
use crate::runner::{self, Containers, Exit, Hook, Line, Ready, Runner};
use crate::state::{self, Begun, Remains, StateDir};
use crate::supervise::{Child, Output};
use crate::user;
use effect::{Effect, Finished};
use hooks::Watch;
pub use report::Watchdog;
pub use signals::Signals;

/// One agent, from its start to its end.
pub struct Agent {
    spec: Arc<RunnerSpec>,
    limits: Limits,
    forge: Arc<dyn Forge>,
    runner: Arc<dyn Runner>,
    containers: Option<Containers>,
    host: Arc<dyn Host>,
    console: Console,
    dir: StateDir,
    began: Instant,
    state: State,
    remains: Remains,
    /// What the running action will give.
    effect: Option<Effect>,
    /// The single-use configuration, until it is used.
    jit: Option<Secret>,
    /// Whether there was one: then there is no token.
    single_use: bool,
    ready: Option<Ready>,
    /// The runner, from its start until it is stopped, even if it has ended.
    child: Option<Child>,
    /// How it ended.
    ended: Option<ExitStatus>,
    /// When the runner was online for the first time.
    online_at: Option<Instant>,
    /// When the step began, by the clock.
    since: Timestamp,
    /// The job that is to run again, until the forge has been asked to.
    pending: Option<String>,
}

/// What woke the loop.
enum Woken {
    Finished(Box<Finished>),
    Output(Output),
    Hook,
    Event(Event),
    Watchdog,
}

impl Agent {
    /// Builds the parts that the spec asks for; nothing is done yet.
    pub fn new(mut spec: RunnerSpec, dir: StateDir, console: Console, host: Arc<dyn Host>) -> Result<Self> {
        // The spec is kept, the secret in it is not.
        let held = std::mem::replace(&mut spec.credential, Credential::Token(Secret::default()));
        let (token, jit) = match held {
            Credential::Token(token) => (token, None),
            // It may do nothing but run one job; what needs a token is not asked for, or left to others.
            Credential::Jit(config) => (Secret::default(), Some(config)),
        };
        let forge: Arc<dyn Forge> = forge::open(spec.forge, &spec.repo, &token)?.into();
        let user = user::job_user(&spec).context("preparing the user that jobs run as")?;
        let containers = runner::containers(&spec, dir.path())?;
        let runner = runner::open(&spec, dir.path(), user, Arc::clone(&forge))?;
        let single_use = jit.is_some();
        let limits = Limits {
            idle: spec.options.idle_timeout,
            job: spec.options.job_time_limit,
            life: spec.options.max_lifetime,
            provisioning: spec.options.provisioning_timeout,
            check: spec.options.registration_check,
            single: spec.options.single || single_use,
            lingers: runner::lingers(spec.forge),
            save: spec.options.on_interrupt.is_some(),
            rerun: !spec.options.no_retry,
        };
        Ok(Self {
            console,
            forge,
            runner: runner.into(),
            containers,
            host,
            dir,
            began: Instant::now(),
            state: State::first(),
            remains: Remains::default(),
            effect: None,
            jit,
            single_use,
            ready: None,
            child: None,
            ended: None,
            online_at: None,
            since: Timestamp::now(),
            pending: None,
            limits,
            spec: Arc::new(spec),
        })
    }

    /// Lives until the end; returns the exit code.
    pub async fn run(mut self) -> Result<u8> {
        let mut signals = Signals::listen()?;
        let mut hooks = Watch::open(&self.dir.path().join("hooks"))?;
        let mut watchdog = Watchdog::from_environment();
        let host = Arc::clone(&self.host);
        let mut notice = host.next_interruption(false);
        self.begin();
        while self.state.step != Step::Done {
            let deadline = lifecycle::deadline(&self.state, &self.limits).and_then(|at| self.began.checked_add(at));
            // In no order: a runner or a job that never falls silent keeps nothing from being heard.
            let woken = tokio::select! {
                signal = signals.next() => Woken::Event(self.hear(signal).await),
                finished = effect::finish(&mut self.effect) => Woken::Finished(Box::new(finished)),
                output = next_output(&mut self.child), if self.ended.is_none() => Woken::Output(output),
                () = hooks.changed() => Woken::Hook,
                interruption = &mut notice => Woken::Event(Event::Notice(interruption)),
                () = watchdog.due() => Woken::Watchdog,
                () = sleep_until(deadline.unwrap_or(self.began).into()), if deadline.is_some() => Woken::Event(Event::Deadline),
            };
            if let Woken::Event(Event::Notice(interruption)) = &woken {
                // Advice may be followed by the notice itself; after that there is nothing more to hear.
                notice = if interruption.advice {
                    host.next_interruption(true)
                } else {
                    Box::pin(std::future::pending())
                };
            }
            self.wake(woken);
        }
        let reason = self.state.stop.as_ref();
        Ok(reason.map_or(0, StopReason::exit_code))
    }

    /// What a signal means here.
    async fn hear(&self, signal: i32) -> Event {
        if signal == SIGHUP {
            tracing::info!("told to drain: no more jobs are taken");
            return Event::Drain;
        }
        if self.spec.cloud.is_some() && matches!(self.state.step, Step::Provisioning | Step::Installing) && host::restarts().await {
            return Event::Reboot(signal);
        }
        host::notice(self.spec.cloud, signal).map_or(Event::Signal(signal), Event::Notice)
    }

    /// Starts the first action: of a new life, or of the end of one that was cut off.
    fn begin(&mut self) {
        // A word that was left before is not of a job of ours, or of the last one of the agent that was killed.
        let word = std::iter::from_fn(|| self.runner.read_hook()).last();
        let found = self.dir.remains();
        if found.as_ref().is_some_and(Remains::is_provisioned) {
            tracing::info!("the start-up script restarted this machine: going on after it");
            self.state = State::provisioned();
        } else if let Some(mut remains) = found {
            match (word, &mut remains.job) {
                (Some(Hook::Started(ids)), Some(job)) => job.ids = Some(ids),
                (Some(Hook::Started(ids)), None) => remains.job = Some(Begun::known(ids)),
                (Some(Hook::Completed), _) => remains.job = None,
                (None, _) => {}
            }
            tracing::error!("an agent was killed here: ending what it left");
            self.state = State::crashed(remains.job.as_ref().map(Begun::running));
            self.remains = remains;
        }
        if self.spec.cloud.is_some() {
            self.dir.keep_reserve();
        }
        // From now on, whoever starts after us knows that we were here.
        self.save();
        self.report_begin();
        self.perform(self.state.step.action());
    }

    fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::Event(event) => self.handle(event),
            Woken::Hook => self.read_hooks(),
            Woken::Watchdog => {}
            Woken::Output(Output::Line(line)) => self.read_line(&line),
            Woken::Output(Output::Exited(status)) => {
                tracing::info!("the runner ended: {status}");
                self.ended = Some(status);
                self.read_hooks();
                self.handle(Event::Exited(self.runner.read_exit(status)));
            }
            Woken::Finished(finished) => self.finished(*finished),
        }
    }

    fn finished(&mut self, finished: Finished) {
        if let Some(ready) = finished.ready {
            self.remains.registration = Some(ready.id.clone());
            self.ready = Some(ready);
            self.save();
        }
        if let Some(child) = finished.child {
            self.remains.process = Some((child.pid(), child.start_time()));
            self.child = Some(child);
            self.ended = None;
            self.save();
        }
        for line in finished.lines {
            self.read_line(&line);
        }
        self.read_hooks();
        if self.state.step == Step::Rerunning && finished.event == Event::Succeeded {
            self.pending = None;
        }
        self.handle(finished.event);
    }

    fn read_line(&mut self, line: &str) {
        tracing::debug!("runner: {line}");
        let event = match self.runner.read_line(line) {
            None => return,
            Some(Line::Listening) => Event::Listening,
            Some(Line::Asking) => {
                // A runner that says so again while something else is done disturbs nothing.
                self.effect = self.confirm().or_else(|| self.effect.take());
                return;
            }
            Some(Line::JobStarted(name)) => Event::JobStarted(name),
            Some(Line::JobKnown(ids)) => Event::JobKnown(ids),
            Some(Line::JobEnded { name, success }) => {
                // The word of this job, not of the next, if it has not been read yet.
                self.read_hooks();
                Event::JobEnded(name, success)
            }
            Some(Line::Deregistered) => Event::Deregistered,
        };
        self.handle(event);
    }

    fn read_hooks(&mut self) {
        while let Some(hook) = self.runner.read_hook() {
            self.handle(match hook {
                Hook::Started(job) => Event::JobKnown(job),
                Hook::Completed => Event::JobCompleting,
            });
        }
    }

    /// Decides, reports, and begins what was decided.
    fn handle(&mut self, event: Event) {
        let before = self.state.clone();
        let ended = match &event {
            Event::JobEnded(_, success) => Some(*success),
            _ => None,
        };
        let (next, action) = lifecycle::transition(before.clone(), event, self.began.elapsed(), &self.limits);
        self.state = next;
        if self.state.step == Step::Done && self.state.stop.is_none() {
            self.remains.provisioned = state::boot();
            self.save();
        }
        self.report(&before, ended);
        if ended.is_some()
            && before.job.is_some()
            && self.state.job.is_none()
            && let Some(child) = &self.child
        {
            child.clear();
        }
        self.host.attend(self.state.step == Step::Busy);
        if before.job != self.state.job {
            self.remains.job = self.state.job.as_ref().map(|job| Begun::of(job, self.remains.job.as_ref()));
            self.save();
        }
        if let Some(action) = action {
            self.perform(action);
        }
    }

    /// Begins an action; the one before, if it still runs, is given up.
    fn perform(&mut self, action: Action) {
        self.effect = match action {
            Action::Wait | Action::Exit => None,
            Action::Start => Some(effect::start(self.ready.clone(), self.settling())),
            Action::Stop => Some(self.stop()),
            Action::Save => Some(self.save_work()),
            Action::Provision => Some(self.provision()),
            Action::Install => Some(self.install()),
            Action::Register => Some(self.register()),
            Action::Check => Some(self.check()),
            Action::Unregister => Some(self.unregister()),
            Action::Rerun => self.rerun(),
            Action::Terminate => {
                if self.spec.cloud.is_none() {
                    self.dir.clear();
                }
                Some(effect::terminate(Arc::clone(&self.host), self.will(), self.console.clone()))
            }
        };
    }

    /// What must outlive the machine. One that is taken away has no time for whoever looks.
    fn will(&self) -> Will {
        let seen = lifecycle::seen(&self.limits);
        let linger = match &self.state.stop {
            Some(StopReason::Interrupted(..) | StopReason::Crashed) => Duration::ZERO,
            _ => self.online_at.map_or(seen, |at| seen.saturating_sub(at.elapsed())),
        };
        Will {
            linger,
            pending: self.pending.clone(),
        }
    }

    /// The runner's end, if it must settle before it is started again.
    fn settling(&self) -> Option<(Arc<dyn Runner>, ExitStatus)> {
        let status = self.ended.filter(|status| self.runner.read_exit(*status) == Exit::Restart)?;
        Some((Arc::clone(&self.runner), status))
    }

    /// The crash rule: what an agent that starts after a kill -9 must know is on disk.
    fn save(&self) {
        if let Err(error) = self.dir.write(&self.remains) {
            tracing::warn!("{error:#}");
        }
    }
}

/// The next word of the runner, while there is one.
async fn next_output(child: &mut Option<Child>) -> Output {
    match child {
        Some(child) => child.next().await,
        None => std::future::pending().await,
    }
}
