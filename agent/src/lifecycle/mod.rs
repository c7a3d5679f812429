//! What the agent does next: a pure function, without I/O and without a clock.
//!
//! [`transition`] takes a state and an event and gives the next state, with the action that begins there. An action's result, or its
//! [deadline], is the next event: nothing can block the way to the end. docs/lifecycle.md is the whole table, generated.

mod reason;
#[cfg(test)]
mod tests;

use std::time::Duration;

use common::forge::{Job, Removal};
use common::timeout::Timeout;

use crate::host::Interruption;
use crate::runner::Exit;
pub use reason::StopReason;

/// A point in time: since the agent began.
pub type Time = Duration;

/// A job is interrupted this long before its limit at the latest, so that the forge's own limit is not met…
const EARLY: Duration = Duration::from_mins(5);
/// … but never by more than this part of the limit.
const EARLY_PART: u32 = 20;
/// How long a refused idle stop waits before it asks again.
const ADVISED_AGAIN: Duration = Duration::from_secs(5);
/// A single runner ends itself once it has told the forge how its job ended.
const FINISH: Duration = Duration::from_mins(2);
/// How long one request to the forge may take on the way out.
const FORGE: Duration = Duration::from_secs(45);
/// The runner needs up to ten seconds to end a step, and some to tell the forge.
const GRACE: Duration = Duration::from_secs(30);
/// How long what outlives the grace may take to vanish when it is killed.
const KILL: Duration = Duration::from_secs(15);
/// How long the forge may take to let an interrupted run run again.
const RERUN: Duration = Duration::from_mins(10);
/// How long powering off may take before the agent ends without it: the unit's own action follows.
const TERMINATE: Duration = Duration::from_mins(1);
/// How often a runner that fails is started again.
const RESTARTS: u32 = 3;

/// Where the agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The user's start-up script runs.
    Provisioning,
    /// The forge's runner is downloaded and unpacked.
    Installing,
    /// It registers.
    Registering,
    /// It has been started and does not listen yet.
    Starting,
    /// It waits for a job.
    Idle,
    /// It runs a job.
    Busy,
    /// The registration is being deleted, if no job has just been assigned: the atomic idle test.
    Withdrawing,
    /// A single runner has done its job and is ending itself.
    Finishing,
    /// The runner is being stopped, with all that it started.
    Stopping,
    /// The interrupted job is being run again.
    Rerunning,
    /// The registration is being deleted.
    Unregistering,
    /// The machine is going away.
    Terminating,
    /// The agent ends.
    Done,
}

/// What begins when a step is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Run the start-up script.
    Provision,
    /// Install the forge's runner.
    Install,
    /// Register it.
    Register,
    /// Start it.
    Start,
    /// Wait for what happens.
    Wait,
    /// Delete the registration.
    Unregister,
    /// Stop the runner within the [grace], then kill it with all that it started.
    Stop,
    /// Run the interrupted job again.
    Rerun,
    /// Make the machine go away.
    Terminate,
    /// End.
    Exit,
}

impl Step {
    /// Every step has one action.
    pub const fn action(self) -> Action {
        match self {
            Self::Provisioning => Action::Provision,
            Self::Installing => Action::Install,
            Self::Registering => Action::Register,
            Self::Starting => Action::Start,
            Self::Idle | Self::Busy | Self::Finishing => Action::Wait,
            Self::Withdrawing | Self::Unregistering => Action::Unregister,
            Self::Stopping => Action::Stop,
            Self::Rerunning => Action::Rerun,
            Self::Terminating => Action::Terminate,
            Self::Done => Action::Exit,
        }
    }

