//! A directory with the unpacked runner in it, and the runner as a process.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sandbox::github::GitHub;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::{Hub, PATIENCE};

/// The program that is supervised, below the runner's root.
pub const LISTENER: &str = "bin/Runner.Listener";
/// It is ready.
pub const LISTENING: &str = "Listening for Jobs";

/// Starts the listener of a configured runner.
pub fn start(machine: &Machine) -> Runner {
    Runner::start(&mut machine.command(LISTENER, &["run"]))
}

pub struct Machine {
    dir: TempDir,
}

impl Machine {
    /// Unpacks the archive as it is served.
    pub async fn new(github: &GitHub) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("runner.tar.gz");
        std::fs::write(&archive, github.archive()).unwrap();
        std::fs::create_dir(dir.path().join("runner")).unwrap();
        let tar = Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(dir.path().join("runner"))
            .status()
            .await;
        assert!(tar.unwrap().success());
        Self { dir }
    }

    /// One with a runner that is registered under this name.
    pub async fn configured(hub: &Hub, name: &str, more: &[&str]) -> Self {
        let machine = Self::new(&hub.github).await;
        let output = machine.configure(hub, name, more).await;
        assert!(output.status.success(), "{output:?}");
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("runner")
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.root().join(program));
        command
            .args(args)
            .current_dir(self.root())
            .env_clear()
            .env("RUNNER_ALLOW_RUNASROOT", "1");
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.dir.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// `config.sh`, with a fresh token in the environment.
    pub async fn configure(&self, hub: &Hub, name: &str, more: &[&str]) -> Output {
        let token = token(hub, "registration-token").await;
        let url = hub.github.repo_url();
        let args = ["--unattended", "--url", &url, "--name", name, "--labels", "gpu"];
        let mut command = self.command("config.sh", &[&args[..], more].concat());
        command.env("ACTIONS_RUNNER_INPUT_TOKEN", token).output().await.unwrap()
    }

    /// Writes a hook; returns its path.
    pub fn hook(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// A registration token or a remove token.
pub async fn token(hub: &Hub, kind: &str) -> String {
    let answer = hub.json(201, "POST", &format!("/runners/{kind}"), "").await;
    answer["token"].as_str().unwrap().to_owned()
}

/// What `.runner` says; it begins with a byte order mark.
pub fn settings(root: &Path) -> Value {
    let text = std::fs::read_to_string(root.join(".runner")).unwrap();
    serde_json::from_str(text.strip_prefix('\u{feff}').expect("a byte order mark")).unwrap()
}

/// A runner that runs, in a process group of its own.
pub struct Runner {
    child: Child,
    group: Pid,
    lines: UnboundedReceiver<String>,
    /// All that it has said so far, without the time stamps.
    pub said: Vec<String>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Nothing of a failed test goes on.
        let _ = killpg(self.group, Signal::SIGKILL);
    }
}

impl Runner {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.process_group(0).spawn().unwrap();
        let (sender, lines) = unbounded_channel();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let read = |stream: Box<dyn AsyncRead + Unpin + Send>| {
            let (mut reader, sender) = (BufReader::new(stream).lines(), sender.clone());
            tokio::spawn(async move {
                while let Ok(Some(line)) = reader.next_line().await {
                    let _ = sender.send(line);
                }
            });
        };
        read(Box::new(out));
        read(Box::new(err));
        let group = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
        Self {
            child,
            group,
            lines,
            said: Vec::new(),
        }
    }

    /// Waits for a line, without its time stamp.
    pub async fn line(&mut self, wanted: &str) {
        self.line_that(wanted, |line| line == wanted).await;
    }

    pub async fn line_that(&mut self, name: &str, wanted: impl Fn(&str) -> bool) -> String {
        let found = timeout(PATIENCE, async {
            loop {
                let line = self.lines.recv().await?;
                self.said.push(bare(&line).to_owned());
                if wanted(bare(&line)) {
                    return Some(bare(&line).to_owned());
                }
            }
        });
        found
            .await
            .ok()
            .flatten()
            .unwrap_or_else(|| panic!("no line `{name}` in:\n{}", self.said.join("\n")))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.group, signal).unwrap();
    }

    pub fn signal_group(&self, signal: Signal) {
        killpg(self.group, signal).unwrap();
    }

    /// Waits for its end; returns the exit code.
    pub async fn code(&mut self) -> Option<i32> {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("the runner ends").unwrap();
        // What was written before the end is read to the end; what it left behind may hold the pipes open.
        while let Ok(Some(line)) = timeout(Duration::from_millis(200), self.lines.recv()).await {
            self.said.push(bare(&line).to_owned());
        }
        status.code()
    }
}

/// A line without its time stamp.
fn bare(line: &str) -> &str {
    let is_stamp = |stamp: &str| stamp.len() == 20 && stamp.starts_with("20") && stamp.ends_with('Z');
    match line.split_once(": ") {
        Some((stamp, rest)) if is_stamp(stamp) => rest,
        _ => line,
    }
}
