//! A directory with the unpacked runner in it, and the runner as a process.

use std::path::{Path, PathBuf};
use std::process::Output;

use sandbox::github::GitHub;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

pub use super::process::Runner;
use super::{Hub, process};

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
        let mut command = process::program(self.root().join(program), args, self.dir.path());
        command.current_dir(self.root()).env("RUNNER_ALLOW_RUNASROOT", "1");
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
