//! The runner spec: the one thing that crosses from the launcher to the machine.
//!
//! Each option that the agent needs stands here once: clap fills it in the launcher, serde carries it, the agent reads it. What only
//! creates the instance is not in it. Unknown fields and other versions are refused by name.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{Class, Failure};
use crate::log::Level;
use crate::network::Proxy;
use crate::secret::{self, Secret};
use crate::timeout::Timeout;

/// Raised whenever a field is added, removed or changes its meaning.
pub const SPEC_VERSION: u32 = 3;

/// Where `--ca-certificates` are on an instance: beside the spec, by which a relative path goes.
pub const CA_CERTIFICATES: &str = "ca-certificates.pem";

/// The hosting service of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ForgeKind {
    /// GitHub.com, GitHub Enterprise Cloud and Server.
    #[value(name = "github")]
    GitHub,
    /// GitLab.com and self-managed GitLab.
    #[value(name = "gitlab")]
    GitLab,
    /// Bitbucket Cloud.
    Bitbucket,
}

/// The cloud that an instance lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CloudKind {
    /// Amazon EC2.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Compute Engine.
    Gcp,
    /// A Kubernetes cluster.
    Kubernetes,
}

/// What becomes of the other jobs of a run while an interrupted one waits to run again: GitHub runs nothing again until all of them have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RetryPolicy {
    /// They are cancelled if they do not end in time, and run again too.
    #[default]
    Restart,
    /// They are left alone.
    Spare,
}

/// What the jobs of GitLab and Bitbucket run in. GitHub's say so themselves (`container:`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Executor {
    /// Containers where a Docker answers, else the machine itself.
    #[default]
    Auto,
    /// Containers.
    Docker,
    /// The machine itself.
    Shell,
}

/// What jobs may ask the cloud's metadata service, which would hand them all of the machine's start-up data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum JobMetadata {
    /// Nothing.
    #[default]
    #[value(alias = "false")]
    None,
    /// The credentials of the role that the machine was given for them, and what kind of machine it is.
    Role,
    /// All that it tells.
    #[value(alias = "true")]
    All,
}

/// Whether jobs may start containers. Whoever may can become root on the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum JobDocker {
    /// Where Docker is installed.
    #[default]
    #[value(alias = "true")]
    Auto,
    /// Never.
    #[value(alias = "false")]
    Never,
}

impl std::fmt::Display for ForgeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Bitbucket => "bitbucket",
        })
    }
}

impl std::fmt::Display for CloudKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
            Self::Kubernetes => "kubernetes",
        })
    }
}

/// What the agent is told: `cml-agent run --spec PATH` reads it from a root-only JSON file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerSpec {
    /// [`SPEC_VERSION`] of the launcher that wrote it.
    pub version: u32,
    /// The runner's name in the forge, and the instance's.
    pub name: String,
    /// Which forge serves `repo`.
    pub forge: ForgeKind,
    /// Repository, organisation or group page, without credentials: `https://github.com/owner/repo`.
    pub repo: Url,
    /// The cloud that the machine lives on; none on a user's own host, which the agent never powers off.
    pub cloud: Option<CloudKind>,
    /// What the agent may do in the forge.
    pub credential: Credential,
    /// The workflow job that launched this machine, if one did.
    pub launch: Option<LaunchJob>,
    /// Least important level that the agent logs.
    pub log: Level,
    /// The options that act on the machine.
    pub options: RunnerOptions,
}

/// What the agent holds to speak to the forge.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Credential {
    /// A forge token: registers, unregisters and re-runs.
    Token(#[serde(with = "secret::exposed")] Secret),
    /// A single-use runner configuration (GitHub JIT): runs one job, and nothing on the machine is worth stealing.
    Jit(#[serde(with = "secret::exposed")] Secret),
}

/// The job of a workflow run in which the launcher ran: if that run must run again, this job must too, or no machine comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchJob {
    /// GitHub `GITHUB_RUN_ID`, GitLab `CI_PIPELINE_ID`, Bitbucket `BITBUCKET_PIPELINE_UUID`.
    pub run: String,
    /// GitHub `GITHUB_RUN_ATTEMPT`; 1 where the forge has no attempts.
    pub attempt: u32,
    /// GitHub `RUNNER_NAME`, the runner that the launch job runs on: finds the job among those of the run. GitLab: `CI_JOB_ID`, Bitbucket: `BITBUCKET_STEP_UUID`.
    pub runner: String,
}

/// The options that act on the machine. Each has a flag, an environment name, a default and a doc line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(deny_unknown_fields)]
pub struct RunnerOptions {
    /// One or more (comma-delimited) labels for this runner
    #[arg(long, value_delimiter = ',', default_value = "cml", value_name = "LABELS")]
    pub labels: Vec<String>,

    /// Time to wait for jobs before terminating: seconds, units (`5min`, `1h30m`), or `never` (also -1 and 0)
    #[arg(long, default_value = "5min", value_name = "DURATION", allow_hyphen_values = true)]
    pub idle_timeout: Timeout,

    /// Don't restart the workflow when terminated due to instance disposal or the job time limit
    #[arg(long)]
    pub no_retry: bool,

    /// Terminate the runner after one job. Bitbucket has no runners of one job: there it goes as soon as it has no step, which may be after another one
    #[arg(long)]
    pub single: bool,

    /// Longest time that one job may run before it is interrupted and restarted (`never` for no limit)
    #[arg(long, default_value = "72h", value_name = "DURATION", allow_hyphen_values = true)]
    pub job_time_limit: Timeout,

    /// While an interrupted job waits for the others of its run to end: `restart` cancels them if they take too long, `spare` leaves them alone, and the re-run
    /// to `cml runner reap` if the machine is gone before
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    pub retry_policy: RetryPolicy,

