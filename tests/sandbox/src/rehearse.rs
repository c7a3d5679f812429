//! `cml-sandbox run -- COMMAND`

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::ci::{JobSpec, Workflow};
use sandbox::cloud::Cloud;
use sandbox::events::Events;
use sandbox::fleet::{Fleet, State};
use sandbox::world::{Options, World};
use tokio::process::{Child, Command};

use super::Rehearsal;
use super::show::{Place, follow};
use super::signals::{Signals, exit_code};

/// The exit code when something was left: what sysexits calls an internal error.
const LEFT: u8 = 70;
/// What EC2 leaves a spot machine.
const NOTICE: Duration = Duration::from_mins(2);
/// What the caller's environment must not tell the command: who it works for in the real world.
const FOREIGN: &[&str] = &[
    "AWS_",
    "AZURE_",
    "BITBUCKET_",
    "CI_",
    "CLOUDSDK_",
    "CML_",
    "GCE_",
    "GCLOUD_",
    "GCP_",
    "GITHUB_",
    "GITLAB_",
    "GOOGLE_",
    "KUBE",
    "REPO_TOKEN",
    "RUNNER_",
    "repo_token",
    "CI",
];

/// Runs the command in a world; its exit code is ours, unless something is left.
pub async fn run(rehearsal: &Rehearsal) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let world = World::start(Options {
        forge: rehearsal.forge.into(),
        cloud: rehearsal.cloud,
        ..Options::default()
    })
    .await?;
    Place::Stderr.line(world.isolation().describe());
    let timeline = follow(&world, Place::Stderr);
    for (number, job) in rehearsal.job.iter().enumerate() {
        world.forge.start_run(workflow(job, number)?);
    }
    for failure in &rehearsal.fail {
        let (action, code, times) = refusal(failure)?;
        world.cloud.fail(action, code, times);
    }
    if let Some(after) = rehearsal.spot_notice_after {
        tokio::spawn(take_first_spot(
            world.cloud.clone(),
            world.fleet.clone(),
            world.events.clone(),
            after,
        ));
    }
    let mut child = command(&world, &rehearsal.command)?;
    let status = wait(&mut child, &mut signals).await?;
    if status.is_some() {
        tokio::select! {
            () = all_gone(&world, rehearsal.linger) => {}
            _ = signals.next() => {}
        }
    }
    // It may ignore what it was told; nothing of it is left.
    child.kill().await.context("ending the command")?;
    let leftovers = world.close().await;
    timeline.abort();
    if leftovers.is_empty() {
        return Ok(ExitCode::from(status.map_or_else(|| exit_code(Signal::SIGINT), code)));
    }
    Place::Stderr.line(&format!("left when the world ended: {leftovers:?}"));
    Ok(ExitCode::from(LEFT))
}

/// As a shell tells it.
fn code(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| Some(128 + status.signal()?));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1)
}

/// Starts the command; where possible it ends with us, however we end.
fn command(world: &World, words: &[String]) -> Result<Child> {
    let mut command = Command::new(&words[0]);
    if is_on_path("setpriv") {
        command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", &words[0]]);
    }
    command.args(&words[1..]);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if FOREIGN
            .iter()
            .any(|prefix| name == *prefix || (prefix.len() > 2 && name.starts_with(prefix)))
        {
            command.env_remove(name);
        }
    }
    command.envs(world.env());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, world.nowhere()).env(name.to_lowercase(), world.nowhere());
    }
    command
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("no_proxy", "127.0.0.1,localhost");
    command.kill_on_drop(true).spawn().with_context(|| format!("running {}", words[0]))
}

fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Waits for the command's end. The first signal is the command's business, the second ends the waiting.
async fn wait(child: &mut Child, signals: &mut Signals) -> Result<Option<ExitStatus>> {
    let mut told = false;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(Some(status.context("waiting for the command")?)),
            signal = signals.next() => {
                if told {
                    return Ok(None);
                }
                told = true;
                // The terminal has sent the others to the command as well.
                if let (Signal::SIGTERM, Some(id)) = (signal, child.id().and_then(|id| i32::try_from(id).ok())) {
                    let _ = kill(Pid::from_raw(id), signal);
                }
            }
        }
    }
}

/// Waits until no instance lives, for so long at most.
async fn all_gone(world: &World, linger: Duration) {
    if !world.fleet.instances().is_empty() {
        let is_gone = |state: State| matches!(state, State::Ended | State::Stopped);
        let gone = |_: &_| world.fleet.instances().iter().all(|instance| is_gone(instance.state));
        world.events.wait(linger, gone).await;
    }
}

/// `LABELS: SCRIPT`
fn workflow(job: &str, number: usize) -> Result<Workflow> {
    let (labels, script) = job
        .split_once(':')
        .with_context(|| format!("`--job {job}` is not `LABELS: SCRIPT`"))?;
    let labels = labels
        .split(',')
        .map(|label| label.trim().to_owned())
        .filter(|label| !label.is_empty());
    let key = format!("job{}", number + 1);
    Ok(Workflow {
        name: format!("rehearsal-{}", number + 1),
        jobs: vec![JobSpec {
            name: key.clone(),
            key,
            needs: Vec::new(),
            labels: labels.collect(),
            script: script.trim().into(),
            env: Vec::new(),
            timeout: None,
        }],
    })
}

/// `ACTION=CODE` or `ACTION=CODE:TIMES`
fn refusal(text: &str) -> Result<(&str, &str, usize)> {
    let (action, rest) = text
        .split_once('=')
        .with_context(|| format!("`--fail {text}` is not `ACTION=CODE:TIMES`"))?;
    let (code, times) = rest.split_once(':').unwrap_or((rest, "1"));
    let times = times
        .parse()
        .with_context(|| format!("`{times}` in `--fail {text}` is no number"))?;
    Ok((action, code, times))
}

/// Takes the first spot machine back some time after its launch.
async fn take_first_spot(cloud: Cloud, fleet: Fleet, events: Events, after: Duration) {
    let spot = |id: &str| fleet.instance(id).is_some_and(|instance| instance.spot);
    let launched = events
        .wait(Duration::MAX, |event| event.what == "instance-launched" && spot(&event.subject))
        .await;
    if let Some(event) = launched {
        tokio::time::sleep(after).await;
        cloud.take_back(&event.subject, NOTICE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{refusal, workflow};

    #[test]
    fn a_job_is_its_labels_and_its_script() {
        let run = workflow("self-hosted, gpu: echo a:b", 1).unwrap();
        assert_eq!(run.jobs[0].labels, ["self-hosted", "gpu"]);
        assert_eq!((run.jobs[0].key.as_str(), run.jobs[0].script.as_str()), ("job2", "echo a:b"));
        assert!(workflow("echo", 0).is_err());
    }

    #[test]
    fn a_refusal_strikes_once_unless_it_says_how_often() {
        assert_eq!(refusal("RunInstances=X").unwrap(), ("RunInstances", "X", 1));
        assert_eq!(refusal("RunInstances=X:3").unwrap(), ("RunInstances", "X", 3));
        assert!(refusal("RunInstances").is_err());
        assert!(refusal("RunInstances=X:often").is_err());
    }
}
