//! `cml-sandbox run -- COMMAND`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sandbox::ec2;
use sandbox::github::{JobSpec, Workflow};
use sandbox::world::{Options, World};

use super::Rehearsal;
use super::show::{Place, follow};

/// The exit code when something was left: what sysexits calls an internal error.
const LEFT: u8 = 70;

/// Runs the command in a world; its exit code is ours, unless something is left.
pub async fn run(rehearsal: &Rehearsal) -> Result<ExitCode> {
    let world = World::start(Options::default()).await?;
    Place::Stderr.line(world.isolation().describe());
    let timeline = follow(world.events.clone(), Place::Stderr);
    for (number, job) in rehearsal.job.iter().enumerate() {
        world.github.start_run(workflow(job, number)?);
    }
    for failure in &rehearsal.fail {
        refuse(&world, failure)?;
    }
    let taking = take_spots(&world, rehearsal.spot_notice_after.map(Duration::from_secs));
    let (program, args) = rehearsal.command.split_first().context("no command")?;
    let status = async {
        let mut command = tokio::process::Command::new(program);
        command.args(args).env_remove("GITHUB_ACTIONS").envs(world.env());
        command
            .kill_on_drop(true)
            .status()
            .await
            .with_context(|| format!("running {program}"))
    };
    let status = tokio::select! {
        status = status => status?,
        () = taking => anyhow::bail!("the world ended"),
    };
    let gone = |_: &_| {
        world
            .ec2
            .instances()
            .iter()
            .all(|instance| ["terminated", "stopped"].contains(&instance.state.as_str()))
    };
    if !world.ec2.instances().is_empty() {
        tokio::select! {
            _ = world.events.wait(rehearsal.linger(), gone) => {}
            () = take_spots(&world, rehearsal.spot_notice_after.map(Duration::from_secs)) => {}
        }
    }
    let leftovers = world.close().await;
    timeline.abort();
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    if leftovers.is_empty() {
        return Ok(ExitCode::from(code));
    }
    Place::Stderr.line(&format!("left when the world ended: {leftovers:?}"));
    Ok(ExitCode::from(if code == 0 { LEFT } else { code }))
}

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

fn refuse(world: &World, failure: &str) -> Result<()> {
    let (action, rest) = failure
        .split_once('=')
        .with_context(|| format!("`--fail {failure}` is not `ACTION=CODE:TIMES`"))?;
    let (code, times) = rest.split_once(':').unwrap_or((rest, "1"));
    let times = times
        .parse()
        .with_context(|| format!("`{times}` in `--fail {failure}` is no number"))?;
    world
        .ec2
        .faults()
        .answer(action, times, 400, &ec2::error(code, "refused by the rehearsal"));
    Ok(())
}

/// Takes every spot machine back some time after its launch; for ever.
async fn take_spots(world: &World, after: Option<Duration>) {
    let Some(after) = after else {
        return std::future::pending().await;
    };
    let mut taken = Vec::new();
    loop {
        let new = |_: &_| {
            world
                .ec2
                .instances()
                .iter()
                .any(|instance| instance.spot && !taken.contains(&instance.id))
        };
        if world.events.wait(Duration::MAX, new).await.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep(after).await;
        for instance in world.ec2.instances() {
            if instance.spot && !taken.contains(&instance.id) {
                world.ec2.spot_notice(&instance.id, after);
                taken.push(instance.id);
            }
        }
    }
}
