//! Bitbucket's runner for Linux with Docker: a container, which starts others beside itself for each step.
//! Source: <https://support.atlassian.com/bitbucket-cloud/docs/use-your-docker-images-in-self-hosted-runners/>

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::Platform;
use common::forge::bitbucket::{RUNNER_IMAGE, RUNNER_VERSION, RunnerConfig};
use common::network;
use common::spec::RunnerOptions;

use crate::runner::containers::{LABEL, run};
use crate::runner::docker::{self, SOCKET};
use crate::runner::program::{self, Program};
use crate::supervise::{self, CommandLine};

/// How `--runner-url` names an image.
const SCHEME: &str = "docker://";
/// Where steps work, in the runner's directory: at the same path in its container, since it hands the path to Docker. Nobody else's, so
/// that the containers that use it are known to be the runner's.
const WORK: &str = "work";
/// Where Docker keeps what containers say, which the runner reads.
const LOGS: &str = "/var/lib/docker/containers:/var/lib/docker/containers:ro";
/// What the container is told, beside the agent's state, while it is made.
const VARIABLES: &str = "runner-environment";
/// How long Docker may take to make it, or to say whether it has an image.
const BUDGET: Duration = Duration::from_mins(1);

/// Where steps work.
pub fn work(program: &Program) -> PathBuf {
    program.dir.join(WORK)
}

/// The image that is wanted.
pub fn image(options: &RunnerOptions) -> Result<String> {
    let template = match options.runner_url.as_deref() {
        None => RUNNER_IMAGE,
        Some(url) => url.strip_prefix(SCHEME).with_context(|| {
            Failure::new(
                Class::Usage,
                format!("steps run in containers, whose runner is an image, and `{url}` is none"),
            )
            .hint("--runner-url takes docker://IMAGE with {version}, {os} and {arch}; --executor=shell runs steps in a shell")
        })?,
    };
    let image = template
        .replace("{version}", options.runner_version.as_deref().unwrap_or(RUNNER_VERSION))
        .replace("{os}", "linux")
        .replace("{arch}", Platform::current().debian());
    Ok(match &options.runner_sha256 {
        Some(sum) => format!("{image}@sha256:{sum}"),
        None => image,
    })
}

/// Gets it; one that is there will do.
pub async fn fetch(image: &str, budget: Duration) -> Result<()> {
    if run(&["image", "inspect", "--format", "{{.Id}}", image], BUDGET).await.is_ok() {
        tracing::info!("the image {image} is here already");
        return Ok(());
    }
    tracing::info!("pulling {image}");
    let pulled = run(&["image", "pull", "--quiet", image], budget).await;
    pulled.map(drop).with_context(|| {
        Failure::new(Class::NotOnline, format!("the image of Bitbucket's runner, {image}, cannot be had"))
            .hint("name another with --runner-version or --runner-url=docker://IMAGE, or run steps in a shell with --executor=shell")
    })
}

/// Makes the container, and returns the command that runs it in the foreground, again and again if need be: it passes signals on, and
/// ends as the runner does. Only Docker knows the secret then: it was never an argument, and its file is gone.
pub async fn create(program: &Program, state_dir: &Path, name: &str, config: &RunnerConfig, made: Made<'_>) -> Result<CommandLine> {
    let work = work(program);
    std::fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    let file = state_dir.join(VARIABLES);
    let network = program.command("", &[]).env;
    program::write_private(&file, &variables(config, &work, network::of_proxy(&network)), None)?;
    let own = format!("runner-{}", config.runner_uuid.trim_matches(['{', '}']));
    let words = words(&own, name, &file, &work, &made);
    let created = run(&words.iter().map(String::as_str).collect::<Vec<_>>(), BUDGET).await;
    program::forget(&file)?;
    created.context("making the runner's container")?;
    let docker = supervise::find_program(docker::PROGRAM).context("Docker's program is not on the search path")?;
    Ok(CommandLine {
        program: docker,
        ..program.command("", &["container", "start", "--attach", &own])
    })
}

/// What a container is made of.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// The image.
    pub image: &'a str,
    /// Where Docker listens.
    pub socket: &'a Path,
}

