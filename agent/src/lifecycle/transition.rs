//! The decisions.

use common::forge::Removal;

use super::limits::{check, idle, life, settled};
use super::{Action, Event, Limits, Running, State, Step, StopReason, Time};
use crate::host::Interruption;
use crate::runner::Exit;

/// How often a runner that fails is started again.
const RESTARTS: u32 = 3;

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
        // Its action goes on: the script may not be interrupted in what it does last.
        Event::Reboot(_) if state.step == Step::Provisioning => State {
            step: Step::Rebooting,
            since: now,
            ..state
        },
        // The script was faster. What has been installed is installed again.
        Event::Reboot(_) if state.step == Step::Installing => state.enter(Step::Done, now),
        // The machine stops whatever the agent does, which stops with it.
        Event::Signal(_) | Event::Reboot(_) | Event::Drain if state.step == Step::Rebooting => state,
        Event::Signal(number) | Event::Reboot(number) => state.stopped(StopReason::Signal(number), now, limits),
        Event::Drain => retire(state, StopReason::Drained, now, limits),
        Event::Notice(notice) => noticed(state, notice, now, limits),
        Event::Exited(exit) => exited(state, exit, now, limits),
        Event::Deregistered => deregistered(state, now, limits),
        Event::Listening => listening(state, now),
        Event::JobStarted(_) | Event::JobKnown(_) => started(state, event, now),
        Event::JobCompleting => completing(state, now),
        Event::JobEnded(name, success) => ended(state, &name, success, now, limits),
        Event::Succeeded => succeeded(state, now, limits),
        Event::Refused(why) if state.step == Step::Registering => {
            let registered = false;
            State { registered, ..state }.stopped(StopReason::NameInUse(why), now, limits)
        }
        Event::Failed(why) | Event::Refused(why) => failed(state, why, now, limits),
        Event::Answered(removal) => answered(state, &removal, now, limits),
        Event::Deadline => expired(state, now, limits),
    }
}

impl State {
    fn enter(self, step: Step, now: Time) -> Self {
        let entered = self.entered.saturating_add(1);
        Self {
            step,
            since: now,
            online: self.online || matches!(step, Step::Idle | Step::Busy),
            entered,
            ..self
        }
    }

    /// Starts the runner again: however often, it must be online in the same time.
    fn restarted(self, now: Time) -> Self {
        let since = if self.step == Step::Starting { self.since } else { now };
        Self {
            since,
            ..self.enter(Step::Starting, now)
        }
    }

    /// Raises the reason, and begins the stop unless it has begun.
    fn stopped(mut self, reason: StopReason, now: Time, limits: &Limits) -> Self {
        // Powering off brings a signal of its own: it is no reason any more.
        if matches!(self.step, Step::Terminating | Step::Done) {
            return self;
        }
        if self.stop.is_none() {
            self.reruns = reason.reruns();
        }
        if self.stop.as_ref().is_none_or(|old| old.rank() < reason.rank()) {
            self.stop = Some(reason);
        }
        if self.step.is_stopping() {
            return self;
        }
        if !self.reruns {
            self.job = None;
        }
        self.next(now, limits)
    }

    /// The first thing that is still to be done, in the order of a stop.
    fn next(self, now: Time, limits: &Limits) -> Self {
        let interrupted = self.reruns && self.job.is_some();
        let step = match self.step {
            Step::Terminating | Step::Done => Step::Done,
            Step::Unregistering => Step::Terminating,
            step if self.alive && interrupted && limits.save && !matches!(step, Step::Saving | Step::Stopping) => Step::Saving,
            _ if self.alive => Step::Stopping,
            step if step != Step::Rerunning && limits.rerun && interrupted => Step::Rerunning,
            _ if self.registered => Step::Unregistering,
            _ => Step::Terminating,
        };
        self.enter(step, now)
    }
}

fn noticed(state: State, notice: Interruption, now: Time, limits: &Limits) -> State {
    if !notice.advice {
        let until = now.saturating_add(notice.left);
        return state.stopped(StopReason::Interrupted(notice.reason, until), now, limits);
    }
    retire(state, StopReason::Advised, now, limits)
}

