//! Bitbucket's runners for Linux: Atlassian's image where steps run in containers, else Atlassian's Java program, started without its shell
//! script, which puts the runner's secret among the arguments of the process.

mod arguments;
mod container;
mod java;
pub mod lines;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use common::forge::bitbucket::{RUNNER_URL, RunnerConfig};
use common::forge::{Enrollment, Forge, Platform};
use common::spec::{Executor, RunnerOptions, RunnerSpec};
use url::Url;

use super::containers::Containers;
use super::docker::{Docker, Place};
use super::program::Program;
use super::release::{self, Release};
use super::{Exit, Hook, Line, Ready, Runner};
use crate::archive::Form;
use crate::supervise::{self, CommandLine};
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

/// Whether steps run in containers. To be asked when the start-up script, which may install Docker, has run.
pub fn in_containers(options: &RunnerOptions) -> Result<bool> {
    Ok(docker().place(options.executor)? != Place::Shell)
}

/// The runner's containers, if it may have some.
pub fn containers(spec: &RunnerSpec, state_dir: &Path) -> Result<Option<Containers>> {
    let work = container::work(&Program::new(spec, state_dir, None, &RELEASE)?);
    let executor = spec.options.executor;
    Ok((executor != Executor::Shell).then(|| Containers::new(docker(), executor, &spec.name, &work)))
}

fn docker() -> Docker {
    Docker::of_environment().here()
}

/// Bitbucket's runner in its directory.
pub struct Bitbucket {
    name: String,
    options: RunnerOptions,
    state_dir: PathBuf,
    docker: Docker,
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
            name: spec.name.clone(),
            options: spec.options.clone(),
            state_dir: std::path::absolute(state_dir)?,
            docker: docker(),
            repository: spec.repo.path().trim_matches('/').to_owned(),
            java: java::places(),
            program: Program::new(spec, state_dir, user, &RELEASE)?,
            forge,
        })
    }
}

impl Bitbucket {
    async fn install_java_program(&self) -> Result<()> {
        // First what only a person can mend.
        java::find(&self.java, &self.program).await?;
        if supervise::find_program("git").is_none() {
            tracing::warn!(
                "git is not installed: steps cannot fetch their repository; install it in the image or in --cloud-startup-script"
            );
        }
        self.program.make_ready(self.forge.as_ref()).await
    }

    /// The command of the Java program.
    async fn in_shell(&self, config: &RunnerConfig) -> Result<CommandLine> {
        let file = self
            .program
            .write_private(arguments::NAME, &arguments::text(&self.program, config))?;
        let (dir, jar) = HERE;
        let mut command = self.program.command(dir, &[&format!("@{}", file.display()), "-jar", jar]);
        command.dir = std::mem::replace(&mut command.program, java::find(&self.java, &self.program).await?);
        Ok(command)
    }

    /// The command of the container.
    async fn in_container(&self, config: &RunnerConfig) -> Result<CommandLine> {
        let image = container::image(&self.options)?;
        let socket = self.docker.socket().context("Docker is not on this machine")?;
        let made = container::Made {
            image: &image,
            socket: &socket,
        };
        container::create(&self.program, &self.state_dir, &self.name, config, made).await
    }
}

#[async_trait]
impl Runner for Bitbucket {
    async fn install(&self) -> Result<()> {
        if self.docker.place(self.options.executor)? == Place::Shell {
            return self.install_java_program().await;
        }
        let image = container::image(&self.options)?;
        self.program.make_room().await?;
        container::fetch(&image, self.program.download_budget()).await
    }

    async fn configure(&self, enrollment: &Enrollment) -> Result<Ready> {
        let Enrollment::Made { id, config } = enrollment else {
            bail!("Bitbucket gave a registration token where a registration was asked for");
        };
        let config: RunnerConfig = serde_json::from_str(config.expose()).context("reading the registration")?;
        // As the labels say with which it was registered.
        tracing::info!("steps run in {}", if config.containers { "containers" } else { "a shell" });
        let command = if config.containers {
            self.in_container(&config).await?
        } else {
            self.in_shell(&config).await?
        };
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