    const fn is_stopping(self) -> bool {
        matches!(
            self,
            Self::Stopping | Self::Rerunning | Self::Unregistering | Self::Terminating | Self::Done
        )
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The step's action succeeded.
    Succeeded,
    /// It failed, for this reason.
    Failed(String),
    /// The forge answered the deletion of the registration.
    Answered(Removal),
    /// The runner waits for jobs.
    Listening,
    /// It starts a job of this name.
    JobStarted(String),
    /// The ids of the running job.
    JobKnown(Job),
    /// The job of this name ended; whether well.
    JobEnded(String, bool),
    /// The forge does not know the runner any more.
    Deregistered,
    /// The runner program ended.
    Exited(Exit),
    /// The machine is about to be taken away.
    Notice(Interruption),
    /// A signal arrived.
    Signal(i32),
    /// The step's [deadline] has come.
    Deadline,
}

/// What the spec says about time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `--idle-timeout`
    pub idle: Timeout,
    /// `--job-time-limit`
    pub job: Timeout,
    /// `--provisioning-timeout`
    pub provisioning: Timeout,
    /// `--single`
    pub single: bool,
    /// Neither `--no-retry`, nor a credential that cannot.
    pub rerun: bool,
}

/// A job that runs, or was interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Running {
    /// Its display name: hostile input, good only for comparing.
    pub name: Option<String>,
    /// Its ids, once the hook has told them.
    pub ids: Option<Job>,
}

/// All that the agent knows of its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Where it stands.
    pub step: Step,
    /// Since when.
    pub since: Time,
    /// Why it stops, once it does.
    pub stop: Option<StopReason>,
    /// Whether the forge may have a registration of ours.
    pub registered: bool,
    /// Whether the runner program, or something that it started, may be alive.
    pub alive: bool,
    /// The job that runs, or that was interrupted.
    pub job: Option<Running>,
    /// Whether the cloud advised to take no more jobs.
    pub advised: bool,
    /// How often the runner failed.
    pub failures: u32,
    /// How many steps have been entered: a step that is entered again begins again.
    pub entered: u32,
}

impl State {
    /// The first state of a new machine.
    pub const fn first() -> Self {
        Self {
            step: Step::Provisioning,
            since: Duration::ZERO,
            stop: None,
            registered: false,
            alive: false,
            job: None,
            advised: false,
            failures: 0,
            entered: 0,
        }
    }

    /// The state of an agent that finds another's remains: it never resumes. It runs the job again, takes its leave, and goes.
    pub fn crashed(job: Option<Job>, limits: &Limits) -> Self {
        let job = job.map(|ids| Running {
            name: None,
            ids: Some(ids),
        });
        let state = Self {
            registered: true,
            job,
            ..Self::first()
        };
        state.stopped(StopReason::Crashed, Duration::ZERO, limits)
    }

    fn enter(self, step: Step, now: Time) -> Self {
        let entered = self.entered.saturating_add(1);
        Self {
            step,
            since: now,
            entered,
            ..self
        }
    }

    /// Raises the reason, and goes on with whatever the stop still needs.
    fn stopped(mut self, reason: StopReason, now: Time, limits: &Limits) -> Self {
        if self.stop.as_ref().is_none_or(|old| old.rank() < reason.rank()) {
            self.stop = Some(reason);
        }
        if self.step.is_stopping() { self } else { self.next(now, limits) }
    }

    /// The first thing that is still to be done, in the order of a stop.
    fn next(self, now: Time, limits: &Limits) -> Self {
        let reruns = self.stop.as_ref().is_some_and(StopReason::reruns);
        let step = match self.step {
            Step::Terminating | Step::Done => Step::Done,
            _ if self.alive && self.step != Step::Stopping => Step::Stopping,
            Step::Unregistering => Step::Terminating,
            Step::Rerunning if self.registered => Step::Unregistering,
            Step::Rerunning => Step::Terminating,
            _ if limits.rerun && reruns && self.job.as_ref().is_some_and(|job| job.ids.is_some()) => Step::Rerunning,
            _ if self.registered => Step::Unregistering,
            _ => Step::Terminating,
        };
        self.enter(step, now)
    }
}

/// When the state ends by itself, if it does.
pub fn deadline(state: &State, limits: &Limits) -> Option<Time> {
    let after = |time: Duration| Some(state.since.saturating_add(time));
    match state.step {
        Step::Provisioning | Step::Installing | Step::Registering => limits.provisioning.duration(),
        // One that was started again has as long as the first.
        Step::Starting => limits.provisioning.duration().and_then(after),
        Step::Idle if state.advised => after(ADVISED_AGAIN),
        Step::Idle => limits.idle.duration().and_then(after),
        Step::Busy => limits.job.duration().and_then(|limit| after(limit - EARLY.min(limit / EARLY_PART))),
        Step::Withdrawing | Step::Unregistering => after(FORGE),
        Step::Finishing => after(FINISH),
        Step::Stopping => after(grace(state) + KILL),
        Step::Rerunning => after(rerun_budget(state)),
        Step::Terminating => after(TERMINATE),
        Step::Done => None,
    }
}

