//! GitHub's runner: the program of <https://github.com/actions/runner>, started without its shell wrappers, whose exit status says nothing.

mod configure;
mod dependencies;
mod environment;
mod hooks;
mod install;
mod lines;
mod package;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use common::forge::{Enrollment, Forge};
use common::spec::{RunnerOptions, RunnerSpec};
use nix::fcntl::OFlag;
use tokio::time::Instant;
use url::Url;

use super::{CommandLine, Exit, Hook, Line, Ready, Runner};
use crate::user::{self, User};
use hooks::Hooks;

/// The program that listens for jobs, in the runner's directory.
const LISTENER: &str = "bin/Runner.Listener";
/// It is there once an update has replaced the program. Source: run-helper.sh.template.
const UPDATED: &str = "update.finished";
/// How long an update may take: the shell wrapper waits half of it.
const UPDATE: Duration = Duration::from_mins(1);
/// How often its end is looked for.
const POLL: Duration = Duration::from_millis(250);
/// The pause after an error that may pass, the shell wrapper's own.
const PAUSE: Duration = Duration::from_secs(5);

/// More than any file has that the runner or a hook leaves for us, in bytes.
const MAX_SMALL: u64 = 16 << 10;

/// The listener's exit codes. Source: `Constants.Runner.ReturnCode`.
mod code {
    pub const RETRYABLE: i32 = 2;
    pub const UPDATING: i32 = 3;
    pub const RUN_ONCE_UPDATING: i32 = 4;
}

/// GitHub's runner in its directory.
pub struct GitHub {
    name: String,
    page: Url,
    options: RunnerOptions,
    on_cloud: bool,
    dir: PathBuf,
    hooks: Hooks,
    user: Option<User>,
    forge: Arc<dyn Forge>,
}

impl GitHub {
    /// Nothing is done yet.
    pub fn new(spec: &RunnerSpec, state_dir: &Path, user: Option<User>, forge: Arc<dyn Forge>) -> Result<Self> {
        let on_cloud = spec.cloud.is_some();
        let usual = if on_cloud {
            user::instance_path("/opt/cml/runner")
        } else {
            state_dir.join("runner")
        };
        Ok(Self {
            name: spec.name.clone(),
            page: spec.repo.clone(),
            options: spec.options.clone(),
            on_cloud,
            // Of a relative one, everything below would be relative to itself.
            dir: std::path::absolute(spec.options.workdir.as_ref().unwrap_or(&usual))?,
            hooks: Hooks::new(&spec.repo, &std::path::absolute(state_dir)?, user.clone()),
            user,
            forge,
        })
    }

    /// A program of the runner, as the job user, in the environment that jobs get.
    fn command(&self, program: &str, args: &[&str]) -> CommandLine {
        CommandLine {
            program: self.dir.join(program),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            dir: self.dir.clone(),
            env: environment::build(std::env::vars_os(), self.user.as_ref()),
            user: self.user.clone(),
            shares_user: false,
        }
    }
}

#[async_trait]
impl Runner for GitHub {
    async fn install(&self) -> Result<()> {
        self.make_ready().await
    }

    async fn configure(&self, enrollment: &Enrollment) -> Result<Ready> {
        self.register(enrollment).await
    }

    fn read_line(&self, line: &str) -> Option<Line> {
        lines::read(line)
    }

    fn read_hook(&self) -> Option<Hook> {
        self.hooks.take()
    }

    fn read_exit(&self, status: ExitStatus) -> Exit {
        match status.code() {
            Some(0) => Exit::Done,
            Some(code::RETRYABLE | code::UPDATING | code::RUN_ONCE_UPDATING) => Exit::Restart,
            Some(code) => Exit::Failed(code),
            // As shells count them.
            None => Exit::Failed(128 + status.signal().unwrap_or(0)),
        }
    }

    async fn settle(&self, status: ExitStatus) {
        if status.code() == Some(code::RETRYABLE) {
            tokio::time::sleep(PAUSE).await;
            return;
        }
        tracing::info!("the runner updates itself");
        let (flag, deadline) = (self.dir.join(UPDATED), Instant::now() + UPDATE);
        while std::fs::remove_file(&flag).is_err() {
            if Instant::now() >= deadline {
                tracing::warn!("the runner's update does not end; starting what is there");
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Removes a file that need not be there; a link is removed itself.
fn forget(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    }
}

/// Reads a small file that a job could have written: never through a link, and nothing that could block or fill our memory.
fn read_small(path: &Path) -> io::Result<String> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    file.take(MAX_SMALL).read_to_string(&mut text)?;
    Ok(text)
}
