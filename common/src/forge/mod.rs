//! The forge's API: who may register, which runners there are, and running an interrupted job again.

mod api;
pub mod bitbucket;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod github;
pub mod gitlab;
mod lost;
mod pace;
mod page;

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{Class, Failure};
use crate::secret::Secret;
use crate::spec::{Executor, ForgeKind, LaunchJob};

/// One API client per forge.
#[async_trait]
pub trait Forge: Send + Sync {
    /// Proves that the token may register a runner, leaving nothing behind.
    async fn check_access(&self) -> Result<()>;

    /// The registered runners, or some of them.
    async fn runners(&self, which: Which<'_>) -> Result<Vec<Runner>>;

    /// Gets what the runner program needs to register itself.
    async fn enroll(&self, request: &Enroll) -> Result<Enrollment>;

    /// Deletes a registration. With [`When::Idle`] the answer is the forge's own, atomic, word on whether the runner is busy.
    async fn unregister(&self, id: &RunnerId, when: When) -> Result<Removal>;

    /// The runner program that the forge offers for a platform.
    async fn package(&self, platform: Platform) -> Result<Package>;

    /// Runs an interrupted job again.
    async fn rerun(&self, request: &Rerun) -> Result<RerunOutcome>;
}

/// Opens the client of a forge for the repository, organisation or group at `repo`.
pub fn open(kind: ForgeKind, repo: &Url, token: &Secret) -> Result<Box<dyn Forge>> {
    match kind {
        ForgeKind::GitHub => Ok(Box::new(github::GitHub::new(repo, token)?)),
        ForgeKind::GitLab => Ok(Box::new(gitlab::GitLab::new(repo, token)?)),
        ForgeKind::Bitbucket => Ok(Box::new(bitbucket::Bitbucket::new(repo, token)?)),
    }
}

/// Whether a forge gives a configuration for one job, with which nothing else can be done.
pub const fn has_single_use(kind: ForgeKind) -> bool {
    match kind {
        ForgeKind::GitHub => true,
        ForgeKind::GitLab | ForgeKind::Bitbucket => false,
    }
}

/// Refuses labels that a forge does not take, before a machine is made for them.
pub fn check_labels(kind: ForgeKind, labels: &[String], executor: Executor) -> Result<()> {
    match kind {
        ForgeKind::GitHub | ForgeKind::GitLab => Ok(()),
        ForgeKind::Bitbucket => bitbucket::check_labels(labels, executor),
    }
}

/// Which of the registered runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// All of them. A forge that would have to be asked about each (GitLab) leaves their labels out.
    All,
    /// Those of exactly this name.
    Named(&'a str),
    /// Those of this name, and those with all of these labels. There may be others among them.
    Matching(&'a str, &'a [String]),
}

impl Which<'_> {
    /// Whether a name alone decides against it.
    pub fn excludes(&self, name: &str) -> bool {
        matches!(self, Self::Named(wanted) if *wanted != name)
    }
}

/// The forge's id of a registration: a number, or a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunnerId(String);

impl From<u64> for RunnerId {
    fn from(id: u64) -> Self {
        Self(id.to_string())
    }
}

impl From<String> for RunnerId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl fmt::Display for RunnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a registration may go while its runner has a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Not: a job may have just been assigned.
    Idle,
    /// Yes: the runner has been stopped. GitHub refuses all the same, as long as it has not noticed.
    Stopped,
}

/// A registered runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Runner {
    /// The forge's id of the registration.
    pub id: RunnerId,
    /// Its name, unique in its scope on GitHub.
    pub name: String,
    /// Whether the forge sees it now.
    pub online: bool,
    /// Whether it runs a job now.
    pub busy: bool,
    /// All labels, the forge's own included; compare without case.
    pub labels: Vec<String>,
}

impl Runner {
    /// Whether it carries every one of `labels` (case does not matter to GitHub's scheduler).
    pub fn has_labels(&self, labels: &[String]) -> bool {
        labels
            .iter()
            .all(|wanted| self.labels.iter().any(|label| label.eq_ignore_ascii_case(wanted)))
    }
}

/// What to register.
#[derive(Debug, Clone)]
pub struct Enroll {
    /// The runner's name.
    pub name: String,
    /// Its labels, without the forge's own.
    pub labels: Vec<String>,
    /// One job only.
    pub single: bool,
    /// Of the machine that it will run on: the forge names it in a label.
    pub platform: Platform,
    /// Whether its jobs run in containers: the forge may name that in a label, too.
    pub containers: bool,
}