/// It takes no more jobs, and goes as soon as none runs. What is told later does not change why.
fn retire(mut state: State, reason: StopReason, now: Time, limits: &Limits) -> State {
    let reason = state.leaves.get_or_insert(reason).clone();
    match state.step {
        // A job may just have been assigned: the forge knows.
        Step::Idle | Step::Checking => state.enter(Step::Withdrawing, now),
        Step::Starting if state.online => state.enter(Step::Withdrawing, now),
        Step::Provisioning | Step::Rebooting | Step::Installing | Step::Registering | Step::Starting => state.stopped(reason, now, limits),
        _ => state,
    }
}

fn exited(state: State, exit: Exit, now: Time, limits: &Limits) -> State {
    match (state.step, exit) {
        // Nothing is left to save.
        (Step::Saving, _) => state.next(now, limits),
        (step, _) if step.is_stopping() => state,
        (Step::Withdrawing, _) => withdraw(state, now, limits),
        (Step::Finishing, _) => state.stopped(StopReason::Single, now, limits),
        (Step::Busy, Exit::Restart) => without_job(state, now).restarted(now),
        (_, Exit::Restart) => state.restarted(now),
        // A single runner may end before its last line was read.
        (Step::Busy, Exit::Done) if limits.single => state.stopped(StopReason::Single, now, limits),
        (_, Exit::Done) => state.stopped(StopReason::Unregistered, now, limits),
        (Step::Starting | Step::Idle | Step::Checking, Exit::Failed(_)) if state.failures < RESTARTS => {
            let failures = state.failures + 1;
            State { failures, ..state }.restarted(now)
        }
        (_, Exit::Failed(code)) => state.stopped(StopReason::Failed(format!("runner closed with exit code {code}")), now, limits),
    }
}

fn deregistered(state: State, now: Time, limits: &Limits) -> State {
    let state = State {
        registered: false,
        ..state
    };
    match state.step {
        step if step.is_stopping() => state,
        // It was our own deletion.
        Step::Withdrawing => withdraw(state, now, limits),
        // The forge forgets a single runner once its job is done.
        Step::Finishing => state,
        Step::Busy if limits.single => without_job(state, now).enter(Step::Finishing, now),
        _ => state.stopped(StopReason::Unregistered, now, limits),
    }
}

fn listening(state: State, now: Time) -> State {
    match state.step {
        // One that was started again has been quiet for longer.
        Step::Starting if state.online => state.enter(Step::Idle, now),
        Step::Starting => State { quiet: now, ..state }.enter(Step::Idle, now),
        _ => state,
    }
}

/// A job's line, or the ids that its hook told: either may come first, or alone.
fn started(state: State, event: Event, now: Time) -> State {
    let old = state.job.clone().unwrap_or_default();
    let job = match event {
        // A hook that was faster has told the ids of this job, else they are another's.
        Event::JobStarted(name) => Running {
            ids: old.ids.filter(|_| old.name.is_none()),
            name: Some(name),
            completing: None,
        },
        Event::JobKnown(ids) => Running { ids: Some(ids), ..old },
        _ => return state,
    };
    let reruns = state.reruns;
    let state_with = |state| State { job: Some(job), ..state };
    match state.step {
        Step::Starting | Step::Idle | Step::Checking | Step::Withdrawing => state_with(state).enter(Step::Busy, now),
        Step::Busy => state_with(state),
        // It had just begun, or its word came, when the runner was stopped.
        Step::Saving | Step::Stopping if reruns => state_with(state),
        _ => state,
    }
}

fn ended(state: State, name: &str, success: bool, now: Time, limits: &Limits) -> State {
    let ours = |job: &Running| job.name.as_ref().is_none_or(|ours| ours == name);
    if !state.job.as_ref().is_some_and(ours) {
        return state;
    }
    match state.step {
        Step::Busy => after_job(state, true, now, limits),
        // It ended by itself while its work was saved.
        Step::Saving => State { job: None, ..state }.next(now, limits),
        // It ended just in time: there is nothing to run again.
        Step::Stopping if success => State { job: None, ..state },
        _ => state,
    }
}

fn completing(mut state: State, now: Time) -> State {
    if let (Step::Busy, Some(job)) = (state.step, state.job.as_mut()) {
        job.completing = Some(now);
    }
    state
}

