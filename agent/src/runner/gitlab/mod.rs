//! GitLab's runner: the program of <https://gitlab.com/gitlab-org/gitlab-runner>, which `run-single` starts for one registration.

mod config;
pub mod lines;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use common::forge::gitlab::RunnerConfig;
use common::forge::{Enrollment, Forge, Platform};
use common::spec::{RunnerOptions, RunnerSpec};
use url::Url;

use super::docker::{Docker, Place};
use super::program::Program;
use super::release::Release;
use super::{Exit, Hook, Line, Ready, Runner};
use crate::archive::Form;
use crate::supervise;
use crate::user::User;

/// The program, in the runner's directory.
const PROGRAM: &str = "gitlab-runner";

/// How GitLab publishes it.
const RELEASE: Release = Release {
    // Source: <https://docs.gitlab.com/runner/install/bleeding-edge/>
    template: "https://s3.dualstack.us-east-1.amazonaws.com/gitlab-runner-downloads/v{version}/binaries/gitlab-runner-{os}-{arch}",
    form: Form::Program(PROGRAM),
    program: PROGRAM,
    arch: Platform::debian,
    version_of,
    checksums: Some("../release.sha256"),
    // The first with tokens that the server makes.
    floor: [16, 0, 0],
};

/// The version in `…/v18.6.0/binaries/gitlab-runner-linux-amd64`.
fn version_of(url: &Url) -> Option<String> {
    let segments: Vec<&str> = url.path_segments()?.collect();
    let [.., version, "binaries", _] = segments.as_slice() else {
        return None;
    };
    let version = version.strip_prefix('v').unwrap_or(version);
    super::release::numbers(version).map(|_| version.to_owned())
}

/// GitLab's runner in its directory.
pub struct GitLab {
    name: String,
    options: RunnerOptions,
    program: Program,
    docker: Docker,
    forge: Arc<dyn Forge>,
}

impl GitLab {
    /// Nothing is done yet.
    pub fn new(spec: &RunnerSpec, state_dir: &Path, user: Option<User>, forge: Arc<dyn Forge>) -> Result<Self> {
        Ok(Self {
            name: spec.name.clone(),
            options: spec.options.clone(),
            program: Program::new(spec, state_dir, user, &RELEASE)?,
            docker: Docker::of_environment(),
            forge,
        })
    }
}

#[async_trait]
impl Runner for GitLab {
    async fn install(&self) -> Result<()> {
        self.program.make_ready(self.forge.as_ref()).await?;
        if self.docker.place(self.options.executor)? == Place::Shell && supervise::find_program("git").is_none() {
            tracing::warn!("git is not installed: jobs cannot fetch their project; install it in the image or in --cloud-startup-script");
        }
        Ok(())
    }

    async fn configure(&self, enrollment: &Enrollment) -> Result<Ready> {
        let Enrollment::Made { id, config } = enrollment else {
            bail!("GitLab gave a registration token where a registration was asked for");
        };
        let config: RunnerConfig = serde_json::from_str(config.expose()).context("reading the registration")?;
        let place = self.docker.place(self.options.executor)?;
        let words = match place {
            Place::Shell => "a shell",
            Place::Containers { gpus: false } => "containers",
            Place::Containers { gpus: true } => "containers, with all GPUs",
        };
        tracing::info!("jobs run in {words}");
        let path = config::write(&self.program, &self.name, &self.options, &config, place)?;
        // Not as a variable: jobs in a shell inherit the runner's environment.
        let mut args = vec!["--log-format", "json", "run-single", "--config", &path, "--runner", &self.name];
        if self.options.single {
            args.extend(["--max-builds", "1"]);
        }
        Ok(Ready {
            id: id.clone(),
            command: self.program.command(PROGRAM, &args),
        })
    }

    fn read_line(&self, line: &str) -> Option<Line> {
        lines::read(line)
    }

    fn read_hook(&self) -> Option<Hook> {
        None
    }

    fn read_exit(&self, status: ExitStatus) -> Exit {
        Exit::of(status)
    }

    async fn settle(&self, _: ExitStatus) {}
}
