//! The loop: what happens becomes an event, what is decided becomes an effect. The only `select!` of the agent.

mod effect;
mod hooks;
mod report;
mod signals;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use common::forge::{self, Forge};
use common::secret::Secret;
use common::spec::{Credential, RunnerSpec};
use tokio::time::sleep_until;

use crate::console::Console;
use crate::host::Host;
use crate::lifecycle::{self, Action, Event, Limits, State};
use crate::runner::{self, Hook, Line, Ready, Runner};
use crate::state::{Remains, StateDir};
use crate::supervise::{self, Child, Output};
use crate::user;
use effect::{Effect, Finished};
use hooks::Watch;
use report::Watchdog;
use signals::Signals;

/// One agent, from its start to its end.
pub struct Agent {
    spec: Arc<RunnerSpec>,
    limits: Limits,
    forge: Arc<dyn Forge>,
    runner: Arc<dyn Runner>,
    host: Arc<dyn Host>,
    console: Console,
    dir: StateDir,
    began: Instant,
    state: State,
    remains: Remains,
    /// What the running action will give.
    effect: Option<Effect>,
    ready: Option<Ready>,
    child: Option<Child>,
    online: bool,
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
    pub fn new(spec: RunnerSpec, dir: StateDir, console: Console, host: Arc<dyn Host>) -> Result<Self> {
        let token = match &spec.credential {
            Credential::Token(token) => token.clone(),
            // It may do nothing but run one job; what needs a token is not asked for.
            Credential::Jit(_) => Secret::default(),
        };
        let forge: Arc<dyn Forge> = forge::open(spec.forge, &spec.repo, &token)?.into();
        let user = user::job_user(&spec).context("preparing the user that jobs run as")?;
        let runner = runner::open(&spec, dir.path(), user, Arc::clone(&forge))?;
        let limits = Limits {
            idle: spec.options.idle_timeout,
            job: spec.options.job_time_limit,
            provisioning: spec.options.provisioning_timeout,
            single: spec.options.single || matches!(spec.credential, Credential::Jit(_)),
            rerun: !spec.options.no_retry && matches!(spec.credential, Credential::Token(_)),
        };
        Ok(Self {
            console,
            limits,
            forge,
            runner: runner.into(),
            host,
            dir,
            began: Instant::now(),
            state: State::first(),
            remains: Remains::default(),
            effect: None,
            ready: None,
            child: None,
            online: false,
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
        self.begin().await;
        while self.state.step != lifecycle::Step::Done {
            let deadline = lifecycle::deadline(&self.state, &self.limits).and_then(|at| self.began.checked_add(at));
            let woken = tokio::select! {
                biased;
                signal = signals.next() => Woken::Event(Event::Signal(signal)),
                finished = effect::finish(&mut self.effect) => Woken::Finished(Box::new(finished)),
                output = next_output(&mut self.child) => Woken::Output(output),
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
            self.wake(woken).await;
        }
        let reason = self.state.stop.as_ref();
        Ok(reason.map_or(0, lifecycle::StopReason::exit_code))
    }

    /// Starts the first action: of a new life, or of the end of one that was cut off.
    async fn begin(&mut self) {
        if let Some(remains) = self.dir.remains() {
            tracing::error!("an agent was killed here: ending what it left");
            if let Some((pid, start)) = remains.process {
                supervise::kill_leftovers(pid, start).await;
            }
            self.state = State::crashed(remains.job.clone());
            self.remains = remains;
        }
        self.report_begin();
        self.perform(self.state.step.action());
    }

    async fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::Event(event) => self.handle(event),
            Woken::Hook => self.read_hooks(),
            Woken::Watchdog => {}
            Woken::Output(Output::Line(line)) => self.read_line(&line),
            Woken::Output(Output::Exited(status)) => {
                let exit = self.runner.read_exit(status);
                tracing::info!("the runner ended: {status}");
                self.child = None;
                self.read_hooks();
                self.handle(Event::Exited(exit));
            }
            Woken::Finished(finished) => self.finished(*finished).await,
        }
    }

    async fn finished(&mut self, finished: Finished) {
        if let Some(ready) = finished.ready {
            self.remains.registration = Some(ready.id);
            self.ready = Some(ready);
            self.save();
        }
        if let Some(mut stopped) = finished.stopped {
            // Its last lines tell how the job ended.
            while let Output::Line(line) = stopped.next().await {
                self.read_line(&line);
            }
            self.read_hooks();
        }
        self.handle(finished.event);
    }

    fn read_line(&mut self, line: &str) {
        tracing::debug!("runner: {line}");
        let event = match self.runner.read_line(line) {
            None => return,
            Some(Line::Listening) => Event::Listening,
            Some(Line::JobStarted(name)) => Event::JobStarted(name),
            Some(Line::JobEnded { name, success }) => Event::JobEnded(name, success),
            Some(Line::Deregistered) => Event::Deregistered,
        };
        self.handle(event);
    }

    fn read_hooks(&mut self) {
        while let Some(hook) = self.runner.read_hook() {
            if let Hook::Started(job) = hook {
                self.handle(Event::JobKnown(job));
            }
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
        self.report(&before, ended);
        if before.job != self.state.job {
            self.remains.job = self.state.job.as_ref().and_then(|job| job.ids.clone());
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
            Action::Start => Some(self.start()),
            Action::Stop => {
                let grace = lifecycle::grace(&self.state);
                Some(effect::stop(self.child.take(), grace))
            }
            Action::Provision => Some(self.provision()),
            Action::Install => Some(effect::install(Arc::clone(&self.runner))),
            Action::Register => Some(self.register()),
            Action::Unregister => Some(self.unregister()),
            Action::Rerun => self.rerun(),
            Action::Terminate => {
                self.dir.clear();
                Some(effect::terminate(Arc::clone(&self.host)))
            }
        };
    }

    fn start(&mut self) -> Effect {
        let started = match &self.ready {
            Some(ready) => Child::start(&ready.command),
            None => Err(anyhow::anyhow!("the runner is not configured")),
        };
        let event = match started {
            Ok(child) => {
                self.remains.process = Some((child.pid(), child.start_time()));
                self.child = Some(child);
                self.save();
                Event::Succeeded
            }
            Err(error) => effect::failed(&error),
        };
        effect::at_once(event)
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
