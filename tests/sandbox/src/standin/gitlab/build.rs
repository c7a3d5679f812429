//! One job from its beginning to its end, as the log tells it. Source: `common/build.go`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cli::Options;
use super::log::{Entry, Level};
use super::network::{Credentials, Network, Pace, Remote};
use super::stop::Stops;
use super::trace::Trace;
use super::work::Work;
use super::{REVISION, VERSION};

/// What a job may take when the server does not say.
const TIMEOUT: Duration = Duration::from_hours(2);

/// How a job ended.
pub enum End {
    Well,
    /// Its script ended with this code.
    Script(i32),
    /// By a signal to us.
    Aborted(&'static str),
    /// On the server.
    Canceled,
    /// It took longer than it may.
    Late(Duration),
    /// Something of ours failed.
    System(String),
}

/// A job.
pub struct Build<'a> {
    options: &'a Options,
    network: &'a Network,
    job: Value,
    id: u64,
    trace: Trace,
    began: Instant,
}

impl<'a> Build<'a> {
    pub fn new(options: &'a Options, network: &'a Network, job: Value, credentials: Credentials, pace: Pace) -> Self {
        Self {
            options,
            network,
            job,
            id: credentials.id,
            trace: Trace::new(network, credentials, pace),
            began: Instant::now(),
        }
    }

    /// A line about this job.
    fn entry(&self, message: &str) -> Entry {
        let info = &self.job["job_info"];
        self.network
            .entry(message)
            .with("job", self.id)
            .with("project", info["project_id"].clone())
            .with("project_full_path", info["project_full_path"].clone())
            .with("pipeline_id", info["pipeline_id"].clone())
            .with("namespace_id", info["namespace_id"].clone())
            .with("root_namespace_id", info["root_namespace_id"].clone())
            .with("organization_id", info["organization_id"].clone())
            .with("gitlab_user_id", info["user_id"].clone())
            .with("name", info["name"].clone())
            .with("duration_s", self.began.elapsed().as_secs_f64())
    }

    /// Runs it, and tells the server how it ended.
    pub async fn run(self, stops: &mut Stops) {
        let (watching, remote) = self.trace.watch();
        let end = self.execute(stops, remote).await;
        watching.abort();
        // It may have been in the middle of a sentence.
        let _ = watching.await;
        self.tell(end).await;
    }

    async fn execute(&self, stops: &mut Stops, mut remote: tokio::sync::watch::Receiver<Remote>) -> End {
        self.introduce();
        let mut work = match Work::start(self.options, self.network, &self.job, &self.trace) {
            Ok(work) => work,
            Err(error) => return End::System(format!("prepare environment: {error:#}")),
        };
        let timeout = self.job["runner_info"]["timeout"].as_u64().filter(|seconds| *seconds > 0);
        let timeout = timeout.map_or(TIMEOUT, Duration::from_secs);
        let is_over = |remote: &Remote| matches!(remote, Remote::Abort | Remote::Canceling);
        let end = tokio::select! {
            ended = work.ended() => return ended,
            by = stops.exit() => End::Aborted(by),
            _ = remote.wait_for(is_over) => End::Canceled,
            () = tokio::time::sleep(timeout) => End::Late(timeout),
        };
        work.kill().await;
        end
    }

    /// What stands at the head of every job's log.
    fn introduce(&self) {
        let mut text = format!("Running with gitlab-runner {VERSION} ({REVISION})\n");
        let (name, short, system) = (self.network.name(), self.network.short(), self.network.system());
        let _ = writeln!(text, "  on {name} {short}, system ID: {system}");
        let _ = writeln!(text, "Preparing the \"{}\" executor", self.options.executor);
        let _ = writeln!(text, "Getting source from Git repository\nSkipping Git repository setup");
        self.trace.write(&text);
    }

    /// The reason that the server understands.
    fn reason(&self, reason: &'static str) -> &'static str {
        let known = self.job["features"]["failure_reasons"].as_array().into_iter().flatten();
        let mut always = ["script_failure", "runner_system_failure", "job_execution_timeout"].iter();
        if always.any(|one| *one == reason) || known.into_iter().any(|one| one == reason) {
            reason
        } else {
            "unknown_failure"
        }
    }

    async fn tell(&self, end: End) {
        let (message, reason, code) = match end {
            End::Well => {
                self.entry("Job succeeded").with("job-status", "success").write(Level::Info);
                self.trace.line("Job succeeded");
                self.trace.finish(json!({ "state": "success" })).await;
                return;
            }
            End::Script(code) => (format!("exit status {code}"), "script_failure", code),
            End::Aborted(by) => (format!("aborted: {by}"), "runner_interrupted", 0),
            End::Canceled => ("canceled".into(), "job_canceled", 0),
            End::Late(time) => (
                format!("execution took longer than {}s seconds", time.as_secs()),
                "job_execution_timeout",
                0,
            ),
            End::System(why) => (why, "runner_system_failure", 0),
        };
        let is_ours = reason == "runner_system_failure";
        let words = if is_ours { "Job failed (system failure)" } else { "Job failed" };
        let words = format!("{words}: {message}");
        let entry = self.entry(&words).with("job-status", "failed").with("error", message);
        let entry = entry.with("failure_reason", reason).with("exit_code", code);
        entry.write(if is_ours { Level::Error } else { Level::Warning });
        self.trace.line(&format!("ERROR: {words}"));
        let end = json!({ "state": "failed", "failure_reason": self.reason(reason), "exit_code": code });
        self.trace.finish(end).await;
    }
}
