//! The forge's own runner program: how it is installed, started, read and stopped.

mod bitbucket;
mod containers;
mod docker;
mod environment;
#[cfg(test)]
mod fixtures;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod github;
mod gitlab;
mod program;
mod release;
mod stamp;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use common::forge::{Enrollment, Forge, Job, RunnerId};
use common::spec::{ForgeKind, RunnerSpec};

use crate::supervise::CommandLine;
use crate::user::User;
pub use containers::Containers;

/// One per forge. It knows the program; it never decides.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Makes the program ready to be configured: baked, left from before, or downloaded and verified.
    async fn install(&self) -> Result<()>;

    /// Registers with the enrollment and returns the command to supervise, with the forge's id of the registration once it is known.
    async fn configure(&self, enrollment: &Enrollment) -> Result<Ready>;

    /// What one whole line of its output says. Pure.
    fn read_line(&self, line: &str) -> Option<Line>;

    /// What the job hooks left since the last call (the directory is watched; a changed file is a reason to call).
    fn read_hook(&self) -> Option<Hook>;

    /// What an exit of the supervised command means.
    fn read_exit(&self, status: ExitStatus) -> Exit;

    /// After [`Exit::Restart`]: waits until it may be started again, since an update is still at work, or the forge wants a pause.
    async fn settle(&self, status: ExitStatus);
}

/// Opens the runner of the spec's forge. `state_dir` gets the directory `hooks`, which the job hooks write to: with a job user it is
/// made traversable (0711) for that.
pub fn open(spec: &RunnerSpec, state_dir: &Path, user: Option<User>, forge: Arc<dyn Forge>) -> Result<Box<dyn Runner>> {
    match spec.forge {
        ForgeKind::GitHub => Ok(Box::new(github::GitHub::new(spec, state_dir, user, forge)?)),
        ForgeKind::GitLab => Ok(Box::new(gitlab::GitLab::new(spec, state_dir, user, forge)?)),
        ForgeKind::Bitbucket => Ok(Box::new(bitbucket::Bitbucket::new(spec, state_dir, user, forge)?)),
    }
}

/// The containers of the spec's runner: they outlive its processes. None where it has none, or sees to them itself.
pub fn containers(spec: &RunnerSpec, state_dir: &Path) -> Result<Option<Containers>> {
    match spec.forge {
        ForgeKind::GitHub | ForgeKind::GitLab => Ok(None),
        ForgeKind::Bitbucket => bitbucket::containers(spec, state_dir),
    }
}

/// Whether jobs run in containers, where the forge is told so. To be asked when the start-up script, which may install Docker, has run.
pub fn in_containers(spec: &RunnerSpec) -> Result<bool> {
    match spec.forge {
        ForgeKind::GitHub | ForgeKind::GitLab => Ok(false),
        ForgeKind::Bitbucket => bitbucket::in_containers(&spec.options),
    }
}

/// Whether a runner that is to do one job stays when it has done it: its forge has no such thing.
pub const fn lingers(forge: ForgeKind) -> bool {
    match forge {
        ForgeKind::GitHub | ForgeKind::GitLab => false,
        ForgeKind::Bitbucket => true,
    }
}

/// A configured runner.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The forge's id of the registration.
    pub id: RunnerId,
    /// What to run, in the foreground.
    pub command: CommandLine,
}

/// What a line of the runner's output says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// It waits for jobs: the forge sees it online.
    Listening,
    /// It asks for jobs; whether the forge lets it, only the forge tells.
    Asking,
    /// A job of this name starts.
    JobStarted(String),
    /// A job starts, and these are its ids.
    JobKnown(Job),
    /// The job of this name ended; whether well.
    JobEnded {
        /// Its display name: hostile input.
        name: String,
        /// Whether the runner said that it succeeded.
        success: bool,
    },
    /// The forge does not know this runner any more.
    Deregistered,
}

/// What a job hook said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// A job has started; validated ids.
    Started(Job),
    /// It has completed (a hint only: skipped when the runner is interrupted).
    Completed,
}

impl Exit {
    /// Of a program whose exit code says only whether it did well.
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Done,
            Some(code) => Self::Failed(code),
            // As shells count them.
            None => Self::Failed(128 + status.signal().unwrap_or(0)),
        }
    }
}

/// What the end of the runner program means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was started for.
    Done,
    /// Start it again, once [`Runner::settle`] returns: it updates itself, or lost the forge for a moment.
    Restart,
    /// It failed; the code.
    Failed(i32),
}