/// `sure`: the runner said so, and not only the job's hook.
fn after_job(state: State, sure: bool, now: Time, limits: &Limits) -> State {
    let mut state = without_job(state, now);
    if limits.single && !limits.lingers {
        return state.enter(Step::Finishing, now);
    }
    if limits.single {
        // It goes as soon as the forge lets it, and a job that was faster is done first.
        state.leaves.get_or_insert(StopReason::Single);
    }
    match &state.leaves {
        // At once: where many jobs wait, a runner that asks first is given the next one each time.
        Some(StopReason::Drained) if sure => state.stopped(StopReason::Drained, now, limits),
        Some(_) => state.enter(Step::Withdrawing, now),
        None => state.enter(Step::Idle, now),
    }
}

fn without_job(state: State, now: Time) -> State {
    State {
        job: None,
        quiet: now,
        ..state
    }
}

fn succeeded(state: State, now: Time, limits: &Limits) -> State {
    match state.step {
        Step::Provisioning => state.enter(Step::Installing, now),
        Step::Rebooting => state.enter(Step::Done, now),
        Step::Installing => {
            // From here on the forge may know us, whatever becomes of the answer.
            let registered = true;
            State { registered, ..state }.enter(Step::Registering, now)
        }
        Step::Registering => {
            let alive = true;
            State { alive, ..state }.enter(Step::Starting, now)
        }
        Step::Checking => state.enter(Step::Idle, now),
        Step::Stopping => State { alive: false, ..state }.next(now, limits),
        Step::Saving | Step::Rerunning | Step::Terminating => state.next(now, limits),
        _ => state,
    }
}

fn failed(state: State, why: String, now: Time, limits: &Limits) -> State {
    match state.step {
        Step::Provisioning | Step::Rebooting | Step::Installing | Step::Registering | Step::Starting => {
            state.stopped(StopReason::Failed(why), now, limits)
        }
        Step::Checking => state.enter(Step::Idle, now),
        // We know of no job, and a token that is refused will be refused again.
        Step::Withdrawing => withdraw(state, now, limits),
        Step::Stopping => State { alive: false, ..state }.next(now, limits),
        Step::Saving | Step::Rerunning | Step::Unregistering | Step::Terminating => state.next(now, limits),
        _ => state,
    }
}

fn answered(state: State, removal: &Removal, now: Time, limits: &Limits) -> State {
    match (state.step, removal) {
        (Step::Withdrawing, Removal::Busy(_)) => State { quiet: now, ..state }.enter(Step::Idle, now),
        (Step::Withdrawing, Removal::Removed | Removal::Gone) => {
            let registered = false;
            withdraw(State { registered, ..state }, now, limits)
        }
        (Step::Unregistering, removal) => {
            let registered = matches!(removal, Removal::Busy(_));
            State { registered, ..state }.next(now, limits)
        }
        _ => state,
    }
}

/// The forge has let an idle runner go.
fn withdraw(state: State, now: Time, limits: &Limits) -> State {
    let reason = state.leaves.clone().unwrap_or(StopReason::Idle(limits.idle));
    state.stopped(reason, now, limits)
}

fn expired(state: State, now: Time, limits: &Limits) -> State {
    let has_come = |at: Option<Time>| at.is_some_and(|at| at <= now);
    match state.step {
        step if !step.is_stopping() && has_come(life(limits)) => state.stopped(StopReason::Lifetime(limits.life), now, limits),
        Step::Provisioning | Step::Installing | Step::Registering | Step::Starting => {
            let why = format!("the runner was not online within {}", limits.provisioning);
            state.stopped(StopReason::Failed(why), now, limits)
        }
        Step::Rebooting => {
            let why = "the start-up script restarted the machine and did not end: a restart must be the last that it does";
            state.stopped(StopReason::Failed(why.into()), now, limits)
        }
        Step::Idle if has_come(check(&state, limits)) && !has_come(idle(&state, limits)) => state.enter(Step::Checking, now),
        Step::Idle => state.enter(Step::Withdrawing, now),
        Step::Checking => state.enter(Step::Idle, now),
        Step::Busy if has_come(settled(&state)) => after_job(state, false, now, limits),
        Step::Busy => state.stopped(StopReason::TimeLimit(limits.job), now, limits),
        Step::Withdrawing => withdraw(state, now, limits),
        Step::Finishing => state.stopped(StopReason::Single, now, limits),
        Step::Stopping => State { alive: false, ..state }.next(now, limits),
        Step::Saving | Step::Rerunning | Step::Unregistering | Step::Terminating => state.next(now, limits),
        Step::Done => state,
    }
}
