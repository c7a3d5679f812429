//! What only Google Cloud has: operations that end badly, machines that only stop, names that are taken, credentials that are exchanged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use e2e::{Outcome, Scene, until};
use sandbox::cloud::Kind;
use sandbox::faults::{Effect, Fault, Gate};
use sandbox::fleet::State;

async fn scene() -> Scene {
    Scene::over(Kind::Gcp).await
}

/// A launch whose machine has no account, and may only power off.
async fn launch_without_account(scene: &Scene, more: &[&str]) -> Outcome {
    let fixed = [
        "runner",
        "--cloud=gcp",
        "--labels=gpu",
        "--idle-timeout=1s",
        "--provisioning-timeout=40s",
    ];
    Scene::finish(scene.command(&[&fixed, more].concat())).await
}

async fn fleet(scene: &Scene, words: &[&str]) -> Outcome {
    let line = [&["runner"], words, &["--cloud=gcp"]].concat();
    let outcome = Scene::finish(scene.command(&line)).await;
    outcome.succeeded();
    outcome
}

fn calls(scene: &Scene, name: &str) -> usize {
    scene.world.cloud.calls().iter().filter(|call| *call == name).count()
}

#[tokio::test]
async fn a_job_runs_and_the_machine_deletes_itself() {
    let scene = scene().await;
    let run = scene.job("echo trained && test -z \"$REPO_TOKEN$GOOGLE_APPLICATION_CREDENTIALS_DATA$CML_RUNNER_TOKEN\"");
    scene.launch(&["--cloud-metadata=team=ml", "--output=json"]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.all_gone().await;
    assert_eq!(calls(&scene, "instances.delete"), 1, "by itself");
    scene.end().await;
}

#[tokio::test]
async fn a_machine_without_an_account_stops_and_is_deleted_by_who_cleans_up() {
    let scene = scene().await;
    let run = scene.job("true");
    launch_without_account(&scene, &["--name=trainer"]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.event("instance-stopped").await;
    assert_eq!(scene.world.fleet.instances()[0].state, State::Stopped);
    let cleaned = fleet(&scene, &["reap"]).await;
    assert!(
        cleaned.stdout.contains("trainer") && cleaned.stdout.contains("terminated"),
        "{}",
        cleaned.stdout
    );
    scene.end().await;
}

#[tokio::test]
async fn a_machine_whose_job_could_not_be_run_again_is_stopped_with_its_console() {
    let scene = scene().await;
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch(&[]).await.succeeded();
    scene.working().await;
    // The first question of a re-run.
    scene
        .world
        .forge
        .faults()
        .answer("GET /repos/*/actions/runs/*", usize::MAX, 401, "{}");
    scene.world.fleet.signal_agent(&scene.world.fleet.instances()[0].id).unwrap();
    scene.event("instance-stopped").await;
    scene.world.forge.faults().clear();
    let reaped = fleet(&scene, &["reap"]).await.stdout;
    assert!(reaped.contains("runs again") && reaped.contains("terminated"), "{reaped}");
    std::fs::write(&gate, "").unwrap();
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn a_name_that_a_stopped_machine_has_is_no_reason_not_to_launch() {
    let scene = scene().await;
    launch_without_account(&scene, &["--name=trainer"]).await.succeeded();
    scene.event("instance-stopped").await;
    scene.launch(&["--name=trainer"]).await.succeeded();
    let names: Vec<String> = scene
        .world
        .gce()
        .requests()
        .iter()
        .filter_map(|request| Some(request.body["name"].as_str()?.to_owned()))
        .collect();
    assert_eq!((names.len(), names[0].as_str(), names[1].as_str()), (3, "trainer", "trainer"));
    assert!(names[2].starts_with("trainer-"), "{names:?}");
    scene.events("instance-terminated", 1).await;
    fleet(&scene, &["reap"]).await;
    scene.end().await;
}

#[tokio::test]
async fn an_operation_without_room_leads_to_the_next_zone_and_then_to_the_next_type() {
    let scene = scene().await;
    for place in ["us-west1-a", "e2-standard-8"] {
        scene.world.gce().no_capacity(place);
    }
    scene.launch(&[]).await.succeeded();
    let instance = &scene.world.fleet.instances()[0];
    assert_eq!((instance.kind.as_str(), instance.zone.as_str()), ("n2-standard-8", "us-west1-b"));
    assert_eq!(calls(&scene, "instances.insert"), 5);
    scene.end().await;
}

#[tokio::test]
async fn only_zones_that_have_the_gpu_are_tried() {
    let scene = scene().await;
    scene.world.gce().no_capacity("us-west1-a");
    scene.world.gce().no_capacity("us-west1-b");
    let full = scene.launch(&["--cloud-gpu=t4"]).await;
    full.failed_with(4, &["ZONE_RESOURCE_POOL_EXHAUSTED", "hint"]);
    assert_eq!(calls(&scene, "instances.insert"), 2, "the third has none");
    let nowhere = scene.launch(&["--cloud-gpu=l4", "--cloud-region=us-west1-c"]).await;
    nowhere.failed_with(2, &["us-west1-c has no machines of the type g2-standard-8", "us-west1-b"]);
    assert_eq!(calls(&scene, "instances.insert"), 2);
    scene.end().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_with_what_to_do() {
    let scene = scene().await;
    for (call, code, exit, says) in [
        ("instances.insert", "forbidden", 3, "grant compute.instances.create"),
        ("regions.get", "accessNotConfigured", 3, "gcloud services enable"),
        ("instances.insert", "quotaExceeded", 4, "CPUS"),
        ("instances.insert", "QUOTA_EXCEEDED", 4, "GPUS_ALL_REGIONS"),
        ("instances.insert", "conditionNotMet", 2, "no-external-ip"),
        ("images.getFromFamily", "authError", 3, "credentials"),
    ] {
        scene.world.cloud.fail(call, code, 1);
        scene.launch(&[]).await.failed_with(exit, &[code, says]);
    }
    for (option, says) in [
        ("--cloud-spot-price=0.1", "--cloud-spot-price"),
        ("--cloud-metadata=Team=ML", "label"),
        ("--cloud-permission-set=arn:aws:iam::1:instance-profile/x", "scopes="),
        ("--cloud-gcp-network=other", "--cloud-gcp-network"),
        ("--cloud-image=ubuntu-os-cloud/windows", "windows"),
        ("--cloud-image=ubuntu-os-cloud/ubuntu-2404-lts-arm64", "ARM64"),
        ("--cloud-region=us-central9", "us-central9"),
        ("--cloud-aws-subnet=subnet-1", "--cloud-aws-subnet"),
        ("--cloud-type=e2-standard-8+nvidia-tesla-t4*1", "N1"),
    ] {
        scene.launch(&[option]).await.failed_with(2, &[says]);
    }
    assert!(scene.world.fleet.instances().is_empty());
    scene.end().await;
}

#[tokio::test]
async fn a_lost_answer_and_a_rate_limit_do_not_make_a_second_machine() {
    let scene = scene().await;
    scene.world.cloud.fail("instances.insert", "rateLimitExceeded", 1);
    scene.world.cloud.faults().add(Fault {
        request: "instances.insert".into(),
        skip: 0,
        times: 1,
        effect: Effect::LoseAnswer,
    });
    // One that goes when it is idle would be gone before the answer comes.
    scene.launch(&["--idle-timeout=never"]).await.succeeded();
    assert_eq!(calls(&scene, "instances.insert"), 3);
    let asked: Vec<String> = scene
        .world
        .gce()
        .requests()
        .into_iter()
        .filter(|request| request.call == "instances.insert")
        .map(|request| request.path)
        .collect();
    assert!(asked.iter().all(|path| *path == asked[0]), "the same request id: {asked:?}");
    assert_eq!(scene.world.fleet.instances().len(), 1);
    scene.world.fleet.signal_agent(&scene.world.fleet.instances()[0].id).unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_launcher_that_is_killed_at_any_call_leaves_nothing_that_is_not_found_again() {
    for call in [
        "token",
        "regions.get",
        "images.getFromFamily",
        "instances.insert",
        "zoneOperations.get",
        "instances.aggregatedList",
    ] {
        let scene = scene().await;
        let gate = Gate::default();
        let held = call != "token";
        scene.world.cloud.faults().add(Fault {
            request: call.into(),
            skip: 0,
            times: usize::MAX,
            effect: if held {
                Effect::Hold(gate.clone())
            } else {
                Effect::Delay(Duration::ZERO)
            },
        });
        let mut launcher = scene.start(&["--name=lost", "--idle-timeout=never"]);
        if held {
            gate.reached().await;
        } else {
            // It has nothing yet that could be left.
            scene.event("runner-online").await;
        }
        launcher.kill().await.unwrap();
        scene.world.cloud.faults().clear();
        gate.open();
        let live = || {
            scene
                .world
                .fleet
                .instances()
                .iter()
                .filter(|instance| instance.state != State::Ended)
                .count()
        };
        if live() > 0 {
            let ended = fleet(&scene, &["terminate", "lost"]).await;
            assert!(ended.stdout.contains("lost"), "{call}: {}", ended.stdout);
        }
        fleet(&scene, &["reap"]).await;
        scene.end().await;
    }
}

#[tokio::test]
async fn a_dry_run_reads_what_a_launch_would_use() {
    let scene = scene().await;
    let planned = scene
        .launch(&[
            "--dry-run",
            "--cloud-spot",
            "--cloud-type=n1-standard-4",
            "--cloud-gpu=t4",
            "--cloud-hdd-size=20",
            "--cloud-image=mine",
        ])
        .await;
    planned.succeeded();
    for text in [
        "n1-standard-4+nvidia-tesla-t4*1 SPOT in us-west1-a",
        "in us-west1-b",
        "pd-balanced of 60 GB",
        "mine-1",
        "networks/default with an external address",
        "deleted after 3024000 s",
    ] {
        assert!(planned.stdout.contains(text), "`{text}` is missing in:\n{}", planned.stdout);
    }
    assert_eq!(calls(&scene, "instances.insert"), 0);
    scene.end().await;
}

#[tokio::test]
async fn no_token_of_the_cloud_is_told_and_none_of_the_command_reaches_the_machine() {
    let scene = scene().await;
    let launched = scene.launch(&["--log=debug", "--idle-timeout=never"]).await;
    launched.succeeded();
    let id = scene.world.fleet.instances().remove(0).id;
    let script = scene.world.fleet.script(&id).unwrap();
    let credentials = scene
        .world
        .env()
        .into_iter()
        .find(|(name, _)| name == "GOOGLE_APPLICATION_CREDENTIALS_DATA")
        .unwrap()
        .1;
    let secret = credentials.split("Bearer ").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let console = String::from_utf8_lossy(&scene.world.fleet.console(&id)).into_owned();
    for (what, text) in [
        ("stdout", &launched.stdout),
        ("stderr", &launched.stderr),
        ("script", &script),
        ("console", &console),
    ] {
        for secret in [secret.as_str(), "ya29.", "sandbox.subject.token"] {
            assert!(!text.contains(secret), "{secret} is in {what}");
        }
    }
    scene.world.fleet.signal_agent(&id).unwrap();
    scene.end().await;
}