/// How long the runner may take to stop: a third of what is left of a machine, for the re-run needs the rest.
pub fn grace(state: &State) -> Duration {
    match &state.stop {
        Some(StopReason::Interrupted(_, left)) => GRACE.min(*left / 3),
        _ => GRACE,
    }
}

/// How long the forge may take to run the job again.
pub fn rerun_budget(state: &State) -> Duration {
    match &state.stop {
        Some(StopReason::Interrupted(_, left)) => RERUN.min(*left),
        _ => RERUN,
    }
}

/// The next state, and the action that begins if a step was entered.
pub fn transition(state: State, event: Event, now: Time, limits: &Limits) -> (State, Option<Action>) {
    let before = state.entered;
    let next = next_state(state, event, now, limits);
    let action = (next.entered != before).then(|| next.step.action());
    (next, action)
}

fn next_state(state: State, event: Event, now: Time, limits: &Limits) -> State {
    match event {
        _ if state.step == Step::Done => state,
        // There is no runner yet, or no more.
        Event::Exited(_) | Event::Deregistered if !state.alive => state,
        Event::Signal(number) => state.stopped(StopReason::Signal(number), now, limits),
        Event::Notice(notice) => noticed(state, notice, now, limits),
        Event::Exited(exit) => exited(state, exit, now, limits),
        Event::Deregistered => {
            let state = State {
                registered: false,
                ..state
            };
            state.stopped(StopReason::Unregistered, now, limits)
        }
        Event::JobStarted(_) | Event::JobKnown(_) | Event::JobEnded(..) | Event::Listening => job(state, event, now, limits),
        Event::Succeeded => succeeded(state, now, limits),
        Event::Failed(why) => failed(state, why, now, limits),
        Event::Answered(removal) => answered(state, &removal, now, limits),
        Event::Deadline => expired(state, now, limits),
    }
}

fn noticed(state: State, notice: Interruption, now: Time, limits: &Limits) -> State {
    if !notice.advice {
        return state.stopped(StopReason::Interrupted(notice.reason, notice.left), now, limits);
    }
    let state = State { advised: true, ..state };
    match state.step {
        Step::Idle => state.enter(Step::Withdrawing, now),
        Step::Provisioning | Step::Installing | Step::Registering | Step::Starting => state.stopped(StopReason::Advised, now, limits),
        _ => state,
    }
}

fn exited(state: State, exit: Exit, now: Time, limits: &Limits) -> State {
    match (state.step, exit) {
        (step, _) if step.is_stopping() => state,
        (Step::Withdrawing, _) => withdraw(state, now, limits),
        (Step::Finishing, _) => state.stopped(StopReason::Single, now, limits),
        (_, Exit::Restart) => State { job: None, ..state }.enter(Step::Starting, now),
        // A single runner may end before its last line was read.
        (Step::Busy, Exit::Done) if limits.single => state.stopped(StopReason::Single, now, limits),
        (_, Exit::Done) => {
            let state = State {
                registered: false,
                ..state
            };
            state.stopped(StopReason::Unregistered, now, limits)
        }
        (Step::Starting | Step::Idle, Exit::Failed(_)) if state.failures < RESTARTS && !limits.single => {
            let failures = state.failures + 1;
            State { failures, ..state }.enter(Step::Starting, now)
        }
        (_, Exit::Failed(code)) => state.stopped(StopReason::Failed(format!("runner closed with exit code {code}")), now, limits),
    }
}

