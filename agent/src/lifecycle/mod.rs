//! What the agent does next: a pure function, without I/O and without a clock.
//!
//! [`transition`] takes a state and an event and gives the next state, with the action that begins there. An action's result, or its
//! [deadline], is the next event: nothing can block the way to the end. docs/lifecycle.md is the whole table, generated.

mod limits;
mod reason;
#[cfg(test)]
mod tests;
mod transition;

use std::time::Duration;

use common::forge::{Job, Removal};
use common::timeout::Timeout;
use serde::{Deserialize, Serialize};

use crate::host::Interruption;
use crate::runner::Exit;
pub use limits::{deadline, grace, rerun_budget, save_budget, script_budget, seen};
pub use reason::StopReason;
pub use transition::transition;

/// A point in time: since the agent began.
pub type Time = Duration;

/// Where the agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// The user's start-up script runs.
    Provisioning,
    /// It has restarted the machine, and is not at its own end yet. The agent that starts then goes on after it.
    Rebooting,
    /// The forge's runner is downloaded and unpacked.
    Installing,
    /// It registers.
    Registering,
    /// It has been started and does not listen yet.
    Starting,
    /// It waits for a job.
    Idle,
    /// The forge is asked whether it still knows the idle runner: one can listen for ever that was removed.
    Checking,
    /// It runs a job.
    Busy,
    /// The registration is being deleted, if no job has just been assigned: the atomic idle test.
    Withdrawing,
    /// A single runner has done its job and is ending itself.
    Finishing,
    /// The user's script saves what the job that is to be interrupted has done; the job still runs.
    Saving,
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
    /// Ask the forge for the registration.
    Check,
    /// Delete the registration.
    Unregister,
    /// Run the user's script for interruptions, within the [`save_budget`].
    Save,
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
            Self::Rebooting | Self::Idle | Self::Busy | Self::Finishing => Action::Wait,
            Self::Checking => Action::Check,
            Self::Withdrawing | Self::Unregistering => Action::Unregister,
            Self::Saving => Action::Save,
            Self::Stopping => Action::Stop,
            Self::Rerunning => Action::Rerun,
            Self::Terminating => Action::Terminate,
            Self::Done => Action::Exit,
        }
    }

    const fn is_stopping(self) -> bool {
        matches!(
            self,
            Self::Saving | Self::Stopping | Self::Rerunning | Self::Unregistering | Self::Terminating | Self::Done
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
    /// It failed, and nothing of ours is in the forge: the name is another's.
    Refused(String),
    /// The forge answered the deletion of the registration.
    Answered(Removal),
    /// The runner waits for jobs.
    Listening,
    /// It starts a job of this name.
    JobStarted(String),
    /// The ids of the running job.
    JobKnown(Job),
    /// The job's last hook ran: its end is near, or has been.
    JobCompleting,
    /// The job of this name ended; whether well.
    JobEnded(String, bool),
    /// The forge does not know the runner any more.
    Deregistered,
    /// The runner program ended.
    Exited(Exit),
    /// The machine is about to be taken away.
    Notice(Interruption),
    /// Its owner wants it to finish its job, take no other, and end: another program is to take its place.
    Drain,
    /// A signal arrived.
    Signal(i32),
    /// One arrived because the machine restarts.
    Reboot(i32),
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
    /// `--max-lifetime`
    pub life: Timeout,
    /// `--provisioning-timeout`
    pub provisioning: Timeout,
    /// `--registration-check`
    pub check: Timeout,
    /// `--single`
    pub single: bool,
    /// Whether a single runner stays after its job: its forge has no runners of one job.
    pub lingers: bool,
    /// Whether there is a script to save a job's work: `--on-interrupt`
    pub save: bool,
    /// Whether an interrupted job is to run again, be it only by who finds its note: not `--no-retry`.
    pub rerun: bool,
}

/// A job that runs, or was interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Running {
    /// Its display name: hostile input, good only for comparing.
    pub name: Option<String>,
    /// Its ids, once the hook has told them.
    pub ids: Option<Job>,
    /// When its last hook ran, if it has. A hint: a job can forge it, but then only the forge's own word can stop the runner.
    pub completing: Option<Time>,
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
    /// Whether the stop began for a reason that runs an interrupted job again: what raises the reason later interrupted nothing.
    pub reruns: bool,
    /// Whether the forge may have a registration of ours.
    pub registered: bool,
    /// Whether the runner program, or something that it started, may be alive.
    pub alive: bool,
    /// The job that runs, or that was interrupted.
    pub job: Option<Running>,
    /// Why it takes no more jobs, if it is to end once none runs.
    pub leaves: Option<StopReason>,
    /// Whether the runner has been online.
    pub online: bool,
    /// Since when there has been no job: the idle timeout counts from here, whatever the runner does to itself meanwhile.
    pub quiet: Time,
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
            reruns: false,
            registered: false,
            alive: false,
            job: None,
            leaves: None,
            online: false,
            quiet: Duration::ZERO,
            failures: 0,
            entered: 0,
        }
    }

    /// The state of an agent on a machine that its start-up script has restarted.
    pub fn provisioned() -> Self {
        Self {
            step: Step::Installing,
            ..Self::first()
        }
    }

    /// The state of an agent that finds another's remains: it never resumes. It ends what is left, runs the job again, takes its leave, and goes.
    pub fn crashed(job: Option<Running>) -> Self {
        Self {
            step: Step::Stopping,
            stop: Some(StopReason::Crashed),
            reruns: true,
            registered: true,
            alive: true,
            job,
            ..Self::first()
        }
    }
}
