//! What breaks, when it does, and what may be left then.

use std::fmt;

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    AgentKilled,
    AgentFrozen,
    AgentKilledAndDeleted,
    RunnerKilled,
    RunnerDeaf,
    BothKilled,
    DiskFull,
    MetadataSilent,
    ClockAhead,
    ClockBehind,
    NamesUnknown,
    ForgeUnreachable,
    ForgeUnauthorized,
    ForgeForbidden,
    ForgeLimits,
    ForgeSlow,
    ForgeBroken,
    PowerOffRefused,
    PowerOffForbidden,
}

/// When it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    StartupScript,
    Registering,
    Idle,
    Busy,
    Rerunning,
}

/// What ends a machine after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The fault, or a limit of the agent.
    ByItself,
    /// The agent, once it is told to.
    Told,
    /// Its timers: the agent cannot.
    ByTimers,
    /// The agent is told, and would try for longer than its timers let it.
    ToldThenByTimers,
    /// Nothing on it can.
    FromOutside,
}

/// What is left when the machine is gone, or when nothing on it can end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Whether the forge still has a registration.
    pub registered: bool,
    /// Whether the job was run again, if one ran.
    pub again: Option<bool>,
    /// Whether the machine is.
    pub stays: bool,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.registered { "left" } else { "removed" })?;
        match self.again {
            Some(true) => f.write_str(", again")?,
            Some(false) => f.write_str(", lost")?,
            None => {}
        }
        if self.stays {
            f.write_str(", stays")?;
        }
        Ok(())
    }
}

impl When {
    pub const ALL: [Self; 5] = [Self::StartupScript, Self::Registering, Self::Idle, Self::Busy, Self::Rerunning];

    pub const fn title(self) -> &'static str {
        match self {
            Self::StartupScript => "start-up script runs",
            Self::Registering => "runner registers",
            Self::Idle => "idle",
            Self::Busy => "job runs",
            Self::Rerunning => "job is being run again",
        }
    }

    const fn has_runner(self) -> bool {
        matches!(self, Self::Idle | Self::Busy)
    }

    /// Whether it is before the runner is online.
    pub const fn is_early(self) -> bool {
        matches!(self, Self::StartupScript | Self::Registering)
    }
}

impl Fault {
    pub const ALL: [Self; 19] = [
        Self::AgentKilled,
        Self::AgentFrozen,
        Self::AgentKilledAndDeleted,
        Self::RunnerKilled,
        Self::RunnerDeaf,
        Self::BothKilled,
        Self::DiskFull,
        Self::MetadataSilent,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::NamesUnknown,
        Self::ForgeUnreachable,
        Self::ForgeUnauthorized,
        Self::ForgeForbidden,
        Self::ForgeLimits,
        Self::ForgeSlow,
        Self::ForgeBroken,
        Self::PowerOffRefused,
        Self::PowerOffForbidden,
    ];

    pub const fn title(self) -> &'static str {
        match self {
            Self::AgentKilled => "agent is killed (-9)",
            Self::AgentFrozen => "agent hangs",
            Self::AgentKilledAndDeleted => "agent is killed, its program deleted",
            Self::RunnerKilled => "runner is killed (-9)",
            Self::RunnerDeaf => "runner hangs, deaf to signals",
            Self::BothKilled => "both are killed",
            Self::DiskFull => "agent's disk is full",
            Self::MetadataSilent => "metadata service hangs",
            Self::ClockAhead => "clock jumps a day ahead",
            Self::ClockBehind => "clock jumps a day back",
            Self::NamesUnknown => "name server never answers",
            Self::ForgeUnreachable => "forge hangs up on everybody",
            Self::ForgeUnauthorized => "forge refuses the token (401)",
            Self::ForgeForbidden => "forge forbids everything (403)",
            Self::ForgeLimits => "forge's rate limit is used up for an hour (429)",
            Self::ForgeSlow => "forge takes a second for each answer",
            Self::ForgeBroken => "forge answers 500",
            Self::PowerOffRefused => "first ways to power off fail",
            Self::PowerOffForbidden => "every way to power off fails, for ever",
        }
    }

    /// Whether there is such a thing at that moment.
    pub const fn meets(self, when: When) -> bool {
        !matches!(self, Self::RunnerKilled | Self::RunnerDeaf | Self::BothKilled) || when.has_runner()
    }

    /// Whether it is one of the machine's clock.
    pub const fn is_of_clock(self) -> bool {
        matches!(self, Self::ClockAhead | Self::ClockBehind)
    }

    /// What ends the machine then.
    pub fn end(self, when: When) -> End {
        match self {
            // An idle runner that ends is started again.
            Self::RunnerKilled if when == When::Idle => End::Told,
            // Limits are what a clock could disturb.
            Self::ClockAhead
            | Self::ClockBehind
            | Self::AgentKilled
            | Self::AgentKilledAndDeleted
            | Self::RunnerKilled
            | Self::RunnerDeaf
            | Self::BothKilled => End::ByItself,
            Self::AgentFrozen => End::ByTimers,
            Self::DiskFull
            | Self::MetadataSilent
            | Self::ForgeUnauthorized
            | Self::ForgeForbidden
            | Self::ForgeLimits
            | Self::ForgeSlow
            | Self::PowerOffRefused => End::Told,
            Self::NamesUnknown | Self::ForgeUnreachable | Self::ForgeBroken => End::ToldThenByTimers,
            Self::PowerOffForbidden => End::FromOutside,
        }
    }
}
