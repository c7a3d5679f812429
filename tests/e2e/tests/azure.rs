//! What only Azure has: rights that a machine needs to end itself, operations that fail later, and groups that stay behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use e2e::{PATIENCE, Scene};
use sandbox::azure::IDENTITY;
use sandbox::cloud::Kind;
use sandbox::faults::{Effect, Fault, Gate};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// How often an operation of the network is asked for before it has ended.
const QUESTIONS: usize = 2;

async fn scene() -> Scene {
    Scene::over(Kind::Azure).await
}

/// The bodies of the requests of one kind.
fn bodies(scene: &Scene, call: &str) -> Vec<Value> {
    let asked = scene.world.azure().requests().into_iter().filter(|asked| asked.call == call);
    asked.map(|asked| asked.body).collect()
}

/// How often something was asked for.
fn count(scene: &Scene, call: &str) -> usize {
    bodies(scene, call).len()
}

/// Waits until there is no group any more, asking `reap` to help if it should.
async fn no_group_is_left(scene: &Scene, reaps: bool) {
    let deadline = Instant::now() + PATIENCE * 2;
    while !scene.world.azure().groups().is_empty() {
        assert!(
            Instant::now() < deadline,
            "groups are left: {:?}\n{}",
            scene.world.azure().groups(),
            scene.timeline()
        );
        if reaps {
            Scene::finish(scene.command(&["runner", "reap", "--cloud=azure"])).await.succeeded();
        }
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_machine_does_its_job_and_deletes_its_group() {
    let scene = scene().await;
    let run = scene.job("true");
    let outcome = scene.launch(&["--cloud-metadata=team=ml"]).await;
    outcome.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    no_group_is_left(&scene, false).await;
    for call in ["PUT group", "PUT identity", "PUT network", "PUT machine"] {
        assert_eq!(bodies(&scene, call)[0]["tags"]["team"], "ml", "{call}");
    }
    let calls = scene.world.azure().calls();
    let last = |call: &str| calls.iter().rposition(|made| made == call).unwrap();
    assert!(
        last("PUT role") < last("PUT machine"),
        "no machine before its right to end itself: {calls:?}"
    );
    assert!(count(&scene, "PUT role") >= 2, "a new identity is not known at once");
    let secrets = ["launcher-token", "machine-token", "sas-canary"];
    assert!(
        !secrets
            .iter()
            .any(|secret| outcome.stderr.contains(secret) || outcome.stdout.contains(secret)),
        "{outcome:?}"
    );
    scene.end().await;
}

#[tokio::test]
async fn the_next_type_is_tried_whenever_azure_says_that_there_is_no_room() {
    let scene = scene().await;
    scene.world.azure().no_capacity("Standard_D8as_v5");
    scene.launch(&[]).await.succeeded();
    scene.all_gone().await;
    scene.world.azure().no_capacity_later("Standard_D8as_v5");
    scene.launch(&[]).await.succeeded();
    let kinds: Vec<String> = scene.world.fleet.instances().into_iter().map(|instance| instance.kind).collect();
    assert_eq!(kinds, ["Standard_D8s_v5", "Standard_D8s_v5"]);
    assert_eq!(count(&scene, "DELETE machine"), 1, "what could not be made is not left");
    scene.world.azure().no_capacity("Standard_D8s_v5");
    scene
        .launch(&[])
        .await
        .failed_with(4, &["AllocationFailed", "Standard_D8s_v5", "hint"]);
    no_group_is_left(&scene, false).await;
    scene.end().await;
}

#[tokio::test]
async fn a_launcher_that_may_not_assign_roles_is_refused_before_any_cost() {
    let scene = scene().await;
    scene.world.azure().take_away_rights();
    let outcome = scene.launch(&[]).await;
    outcome.failed_with(
        3,
        &[
            "could not end itself",
            "Role Based Access Control Administrator",
            "--cloud-permission-set",
            "machine of your own",
        ],
    );
    assert_eq!(count(&scene, "PUT machine"), 0);
    no_group_is_left(&scene, false).await;
    scene.launch(&[&format!("--cloud-permission-set={IDENTITY}")]).await.succeeded();
    assert_eq!((count(&scene, "PUT role"), count(&scene, "PUT identity")), (0, 0));
    no_group_is_left(&scene, false).await;
    scene.end().await;
}

#[tokio::test]
async fn a_role_that_is_refused_after_all_is_rolled_back() {
    let scene = scene().await;
    scene.world.azure().fail("PUT role", "AuthorizationFailed", 1);
    scene.launch(&[]).await.failed_with(3, &["could not end itself", "three ways out"]);
    assert_eq!(count(&scene, "PUT machine"), 0);
    no_group_is_left(&scene, false).await;
    let nobody = IDENTITY.replace("ender", "nobody");
    scene
        .launch(&[&format!("--cloud-permission-set={nobody}")])
        .await
        .failed_with(2, &["FailedIdentityOperation", "nobody"]);
    no_group_is_left(&scene, false).await;
    scene.end().await;
}

#[tokio::test]
async fn a_right_that_comes_late_is_waited_for() {
    let scene = scene().await;
    scene.world.azure().delay_rights(4);
    scene.launch(&[]).await.succeeded();
    no_group_is_left(&scene, false).await;
    assert!(count(&scene, "DELETE group") >= 3);
    scene.end().await;
}

#[tokio::test]
async fn lost_answers_make_no_second_machine() {
    let scene = scene().await;
    for call in [
        "PUT group",
        "PUT identity",
        "PUT network",
        "PUT role",
        "PUT machine",
        "GET operation",
    ] {
        scene.world.azure().faults().add(Fault {
            request: call.into(),
            skip: 0,
            times: 1,
            effect: Effect::LoseAnswer,
        });
    }
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.world.fleet.instances().len(), 1);
    assert_eq!(count(&scene, "PUT machine"), 2);
    no_group_is_left(&scene, false).await;
    scene.end().await;
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let scene = scene().await;
    for (call, code, exit, says) in [
        ("PUT group", "AuthorizationFailed", 3, "docs/clouds/azure.md"),
        ("PUT group", "SubscriptionNotFound", 3, "AZURE_SUBSCRIPTION_ID"),
        ("PUT network", "MissingSubscriptionRegistration", 3, "az provider register"),
        ("PUT identity", "MissingSubscriptionRegistration", 3, "Microsoft.ManagedIdentity"),
        ("PUT machine", "RequestDisallowedByPolicy", 3, "policy"),
        ("PUT machine", "InvalidParameter", 2, "--cloud-type"),
    ] {
        scene.world.azure().fail(call, code, 1);
        scene.launch(&[]).await.failed_with(exit, &[code, says, "hint"]);
        no_group_is_left(&scene, false).await;
    }
    scene.world.azure().fail("PUT machine", "OperationNotAllowed", 2);
    scene.launch(&[]).await.failed_with(4, &["quota", "hint"]);
    scene
        .launch(&["--cloud-region=marsnorth"])
        .await
        .failed_with(2, &["LocationNotAvailableForResourceGroup"]);
    let mut nobody = scene.world.launcher(&["runner", "--cloud=azure", "--labels=gpu"]);
    nobody.env("AZURE_CLIENT_SECRET", "wrong");
    let outcome: e2e::Outcome = nobody.output().await.unwrap().into();
    outcome.failed_with(3, &["no usable Azure credentials", "the service principal", "hint"]);
    assert!(scene.world.fleet.instances().is_empty());
    scene.end().await;
}

#[tokio::test]
async fn what_an_evicted_machine_leaves_is_cleaned_up() {
    let scene = scene().await;
    scene
        .launch(&["--idle-timeout=never", "--provisioning-timeout=20s"])
        .await
        .succeeded();
    scene.world.fleet.vanish(&scene.world.fleet.instances()[0].id);
    scene.event("runner-offline").await;
    assert_eq!(scene.world.azure().groups().len(), 1);
    no_group_is_left(&scene, true).await;
    scene.end().await;
}

#[tokio::test]
async fn whenever_the_launcher_is_killed_nothing_is_left() {
    let scene = scene().await;
    let calls = [
        "PUT group",
        "GET permissions",
        "PUT identity",
        "PUT network",
        "PUT role",
        "PUT machine",
    ];
    // Until the machine is made there is only what costs nothing, for who cleans up. A machine needs nobody.
    for (call, skip) in calls.into_iter().map(|call| (call, 0)).chain([("GET operation", QUESTIONS)]) {
        let gate = Gate::default();
        scene.world.azure().faults().add(Fault {
            request: call.into(),
            skip,
            times: 1,
            effect: Effect::Hold(gate.clone()),
        });
        let mut launcher = scene.start(&["--provisioning-timeout=15s"]);
        gate.reached().await;
        launcher.kill().await.unwrap();
        gate.open();
        match call {
            "PUT machine" => no_group_is_left(&scene, true).await,
            "GET operation" => no_group_is_left(&scene, false).await,
            _ => {}
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn a_machine_whose_agent_never_starts_deletes_its_group_all_the_same() {
    let scene = scene().await;
    let wrong = format!("--agent-sha256={}", "0".repeat(64));
    let outcome = scene.launch(&[&wrong]).await;
    outcome.failed_with(5, &["SHA-256"]);
    no_group_is_left(&scene, false).await;
    for (launched, options) in [
        (2, ["--provisioning-timeout=20s", wrong.as_str()]),
        (3, ["--provisioning-timeout=5s", "--agent-url=http://127.0.0.1:1/nothing"]),
    ] {
        let mut launcher = scene.start(&options);
        scene.events("instance-launched", launched).await;
        launcher.kill().await.unwrap();
        no_group_is_left(&scene, false).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn a_dry_run_shows_every_call_and_makes_none() {
    let scene = scene().await;
    let outcome = scene.launch(&["--dry-run"]).await;
    outcome.succeeded();
    for text in ["Standard_D8as_v5", "Standard_D8s_v5", "roleAssignments", "#!/bin/sh", "Canonical"] {
        assert!(outcome.stdout.contains(text), "`{text}` is missing in:\n{}", outcome.stdout);
    }
    let secret = scene
        .world
        .env()
        .into_iter()
        .find(|(name, _)| name == "AZURE_CLIENT_SECRET")
        .unwrap()
        .1;
    let shown = outcome.stdout + &outcome.stderr;
    assert!(!shown.contains(scene.world.forge.token()) && !shown.contains(&secret), "{shown}");
    assert!(
        !scene
            .world
            .azure()
            .calls()
            .iter()
            .any(|call| call.starts_with("PUT") || call.starts_with("DELETE"))
    );
    scene.end().await;
}
