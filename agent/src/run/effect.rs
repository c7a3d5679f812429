//! What the actions do; each gives one event in the end.

use std::future::Future;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Report};
use common::forge::{
    Declined, Enroll, Enrollment, Forge, Interrupted, Pending, Platform, Removal, Rerun, RerunOutcome, RunnerId, When, Which,
};
use common::phase::{self, State as Phase};
use common::secret::Secret;
use common::spec::{RetryPolicy, RunnerSpec};

use super::Agent;
use crate::console::Console;
use crate::host::{Host, Will};
use crate::interrupt;
use crate::lifecycle::{self, Event, Step};
use crate::provision;
use crate::runner::{self, Ready, Runner};
use crate::supervise::{self, Child, Output};

/// A running action.
pub type Effect = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// What an action gave.
pub struct Finished {
    /// Of a registration.
    pub ready: Option<Ready>,
    /// Of a start.
    pub child: Option<Child>,
    /// Of a stop: the last lines of the runner, which tell how its job ended.
    pub lines: Vec<String>,
    /// What happened.
    pub event: Event,
}

/// How often a forced stop asks a forge that still sees the runner busy, and how long it waits in between.
const UNREGISTER: (u32, Duration) = (10, Duration::from_secs(2));
/// The first and the longest pause between two questions whether a runner is online.
const CONFIRM: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often a runner that is not listed is looked for again before it counts as removed.
const MISSED: u32 = 2;
/// The part of the time for a re-run after which the rest of the run is cancelled for it.
const PATIENCE_PART: u32 = 4;
/// What the console calls the machine's end.
const TERMINATE: &str = "terminate";

/// Waits for the running action, and forgets it; for ever if there is none.
pub async fn finish(effect: &mut Option<Effect>) -> Finished {
    match effect {
        Some(running) => {
            let finished = running.await;
            *effect = None;
            finished
        }
        None => std::future::pending().await,
    }
}

/// An action that is done already.
fn at_once(event: Event) -> Effect {
    Box::pin(std::future::ready(of(event)))
}

fn failed(error: &anyhow::Error) -> Event {
    Event::Failed(words_of(error))
}

/// The whole chain, and the hint.
fn words_of(error: &anyhow::Error) -> String {
    let hint = Report(error).hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    format!("{error:#}{hint}")
}

const fn of(event: Event) -> Finished {
    Finished {
        ready: None,
        child: None,
        lines: Vec::new(),
        event,
    }
}

fn result(outcome: Result<()>) -> Finished {
    of(outcome.map_or_else(|error| failed(&error), |()| Event::Succeeded))
}

/// Makes the machine go away. Who sees that it is still there looks at its console.
pub fn terminate(host: Arc<dyn Host>, will: Will, console: Console) -> Effect {
    Box::pin(async move {
        let outcome = host.terminate(&will).await.inspect_err(|error| {
            let words = words_of(error);
            tracing::error!("{words}");
            console.phase(TERMINATE, Phase::Fail, &words);
        });
        result(outcome)
    })
}

/// Starts the runner; after an end that asks for it, once it has settled.
pub fn start(ready: Option<Ready>, settle: Option<(Arc<dyn Runner>, ExitStatus)>) -> Effect {
    Box::pin(async move {
        if let Some((runner, status)) = settle {
            runner.settle(status).await;
        }
        let started = ready
            .context("the runner is not configured")
            .and_then(|ready| Child::start(&ready.command));
        match started {
            Ok(child) => Finished {
                child: Some(child),
                ..of(Event::Succeeded)
            },
            Err(error) => of(failed(&error)),
        }
    })
}

impl Agent {
    /// Stops the runner, or what an agent that was killed left of one, with all that it started.
    pub(super) fn stop(&mut self) -> Effect {
        let (child, grace) = (self.child.take(), lifecycle::grace(&self.state));
        let left = self.remains.process.filter(|_| child.is_none());
        let (containers, id) = (self.containers.clone(), self.remains.registration.clone());
        Box::pin(async move {
            let mut lines = Vec::new();
            if let Some(mut child) = child {
                child.stop(grace).await;
                while let Output::Line(line) = child.next().await {
                    lines.push(line);
                }
            } else if let Some((pid, start)) = left {
                supervise::kill_leftovers(pid, start).await;
            }
            if let Some(containers) = containers {
                containers.remove(id.as_ref()).await;
            }
            Finished {
                lines,
                ..of(Event::Succeeded)
            }
        })
    }

    pub(super) fn provision(&self) -> Effect {
        let (spec, console) = (Arc::clone(&self.spec), self.console.clone());
        let budget = lifecycle::script_budget(self.began.elapsed(), &self.limits);
        Box::pin(async move {
            match &spec.options.cloud_startup_script {
                Some(script) => result(provision::run_startup_script(script, &console, budget.unwrap_or(Duration::MAX)).await),
                None => of(Event::Succeeded),
            }
        })
    }

