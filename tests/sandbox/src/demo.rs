//! `cml-sandbox demo`: two launches from beginning to end, each step of which must be seen.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::ci::{JobSpec, RunId, Workflow};
use sandbox::cloud;
use sandbox::events::{Event, Events};
use sandbox::forge::Kind;
use sandbox::world::{Options, World};

use super::show::{Place, follow};
use super::signals::{Signals, exit_code};

/// How long a step may take before the demo gives up: many times what it takes.
const PATIENCE: Duration = Duration::from_mins(1);
/// Clouds leave a spot machine half a minute to two minutes.
const NOTICE: Duration = Duration::from_secs(20);

/// Runs both; ends well only if every step was seen and nothing is left.
pub async fn run(forge: Kind, cloud: cloud::Kind) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    tokio::select! {
        seen = both(forge, cloud) => Ok(if seen? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        // What runs in the worlds dies with them.
        signal = signals.next() => Ok(ExitCode::from(exit_code(signal))),
    }
}

async fn both(forge: Kind, cloud: cloud::Kind) -> Result<bool> {
    let (first, second) = (whole_life(forge, cloud).await?, lost_machine(forge, cloud).await?);
    let verdict = if first && second {
        "every step was seen, and nothing is left"
    } else {
        "not every step was seen"
    };
    Place::Stdout.line(&format!("\n{verdict}"));
    Ok(first && second)
}

/// A scene with its checklist.
struct Scene {
    world: World,
    checks: Vec<(String, bool)>,
}

impl Scene {
    async fn open(forge: Kind, cloud: cloud::Kind, title: &str) -> Result<Self> {
        let options = Options {
            forge: forge.into(),
            cloud,
            notice: Some(NOTICE),
            ..Options::default()
        };
        let world = World::start(options).await?;
        Place::Stdout.line(&format!("\n== {title}\n   {}\n", world.isolation().describe()));
        Ok(Self { world, checks: Vec::new() })
    }

    /// Waits for a step.
    async fn step(&mut self, name: &str, wanted: impl Fn(&Event, &Events) -> bool) {
        let events = self.world.events.clone();
        let patience = if self.checks.iter().all(|(_, seen)| *seen) {
            PATIENCE
        } else {
            Duration::ZERO
        };
        let seen = events.wait(patience, |event| wanted(event, &events)).await.is_some();
        self.checks.push((name.into(), seen));
    }

    async fn close(mut self) -> bool {
        let leftovers = self.world.close().await;
        self.checks.push((
            "nothing is left: no instance, no registration, no process".into(),
            leftovers.is_empty(),
        ));
        Place::Stdout.line("");
        let coloured = Place::Stdout.has_colours();
        for (name, seen) in &self.checks {
            let (mark, colour) = if *seen { ("✓", 32) } else { ("✗", 31) };
            let mark = if coloured {
                format!("\u{1b}[{colour}m{mark}\u{1b}[0m")
            } else {
                mark.to_owned()
            };
            Place::Stdout.line(&format!("   {mark} {name}"));
        }
        if !leftovers.is_empty() {
            Place::Stdout.line(&format!("   left: {leftovers:?}"));
        }
        self.checks.iter().all(|(_, seen)| *seen)
    }

