//! What is so on Bitbucket only: an interrupted pipeline starts anew, no runner is for one step, and no step waits for a runner.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use e2e::{Scene, hosted, job, until};
use sandbox::bitbucket::Options;
use sandbox::ci::RunId;
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
