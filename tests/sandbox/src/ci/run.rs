//! Runs and runners as tests describe and see them, on every forge.

use std::time::{Duration, SystemTime};

/// The label of jobs that run on a machine of the forge's own.
const HOSTED: &str = "ubuntu-latest";

/// The id of a run: of a workflow run on GitHub, of a pipeline on GitLab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// What runs.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its display name.
    pub name: String,
    /// Its jobs.
    pub jobs: Vec<JobSpec>,
}

/// One job.
#[derive(Debug, Clone)]
pub struct JobSpec {
    /// Its key in the file.
    pub key: String,
    /// Its display name, which users choose: anything.
    pub name: String,
    /// The keys of the jobs that must succeed first.
    pub needs: Vec<String>,
    /// What its runner must be (`runs-on`, `tags`); `ubuntu-latest` means a machine of the forge's own, which is this one.
    pub labels: Vec<String>,
    /// Its one step.
    pub script: String,
    /// The step's environment.
    pub env: Vec<(String, String)>,
    /// How long it may take (`timeout-minutes`, `timeout`).
    pub timeout: Option<Duration>,
}

impl JobSpec {
    /// Whether it runs on a machine of the forge's own.
    pub fn is_hosted(&self) -> bool {
        self.labels.iter().any(|label| label == HOSTED)
    }
}

/// A run as it is now.
#[derive(Debug, Clone)]
pub struct RunView {
    /// Which attempt it is in.
    pub attempt: u32,
    /// `queued`, `in_progress`, `completed`
    pub status: String,
    /// Once it is completed: `success`, `failure`, `cancelled`.
    pub conclusion: Option<String>,
    /// The latest execution of each job.
    pub jobs: Vec<JobView>,
}

/// A job as it is now.
#[derive(Debug, Clone)]
pub struct JobView {
    /// The REST id of this execution.
    pub id: u64,
    /// Its key.
    pub key: String,
    /// Its display name.
    pub name: String,
    /// The attempt that it was executed in.
    pub attempt: u32,
    /// `queued`, `in_progress`, `completed`
    pub status: String,
    /// Once it is completed: `success`, `failure`, `cancelled`, `skipped`.
    pub conclusion: Option<String>,
    /// Where it runs or ran.
    pub runner_name: Option<String>,
    /// When it was given to a runner.
    pub started: Option<SystemTime>,
}

/// A registered runner.
#[derive(Debug, Clone)]
pub struct RunnerView {
    /// The REST id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// All its labels.
    pub labels: Vec<String>,
    /// Whether it has a session.
    pub online: bool,
    /// Whether it has a job.
    pub busy: bool,
    /// Whether it is for one job only.
    pub ephemeral: bool,
}

/// What is told to who executes a job.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// The REST id of the job.
    pub job: u64,
    /// The run.
    pub run: u64,
    /// Its attempt.
    pub attempt: u32,
    /// The job's key.
    pub key: String,
    /// Its display name.
    pub name: String,
    /// The workflow's name.
    pub workflow: String,
    /// Its full name, as `owner/repo`; filled in by the service.
    #[serde(default)]
    pub repository: String,
    /// The server's address; filled in by the service.
    #[serde(default)]
    pub server: String,
    /// The step.
    pub script: String,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// The runner's name.
    pub runner: String,
}