    /// Installs the forge's runner, on a machine whose user data its jobs cannot read.
    pub(super) fn install(&self) -> Effect {
        let (runner, host) = (Arc::clone(&self.runner), Arc::clone(&self.host));
        let reach = self.spec.options.job_metadata.unwrap_or_default();
        Box::pin(async move {
            if let Err(error) = host.guard_metadata(reach).await {
                tracing::warn!("jobs can read the user data, and the forge token in it, through the metadata service: {error:#}");
            }
            result(runner.install().await)
        })
    }

    /// Lets the user's script save what the job has done. However it ends, the job is interrupted then.
    pub(super) fn save_work(&self) -> Effect {
        let (spec, ready) = (Arc::clone(&self.spec), self.ready.clone());
        let budget = lifecycle::save_budget(&self.state);
        let reason = self.state.stop.as_ref().map(ToString::to_string).unwrap_or_default();
        Box::pin(async move {
            let (Some(script), Some(ready)) = (&spec.options.on_interrupt, ready) else {
                return of(Event::Succeeded);
            };
            result(interrupt::save(script, &ready.command, &reason, budget).await.inspect_err(|error| {
                tracing::warn!("the work of the job may not be saved: {error:#}");
            }))
        })
    }

    pub(super) fn register(&mut self) -> Effect {
        let (spec, forge, runner) = (Arc::clone(&self.spec), Arc::clone(&self.forge), Arc::clone(&self.runner));
        let jit = self.jit.take();
        Box::pin(async move {
            match register(&spec, jit, forge.as_ref(), runner.as_ref()).await {
                Ok(ready) => Finished {
                    ready: Some(ready),
                    ..of(Event::Succeeded)
                },
                Err(error) if Report(&error).class() == Class::NameInUse => of(Event::Refused(words_of(&error))),
                Err(error) => of(failed(&error)),
            }
        })
    }

