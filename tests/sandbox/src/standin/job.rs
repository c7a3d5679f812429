//! One job: hooks, step, lock, cancellation, and what is left of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::http::post;
use super::listener::{Settings, Signals};
use super::stamp;
use crate::github::{Message, environment};

/// How often the lock is renewed (a minute on GitHub).
const RENEW: Duration = Duration::from_millis(200);
/// How a step is ended. Source: `ProcessInvoker.cs` of the runner.
const STEPS: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_millis(7500)),
    (Signal::SIGTERM, Duration::from_millis(2500)),
    (Signal::SIGKILL, Duration::from_secs(10)),
];

/// How a job ended, as far as the listener's own life goes.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The listener goes on.
    Done,
    /// The listener was told to stop.
    Interrupted,
}

/// What ended the step.
enum Cause {
    Itself(bool),
    Signal,
    Cancelled,
    /// The server does not know the job, or the lock, any more.
    Abandoned,
}

struct Job<'a> {
    settings: &'a Settings,
    message: &'a Message,
    workspace: PathBuf,
    env: BTreeMap<String, String>,
    tracking: String,
}

/// Runs a job to its end.
pub async fn run(root: &Path, settings: &Settings, message: &Message, signals: &mut Signals) -> Result<End> {
    println!("{}: Running job: {}", stamp(), message.name);
    let job = Job::new(root, settings, message)?;
    let cause = job.execute(signals).await?;
    if matches!(cause, Cause::Signal) {
        println!("Exiting...");
    }
    // Not on a shutdown: the worker is gone by then.
    if matches!(cause, Cause::Itself(_) | Cause::Cancelled) {
        job.hook("ACTIONS_RUNNER_HOOK_JOB_COMPLETED").await;
    }
    job.end_strays();
    let (words, said) = match cause {
        Cause::Itself(true) => ("Succeeded", json!({ "success": true })),
        Cause::Itself(false) => ("Failed", json!({ "success": false })),
        // The server is told otherwise than the console.
        Cause::Signal => ("Canceled", json!({ "success": false })),
        Cause::Cancelled => ("Canceled", json!({ "cancelled": true })),
        Cause::Abandoned => ("Abandoned", Value::Null),
    };
    println!("{}: Job {} completed with result: {words}", stamp(), message.name);
    if !said.is_null() {
        job.tell("/_runner/done", &said).await;
    }
    Ok(if matches!(cause, Cause::Signal) {
        End::Interrupted
    } else {
        End::Done
    })
}

impl<'a> Job<'a> {
    fn new(root: &Path, settings: &'a Settings, message: &'a Message) -> Result<Self> {
        let repo = message.repository.split('/').next_back().unwrap_or("repo");
        let work = root.join(&settings.work);
        let (workspace, temp) = (work.join(repo).join(repo), work.join("_temp"));
        for dir in [&workspace, &temp] {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let tracking = format!("github_{}_{}", std::process::id(), message.job);
        let mut env: BTreeMap<String, String> = std::env::vars()
            .filter(|(name, _)| !name.starts_with("ACTIONS_RUNNER_INPUT_"))
            .collect();
        env.extend(environment(message));
        env.insert("GITHUB_WORKSPACE".into(), workspace.display().to_string());
        env.insert("RUNNER_WORKSPACE".into(), work.join(repo).display().to_string());
        env.insert("RUNNER_TEMP".into(), temp.display().to_string());
        env.insert("RUNNER_TOOL_CACHE".into(), work.join("_tool").display().to_string());
        env.insert("RUNNER_TRACKING_ID".into(), tracking.clone());
        Ok(Self {
            settings,
            message,
            workspace,
            env,
            tracking,
        })
    }

    fn command(&self, script: &Path) -> Command {
        let mut command = Command::new("bash");
        command
            .arg("-e")
            .arg(script)
            .current_dir(&self.workspace)
            .env_clear()
            .envs(&self.env);
        // Steps write to the job's log on the server, never to the listener's own output.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs a hook, if there is one: whether it did not fail.
    async fn hook(&self, variable: &str) -> bool {
        let Some(path) = self.env.get(variable).filter(|path| !path.is_empty()) else {
            return true;
        };
        self.command(Path::new(path)).status().await.is_ok_and(|status| status.success())
    }

    async fn execute(&self, signals: &mut Signals) -> Result<Cause> {
        if !self.hook("ACTIONS_RUNNER_HOOK_JOB_STARTED").await {
            return Ok(Cause::Itself(false));
        }
        let script = Path::new(&self.env["RUNNER_TEMP"]).join(format!("{}.sh", self.message.job));
        fs::write(&script, &self.message.script)?;
        let mut step = self
            .command(&script)
            .envs(self.message.env.iter().cloned())
            .spawn()
            .context("starting the step")?;
        let group = step.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let cause = loop {
            tokio::select! {
                status = step.wait() => break Cause::Itself(status?.success()),
                () = signals.next() => break Cause::Signal,
                () = tokio::time::sleep(RENEW) => {
                    if let Some(cause) = self.renew().await {
                        break cause;
                    }
                }
            }
        };
        if !matches!(cause, Cause::Itself(_)) {
            end(&mut step, group).await;
        }
        Ok(cause)
    }

    /// Renews the lock; a reason to end the job, if there is one.
    async fn renew(&self) -> Option<Cause> {
        match self.tell("/_runner/renew", &json!({})).await? {
            (200, body) => {
                let answer: Value = serde_json::from_str(&body).unwrap_or_default();
                answer["cancel"].as_bool().unwrap_or_default().then_some(Cause::Cancelled)
            }
            (404 | 410, _) => Some(Cause::Abandoned),
            _ => None,
        }
    }

    async fn tell(&self, path: &str, more: &Value) -> Option<(u16, String)> {
        let mut body = self.settings.says(more);
        body["job"] = json!(self.message.job);
        post(&self.settings.server, path, &body).await.ok()
    }

    /// Ends what the job left behind, wherever it went: by the mark in its environment.
    fn end_strays(&self) {
        let mark = format!("RUNNER_TRACKING_ID={}", self.tracking);
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

async fn end(step: &mut Child, group: Option<Pid>) {
    for (signal, patience) in STEPS {
        if let Some(group) = group {
            let _ = killpg(group, signal);
        }
        if timeout(patience, step.wait()).await.is_ok() {
            return;
        }
    }
}
