//! What only GitLab has: pages below a path, groups, a runner that is a single file, and executors.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Stdio;

use e2e::{Outcome, Scene, job};
use sandbox::ci::Checksum;
use sandbox::forge::Kind;
use sandbox::gitlab::Options;
use sandbox::world;

async fn scene(gitlab: Options) -> Scene {
    Scene::with(world::Options {
        forge: gitlab.into(),
        ..world::Options::default()
    })
    .await
}

/// A job runs on a machine that is launched on such a GitLab.
async fn serves(gitlab: Options) {
    let scene = scene(gitlab).await;
    let run = scene.job("true");
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn a_gitlab_below_a_path_is_found_there() {
    serves(Options {
        root: "/tools/gitlab".into(),
        ..Options::default()
    })
    .await;
}

#[tokio::test]
async fn a_runner_of_a_group_takes_the_jobs_of_its_projects_and_has_them_run_again() {
    let scene = Scene::on(Kind::GitLab).await;
    let page = scene.world.forge.repo_url();
    let (group, _) = page.rsplit_once('/').unwrap();
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&e2e::until(&gate));
    scene.launch(&["--cloud-spot", "--repo", group]).await.succeeded();
    scene.working().await;
    scene.take_back(std::time::Duration::from_secs(20));
    scene.event("run-rerun").await;
    scene.all_gone().await;
    std::fs::write(&gate, "").unwrap();
    scene.launch(&["--repo", group]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn a_runner_of_the_whole_gitlab_needs_an_administrator() {
    for admin in [false, true] {
        let scene = scene(Options {
            admin,
            ..Options::default()
        })
        .await;
        let page = scene.world.forge.url();
        let launched = scene.launch(&["--repo", &page]).await;
        if admin {
            launched.succeeded();
        } else {
            launched.failed_with(3, &["administrator", "hint"]);
            assert!(scene.world.fleet.instances().is_empty(), "it is known before any cost");
        }
        scene.end().await;
    }
}

#[tokio::test]
async fn a_runner_with_labels_leaves_the_jobs_without_any() {
    let scene = Scene::on(Kind::GitLab).await;
    let mut untagged = job("untagged", "true");
    untagged.labels = Vec::new();
    let other = scene.run(&[untagged]);
    let run = scene.job("true");
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.all_gone().await;
    assert_eq!(scene.world.forge.run(other).unwrap().status, "queued");
    scene.end().await;
}

#[tokio::test]
async fn a_runner_that_is_not_what_its_list_says_is_not_started() {
    for gitlab in [
        Options {
            checksum: Checksum::Wrong,
            ..Options::default()
        },
        Options {
            truncate_program: true,
            ..Options::default()
        },
    ] {
        let scene = scene(gitlab).await;
        let outcome = scene.launch(&["--provisioning-timeout=15s"]).await;
        outcome.failed_with(5, &["install-runner", "SHA-256"]);
        assert_eq!(scene.world.events.count("runner-registered"), 0);
        scene.end().await;
    }
}

#[tokio::test]
async fn a_gitlab_without_a_list_of_checksums_serves_all_the_same() {
    serves(Options {
        checksum: Checksum::Missing,
        ..Options::default()
    })
    .await;
}

#[tokio::test]
async fn containers_that_are_asked_for_where_there_are_none_end_the_launch() {
    let scene = Scene::on(Kind::GitLab).await;
    let outcome = scene.launch(&["--executor=docker", "--provisioning-timeout=20s"]).await;
    outcome.failed_with(5, &["no Docker answers", "hint"]);
    scene.end().await;
}

/// Runs a runner on this host whose Docker is elsewhere.
async fn with_docker(scene: &Scene, more: &[&str]) -> Outcome {
    let args = ["runner", "--labels=gpu", "--idle-timeout=1s", "--name=here"].iter().chain(more);
    let mut command = scene.world.launcher(&args.copied().collect::<Vec<_>>());
    command.env("DOCKER_HOST", "tcp://127.0.0.1:1").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Scene::finish(command.spawn().unwrap()).await
}

#[tokio::test]
async fn images_and_volumes_reach_the_runner_as_they_were_given() {
    let scene = Scene::on(Kind::GitLab).await;
    let run = scene.job("true");
    let hostile = "/data:/it's \"mine\" $(touch /tmp/no):ro";
    let volumes = ["--docker-volumes", "/cache", "--docker-volumes", hostile];
    let args = [&volumes, ["--docker-image=python:3.13", "--log=debug"].as_slice()].concat();
    let outcome = with_docker(&scene, &args).await;
    outcome.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    let log: Vec<serde_json::Value> = outcome.stderr.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let said = log
        .iter()
        .filter_map(|record| record["message"].as_str()?.strip_prefix("runner: "))
        .find(|line| line.contains("python:3.13"))
        .unwrap_or_else(|| panic!("nothing is said of Docker:\n{}", outcome.stderr));
    let record: serde_json::Value = serde_json::from_str(said).unwrap();
    let text = record.to_string();
    let volume = serde_json::Value::from(hostile).to_string();
    assert!(text.contains("/cache") && text.contains(volume.trim_matches('"')), "{text}");
    scene.end().await;
}