fn job(state: State, event: Event, now: Time, limits: &Limits) -> State {
    match (state.step, event) {
        (Step::Starting, Event::Listening) => state.enter(Step::Idle, now),
        (Step::Starting | Step::Idle | Step::Withdrawing, Event::JobStarted(name)) => {
            let job = Some(Running {
                name: Some(name),
                ids: None,
            });
            State { job, ..state }.enter(Step::Busy, now)
        }
        // The hook was faster than the line, or the line was lost.
        (Step::Starting | Step::Idle | Step::Withdrawing, Event::JobKnown(ids)) => {
            let job = Some(Running {
                name: None,
                ids: Some(ids),
            });
            State { job, ..state }.enter(Step::Busy, now)
        }
        (Step::Busy, Event::JobStarted(name)) => {
            let ids = state.job.clone().filter(|job| job.name.is_none()).and_then(|job| job.ids);
            let job = Some(Running { name: Some(name), ids });
            State { job, ..state }
        }
        (Step::Busy | Step::Stopping, Event::JobKnown(ids)) => {
            let name = state.job.clone().and_then(|job| job.name);
            let job = Some(Running { name, ids: Some(ids) });
            State { job, ..state }
        }
        (step, Event::JobEnded(name, success)) => {
            let ours = state
                .job
                .as_ref()
                .is_some_and(|job| job.name.as_ref().is_none_or(|ours| *ours == name));
            match step {
                Step::Busy if ours => ended(state, now, limits),
                // It ended just in time: there is nothing to run again.
                Step::Stopping if ours && success => State { job: None, ..state },
                _ => state,
            }
        }
        _ => state,
    }
}

fn ended(state: State, now: Time, limits: &Limits) -> State {
    let state = State { job: None, ..state };
    if limits.single {
        state.enter(Step::Finishing, now)
    } else {
        state.enter(Step::Idle, now)
    }
}

fn succeeded(state: State, now: Time, limits: &Limits) -> State {
    match state.step {
        Step::Provisioning => state.enter(Step::Installing, now),
        Step::Installing => {
            // From here on the forge may know us, whatever becomes of the answer.
            let registered = true;
            State { registered, ..state }.enter(Step::Registering, now)
        }
        Step::Registering => {
            let alive = true;
            State { alive, ..state }.enter(Step::Starting, now)
        }
        Step::Starting => State { alive: true, ..state },
        Step::Stopping => State { alive: false, ..state }.next(now, limits),
        Step::Rerunning | Step::Terminating => state.next(now, limits),
        _ => state,
    }
}

fn failed(state: State, why: String, now: Time, limits: &Limits) -> State {
    match state.step {
        Step::Provisioning | Step::Installing | Step::Registering | Step::Starting => state.stopped(StopReason::Failed(why), now, limits),
        // We know of no job, and a forge that cannot be reached assigns none.
        Step::Withdrawing => withdraw(state, now, limits),
        Step::Stopping => State { alive: false, ..state }.next(now, limits),
        Step::Rerunning | Step::Unregistering | Step::Terminating => state.next(now, limits),
        _ => state,
    }
}

fn answered(state: State, removal: &Removal, now: Time, limits: &Limits) -> State {
    match (state.step, removal) {
        (Step::Withdrawing, Removal::Removed | Removal::Gone) => withdraw(
            State {
                registered: false,
                ..state
            },
            now,
            limits,
        ),
        (Step::Withdrawing, Removal::Busy(_)) => state.enter(Step::Idle, now),
        (Step::Unregistering, _) => State {
            registered: false,
            ..state
        }
        .next(now, limits),
        _ => state,
    }
}

/// The forge has let an idle runner go.
fn withdraw(state: State, now: Time, limits: &Limits) -> State {
    let reason = if state.advised {
        StopReason::Advised
    } else {
        StopReason::Idle(limits.idle)
    };
    state.stopped(reason, now, limits)
}

fn expired(state: State, now: Time, limits: &Limits) -> State {
    match state.step {
        Step::Provisioning | Step::Installing | Step::Registering | Step::Starting => {
            let why = format!("the runner was not online within {}", limits.provisioning);
            state.stopped(StopReason::Failed(why), now, limits)
        }
        Step::Idle => state.enter(Step::Withdrawing, now),
        Step::Busy => state.stopped(StopReason::TimeLimit(limits.job), now, limits),
        Step::Withdrawing => withdraw(state, now, limits),
        Step::Finishing => state.stopped(StopReason::Single, now, limits),
        Step::Stopping => State { alive: false, ..state }.next(now, limits),
        Step::Rerunning | Step::Unregistering | Step::Terminating => state.next(now, limits),
        Step::Done => state,
    }
}
