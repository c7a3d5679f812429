//! Jobs on machines of GitHub's own: real processes on this one, with the environment that GitHub gives.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::run::Message;
use super::{GitHub, lock, protocol};
use crate::events::Source;

/// How often a running job looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// How long a cancelled job may take to end: what GitHub's own runner leaves a step between SIGINT and SIGKILL.
const CANCEL: Duration = Duration::from_secs(10);

/// Runs a hosted job to its end.
pub async fn run(github: GitHub, message: Message) {
    let message = protocol::complete(&github, message);
    let conclusion = match execute(&github, &message).await {
        Ok(status) if status.success() => "success",
        Ok(_) => "failure",
        Err(error) => {
            github
                .0
                .events
                .push(Source::Forge, "job-output", &message.key, format!("{error:#}"));
            "failure"
        }
    };
    github.change(|state| state.complete(message.job, conclusion));
}

/// The processes of a job; none of them survives it.
struct Group {
    leader: Child,
    id: Option<Pid>,
}

impl Group {
    fn new(leader: Child) -> Self {
        let id = leader.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { leader, id }
    }

    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            // It may be empty already.
            let _ = killpg(id, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// The job's one step, in a directory of its own and with an environment of its own.
fn step(github: &GitHub, message: &Message, dir: &Path) -> Result<Command> {
    let files = [
        ("GITHUB_OUTPUT", "output"),
        ("GITHUB_STEP_SUMMARY", "summary"),
        ("GITHUB_ENV", "env"),
        ("GITHUB_PATH", "path"),
    ];
    let mut command = Command::new("sh");
    command.args(["-e", "-c", &message.script]).current_dir(dir).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir);
    command.envs(lock(&github.0.hosted_env).iter().cloned());
    command.envs(environment(message)).envs(message.env.iter().cloned());
    command.env("GITHUB_WORKSPACE", dir).env("RUNNER_TEMP", dir);
    for (name, file) in files {
        let path = dir.join(file);
        std::fs::write(&path, "")?;
        command.env(name, path);
    }
    Ok(command)
}

async fn execute(github: &GitHub, message: &Message) -> Result<ExitStatus> {
    let dir = tempfile::tempdir().context("making a work directory")?;
    let mut command = step(github, message, dir.path())?;
    let mut group = Group::new(command.spawn().context("starting the job")?);
    let (out, err) = (group.leader.stdout.take(), group.leader.stderr.take());
    let lines = async {
        tokio::join!(tell(github, message, out), tell(github, message, err));
    };
    let mut lines = std::pin::pin!(lines);
    let mut told = false;
    let mut killed: Option<Instant> = None;
    loop {
        tokio::select! {
            () = &mut lines, if !told => told = true,
            status = group.leader.wait() => {
                let status = status?;
                // What it left in the background may hold its output open.
                if !told {
                    let _ = tokio::time::timeout(LOOK, &mut lines).await;
                }
                return Ok(status);
            }
            () = tokio::time::sleep(LOOK) => {
                let cancelled = lock(&github.0.state).job(message.job).is_none_or(|job| job.cancel);
                match killed {
                    None if cancelled => {
                        group.signal(Signal::SIGINT);
                        killed = Some(Instant::now() + CANCEL);
                    }
                    Some(at) if Instant::now() > at => anyhow::bail!("the job did not end when it was cancelled"),
                    _ => {}
                }
            }
        }
    }
}

async fn tell(github: &GitHub, message: &Message, stream: Option<impl AsyncRead + Unpin>) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        github.0.events.push(Source::Forge, "job-output", &message.key, line);
    }
}

/// GitHub's own variables.
pub fn environment(message: &Message) -> Vec<(String, String)> {
    let pairs = [
        ("CI", "true".to_owned()),
        ("GITHUB_ACTIONS", "true".into()),
        ("GITHUB_ACTOR", "octo".into()),
        ("GITHUB_API_URL", format!("{}{}", message.server, super::front::PREFIX)),
        ("GITHUB_ACTION", "__run".into()),
        ("GITHUB_EVENT_NAME", "push".into()),
        ("GITHUB_JOB", message.key.clone()),
        ("GITHUB_REF", "refs/heads/main".into()),
        ("GITHUB_REPOSITORY", message.repository.clone()),
        ("GITHUB_REPOSITORY_ID", "1".into()),
        (
            "GITHUB_REPOSITORY_OWNER",
            message.repository.split('/').next().unwrap_or_default().into(),
        ),
        ("GITHUB_RUN_ATTEMPT", message.attempt.to_string()),
        ("GITHUB_RUN_ID", message.run.to_string()),
        ("GITHUB_RUN_NUMBER", "1".into()),
        ("GITHUB_SERVER_URL", message.server.clone()),
        ("GITHUB_SHA", "0123456789abcdef0123456789abcdef01234567".into()),
        ("GITHUB_TRIGGERING_ACTOR", "octo".into()),
        ("GITHUB_WORKFLOW", message.workflow.clone()),
        ("RUNNER_ARCH", crate::standin::ARCH.into()),
        ("RUNNER_NAME", message.runner.clone()),
        ("RUNNER_OS", "Linux".into()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
