//! What is so on Bitbucket only: an interrupted pipeline starts anew, no runner is for one step, no step waits for a runner, and the runner of
//! containers is one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use e2e::{Scene, hosted, job, until};
use sandbox::bitbucket::Options;
use sandbox::ci::{JobSpec, RunId};
use sandbox::forge::Kind;
use sandbox::world;

/// How a pipeline itself ended, not the one that took its place.
fn own_end(scene: &Scene, run: RunId) -> Option<String> {
    scene.world.bitbucket().run(run).unwrap().conclusion
}

#[tokio::test]
async fn the_pipelines_of_a_commit_are_its_attempts() {
    let scene = Scene::on(Kind::Bitbucket).await;
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    let limit = ["--job-time-limit=2s", "--max-attempts=2"];
    scene.launch(&limit).await.succeeded();
    scene.events("run-started", 2).await;
    assert_eq!(own_end(&scene, run).as_deref(), Some("failure"));
    scene.all_gone().await;
    scene.launch(&limit).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "failure");
    scene.all_gone().await;
    assert_eq!(scene.world.events.count("run-started"), 2, "{}", scene.timeline());
    scene.end().await;
}

#[tokio::test]
async fn a_healthy_step_that_does_not_end_is_stopped_for_the_interrupted_one() {
    let scene = Scene::on(Kind::Bitbucket).await;
    let gate = scene.world.dir().join("gate");
    let other = hosted("other", &until(&scene.world.dir().join("never")));
    let run = scene.run(&[job("train", &until(&gate)), other]);
    scene.launch(&["--cloud-spot"]).await.succeeded();
    scene
        .event_where("the job on our machine", |event| {
            event.what == "job-started" && event.subject == "train"
        })
        .await;
    scene.events("job-output", 2).await;
    scene.take_back(Duration::from_secs(8));
    scene.events("run-started", 2).await;
    assert!(own_end(&scene, run).is_some_and(|end| end != "success"));
    // What was started anew waits for a machine.
    std::fs::write(&gate, "").unwrap();
    std::fs::write(scene.world.dir().join("never"), "").unwrap();
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn one_step_only_unless_another_was_faster() {
    let scene = Scene::on(Kind::Bitbucket).await;
    let run = scene.run(&[job("first", "true"), job("second", "true")]);
    scene.launch(&["--single", "--idle-timeout=never"]).await.succeeded();
    scene.all_gone().await;
    let view = scene.world.forge.run(run).unwrap();
    let ended: Vec<_> = view.jobs.iter().filter_map(|job| job.conclusion.as_deref()).collect();
    assert!(
        !ended.is_empty() && ended.iter().all(|end| *end == "success"),
        "{}",
        scene.timeline()
    );
    scene.end().await;
}

#[tokio::test]
async fn a_step_without_a_runner_fails_at_once_and_with_one_it_does_not() {
    let options = world::Options {
        forge: Options::default().into(),
        ..world::Options::default()
    };
    let scene = Scene::with(options).await;
    assert_eq!(scene.conclusion(scene.job("true")).await, "failure");
    let launch = hosted(
        "launch",
        "cml runner --cloud=aws --labels=gpu --idle-timeout=1s --provisioning-timeout=40s",
    );
    let mut train = job("train", "true");
    train.needs = vec!["launch".into()];
    // The launcher ends when the runner is online, not before.
    assert_eq!(scene.conclusion(scene.run(&[launch, train])).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn a_runner_that_was_removed_in_the_settings_is_noticed() {
    let scene = Scene::on(Kind::Bitbucket).await;
    let launched = scene
        .launch(&["--name=ghost", "--idle-timeout=never", "--registration-check=1s"])
        .await;
    launched.succeeded();
    scene.world.bitbucket().forget("ghost");
    scene
        .event_where("the agent's end", |event| {
            event.detail.contains("runner was removed from the forge")
        })
        .await;
    scene.end().await;
}

/// The image of the runner, where no registry is asked for it: commands in the sandbox are told the archive otherwise.
const IMAGE: &str = "--runner-url=docker://registry.example.com/bitbucket-pipelines-runner:{version}";

/// A world whose machines have a Docker, or none.
async fn with(docker: bool) -> Scene {
    Scene::with(world::Options {
        forge: Kind::Bitbucket.into(),
        docker,
        ..world::Options::default()
    })
    .await
}

/// A step that asks for a runner of this platform.
fn step(platform: &str, script: &str) -> JobSpec {
    let mut step = job("train", script);
    step.labels.push(platform.into());
    step
}

/// What the Dockers of all machines did so far: `create NAME`, `start NAME`, `die NAME`, `remove NAME`.
fn dockers(scene: &Scene) -> Vec<String> {
    let mut lines = Vec::new();
    for instance in scene.world.fleet.instances() {
        let dir = scene.world.dir().join("instances").join(&instance.id);
        let log = std::fs::read_to_string(dir.join("docker.log")).unwrap_or_default();
        lines.extend(log.lines().map(str::to_owned));
    }
    lines
}

/// The containers that were made; none of them is left.
fn containers(scene: &Scene) -> Vec<String> {
    let log = dockers(scene);
    let names = log.iter().filter_map(|line| line.strip_prefix("create "));
    let names: Vec<String> = names.map(str::to_owned).collect();
    for name in &names {
        assert!(log.contains(&format!("remove {name}")), "{name} is left: {log:#?}");
    }
    names
}

#[tokio::test]
async fn where_a_docker_answers_steps_run_in_containers_and_none_is_left() {
    let scene = with(true).await;
    let run = scene.run(&[step("linux", "test -d \"$BITBUCKET_CLONE_DIR\"")]);
    scene.launch(&[IMAGE]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.all_gone().await;
    let made = containers(&scene);
    assert_eq!(made.len(), 2, "the runner's and the step's: {made:#?}");
    scene.end().await;
}

#[tokio::test]
async fn an_interrupted_container_is_run_again_elsewhere_and_none_is_left() {
    let scene = with(true).await;
    let gate = scene.world.dir().join("gate");
    let run = scene.run(&[step("linux", &until(&gate))]);
    scene.launch(&["--cloud-spot", "--executor=docker", IMAGE]).await.succeeded();
    scene.working().await;
    scene.take_back(Duration::from_secs(20));
    scene.event("run-rerun").await;
    scene.all_gone().await;
    assert_eq!(containers(&scene).len(), 2);
    std::fs::write(&gate, "").unwrap();
    scene.launch(&["--executor=docker", IMAGE]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.all_gone().await;
    assert_eq!(containers(&scene).len(), 4);
    scene.end().await;
}

#[tokio::test]
async fn a_step_for_a_shell_runs_in_one_where_it_is_asked_for_or_there_is_nothing_else() {
    for (docker, options) in [(true, ["--executor=shell"].as_slice()), (false, &[])] {
        let scene = with(docker).await;
        let run = scene.run(&[step("linux.shell", "true")]);
        scene.launch(options).await.succeeded();
        assert_eq!(scene.conclusion(run).await, "success");
        scene.all_gone().await;
        assert!(dockers(&scene).is_empty());
        scene.end().await;
    }
}

#[tokio::test]
async fn containers_that_are_asked_for_where_there_are_none_end_the_launch() {
    let scene = with(false).await;
    let outcome = scene.launch(&["--executor=docker", "--provisioning-timeout=20s"]).await;
    outcome.failed_with(5, &["no Docker answers", "hint"]);
    scene.end().await;
}

#[tokio::test]
async fn a_runner_that_docker_cannot_get_ends_the_launch() {
    let scene = with(true).await;
    let outcome = scene.launch(&["--runner-url=https://example.com/runner.tar.gz"]).await;
    outcome.failed_with(5, &["docker://IMAGE", "hint"]);
    assert!(containers(&scene).is_empty());
    scene.end().await;
}
