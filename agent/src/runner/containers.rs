//! The containers of a runner, its own and its jobs': Docker's children, not ours, so that no signal of ours ends all of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use common::forge::RunnerId;
use common::spec::Executor;

use super::docker::{self, Docker, Place};
use super::environment;
use crate::supervise::{self, CommandLine};

/// The label of the runner's own container: its value is the runner's name, which an agent that was killed has told the next one.
pub const LABEL: &str = "cml-runner";
/// How long Docker may take for a list, or a removal.
const BUDGET: Duration = Duration::from_secs(10);
/// One line for each container. Source: <https://docs.docker.com/reference/cli/docker/container/ls/#format>
const FORMAT: &str = "{{.ID}}\t{{.Label \"cml-runner\"}}\t{{.Names}}\t{{.Mounts}}";

/// Those of one runner.
#[derive(Debug, Clone)]
pub struct Containers {
    docker: Docker,
    executor: Executor,
    name: String,
    work: PathBuf,
}

impl Containers {
    /// Of the runner of this name, whose jobs work in a directory that is nobody else's.
    pub fn new(docker: Docker, executor: Executor, name: &str, work: &Path) -> Self {
        Self {
            docker,
            executor,
            name: name.into(),
            work: work.into(),
        }
    }

    /// Ends and removes them. What cannot be removed is told in the log: nobody could do more about it.
    pub async fn remove(&self, id: Option<&RunnerId>) {
        if !matches!(self.docker.place(self.executor), Ok(Place::Containers { .. })) {
            return;
        }
        if let Err(error) = self.try_remove(id).await {
            tracing::warn!("containers of the runner may be left: {error:#}");
        }
    }

    async fn try_remove(&self, id: Option<&RunnerId>) -> Result<()> {
        let listed = run(&["container", "ls", "--all", "--no-trunc", "--format", FORMAT], BUDGET).await?;
        let ours = ours(&listed, &self.name, &self.work, id);
        if ours.is_empty() {
            return Ok(());
        }
        tracing::info!("removing {} containers of the runner", ours.len());
        let words: Vec<&str> = ["container", "rm", "--force", "--volumes"].into_iter().chain(ours).collect();
        run(&words, BUDGET).await.map(drop)
    }
}

/// The ids of those in a list that are the runner's: it carries its label; a container of a job works in its directory, or has the
/// registration's id in its name.
fn ours<'a>(listed: &'a [String], name: &str, work: &Path, id: Option<&RunnerId>) -> Vec<&'a str> {
    let uuid = id.map(|id| id.to_string().trim_matches(['{', '}']).to_owned());
    let of_job = |names: &str| uuid.as_deref().is_some_and(|uuid| !uuid.is_empty() && names.contains(uuid));
    let works = |mounts: &str| mounts.split(',').any(|mount| Path::new(mount).starts_with(work));
    let is_ours = |line: &'a String| {
        let mut fields = line.split('\t');
        let (own, label, names, mounts) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (label == name || of_job(names) || works(mounts)).then_some(own)
    };
    listed.iter().filter_map(is_ours).collect()
}

/// Runs Docker's program as who we are, with nothing of our environment but what a job may have; returns what it says.
///
/// # Errors
/// It is not there, takes too long, or fails: in its own words.
pub async fn run(words: &[&str], budget: Duration) -> Result<Vec<String>> {
    let command = CommandLine {
        program: supervise::find_program(docker::PROGRAM).context("Docker's program is not on the search path")?,
        args: words.iter().map(|word| (*word).to_owned()).collect(),
        dir: "/".into(),
        env: environment::build(std::env::vars_os(), None),
        ..CommandLine::default()
    };
    let mut said = Vec::new();
    let ended = supervise::run(&command, budget, |line| said.push(line)).await?;
    let what = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
    match ended {
        Some(status) if status.success() => Ok(said),
        Some(status) => bail!("docker {what}: {status}: {}", said.join(" / ")),
        None => bail!("docker {what} took longer than {} s", budget.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::ours;

    #[test]
    fn a_runner_knows_its_containers_and_no_others() {
        let listed = [
            "aa\tcml-a\trunner-1\t/var/run/docker.sock",
            "bb\t\t7b54c4fa_build\t/opt/cml/runner/jobs/7b54c4fa/build,/etc",
            "cc\t\t7b54c4fa_pause\t",
            "dd\tcml-b\trunner-2\t/opt/cml/runner/jobs2",
            "ee\t\tdb\t/opt/cml",
            "Cannot connect to the Docker daemon",
        ]
        .map(str::to_owned);
        let work = Path::new("/opt/cml/runner/jobs");
        let id = "{7b54c4fa}".to_owned().into();
        assert_eq!(ours(&listed, "cml-a", work, Some(&id)), ["aa", "bb", "cc"]);
        assert_eq!(ours(&listed, "cml-a", work, None), ["aa", "bb"]);
        assert_eq!(ours(&listed, "cml-a", work, Some(&String::new().into())), ["aa", "bb"]);
    }
}
