//! Jobs on machines of the forge's own: real processes on this one, with the environment that the forge gives.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::forge::Forge;
use super::run::Message;
use super::server::Server;

/// How often a running job looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// How long a cancelled job may take to end: what GitHub's runner leaves a step between SIGINT and SIGKILL.
const CANCEL: Duration = Duration::from_secs(10);

/// Runs a hosted job to its end.
pub async fn run<F: Forge>(server: Server<F>, message: Message) {
    let message = server.complete(message);
    let conclusion = match execute(&server, &message).await {
        Ok(status) if status.success() => "success",
        Ok(_) => "failure",
        Err(error) => {
            server.tell_output(&message.key, &format!("{error:#}"));
            "failure"
        }
    };
    server.change(|state| state.complete(message.job, conclusion));
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
fn step<F: Forge>(server: &Server<F>, message: &Message, dir: &Path) -> Result<Command> {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", &message.script]).current_dir(dir).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir);
    command.envs(server.hosted_env());
    command
        .envs(server.own().environment(message, dir)?)
        .envs(message.env.iter().cloned());
    Ok(command)
}

async fn execute<F: Forge>(server: &Server<F>, message: &Message) -> Result<ExitStatus> {
    let dir = tempfile::tempdir().context("making a work directory")?;
    let mut command = step(server, message, dir.path())?;
    let mut group = Group::new(command.spawn().context("starting the job")?);
    let (out, err) = (group.leader.stdout.take(), group.leader.stderr.take());
    let lines = async {
        tokio::join!(tell(server, message, out), tell(server, message, err));
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
                let cancelled = server.state().job(message.job).is_none_or(|job| job.cancel);
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

async fn tell<F: Forge>(server: &Server<F>, message: &Message, stream: Option<impl AsyncRead + Unpin>) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        server.tell_output(&message.key, &line);
    }
}
