//! How long each step may take.

use std::time::Duration;

use common::phase;
use common::timeout::Timeout;

use super::{Limits, State, Step, StopReason, Time};

/// A job is interrupted this long before its limit, so that the forge's own limit is not met…
const EARLY: Duration = Duration::from_mins(5);
/// The start-up script is ended this long before the runner must be online, so that it is known what took the time…
const SCRIPT_EARLY: Duration = Duration::from_secs(5);
/// … but neither by more than this part of the limit.
const EARLY_PART: u32 = 20;
/// How long a start-up script that has restarted the machine may take to end.
const REBOOT: Duration = Duration::from_secs(10);
/// How long a runner that is to leave, and was given a job instead, waits before it asks again.
const LEAVES_AGAIN: Duration = Duration::from_secs(5);
/// How long a runner that was online may take to be so again, if the spec sets no limit.
const ONLINE_AGAIN: Duration = Duration::from_mins(10);
/// A single runner ends itself once it has told the forge how its job ended.
const FINISH: Duration = Duration::from_mins(2);
/// How long the requests to the forge may take on the way out.
const FORGE: Duration = Duration::from_secs(45);
/// The runner needs up to ten seconds to end a step, and some to tell the forge.
const GRACE: Duration = Duration::from_secs(30);
/// The same for a runner that has no job, and that the forge does not know any more.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// How long after its last hook a job's last line may come.
const SETTLE: Duration = Duration::from_secs(10);
/// How long what outlives the grace may take to vanish when it is killed.
const KILL: Duration = Duration::from_secs(15);
/// How long the user's script may take to save a job's work when the machine does not say how long is left…
const SAVE: Duration = Duration::from_secs(30);
/// … and the part of what is left that it may take otherwise.
const SAVE_PART: u32 = 2;
/// How long after that the end of the script may be noticed.
const SAVED: Duration = Duration::from_secs(1);
/// How long the forge may take to let an interrupted run run again.
const RERUN: Duration = Duration::from_mins(10);
/// The same after a signal: a host that shuts down, or a person, waits less.
const SIGNAL_RERUN: Duration = Duration::from_mins(2);
/// What is kept of the last minutes of a machine for taking leave of the forge and powering off…
const LEAVE: Duration = Duration::from_secs(10);
/// … but never more than this part of them.
const LEAVE_PART: u32 = 4;
/// The part of what is left of a machine that its runner may take to stop: the re-run needs the rest.
const GRACE_PART: u32 = 3;
/// How long going away may take before the agent ends without it: the unit's own action follows. On Azure, a right that was given to the machine may not be
/// known everywhere for so long.
const TERMINATE: Duration = Duration::from_mins(5);

/// How long the launcher may take to see on the console what this machine came to.
pub fn seen(limits: &Limits) -> Duration {
    phase::readable(limits.provisioning.duration().unwrap_or(Duration::MAX))
}

/// When the step ends by itself. Only waiting for jobs, and a job, may go on for ever, if the spec says so.
pub fn deadline(state: &State, limits: &Limits) -> Option<Time> {
    let life = life(limits).filter(|_| !state.step.is_stopping());
    [own_deadline(state, limits), life].into_iter().flatten().min()
}

/// When the machine has lived for long enough, some time early.
pub fn life(limits: &Limits) -> Option<Time> {
    limits.life.duration().map(|limit| before(limit, EARLY))
}

fn own_deadline(state: &State, limits: &Limits) -> Option<Time> {
    let after = |time: Duration| Some(state.since.saturating_add(time));
    match state.step {
        Step::Provisioning | Step::Installing | Step::Registering => limits.provisioning.duration(),
        Step::Rebooting => after(REBOOT),
        Step::Starting if !state.online => limits.provisioning.duration(),
        Step::Starting => after(limits.provisioning.duration().unwrap_or(ONLINE_AGAIN)),
        Step::Idle if state.leaves.is_some() => after(LEAVES_AGAIN),
        Step::Idle => [idle(state, limits), check(state, limits)].into_iter().flatten().min(),
        Step::Busy => {
            let limit = limits.job.duration().and_then(|limit| after(before(limit, EARLY)));
            [limit, settled(state)].into_iter().flatten().min()
        }
        Step::Checking | Step::Withdrawing | Step::Unregistering => after(FORGE),
        Step::Finishing => after(FINISH),
        Step::Saving => after(save_budget(state) + SAVED),
        Step::Stopping => after(grace(state) + KILL),
        Step::Rerunning => after(rerun_budget(state)),
        Step::Terminating => after(TERMINATE),
        Step::Done => None,
    }
}

/// When a runner has had nothing to do for long enough, if it ever has.
pub fn idle(state: &State, limits: &Limits) -> Option<Time> {
    limits.idle.duration().map(|idle| state.quiet.saturating_add(idle))
}

/// When an idle runner asks whether it is still registered, if it ever does.
pub fn check(state: &State, limits: &Limits) -> Option<Time> {
    limits.check.duration().map(|check| state.since.saturating_add(check))
}

/// When a job whose last hook has run counts as ended even if its last line was not understood (a name may hold a line's end).
pub fn settled(state: &State) -> Option<Time> {
    Some(state.job.as_ref()?.completing?.saturating_add(SETTLE))
}

/// How long the start-up script may take from now, if there is a limit.
pub fn script_budget(now: Time, limits: &Limits) -> Option<Duration> {
    let limit = limits.provisioning.duration()?;
    Some(before(limit, SCRIPT_EARLY).saturating_sub(now))
}

/// Some time before a limit, but of a short one only a part.
fn before(limit: Duration, early: Duration) -> Duration {
    limit.saturating_sub(early.min(limit / EARLY_PART))
}

/// How long the user's script may take to save a job's work, from the beginning of the step.
pub fn save_budget(state: &State) -> Duration {
    let early = |limit: &Timeout| limit.duration().map(|limit| EARLY.min(limit / EARLY_PART));
    let left = match &state.stop {
        Some(StopReason::TimeLimit(limit) | StopReason::Lifetime(limit)) => early(limit),
        _ => left(state),
    };
    left.map_or(SAVE, |left| left / SAVE_PART)
}

/// How long the runner may take to stop, from the beginning of the step.
pub fn grace(state: &State) -> Duration {
    // Nobody is left to be told of anything; GitLab's runner would wait for the answer to its last question.
    let usual = if state.job.is_none() && !state.registered {
        FORGOTTEN
    } else {
        GRACE
    };
    left(state).map_or(usual, |left| usual.min(left / GRACE_PART))
}

/// How long the forge may take to run the job again, from the beginning of the step.
pub fn rerun_budget(state: &State) -> Duration {
    match &state.stop {
        Some(StopReason::Signal(_)) => SIGNAL_RERUN,
        _ => left(state).map_or(RERUN, |left| RERUN.min(left.saturating_sub(LEAVE.min(left / LEAVE_PART)))),
    }
}

/// What was left of a machine that is being taken away when the step began.
fn left(state: &State) -> Option<Duration> {
    match &state.stop {
        Some(StopReason::Interrupted(_, until)) => Some(until.saturating_sub(state.since)),
        _ => None,
    }
}