/// It stays when it ends: it may be started again, and whoever stops the runner removes it.
fn words(own: &str, name: &str, variables: &Path, work: &Path, made: &Made<'_>) -> Vec<String> {
    let (work, label) = (work.display(), format!("{LABEL}={name}"));
    let socket = format!("{}:{SOCKET}", made.socket.display());
    let (work, file) = (format!("{work}:{work}"), variables.display().to_string());
    let mut words = vec!["container", "create", "--name", own, "--label", &label, "--env-file", &file];
    for volume in [&work, &socket, LOGS] {
        words.extend(["--volume", volume]);
    }
    words.push(made.image);
    words.into_iter().map(str::to_owned).collect()
}

/// One variable a line, taken as it is. Steps do not get the [proxy], which is the runner's.
/// Source: <https://docs.docker.com/reference/cli/docker/container/run/#env>
///
/// [proxy]: https://support.atlassian.com/bitbucket-cloud/docs/configure-a-runner-to-use-a-proxy/
fn variables<'a>(config: &RunnerConfig, work: &Path, proxy: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let work = work.display().to_string();
    let all = [
        ("ACCOUNT_UUID", Some(config.account_uuid.as_str())),
        ("REPOSITORY_UUID", config.repository_uuid.as_deref()),
        ("RUNNER_UUID", Some(&config.runner_uuid)),
        ("OAUTH_CLIENT_ID", Some(&config.oauth_client_id)),
        ("OAUTH_CLIENT_SECRET", Some(config.oauth_client_secret.expose())),
        ("RUNTIME_PREREQUISITES_ENABLED", Some("true")),
        ("WORKING_DIRECTORY", Some(&work)),
    ];
    let line = |(name, value): (&str, &str)| format!("{name}={value}\n");
    let own = all.iter().filter_map(|(name, value)| Some(line((name, (*value)?))));
    own.chain(proxy.map(line)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use common::forge::bitbucket::{RUNNER_VERSION, RunnerConfig};
    use common::secret::Secret;

    use super::{Made, image, variables, words};
    use crate::runner::fixtures::options;

    #[test]
    fn the_image_is_named_as_any_runner_is() {
        let named = |url: Option<&str>, version: Option<&str>, sum: Option<&str>| {
            let mut options = options();
            options.runner_url = url.map(str::to_owned);
            options.runner_version = version.map(str::to_owned);
            options.runner_sha256 = sum.map(str::to_owned);
            image(&options)
        };
        let usual = "docker-public.packages.atlassian.com/sox/atlassian/bitbucket-pipelines-runner";
        assert_eq!(named(None, None, None).unwrap(), format!("{usual}:{RUNNER_VERSION}"));
        assert_eq!(named(None, Some("1"), Some("ab")).unwrap(), format!("{usual}:1@sha256:ab"));
        let mirror = Some("docker://example.com/runner:v{version}");
        assert_eq!(named(mirror, Some("5"), None).unwrap(), "example.com/runner:v5");
        let error = named(Some("https://example.com/runner.tar.gz"), None, None).unwrap_err();
        assert!(format!("{error:#}").contains("runner.tar.gz"), "{error:#}");
    }

    #[test]
    fn the_secret_is_in_the_file_and_in_no_argument() {
        let config = RunnerConfig {
            account_uuid: "{workspace}".into(),
            repository_uuid: None,
            runner_uuid: "{7b54c4fa}".into(),
            oauth_client_id: "client".into(),
            oauth_client_secret: Secret::new("canary= \"$x"),
            containers: true,
        };
        let work = Path::new("/opt/cml/runner/work");
        let text = variables(&config, work, [("https_proxy", "http://proxy:3128")].into_iter());
        let expected = [
            "ACCOUNT_UUID={workspace}",
            "RUNNER_UUID={7b54c4fa}",
            "OAUTH_CLIENT_ID=client",
            "OAUTH_CLIENT_SECRET=canary= \"$x",
            "RUNTIME_PREREQUISITES_ENABLED=true",
            "WORKING_DIRECTORY=/opt/cml/runner/work",
            "https_proxy=http://proxy:3128",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let made = Made {
            image: "runner:1",
            socket: Path::new("/run/docker.sock"),
        };
        assert_eq!(
            words("runner-7b54c4fa", "cml a", Path::new("/var/lib/cml/env"), work, &made).join("|"),
            "container|create|--name|runner-7b54c4fa|--label|cml-runner=cml a|--env-file|/var/lib/cml/env|\
             --volume|/opt/cml/runner/work:/opt/cml/runner/work|--volume|/run/docker.sock:/var/run/docker.sock|\
             --volume|/var/lib/docker/containers:/var/lib/docker/containers:ro|runner:1"
        );
    }
}
