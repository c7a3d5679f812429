//! Why an agent stops: it decides everything about the stop.

use std::fmt;

use common::timeout::Timeout;

use super::Time;

/// [`common::error::Class::NameInUse`] as an exit code.
const NAME_IN_USE: u8 = 6;

/// Why the agent stops. A later reason replaces an earlier one only if its [rank](StopReason::rank) is higher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// Nothing to do for this long.
    Idle(Timeout),
    /// The one job that it was launched for is done.
    Single,
    /// The cloud advised to take no more jobs, and none runs.
    Advised,
    /// Its owner told it to take no more jobs, and none runs.
    Drained,
    /// Somebody removed the runner from the forge.
    Unregistered,
    /// It could not do its work, for this reason.
    Failed(String),
    /// Another runner has its name: the whole story.
    NameInUse(String),
    /// A job ran for longer than this.
    TimeLimit(Timeout),
    /// The machine has lived for longer than this.
    Lifetime(Timeout),
    /// An earlier agent died while a job ran.
    Crashed,
    /// This signal: a person, or the host's shutdown.
    Signal(i32),
    /// The machine is taken away: the cloud's words, and when it will be gone.
    Interrupted(String, Time),
}

impl StopReason {
    /// Whoever has less time has the higher rank.
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Idle(_) => 0,
            Self::Single => 1,
            Self::Advised => 2,
            Self::Drained => 3,
            Self::Unregistered => 4,
            Self::Failed(_) | Self::NameInUse(_) => 5,
            Self::TimeLimit(_) => 6,
            Self::Lifetime(_) => 7,
            Self::Crashed => 8,
            Self::Signal(_) => 9,
            Self::Interrupted(..) => 10,
        }
    }

    /// Whether a job that was running must run again. A runner that is drained has none; but the forge may assign one while it is being stopped.
    pub const fn reruns(&self) -> bool {
        matches!(
            self,
            Self::Drained | Self::TimeLimit(_) | Self::Lifetime(_) | Self::Crashed | Self::Signal(_) | Self::Interrupted(..)
        )
    }

    /// The agent's exit code: that of a launcher, which becomes an agent on a user's own host.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Crashed => 1,
            Self::NameInUse(_) => NAME_IN_USE,
            _ => 0,
        }
    }
}

/// The words of the `terminated` record, as the old tool's users parse them.
impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle(after) | Self::TimeLimit(after) => match after.duration() {
                Some(after) => write!(f, "timeout:{}", after.as_secs()),
                None => write!(f, "timeout:never"),
            },
            Self::Lifetime(limit) => write!(f, "lifetime:{}", limit.duration().unwrap_or_default().as_secs()),
            Self::Single => f.write_str("single job"),
            Self::Advised => f.write_str("rebalance recommendation"),
            Self::Drained => f.write_str("drained"),
            Self::Unregistered => f.write_str("runner was removed from the forge"),
            Self::Failed(why) | Self::NameInUse(why) => f.write_str(why),
            Self::Crashed => f.write_str("agent was killed"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => f.write_str(signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
            Self::Interrupted(words, _) => f.write_str(words),
        }
    }
}