    fn start(&self, launch: &str, script: &str) -> RunId {
        let job = |key: &str, labels: &[&str], needs: &[&str], script: &str| JobSpec {
            key: key.into(),
            name: key.into(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            script: script.into(),
            env: Vec::new(),
            timeout: None,
        };
        let jobs = vec![
            job("launch", &["ubuntu-latest"], &[], launch),
            job("train", &["self-hosted", "gpu"], &["launch"], script),
        ];
        self.world.forge.start_run(Workflow { name: "ci".into(), jobs })
    }
}

async fn whole_life(forge: Kind, cloud: cloud::Kind) -> Result<bool> {
    let mut scene = Scene::open(forge, cloud, "one instance lives its whole life").await?;
    let timeline = follow(&scene.world, Place::Stdout);
    let prepared = scene.world.dir().join("prepared");
    let startup = format!("#!/bin/sh\necho installing what the job needs\ntouch '{}'\n", prepared.display());
    let startup = STANDARD.encode(startup);
    let launch = format!(
        "cml runner --cloud={} {} --cloud-gpu=t4 --labels=gpu --idle-timeout=2s --provisioning-timeout=60s --cloud-startup-script={startup}",
        cloud.name(),
        cloud.options().join(" ")
    );
    scene.start(&launch, &format!("test -e '{}' && sleep 1 && echo trained", prepared.display()));
    scene
        .step(&format!("launched on {}", cloud.title()), |event, _| {
            event.what == "instance-launched"
        })
        .await;
    scene
        .step("the start-up script ran on it", |event, _| {
            event.what == "console" && event.detail.contains("installing what the job needs")
        })
        .await;
    scene.step("its runner came online", |event, _| event.what == "runner-online").await;
    scene
        .step("the launcher said so", |event, _| {
            event.what == "job-completed" && event.subject == "launch" && event.detail == "success"
        })
        .await;
    scene
        .step("its job succeeded", |event, _| {
            event.what == "job-completed" && event.subject == "train" && event.detail == "success"
        })
        .await;
    scene
        .step(&format!("idle, it took its leave of {}", forge.title()), |event, _| {
            event.what == "runner-removed"
        })
        .await;
    scene.step("and is gone", |event, _| event.what == "instance-terminated").await;
    let seen = scene.close().await;
    timeline.abort();
    Ok(seen)
}

async fn lost_machine(forge: Kind, cloud: cloud::Kind) -> Result<bool> {
    let mut scene = Scene::open(forge, cloud, "a spot machine is lost in the middle of a job").await?;
    let timeline = follow(&scene.world, Place::Stdout);
    let gate = scene.world.dir().join("second-machine");
    let launch = format!(
        "cml runner --cloud={} {} {} --labels=gpu --idle-timeout=2s --provisioning-timeout=60s",
        cloud.name(),
        cloud.options().join(" "),
        cloud.spot().join(" ")
    );
    let script = format!(
        "echo training; while [ ! -e '{}' ]; do sleep 0.1; done; echo trained",
        gate.display()
    );
    let run = scene.start(&launch, &script);
    scene
        .step("a spot machine was launched", |event, _| event.what == "instance-launched")
        .await;
    scene
        // Its own first word: a job that was only assigned ends in other ways.
        .step("its job began", |event, _| {
            event.what == "job-output" && event.subject == "train" && event.detail == "training"
        })
        .await;
    if let Some(first) = scene.world.fleet.instances().first() {
        scene.world.cloud.take_back(&first.id, NOTICE);
    }
    scene
        .step(&format!("{} took it back in the middle of the job", cloud.title()), |event, _| {
            event.what == "spot-notice"
        })
        .await;
    scene
        .step("the agent stopped the job at once", |event, _| {
            event.what == "job-completed" && event.subject == "train" && event.detail == "failure"
        })
        .await;
    scene
        .step(
            &format!("it asked {} to run it again, with its launch job", forge.title()),
            // Bitbucket names no steps: all of the pipeline starts anew.
            move |event, _| event.what == "run-rerun" && (forge == Kind::Bitbucket || event.subject.contains("launch")),
        )
        .await;
    scene
        .step("a new machine was launched", |_, events| events.count("instance-launched") >= 2)
        .await;
    // The job that was interrupted would have waited for ever; the next one does not.
    std::fs::write(&gate, "").context("letting the job go on")?;
    let server = scene.world.forge.clone();
    scene
        .step("the job succeeded on it", move |event, _| {
            event.what == "run-completed" && server.run(run).is_some_and(|run| run.conclusion.as_deref() == Some("success"))
        })
        .await;
    scene
        .step("both machines are gone", |_, events| events.count("instance-terminated") >= 2)
        .await;
    let seen = scene.close().await;
    timeline.abort();
    Ok(seen)
}
