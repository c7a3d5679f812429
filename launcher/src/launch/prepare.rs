//! All of a launch that is known before anyone is asked.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::Platform;
use common::network::Network;
use common::spec::{CloudKind, Credential, JobDocker, Script};
use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::ssh;
use crate::bootstrap::{self, Bootstrap, Login};
use crate::catalog;
use crate::cloud::Order;
use crate::options::{DecisionOptions, metadata};
use crate::request::Request;

/// Launcher and agent are of one release.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where a release's agents are.
const RELEASE: &str = concat!(
    env!("CARGO_PKG_REPOSITORY"),
    "/releases/download/v{version}/cml-agent-{version}-linux-{arch}"
);

/// The agents' checksums, which the release build knows.
const SHA256_X64: Option<&str> = option_env!("CML_AGENT_SHA256_X64");
const SHA256_ARM64: Option<&str> = option_env!("CML_AGENT_SHA256_ARM64");

/// How much longer than the launcher the machine's own timer waits, at most: the launcher's way of ending it tells more.
const BOOT_MARGIN: Duration = Duration::from_mins(1);

/// How much longer than `--max-lifetime` the machine's own timer waits, at most: the agent's way of ending it runs an interrupted job again,
/// for which it takes as long as docs/lifecycle.md says.
const LIFE_MARGIN: Duration = Duration::from_mins(15);

/// Random characters of a launch id.
const ID_LENGTH: usize = 20;

/// What is the same for every step of one launch.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Which cloud.
    pub cloud: CloudKind,
    /// Unique per launch.
    pub launch_id: String,
    /// The labels, trimmed.
    pub labels: Vec<String>,
    /// The processor of every candidate type.
    pub platform: Platform,
    /// From the launch until the runner must be online.
    pub budget: Duration,
    /// The machine's own timer, and the same as a time of day.
    boot_budget: Duration,
    boot_deadline: Timestamp,
    agent: Agent,
    login: Option<Login>,
    tags: BTreeMap<String, String>,
}

/// The agent to download.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Agent {
    urls: Vec<String>,
    sha256: String,
}

impl Prepared {
    /// Checks everything that can be checked without asking; `now` is when the launch began.
    pub fn new(request: &Request, cloud: CloudKind, now: Timestamp) -> Result<Self> {
        let options = &request.options.cloud;
        let gpu = options.cloud_gpu.as_deref();
        for warning in catalog::warnings(cloud, &options.cloud_type, gpu)? {
            tracing::warn!("{warning}");
        }
        catalog::region(cloud, &options.cloud_region)?;
        let candidates = catalog::resolve(cloud, &options.cloud_type, gpu)?;
        let first = candidates.first().context("the machine type has no candidates")?;
        let budget = budget(request)?;
        let boot_budget = budget + BOOT_MARGIN.min(budget / 10).max(Duration::from_secs(1));
        let launch_id = format!(
            "cml-{}",
            std::iter::repeat_with(fastrand::alphanumeric).take(ID_LENGTH).collect::<String>()
        );
        let public_key = options.cloud_ssh_private.as_ref().map(ssh::public_half).transpose()?;
        let user = catalog::image(cloud, first.gpu.is_some())?.user;
        let deadline = |after| {
            now.checked_add(SignedDuration::try_from(after)?)
                .context("the provisioning timeout is too long")
        };
        Ok(Self {
            cloud,
            labels: labels(&request.options.runner.labels),
            platform: first.arch,
            budget,
            boot_budget,
            boot_deadline: deadline(boot_budget)?,
            agent: Agent::of(&request.options.decision, first.arch, (SHA256_X64, SHA256_ARM64))?,
            login: public_key.map(|public_key| Login { user, public_key }),
            tags: tags(request, &launch_id, deadline(budget)?)?,
            launch_id,
        })
    }

    /// The instance to make when its agent holds `credential`.
    pub fn order(&self, request: &Request, credential: Credential) -> Result<Order> {
        let rendered = self.script(request, credential)?;
        let options = &request.options.runner;
        let script = |script: &Option<Script>| script.as_ref().map_or(0, |script| script.bytes().len());
        let own = [
            ("--cloud-startup-script", script(&options.cloud_startup_script)),
            ("--on-interrupt", script(&options.on_interrupt)),
            (
                "--ca-certificates",
                request.certificates.as_ref().map_or(0, |all| all.to_pem().len()),
            ),
        ];
        bootstrap::check(self.cloud, &rendered, &own)?;
        Ok(Order {
            launch_id: self.launch_id.clone(),
            name: request.name.clone(),
            options: request.options.cloud.clone(),
            startup_data: rendered,
            tags: self.tags.clone(),
            lifetime: lifetime(request),
        })
    }

