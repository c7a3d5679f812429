//! What the tests of every forge's server and runner share: jobs, events, and processes that are watched.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sandbox::ci::{JobSpec, RunView};
use sandbox::events::{Event, Events};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// How long a test waits for what must happen: never reached when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for an event of this kind about this subject.
pub async fn event(events: &Events, what: &str, subject: &str) -> Event {
    let found = events.wait(PATIENCE, |event| event.what == what && event.subject == subject).await;
    found.unwrap_or_else(|| panic!("`{what} {subject}` did not happen:\n{}", timeline(events)))
}

/// How a run ended that was waited for.
pub fn conclusion(events: &Events, run: Option<RunView>) -> String {
    let run = run.unwrap_or_else(|| panic!("the run did not end:\n{}", timeline(events)));
    run.conclusion.unwrap()
}

/// All that happened.
pub fn timeline(events: &Events) -> String {
    let lines: Vec<String> = events.all().iter().map(|event| format!("{:?} {event}", event.at)).collect();
    lines.join("\n")
}

/// A job for runners with the label `gpu`, which GitHub compares without case, and GitLab does not.
pub fn job(key: &str, script: &str) -> JobSpec {
    JobSpec {
        key: key.into(),
        name: key.into(),
        needs: Vec::new(),
        labels: vec!["self-hosted".into(), "GPU".into()],
        script: script.into(),
        env: Vec::new(),
        timeout: None,
    }
}

/// A job for a machine of the forge's own.
pub fn hosted(key: &str, script: &str, needs: &[&str]) -> JobSpec {
    JobSpec {
        labels: vec!["ubuntu-latest".into()],
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        ..job(key, script)
    }
}

/// Whether a process runs; a zombie does not.
pub fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("not so: {what}"));
}

/// Waits for the end of a process.
pub async fn gone(pid: &str) {
    until("the process is gone", || !alive(pid)).await;
}

/// A program with nothing of our environment but the path, whose output is read.
pub fn program(path: impl AsRef<OsStr>, args: &[&str], home: &Path) -> Command {
    let mut command = Command::new(path);
    command.args(args).env_clear().env("HOME", home);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
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