    /// Asks the forge whether it sees the runner that has just been started, until it does.
    pub(super) fn confirm(&self) -> Option<Effect> {
        let id = self.remains.registration.clone().filter(|_| self.state.step == Step::Starting)?;
        let (spec, forge) = (Arc::clone(&self.spec), Arc::clone(&self.forge));
        Some(Box::pin(async move {
            let (mut pause, mut missed) = (CONFIRM.0, 0);
            loop {
                match forge.runners(Which::Named(&spec.name)).await {
                    Ok(runners) => match runners.iter().find(|runner| runner.id == id) {
                        Some(runner) if runner.online => return of(Event::Listening),
                        Some(_) => missed = 0,
                        // A list may be some moments old: once is not enough.
                        None if missed >= MISSED => return of(Event::Deregistered),
                        None => missed += 1,
                    },
                    Err(error) => tracing::warn!("asking whether the runner is online: {error:#}"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(CONFIRM.1);
            }
        }))
    }

    /// Asks the forge for our registration.
    pub(super) fn check(&self) -> Effect {
        let id = self.remains.registration.clone().filter(|_| !self.single_use);
        let Some(id) = id else {
            // Nobody here may, or knows what to ask for.
            return at_once(Event::Succeeded);
        };
        let (spec, forge) = (Arc::clone(&self.spec), Arc::clone(&self.forge));
        Box::pin(async move {
            match forge.runners(Which::Named(&spec.name)).await {
                Ok(runners) if runners.iter().any(|runner| runner.id == id) => of(Event::Succeeded),
                Ok(_) => {
                    tracing::warn!("the runner listens, but the forge does not know it any more");
                    of(Event::Deregistered)
                }
                Err(error) => {
                    tracing::warn!("asking the forge for the registration: {error:#}");
                    of(failed(&error))
                }
            }
        })
    }

    /// One question where the forge's refusal decides (idle), a few where it only has not noticed yet (a forced stop).
    pub(super) fn unregister(&self) -> Effect {
        if self.single_use {
            // Nobody here may; the forge forgets a single-use runner by itself.
            return at_once(Event::Answered(Removal::Gone));
        }
        let (when, tries) = if self.state.step == Step::Withdrawing {
            (When::Idle, 1)
        } else {
            (When::Stopped, UNREGISTER.0)
        };
        let (spec, forge, id) = (Arc::clone(&self.spec), Arc::clone(&self.forge), self.remains.registration.clone());
        Box::pin(async move {
            let mut answer = unregister(forge.as_ref(), &spec.name, id.as_ref(), when).await;
            for _ in 1..tries {
                if !matches!(answer, Ok(Removal::Busy(_))) {
                    break;
                }
                tokio::time::sleep(UNREGISTER.1).await;
                answer = unregister(forge.as_ref(), &spec.name, id.as_ref(), when).await;
            }
            match answer {
                Ok(removal) => {
                    tracing::info!("registration: {removal:?}");
                    of(Event::Answered(removal))
                }
                Err(error) => {
                    tracing::warn!("the registration could not be removed: {error:#}");
                    of(failed(&error))
                }
            }
        })
    }

    pub(super) fn rerun(&mut self) -> Option<Effect> {
        let begun = self.remains.job.as_ref()?;
        let job = match begun.ids.clone() {
            Some(ids) => Interrupted::Known(ids),
            None => Interrupted::Begun {
                name: begun.name.clone(),
                age: begun.age(),
            },
        };
        let budget = lifecycle::rerun_budget(&self.state);
        let request = Rerun {
            job,
            runner: self.spec.name.clone(),
            launch: self.spec.launch.clone(),
            max_attempts: self.spec.options.max_attempts,
            patience: match self.spec.options.retry_policy {
                RetryPolicy::Restart => budget / PATIENCE_PART,
                RetryPolicy::Spare => budget,
            },
            budget,
        };
        let (forge, console) = (Arc::clone(&self.forge), self.console.clone());
        let pending = pending(&request);
        // From now on somebody else can finish it, if this machine leaves its word.
        self.pending = (!pending.is_empty()).then(|| pending.clone());
        if self.single_use {
            let next = if pending.is_empty() {
                "which one it was is not known"
            } else {
                "`cml runner reap` does it"
            };
            tracing::warn!("this machine may not run the interrupted job again: {next}");
            console.phase(phase::RERUN, Phase::Fail, &pending);
            return Some(at_once(Event::Failed("there is no token on this machine".into())));
        }
        Some(Box::pin(async move {
            console.phase(phase::RERUN, Phase::Begin, &pending);
            match forge.rerun(&request).await {
                Ok(outcome) => {
                    tracing::info!("the interrupted job {}", words(&outcome));
                    console.phase(phase::RERUN, Phase::Ok, "");
                    of(Event::Succeeded)
                }
                Err(error) => {
                    tracing::error!("the interrupted job could not be run again: {error:#}; `cml runner reap` tries once more");
                    console.phase(phase::RERUN, Phase::Fail, &pending);
                    of(failed(&error))
                }
            }
        }))
    }
}

/// What is left on the console; nothing of a job whose ids are not known.
fn pending(request: &Rerun) -> String {
    let Interrupted::Known(job) = &request.job else {
        return String::new();
    };
    let pending = Pending {
        job: job.clone(),
        launch: request.launch.clone(),
    };
    serde_json::to_string(&pending).unwrap_or_default()
}

fn words(outcome: &RerunOutcome) -> String {
    match outcome {
        RerunOutcome::Requested(scope) => format!("runs again ({scope:?})"),
        RerunOutcome::Declined(Declined::AttemptsUsedUp(attempts)) => {
            format!("is not run again: it has had {attempts} attempts (--max-attempts)")
        }
        RerunOutcome::Declined(Declined::AlreadyRerun) => "has been run again by somebody else".into(),
        RerunOutcome::Declined(Declined::Succeeded) => "ended well after all".into(),
        RerunOutcome::Declined(Declined::Cancelled) => "was cancelled by a person".into(),
        RerunOutcome::Declined(Declined::Unknown) => "is not known to the forge".into(),
    }
}

async fn register(spec: &RunnerSpec, jit: Option<Secret>, forge: &dyn Forge, runner: &dyn Runner) -> Result<Ready> {
    let enrollment = if let Some(config) = jit {
        // The id is the launcher's to know: it registered the runner.
        Enrollment::Made {
            id: RunnerId::from(0),
            config,
        }
    } else {
        let request = Enroll {
            name: spec.name.clone(),
            labels: spec.options.labels.clone(),
            single: spec.options.single,
            platform: Platform::current(),
            containers: runner::in_containers(spec)?,
        };
        forge.enroll(&request).await.context("asking the forge for a registration")?
    };
    runner.configure(&enrollment).await
}

/// The registration is known by its id, or, when that was lost, by the runner's name; then only one that is not online can be ours.
async fn unregister(forge: &dyn Forge, name: &str, id: Option<&RunnerId>, when: When) -> Result<Removal> {
    if let Some(id) = id {
        return forge.unregister(id, when).await;
    }
    let mut last = Removal::Gone;
    for runner in forge.runners(Which::Named(name)).await? {
        if !runner.online {
            last = forge.unregister(&runner.id, when).await?;
        }
    }
    Ok(last)
}
