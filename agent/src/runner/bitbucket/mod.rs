//! Bitbucket's runner for Linux without containers: Atlassian's Java program, started without its shell script, which puts the runner's
//! secret among the arguments of the process.

mod arguments;
mod java;
mod lines;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use common::forge::bitbucket::{RUNNER_URL, RunnerConfig};
use common::forge::{Enrollment, Forge, Platform};
use common::spec::RunnerSpec;
use url::Url;

use super::program::Program;
use super::release::{self, Release};
use super::{Exit, Hook, Line, Ready, Runner};
use crate::archive::Form;
use crate::supervise;
use crate::user::User;

/// The program, in the runner's directory.
const JAR: &str = "bin/runner.jar";
/// The same as bin/start.sh names it: it expects to be started from where it lies.
const HERE: (&str, &str) = ("bin", "./runner.jar");

/// How Atlassian publishes it.
const RELEASE: Release = Release {
    template: RUNNER_URL,
    form: Form::TarGz,
    program: JAR,
    arch: Platform::debian,
    version_of,
    checksums: None,
    // Atlassian names no oldest.
    floor: [0, 0, 0],
};

/// The version in `…/atlassian-bitbucket-pipelines-runner-5.7.0.tar.gz`.
fn version_of(url: &Url) -> Option<String> {
    let file = url.path_segments()?.next_back()?;
    let version = file.strip_suffix(".tar.gz")?.rsplit('-').next()?;
    release::numbers(version).map(|_| version.to_owned())
}

/// Bitbucket's runner in its directory.
pub struct Bitbucket {
    /// `WORKSPACE/REPO`, or `WORKSPACE`.
    repository: String,
    /// Where Java may be.
    java: Vec<PathBuf>,
    program: Program,
    forge: Arc<dyn Forge>,
}

impl Bitbucket {
    /// Nothing is done yet.
    pub fn new(spec: &RunnerSpec, state_dir: &Path, user: Option<User>, forge: Arc<dyn Forge>) -> Result<Self> {
        Ok(Self {
            repository: spec.repo.path().trim_matches('/').to_owned(),
            java: java::places(),
            program: Program::new(spec, state_dir, user, &RELEASE)?,
            forge,
        })
    }
}

#[async_trait]
impl Runner for Bitbucket {
    async fn install(&self) -> Result<()> {
        // First what only a person can mend.
        java::find(&self.java, &self.program).await?;
        if supervise::find_program("git").is_none() {
            tracing::warn!(
                "git is not installed: steps cannot fetch their repository; install it in the image or in --cloud-startup-script"
            );
        }
        self.program.make_ready(self.forge.as_ref()).await
    }

    async fn configure(&self, enrollment: &Enrollment) -> Result<Ready> {
        let Enrollment::Made { id, config } = enrollment else {
            bail!("Bitbucket gave a registration token where a registration was asked for");
        };
        let config: RunnerConfig = serde_json::from_str(config.expose()).context("reading the registration")?;
        let file = self
            .program
            .write_private(arguments::NAME, &arguments::text(&self.program, &config))?;
        let (dir, jar) = HERE;
        let mut command = self.program.command(dir, &[&format!("@{}", file.display()), "-jar", jar]);
        command.dir = std::mem::replace(&mut command.program, java::find(&self.java, &self.program).await?);
        Ok(Ready { id: id.clone(), command })
    }

    fn read_line(&self, line: &str) -> Option<Line> {
        lines::read(line, &self.repository)
    }

    fn read_hook(&self) -> Option<Hook> {
        None
    }

    fn read_exit(&self, status: ExitStatus) -> Exit {
        Exit::of(status)
    }

    async fn settle(&self, _: ExitStatus) {}
}
