//! The processes of a job. Source: `executors/shell/shell.go`, `helpers/process/killer.go`.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::build::End;
use super::cli::Options;
use super::network::Network;
use super::trace::Trace;

/// What a script is left between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_mins(10);
/// How long output is read that something in the background holds open.
const LINGER: Duration = Duration::from_millis(100);
/// How much output is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// A job's script, which runs.
pub struct Work {
    child: Child,
    group: Option<Pid>,
    readers: Vec<JoinHandle<()>>,
}

impl Work {
    /// Starts a job's script in its directory, in a process group of its own. It inherits our environment.
    pub fn start(options: &Options, network: &Network, job: &Value, trace: &Trace) -> Result<Self> {
        let (root, project) = directories(options, network, job)?;
        let script = project.with_extension("tmp").join("script.sh");
        for dir in [Some(project.as_path()), script.parent()].into_iter().flatten() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let text = script_of(options, job);
        fs::write(&script, text).with_context(|| format!("writing {}", script.display()))?;
        trace.line("Executing \"step_script\" stage of the job script");
        let mut command = Command::new("bash");
        command.arg(&script).current_dir(&project).process_group(0).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(options.env.iter().filter_map(|pair| pair.split_once('=')));
        command
            .envs(variables(job))
            .env("CI_BUILDS_DIR", &root)
            .env("CI_PROJECT_DIR", &project);
        command
            .env("CI_RUNNER_DESCRIPTION", network.name())
            .env("CI_RUNNER_VERSION", super::VERSION);
        command.env("CI_RUNNER_SHORT_TOKEN", network.short());
        let mut child = command.spawn().context("starting the script")?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let out = child.stdout.take().map(|out| tokio::spawn(read(out, trace.clone())));
        let err = child.stderr.take().map(|err| tokio::spawn(read(err, trace.clone())));
        Ok(Self {
            child,
            group,
            readers: out.into_iter().chain(err).collect(),
        })
    }

    /// Waits for the end of the script. Cancel-safe.
    pub async fn ended(&mut self) -> End {
        let status = match self.child.wait().await {
            Ok(status) => status,
            Err(error) => return End::System(error.to_string()),
        };
        self.drain().await;
        match (status.code(), status.signal()) {
            (Some(0), _) => End::Well,
            (Some(code), _) => End::Script(code),
            // What Go says of a process that a signal ended.
            (None, _) => End::Script(-1),
        }
    }

    /// Ends the script and all that belongs to it.
    pub async fn kill(mut self) {
        for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, GRACE)] {
            if let Some(group) = self.group {
                // It may be empty already.
                let _ = killpg(group, signal);
            }
            if timeout(patience, self.child.wait()).await.is_ok() {
                break;
            }
        }
        self.drain().await;
    }

    async fn drain(&mut self) {
        for mut reader in std::mem::take(&mut self.readers) {
            if timeout(LINGER, &mut reader).await.is_err() {
                reader.abort();
            }
        }
    }
}

/// Where builds are, and where this one's project is.
fn directories(options: &Options, network: &Network, job: &Value) -> Result<(PathBuf, PathBuf)> {
    let root = match &options.builds_dir {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::current_dir()?.join("builds"),
    };
    let path = job["job_info"]["project_full_path"].as_str().unwrap_or("project");
    let project = root.join(network.short()).join("0").join(Path::new(path));
    Ok((root, project))
}

fn variables(job: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = job["variables"].as_array().into_iter().flatten();
    all.map(|variable| (text(&variable["key"]), text(&variable["value"]))).collect()
}

/// The steps as one script.
fn script_of(options: &Options, job: &Value) -> String {
    let steps = job["steps"].as_array().into_iter().flatten();
    let lines = steps.flat_map(|step| step["script"].as_array().into_iter().flatten());
    let lines: Vec<&str> = lines.filter_map(Value::as_str).collect();
    format!("set -eo pipefail\n{}\n{}\n", options.pre_build_script, lines.join("\n"))
}

/// Adds what the script writes to the job's log, never to our own output.
async fn read(mut stream: impl AsyncRead + Unpin, trace: Trace) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        trace.write(&String::from_utf8_lossy(&chunk[..length]));
    }
}