    fn script(&self, request: &Request, credential: Credential) -> Result<String> {
        let bootstrap = Bootstrap {
            cloud: self.cloud,
            launch_id: self.launch_id.clone(),
            spec: request.spec(credential).to_json()?,
            version: VERSION.to_owned(),
            agent_urls: self.agent.urls.clone(),
            agent_sha256: self.agent.sha256.clone(),
            boot_budget: self.boot_budget,
            boot_deadline: self.boot_deadline.as_second(),
            lifetime: lifetime(request),
            private_tmp: request.options.runner.docker == JobDocker::Never,
            login: self.login.clone(),
            network: Network {
                proxy: request.options.runner.proxy.clone(),
                no_proxy: request.options.runner.no_proxy.clone(),
                trusted: None,
            },
            certificates: request.certificates.clone(),
        };
        Ok(bootstrap.render())
    }
}

/// How long the machine may live, agent or not.
fn lifetime(request: &Request) -> Option<Duration> {
    let limit = request.options.runner.max_lifetime.duration();
    limit.map(|limit| limit + LIFE_MARGIN.min(limit))
}

/// On a cloud there must be one: a machine that nobody waits for any more must go away.
fn budget(request: &Request) -> Result<Duration> {
    request.options.runner.provisioning_timeout.duration().ok_or_else(|| {
        Failure::new(Class::Usage, "`--provisioning-timeout=never` cannot be used with `--cloud`")
            .hint("give a duration such as `20min`: past it, everything is destroyed")
            .into()
    })
}

fn labels(given: &[String]) -> Vec<String> {
    let trimmed = given.iter().map(|label| label.trim().to_owned());
    trimmed.filter(|label| !label.is_empty()).collect()
}

/// Whoever cleans up by hand finds everything by these.
fn tags(request: &Request, launch_id: &str, deadline: Timestamp) -> Result<BTreeMap<String, String>> {
    let own = [
        ("cml", VERSION),
        ("Name", &request.name),
        ("cml-runner-name", &request.name),
        ("cml-launch-id", launch_id),
        ("cml-repo", request.repo.as_str()),
        ("cml-deadline", &format!("{deadline:.0}")),
    ];
    let mut tags: BTreeMap<String, String> = own.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    if let Some(job) = &request.launch_job {
        tags.insert("cml-run".to_owned(), job.run.clone());
    }
    for pair in &request.options.cloud.cloud_metadata {
        let (key, value) = metadata(pair)?;
        tags.insert(key.to_owned(), value.to_owned());
    }
    Ok(tags)
}

impl Agent {
    fn of(options: &DecisionOptions, platform: Platform, built_in: (Option<&str>, Option<&str>)) -> Result<Self> {
        let arch = platform.github();
        let template = options.agent_url.as_deref().unwrap_or(RELEASE);
        let urls: Vec<String> = template
            .split_whitespace()
            .map(|url| url.replace("{version}", VERSION).replace("{arch}", arch))
            .collect();
        if urls.is_empty() || !urls.iter().all(|url| is_web(url)) {
            return Err(Failure::new(Class::Usage, "`--agent-url` is no web address without credentials")
                .hint("write `https://HOST/PATH`; several are separated by spaces and tried in order")
                .into());
        }
        let known = match platform {
            Platform::X64 => built_in.0,
            Platform::Arm64 => built_in.1,
        };
        let sha256 = options.agent_sha256.as_deref().or(known).ok_or_else(|| {
            Failure::new(Class::Usage, format!("the SHA-256 of the agent for {arch} is not known"))
                .hint("this `cml` is no release build: give `--agent-sha256` (what `sha256sum` prints of the agent) and `--agent-url`")
        })?;
        Ok(Self {
            urls,
            sha256: sha256.trim().to_ascii_lowercase(),
        })
    }
}

/// Credentials in an address would be shown on the console.
fn is_web(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty() && url.password().is_none()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use common::forge::Platform;

    use super::{Agent, VERSION};
    use crate::options::{DecisionOptions, Output};

    fn agent(url: Option<&str>, sha256: Option<&str>, built_in: (Option<&str>, Option<&str>)) -> anyhow::Result<Agent> {
        let options = DecisionOptions {
            name: None,
            reuse: false,
            reuse_idle: false,
            dry_run: false,
            export: None,
            state_dir: None,
            output: Output::Text,
            agent_url: url.map(str::to_owned),
            agent_sha256: sha256.map(str::to_owned),
        };
        Agent::of(&options, Platform::Arm64, built_in)
    }

    #[test]
    fn the_agent_is_of_our_own_version_for_the_machine() {
        let release = agent(None, None, (Some("x"), Some("a"))).unwrap();
        assert_eq!(release.sha256, "a");
        let ending = format!("/releases/download/v{VERSION}/cml-agent-{VERSION}-linux-arm64");
        assert!(release.urls[0].ends_with(&ending), "{release:?}");
        let own = agent(Some("http://10.0.0.1/{arch} https://x/{version}"), Some("B"), (None, Some("a"))).unwrap();
        assert_eq!(own.urls, ["http://10.0.0.1/arm64".to_owned(), format!("https://x/{VERSION}")]);
        assert_eq!(own.sha256, "b");
    }

    #[test]
    fn an_agent_that_cannot_be_checked_is_refused() {
        assert!(agent(None, None, (Some("x"), None)).is_err());
        for url in ["", "ftp://x/y", "x", "https://me:secret@x/y"] {
            assert!(agent(Some(url), Some("a"), (None, None)).is_err(), "{url}");
        }
    }
}