    /// Longest life of the machine: past it a job is interrupted and restarted, and the machine goes
    #[arg(long, default_value = "never", value_name = "DURATION", allow_hyphen_values = true)]
    pub max_lifetime: Timeout,

    /// Run this base64-encoded script as the jobs' user before a running job is interrupted, to save its work: `CML_INTERRUPT_REASON` and
    /// `CML_SECONDS_LEFT` tell it why and how long it may take
    #[arg(long, value_name = "BASE64")]
    pub on_interrupt: Option<Script>,

    /// Never restart a workflow run that has had this many attempts
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub max_attempts: u32,

    /// Time from the launch until the runner must be online; past it everything is destroyed
    #[arg(long, default_value = "10min", value_name = "DURATION")]
    pub provisioning_timeout: Timeout,

    /// How often a runner that has had no job for this long asks the forge whether it is still registered (`never` not to ask)
    #[arg(long, default_value = "1h", value_name = "DURATION", allow_hyphen_values = true)]
    pub registration_check: Timeout,

    /// Run this base64-encoded script as root on the instance before the runner starts (its shebang is honoured; it may restart the machine as the last thing that it does)
    #[arg(long, value_name = "BASE64")]
    pub cloud_startup_script: Option<Script>,

    /// What jobs may ask the cloud's metadata service: `none`; `role` for the credentials of `--cloud-permission-set` and the kind of the machine; `all`, and
    /// with it the start-up data and the forge token in it [default: `role` with `--cloud-permission-set`, else `none`]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub job_metadata: Option<JobMetadata>,

    /// What jobs run in: containers (`docker`), the machine itself (`shell`), or containers where a Docker answers (`auto`)
    #[arg(long, value_enum, default_value_t, value_name = "EXECUTOR")]
    pub executor: Executor,

    /// Whether jobs on an instance may start containers: where Docker is installed (`auto`), or `never`, as whoever may can become root. Without, they have a
    /// `/tmp` of their own too
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub docker: JobDocker,

    /// Image of the containers that jobs run in which name none
    #[arg(long, default_value = "ubuntu:24.04", value_name = "IMAGE")]
    pub docker_image: String,

    /// Volume mount to pass to Docker, e.g. `/var/run/docker.sock:/var/run/docker.sock`; repeatable; only GitLab
    #[arg(long, value_name = "VOLUME", num_args = 1..)]
    pub docker_volumes: Vec<String>,

    /// Unprivileged user that jobs run as, made when it is missing; only for root [default: `cml` on an instance, whoever you are on this host]
    #[arg(long, value_name = "USER")]
    pub job_user: Option<String>,

    /// Directory of the runner and its work [default: ~/.cml/NAME on this host, /opt/cml/runner on an instance]
    #[arg(long, alias = "path", value_name = "DIR")]
    pub workdir: Option<PathBuf>,

    /// Version of the forge's runner, without `v` [default: what the forge offers]
    #[arg(long, value_name = "VERSION")]
    pub runner_version: Option<String>,

    /// Where to download the forge's runner from; `{version}`, `{os}` and `{arch}` are replaced. Bitbucket's runner of containers is an image: `docker://IMAGE`
    #[arg(long, value_name = "URL")]
    pub runner_url: Option<String>,

    /// SHA-256 of that download or image, in hex
    #[arg(long, value_name = "HEX")]
    pub runner_sha256: Option<String>,

    /// Proxy of the machine's network, `http://[USER:PASSWORD@]HOST:PORT`: for the agent, its downloads, the runner and its jobs; the launcher's own is in
    /// its environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`)
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub proxy: Option<Proxy>,

    /// One or more (comma-delimited) hosts, domains and addresses that the machine reaches without `--proxy`
    #[arg(long, value_delimiter = ',', value_name = "HOSTS", requires = "proxy")]
    pub no_proxy: Vec<String>,

    /// File of certificates (PEM) of authorities that are trusted besides the system's: by the launcher, and on the machine by the agent, its downloads, the
    /// runner and its jobs
    #[arg(long, value_name = "FILE")]
    pub ca_certificates: Option<PathBuf>,
}

/// A start-up script, checked to be base64 when it is parsed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Script(Vec<u8>);

impl Script {
    /// The decoded script.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Script {
    /// A start-up script may hold a token: only its length is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Script({} bytes)", self.0.len())
    }
}

impl std::str::FromStr for Script {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let packed: String = text.split_whitespace().collect();
        base64::engine::general_purpose::STANDARD
            .decode(packed)
            .map(Self)
            .map_err(|why| format!("not base64 ({why}): encode the script with `base64 -w 0`"))
    }
}

impl TryFrom<String> for Script {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Script> for String {
    fn from(script: Script) -> Self {
        base64::engine::general_purpose::STANDARD.encode(script.0)
    }
}

impl RunnerSpec {
    /// The JSON that is written to the machine, secrets included.
    pub fn to_json(&self) -> anyhow::Result<String> {
        serde_json::to_string_pretty(self).context("writing the runner spec")
    }

    /// Reads a spec; another version is refused before its fields are looked at.
    pub fn from_json(text: &str) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let failure = |what: String| Failure::new(Class::Usage, what).hint("launcher and agent must be of the same release");
        let found: Versioned = serde_json::from_str(text).context(failure("the runner spec cannot be read".into()))?;
        if found.version != SPEC_VERSION {
            return Err(failure(format!(
                "the runner spec has version {}, this agent reads version {SPEC_VERSION}",
                found.version
            ))
            .into());
        }
        serde_json::from_str(text).context(failure("the runner spec cannot be read".into()))
    }
}
