//! One step: its script, in a shell.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::arguments::DOCKER;
use super::{Service, Stop, say};
use crate::standin::program;

/// How often the service hears of a step that is silent.
const BEAT: Duration = Duration::from_millis(100);
/// What a script is left between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long output is read that something in the background holds open.
const LINGER: Duration = Duration::from_millis(100);

/// Runs it, and tells the service how it ended.
pub async fn run(service: &Service, access: &str, step: &Value, told: &mut Stop) {
    let id = |name: &str| step[name].as_str().unwrap_or_default().to_owned();
    let own = id("stepUuid");
    say(&format!(
        "Getting step StepId{{accountUuid={}, repositoryUuid={}, pipelineUuid={}, stepUuid={own}}}.",
        id("accountUuid"),
        id("repositoryUuid"),
        id("pipelineUuid")
    ));
    let status = match start(service, step) {
        Ok((child, lines)) => Running { service, access, id: &own }.follow(child, lines, told).await,
        Err(error) => {
            say(&format!("An error occurred whilst starting the step: {error}"));
            "ERROR"
        }
    };
    say(&format!("Completing step with result Result{{status={status}, error=None}}."));
    if let Err(error) = service.complete(access, &own, status).await {
        say(&format!("An error occurred whilst completing the step: {error:#}"));
    }
    // After each step, as the real one does.
    let _ = std::fs::remove_dir_all(service.work());
}

fn start(service: &Service, step: &Value) -> std::io::Result<(Child, UnboundedReceiver<String>)> {
    let dir = service.work().join("build");
    std::fs::create_dir_all(&dir)?;
    let env = step["env"].as_array().into_iter().flatten();
    let env = env.filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)));
    let script = ["bash", "-e", "-c", step["script"].as_str().unwrap_or_default()];
    let mut command = if service.arguments.get("runtime") == DOCKER {
        let mut command = in_container(service, step, &dir)?;
        command.args(env.flat_map(|(name, value)| ["--env".to_owned(), format!("{name}={value}")]));
        command.arg("the-image-of-the-step").args(script);
        command
    } else {
        let mut command = Command::new(script[0]);
        command.args(&script[1..]).envs(env).env("BITBUCKET_CLONE_DIR", &dir);
        command
    };
    command.current_dir(&dir).process_group(0).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (tell, lines) = unbounded_channel();
    tokio::spawn(read(child.stdout.take(), tell.clone()));
    tokio::spawn(read(child.stderr.take(), tell));
    Ok((child, lines))
}

/// A container beside the runner's own. How the real one names them is not published: what is known is that its directory is theirs.
fn in_container(service: &Service, step: &Value, dir: &Path) -> std::io::Result<Command> {
    let docker = program("docker-standin").map_err(|error| std::io::Error::other(format!("{error:#}")))?;
    let dir = dir.display();
    let id = |uuid: &str| uuid.trim_matches(['{', '}']).to_owned();
    let name = format!(
        "{}_{}_build",
        id(service.arguments.get("uuid")),
        id(step["stepUuid"].as_str().unwrap_or_default())
    );
    let mut command = Command::new(docker);
    command.args(["container", "run", "--rm", "--name", &name, "--volume", &format!("{dir}:{dir}")]);
    command.args(["--env", &format!("BITBUCKET_CLONE_DIR={dir}")]);
    Ok(command)
}

async fn read(stream: Option<impl AsyncRead + Unpin>, tell: UnboundedSender<String>) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = tell.send(line);
    }
}

struct Running<'a> {
    service: &'a Service,
    access: &'a str,
    id: &'a str,
}

impl Running<'_> {
    /// Waits for its end, or ends it; its status.
    async fn follow(&self, mut child: Child, mut lines: UnboundedReceiver<String>, told: &mut Stop) -> &'static str {
        let mut beat = tokio::time::interval(BEAT);
        let status = loop {
            tokio::select! {
                ended = child.wait() => break if ended.is_ok_and(|status| status.success()) { "PASSED" } else { "FAILED" },
                _ = told.wait_for(|is_told| *is_told) => {
                    kill(&mut child).await;
                    break "STOPPED";
                }
                _ = beat.tick() => {
                    // A service that does not answer may do so again; one that has forgotten the step wants it no more.
                    let wanted = self.service.tell(self.access, self.id, drain(&mut lines)).await;
                    if wanted.unwrap_or_else(|error| error.to_string().starts_with("404")) {
                        kill(&mut child).await;
                        break "STOPPED";
                    }
                }
            }
        };
        tokio::time::sleep(LINGER).await;
        let _ = self.service.tell(self.access, self.id, drain(&mut lines)).await;
        status
    }
}

fn drain(lines: &mut UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| lines.try_recv().ok()).collect()
}

async fn kill(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if let Some(group) = group {
            // It may be empty already.
            let _ = killpg(group, signal);
        }
        if tokio::time::timeout(GRACE, child.wait()).await.is_ok() {
            return;
        }
    }
}