/// The name is another runner's.
fn name_in_use(name: &str) -> anyhow::Error {
    Failure::new(Class::NameInUse, format!("another runner has the name `{name}`"))
        .hint("choose another `--name`, or remove that runner")
        .into()
}

/// What the runner program registers with.
#[derive(Debug, Clone)]
pub enum Enrollment {
    /// A short-lived registration token.
    Token(Secret),
    /// The registration exists already, under this id.
    Made {
        /// The forge's id of the registration.
        id: RunnerId,
        /// What the runner program is configured with: GitHub's single-use configuration; the others' tokens, as their clients write them.
        config: Secret,
    },
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is deleted now.
    Removed,
    /// It was gone already.
    Gone,
    /// The forge refuses: it runs a job (the forge's words).
    Busy(String),
}

/// The operating system is always Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// `x86_64`
    X64,
    /// `aarch64`
    Arm64,
}

impl Platform {
    /// The platform that this program was built for, hence runs on.
    pub const fn current() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X64 }
    }

    /// GitHub's label for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::X64 => "X64",
            Self::Arm64 => "ARM64",
        }
    }

    /// Debian's name for it, and Go's.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// GitHub's name for it.
    pub const fn github(self) -> &'static str {
        match self {
            Self::X64 => "x64",
            Self::Arm64 => "arm64",
        }
    }
}

/// A runner program to download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Where it is.
    pub url: Url,
    /// Its SHA-256 in hex, where the forge publishes one.
    pub sha256: Option<String>,
    /// A credential for the download itself, sent as a bearer token (GitHub Enterprise Server).
    pub token: Option<Secret>,
}

/// A job of ours, as the runner's job-started hook told it. On disk while the job runs (the crash rule).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// GitHub: the run id. GitLab: that of the job, which is run again by itself. Bitbucket: the pipeline's.
    pub run: String,
    /// GitHub: the attempt of the run. 1 where there is no such thing.
    pub attempt: u32,
    /// `owner/repo`, for a runner of an organisation.
    pub repository: String,
    /// GitHub: the job's key in the workflow file, the same for all legs of a matrix. GitLab: nothing. Bitbucket: the step's id.
    pub key: String,
}

/// A job that was interrupted, as far as its runner told of it.
#[derive(Debug, Clone)]
pub enum Interrupted {
    /// Its hook has run.
    Known(Job),
    /// It had begun, but its hook had not run yet, which takes a runner seconds to minutes: the forge is asked which one it was.
    Begun {
        /// Its display name, if the runner told it: hostile input, good only for comparing.
        name: Option<String>,
        /// How long ago it began.
        age: Duration,
    },
}

/// A request to run an interrupted job again.
#[derive(Debug, Clone)]
pub struct Rerun {
    /// The job that was interrupted.
    pub job: Interrupted,
    /// The name of the runner it ran on: finds the job among those of the run.
    pub runner: String,
    /// The job that launched our machine, if one did.
    pub launch: Option<LaunchJob>,
    /// A run that has had this many attempts is left alone.
    pub max_attempts: u32,
    /// How long to wait for the forge to see the run end before the rest of the run is cancelled for it.
    pub patience: Duration,
    /// How long all of it may take.
    pub budget: Duration,
}

/// A job that is still to be run again: a machine leaves it on its console before it tries, so that somebody else can if it dies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The job that was interrupted.
    pub job: Job,
    /// The job that launched the machine, if one did.
    pub launch: Option<LaunchJob>,
}

/// What was done about an interrupted job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RerunOutcome {
    /// The forge took the request; what runs again.
    Requested(RerunScope),
    /// Nothing was requested, for this reason.
    Declined(Declined),
}

/// What runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerunScope {
    /// The job that launches the machine, with every job that needs it.
    LaunchJob,
    /// The failed and cancelled jobs.
    FailedJobs,
    /// Every job.
    WholeRun,
}

/// Why nothing was re-run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declined {
    /// The run is on a later attempt than ours: somebody has re-run it already.
    AlreadyRerun,
    /// The run has had as many attempts as allowed.
    AttemptsUsedUp(u32),
    /// The job ended well after all.
    Succeeded,
    /// A person cancelled the job.
    Cancelled,
    /// The forge does not know the run, or tells of no such job.
    Unknown,
}
