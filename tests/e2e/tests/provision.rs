//! What can go wrong between the launch and the runner's first word.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Scene, startup_script};
use sandbox::forge::Kind;
use sandbox::world::Options;

e2e::everywhere! {
    the_startup_script_runs_first_and_its_output_is_on_the_console,
    a_startup_script_that_fails_ends_the_machine_and_the_launch,
    a_runner_that_never_comes_online_is_rolled_back,
    a_runner_archive_with_another_checksum_is_not_started,
}

async fn the_startup_script_runs_first_and_its_output_is_on_the_console(scene: Scene) {
    let script = "#!/usr/bin/env bash\n[[ $(id -u) = 0 ]] && echo \"hello from $BASH\"\ncat <<'EOF'\n$(nothing) EOF 'quoted'\nEOF\ntouch /opt/prepared\n";
    let run = scene.job("test -e /opt/prepared");
    scene.launch(&[&startup_script(script)]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    let console = scene
        .event_where("the script's output", |event| {
            event.what == "console" && event.detail.contains("hello from")
        })
        .await;
    assert!(console.detail.contains("bash"), "{console:?}");
    scene
        .event_where("the script's text", |event| {
            event.what == "console" && event.detail.contains("$(nothing) EOF 'quoted'")
        })
        .await;
    scene.end().await;
}

async fn a_startup_script_that_fails_ends_the_machine_and_the_launch(scene: Scene) {
    let outcome = scene.launch(&[&startup_script("echo about to fail; exit 7")]).await;
    outcome.failed_with(5, &["startup-script", "about to fail", "7"]);
    scene.end().await;
}

#[tokio::test]
async fn a_startup_script_that_hangs_is_ended_with_its_children() {
    let scene = Scene::new().await;
    // Deaf to every signal that can be ignored, and so is a child in a session of its own.
    let deaf = "trap '' TERM INT HUP QUIT; setsid sleep 1000 & echo waiting; sleep 1000";
    let outcome = scene.launch(&["--provisioning-timeout=4s", &startup_script(deaf)]).await;
    outcome.failed_with(5, &["startup-script", "waiting"]);
    assert!(
        outcome.stderr.contains("s: phase `startup-script` had begun"),
        "progress is shown:\n{}",
        outcome.stderr
    );
    scene.end().await;
}

#[tokio::test]
async fn a_daemon_that_the_startup_script_leaves_does_not_hold_the_launch() {
    let scene = Scene::new().await;
    let run = scene.job("true");
    scene
        .launch(&[&startup_script("sleep 1000 & echo daemon started")])
        .await
        .succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

async fn a_runner_that_never_comes_online_is_rolled_back(scene: Scene) {
    let protocol = match scene.world.forge.kind() {
        Kind::GitHub => "POST /_runner/*",
        Kind::GitLab => "POST /jobs/request",
        Kind::Bitbucket => "PUT /internal/runners/*",
    };
    scene.world.forge.faults().answer(protocol, 9999, 500, "{}");
    let outcome = scene.launch(&["--provisioning-timeout=6s"]).await;
    outcome.failed_with(5, &["hint"]);
    scene.end().await;
}

async fn a_runner_archive_with_another_checksum_is_not_started(scene: Scene) {
    let outcome = scene.launch(&["--runner-sha256", &"0".repeat(64)]).await;
    outcome.failed_with(5, &["install-runner", "SHA-256"]);
    assert_eq!(scene.world.events.count("runner-registered"), 0);
    scene.end().await;
}

#[tokio::test]
async fn a_truncated_runner_archive_is_not_started() {
    let scene = Scene::with(Options {
        forge: sandbox::github::Options {
            truncate_archive: true,
            ..sandbox::github::Options::default()
        }
        .into(),
        ..Options::default()
    })
    .await;
    let outcome = scene.launch(&["--provisioning-timeout=15s"]).await;
    outcome.failed_with(5, &["install-runner"]);
    assert_eq!(scene.world.events.count("runner-registered"), 0);
    scene.end().await;
}

#[tokio::test]
async fn an_agent_with_another_checksum_is_not_started() {
    let scene = Scene::new().await;
    let outcome = scene
        .launch(&["--agent-sha256", &"0".repeat(64), "--provisioning-timeout=20s"])
        .await;
    outcome.failed_with(5, &["agent"]);
    scene.end().await;
}
