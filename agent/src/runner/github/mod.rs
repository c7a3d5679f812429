//! GitHub's runner: the program of <https://github.com/actions/runner>, started without its shell wrappers, whose exit status says nothing.

mod configure;
mod dependencies;
pub mod hooks;
pub mod lines;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use common::forge::{Enrollment, Forge, Platform};
use common::spec::{RunnerOptions, RunnerSpec};
use tokio::time::Instant;
use url::Url;

use super::program::Program;
use super::release::{self, Release};
use super::{Exit, Hook, Line, Ready, Runner};
use crate::archive::Form;
use crate::supervise::CommandLine;
use crate::user::User;
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

/// How GitHub publishes it.
const RELEASE: Release = Release {
    template: "https://github.com/actions/runner/releases/download/v{version}/actions-runner-{os}-{arch}-{version}.tar.gz",
    form: Form::TarGz,
    program: LISTENER,
    arch: Platform::github,
    version_of,
    checksums: None,
    // Source: <https://docs.github.com/en/actions/reference/runners/self-hosted-runners>
    floor: [2, 329, 0],
};

/// The version in `…/actions-runner-linux-x64-2.336.0.tar.gz`.
fn version_of(url: &Url) -> Option<String> {
    let file = url.path_segments()?.next_back()?;
    let version = file.strip_suffix(".tar.gz")?.rsplit('-').next()?;
    release::numbers(version).map(|_| version.to_owned())
}

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
    program: Program,
    hooks: Hooks,
    forge: Arc<dyn Forge>,
}

impl GitHub {
    /// Nothing is done yet.
    pub fn new(spec: &RunnerSpec, state_dir: &Path, user: Option<User>, forge: Arc<dyn Forge>) -> Result<Self> {
        Ok(Self {
            name: spec.name.clone(),
            page: spec.repo.clone(),
            options: spec.options.clone(),
            on_cloud: spec.cloud.is_some(),
            hooks: Hooks::new(&spec.repo, &std::path::absolute(state_dir)?, user.clone()),
            program: Program::new(spec, state_dir, user, &RELEASE)?,
            forge,
        })
    }

    /// A program of the runner, as the job user, in the environment that jobs get.
    fn command(&self, program: &str, args: &[&str]) -> CommandLine {
        let mut command = self.program.command(program, args);
        if command.is_root() {
            command.env.push(("RUNNER_ALLOW_RUNASROOT".into(), "1".into()));
        }
        // Else it ends with 1, as for anything else.
        command
            .env
            .push(("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE".into(), "1".into()));
        command
    }
}

#[async_trait]
impl Runner for GitHub {
    async fn install(&self) -> Result<()> {
        self.hooks.prepare()?;
        self.program.make_ready(self.forge.as_ref()).await?;
        if self.on_cloud {
            dependencies::install(&self.program.dir).await;
        }
        Ok(())
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
            Some(code::RETRYABLE | code::UPDATING | code::RUN_ONCE_UPDATING) => Exit::Restart,
            _ => Exit::of(status),
        }
    }

    async fn settle(&self, status: ExitStatus) {
        if status.code() == Some(code::RETRYABLE) {
            tokio::time::sleep(PAUSE).await;
            return;
        }
        tracing::info!("the runner updates itself");
        let (flag, deadline) = (self.program.dir.join(UPDATED), Instant::now() + UPDATE);
        while std::fs::remove_file(&flag).is_err() {
            if Instant::now() >= deadline {
                tracing::warn!("the runner's update does not end; starting what is there");
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
