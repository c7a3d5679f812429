//! `Runner.Worker`: the process that runs one job: hooks, step, and what is left of them. It is told what to do on its standard input,
//! and its exit code is the result.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::session::Settings;
use super::step::{self, Ended};
use crate::ci::Message;
use crate::github::environment;

/// The command that makes the program a worker.
pub const COMMAND: &str = "spawnclient";
/// Results, as exit codes. Source: `TaskResultUtil.cs`.
pub const SUCCEEDED: i32 = 100;
pub const FAILED: i32 = 102;
pub const CANCELED: i32 = 103;

/// How long a step that was interrupted together with us waits for the listener's word, which was interrupted too.
const WORD: Duration = Duration::from_secs(2);
/// How long output is read that something in the background holds open.
const LINGER: Duration = Duration::from_millis(100);
/// How much output is told at once, in bytes.
const CHUNK: usize = 64 * 1024;
/// The files through which steps speak to the runner.
const COMMAND_FILES: [&str; 4] = ["GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"];

/// What the listener says on our standard input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// The job was cancelled on the server.
    Cancel,
    /// The runner is told to stop.
    Shutdown,
}

impl Tell {
    pub const CANCEL: &str = "cancel";
    pub const SHUTDOWN: &str = "shutdown";
}

/// The listener's words.
pub struct Orders(Lines<BufReader<Receiver>>);

impl Orders {
    fn open() -> Result<Self> {
        let own = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("opening the listener's pipe")?;
        Ok(Self(BufReader::new(Receiver::from_owned_fd(own)?).lines()))
    }

    async fn line(&mut self) -> String {
        match self.0.next_line().await {
            Ok(Some(line)) => line,
            // The listener is dead: the real one crashes too, and its steps go on.
            Ok(None) | Err(_) => std::process::exit(1),
        }
    }

    /// Waits for one. Cancel-safe.
    pub async fn next(&mut self) -> Tell {
        if self.line().await == Tell::CANCEL {
            Tell::Cancel
        } else {
            Tell::Shutdown
        }
    }
}

struct Job {
    message: Message,
    settings: Settings,
    workspace: PathBuf,
    temp: PathBuf,
    env: BTreeMap<String, String>,
    tracking: String,
}

/// The whole program; returns its exit code.
pub async fn main(root: &Path) -> Result<i32> {
    // It leaves an interruption to the listener.
    let _interrupt = signal(SignalKind::interrupt())?;
    let mut orders = Orders::open()?;
    let message = serde_json::from_str(&orders.line().await).context("reading the job")?;
    let job = Job::new(root, message)?;
    let result = job.run(&mut orders).await?;
    job.end_strays();
    Ok(result)
}

impl Job {
    fn new(root: &Path, message: Message) -> Result<Self> {
        let settings = Settings::read(root)?;
        let repo = message.repository.split('/').next_back().unwrap_or("repo");
        let work = root.join(&settings.work);
        let (workspace, temp) = (work.join(repo).join(repo), work.join("_temp"));
        for dir in [&workspace, &temp, &work.join("_tool")] {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let tracking = format!("github_{}_{}", std::process::id(), message.job);
        let mut env: BTreeMap<String, String> = std::env::vars().collect();
        env.extend(environment(&message));
        let own = [
            ("GITHUB_WORKSPACE", workspace.display().to_string()),
            ("RUNNER_WORKSPACE", work.join(repo).display().to_string()),
            ("RUNNER_TEMP", temp.display().to_string()),
            ("RUNNER_TOOL_CACHE", work.join("_tool").display().to_string()),
            ("RUNNER_TRACKING_ID", tracking.clone()),
        ];
        env.extend(own.map(|(name, value)| (name.to_owned(), value)));
        for name in COMMAND_FILES {
            let path = temp.join(format!("{}_{name}", message.job));
            fs::write(&path, "")?;
            env.insert(name.into(), path.display().to_string());
        }
        Ok(Self {
            message,
            settings,
            workspace,
            temp,
            env,
            tracking,
        })
    }

    async fn run(&self, orders: &mut Orders) -> Result<i32> {
        let started = self.hook("ACTIONS_RUNNER_HOOK_JOB_STARTED", orders).await?;
        let ended = match started {
            Ended::Well => {
                let script = self.temp.join(format!("{}.sh", self.message.job));
                fs::write(&script, &self.message.script)?;
                self.execute(&script, &self.message.env, orders).await?
            }
            other => other,
        };
        if ended == Ended::Told(Tell::Shutdown) {
            // No further step runs, and no hook. Source: `StepsRunner.cs`.
            return Ok(FAILED);
        }
        let completed = self.hook("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", orders).await?;
        Ok(match (ended, completed) {
            (Ended::Told(_), _) => CANCELED,
            (Ended::Well, Ended::Well) => SUCCEEDED,
            _ => FAILED,
        })
    }

    /// Runs a hook, if there is one; one that is not there, or not a script, fails the job.
    async fn hook(&self, variable: &str, orders: &mut Orders) -> Result<Ended> {
        let Some(path) = self.env.get(variable).filter(|path| !path.is_empty()).map(Path::new) else {
            return Ok(Ended::Well);
        };
        if !path.is_file() || path.extension().is_none_or(|extension| extension != "sh") {
            return Ok(Ended::Badly);
        }
        self.execute(path, &[], orders).await
    }

    /// Runs a script as a step.
    async fn execute(&self, script: &Path, env: &[(String, String)], orders: &mut Orders) -> Result<Ended> {
        let mut command = Command::new("bash");
        command
            .arg("-e")
            .arg(script)
            .current_dir(&self.workspace)
            .env_clear()
            .envs(&self.env);
        command.envs(env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", script.display()))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let log = async { tokio::join!(self.tell_log(out), self.tell_log(err)) };
        let mut log = std::pin::pin!(log);
        let mut is_told = false;
        let ended = {
            let run = step::run(&mut child, orders);
            let mut run = std::pin::pin!(run);
            loop {
                tokio::select! {
                    ended = &mut run => break ended?,
                    _ = &mut log, if !is_told => is_told = true,
                }
            }
        };
        if !is_told {
            let _ = timeout(LINGER, log).await;
        }
        if ended == Ended::Interrupted {
            // Somebody interrupted the whole group; the listener says what that means, if it got the signal as well.
            let word = timeout(WORD, orders.next()).await;
            return Ok(word.map_or(Ended::Badly, Ended::Told));
        }
        Ok(ended)
    }

    /// Steps write to the job's log on the server, never to the listener's own output.
    async fn tell_log(&self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            let text = String::from_utf8_lossy(&chunk[..length]);
            let said = json!({ "job": self.message.job, "log": text });
            // A log that is lost loses no job.
            let _ = self.settings.tell("log", &said).await;
        }
    }

    /// Ends what the job left behind, wherever it went: by the mark in its environment. Source: `JobExtension.cs`.
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
