//! The machines that were launched: listed, read, ended, and cleaned up after.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Stdio;
use std::time::Duration;

use e2e::surroundings::clock_library;
use e2e::{Outcome, Scene, until};
use sandbox::cloud;
use sandbox::forge::Kind;

e2e::everywhere! {
    a_machine_is_listed_read_and_terminated_by_its_name,
    the_registration_of_a_machine_that_vanished_is_deleted
        except GitLab "it takes a runner for online until it has been silent for two hours"
        except Azure "its group stays, and its registration goes with that: tests/azure.rs"
        except Gcp "it knows nothing of a machine that is gone, nor whose runner that was",
    a_job_that_could_not_be_run_again_before_the_machine_died_is_by_who_cleans_up
        except Gcp "a machine that is preempted is deleted with its console: gcp.rs has one that is stopped",
}

/// What is listed of the one machine that was launched with these options, as a table and as JSON.
async fn listed(scene: &Scene, options: &[&str]) -> (String, serde_json::Value) {
    scene
        .launch(&[&["--name=trainer", "--idle-timeout=never"], options].concat())
        .await
        .succeeded();
    let cloud = scene.cloud();
    let list = async |more: &[&str]| {
        let outcome = Scene::finish(scene.command(&[&["runner", "list", &cloud], more].concat())).await;
        outcome.succeeded();
        outcome.stdout
    };
    let (table, json) = (list(&[]).await, list(&["--output=json"]).await);
    let end = scene.command(&["runner", "terminate", "trainer", &cloud]);
    Scene::finish(end).await.succeeded();
    scene.all_gone().await;
    (table, serde_json::from_str::<serde_json::Value>(&json).unwrap()[0].take())
}

#[tokio::test]
async fn a_spot_machine_on_ec2_has_a_price() {
    let scene = Scene::new().await;
    let (table, machine) = listed(&scene, &["--cloud-spot"]).await;
    assert_eq!(
        (&machine["hourly_usd"], machine["cost_usd"].is_number()),
        (&0.1234.into(), true),
        "{machine}"
    );
    assert!(table.contains("COST") && table.contains('$'), "{table}");
    let requests = scene.world.ec2().requests();
    let asked: Vec<_> = requests.iter().filter(|(action, _)| action == "DescribeSpotPriceHistory").collect();
    assert_eq!(asked.len(), 2, "once a list, and never by a launch");
    assert_eq!(machine["zone"], asked[0].1["AvailabilityZone"].as_str());
    scene.end().await;
}

#[tokio::test]
async fn any_other_machine_on_ec2_has_its_list_price() {
    let scene = Scene::new().await;
    let (table, machine) = listed(&scene, &[]).await;
    assert_eq!(machine["hourly_usd"], 0.4032, "{machine}");
    assert!(table.contains('$'), "{table}");
    scene.end().await;
}

#[tokio::test]
async fn a_price_that_nobody_tells_is_none() {
    let scene = Scene::new().await;
    scene.world.ec2().fail("DescribeSpotPriceHistory", "UnauthorizedOperation", 2);
    let (table, machine) = listed(&scene, &["--cloud-spot"]).await;
    assert!(machine["hourly_usd"].is_null() && machine["cost_usd"].is_null(), "{machine}");
    assert!(!table.contains('$'), "{table}");
    scene.end().await;
}

#[tokio::test]
async fn a_machine_on_azure_has_a_price() {
    let scene = Scene::over(cloud::Kind::Azure).await;
    let (table, machine) = listed(&scene, &[]).await;
    assert_eq!(machine["hourly_usd"], 0.5, "{machine}");
    assert!(table.contains('$'), "{table}");
    let (_, machine) = listed(&scene, &["--cloud-spot"]).await;
    assert_eq!(machine["hourly_usd"], 0.0625, "{machine}");
    scene.end().await;
}

/// What the old tool called a machine of its own, and a name like it whose checksum is wrong.
const LEFT_BEHIND: &str = "cml-cml-qvatfz183y-189owb5f-4cqojpqf";
const FOREIGN: &str = "cml-cml-qvatfz183y-189owb5f-4cqojpqg";

/// A machine of the old tool is told of with what removes it, and nothing is done to it.
async fn what_the_old_tool_left_is_told_of_and_left(cloud: cloud::Kind, removal: &str) {
    let scene = Scene::over(cloud).await;
    for name in [LEFT_BEHIND, FOREIGN] {
        scene.world.cloud.foreign(name);
    }
    for options in [&["reap", "--dry-run"][..], &["reap"], &["list"]] {
        let cloud = format!("--cloud={}", cloud.name());
        let line = [&["runner"], options, &[cloud.as_str()]].concat();
        let outcome = Scene::finish(scene.command(&line)).await;
        outcome.succeeded();
        let said = &outcome.stdout;
        let is_told = said.contains(&format!("{LEFT_BEHIND} (")) && said.contains(removal);
        assert_eq!((is_told, said.contains(FOREIGN)), (options[0] == "reap", false), "{outcome:#?}");
    }
    let instances = scene.world.fleet.instances();
    assert!(
        instances.len() == 2 && instances.iter().all(|one| !one.state.is_over()),
        "{instances:#?}"
    );
    for instance in instances {
        scene.world.fleet.vanish(&instance.id);
    }
    scene.end().await;
}

#[tokio::test]
async fn what_the_old_tool_left_on_ec2() {
    let removal = "aws ec2 terminate-instances --region us-west-1 --instance-ids i-00000000000000e01";
    what_the_old_tool_left_is_told_of_and_left(cloud::Kind::Aws, removal).await;
}

#[tokio::test]
async fn what_the_old_tool_left_on_azure() {
    let removal = format!("az group delete --yes --name {LEFT_BEHIND}");
    what_the_old_tool_left_is_told_of_and_left(cloud::Kind::Azure, &removal).await;
}

#[tokio::test]
async fn what_the_old_tool_left_on_google_cloud() {
    let removal = format!("gcloud compute instances delete {LEFT_BEHIND} --zone us-west1-b");
    what_the_old_tool_left_is_told_of_and_left(cloud::Kind::Gcp, &removal).await;
}

#[tokio::test]
async fn what_the_old_tool_left_in_a_cluster() {
    let removal = format!("kubectl delete job {LEFT_BEHIND} --namespace ci");
    what_the_old_tool_left_is_told_of_and_left(cloud::Kind::Kubernetes, &removal).await;
}

#[tokio::test]
async fn a_machine_that_nothing_on_it_may_end_is_reaped() {
    let Some(library) = clock_library() else {
        e2e::skip("a_machine_that_nothing_on_it_may_end_is_reaped", "needs the library of faketime(1)");
        return;
    };
    let scene = Scene::new().await;
    scene.launch(&["--name=trainer", "--idle-timeout=never"]).await.succeeded();
    let id = scene.first().id;
    for way in ["systemctl", "poweroff", "shutdown"] {
        std::fs::write(scene.world.fleet.machine_dir(&id).join("shims").join(way), "#!/bin/sh\nexit 1\n").unwrap();
    }
    scene.world.fleet.signal_agent(&id).unwrap();
    let why = "name=terminate state=fail";
    scene.event_where(why, |event| event.detail.contains(why)).await;
    assert!(scene.world.forge.runners().is_empty());
    assert!(
        fleet(&scene, &["reap"]).await.stdout.contains("nothing to clean up"),
        "it may just have begun"
    );
    // A quarter of an hour later.
    let mut reap = scene.world.launcher(&["runner", "reap", &scene.cloud()]);
    reap.env("LD_PRELOAD", library)
        .env("FAKETIME", "+15m")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let reap = reap.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = reap.id().unwrap();
    let reaped = Scene::finish(reap).await;
    // What the library leaves of a program.
    for name in ["faketime_shm", "sem.faketime_sem"] {
        let _ = std::fs::remove_file(format!("/dev/shm/{name}_{pid}"));
    }
    reaped.succeeded();
    assert!(
        reaped.stdout.contains("trainer") && reaped.stdout.contains("terminated"),
        "{reaped:#?}"
    );
    scene.end().await;
}

/// What asks for an interrupted job to run again.
fn rerun(scene: &Scene) -> &'static str {
    match scene.world.forge.kind() {
        Kind::GitHub => "POST /repos/*/rerun-failed-jobs",
        Kind::GitLab => "POST /projects/*/retry",
        Kind::Bitbucket => "POST /repositories/*/pipelines/",
    }
}

async fn fleet(scene: &Scene, words: &[&str]) -> Outcome {
    let cloud = scene.cloud();
    let line: Vec<&str> = ["runner"].iter().chain(words).copied().chain([cloud.as_str()]).collect();
    let outcome = Scene::finish(scene.command(&line)).await;
    outcome.succeeded();
    outcome
}

async fn a_machine_is_listed_read_and_terminated_by_its_name(scene: Scene) {
    assert_eq!(fleet(&scene, &["list"]).await.stdout, "no machines\n");
    scene.launch(&["--name=trainer", "--idle-timeout=never"]).await.succeeded();
    let table = fleet(&scene, &["list"]).await.stdout;
    assert!(
        table.contains("trainer") && table.to_lowercase().contains("running") && table.contains("idle"),
        "{table}"
    );
    let list: serde_json::Value = serde_json::from_str(&fleet(&scene, &["list", "--output=json"]).await.stdout).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["runner"]), (&"trainer".into(), &"idle".into()));
    // The forge may have seen the runner before its agent says so.
    let online = "cml-phase name=online state=ok";
    scene.event_where("the agent's word", |event| event.detail.contains(online)).await;
    let console = fleet(&scene, &["logs", "trainer"]).await.stdout;
    assert!(console.contains(online), "{console}");
    assert!(fleet(&scene, &["reap"]).await.stdout.contains("nothing to clean up"));
    let ended = fleet(&scene, &["terminate", "trainer"]).await.stdout;
    assert!(ended.contains("terminated, its registration deleted"), "{ended}");
    scene.all_gone().await;
    let cloud = scene.cloud();
    let unknown = scene.command(&["runner", "terminate", "nobody", &cloud]);
    Scene::finish(unknown).await.failed_with(2, &["`nobody`", "hint"]);
    scene.end().await;
}

async fn the_registration_of_a_machine_that_vanished_is_deleted(scene: Scene) {
    scene.launch(&["--name=trainer", "--idle-timeout=never"]).await.succeeded();
    scene.world.fleet.vanish(&scene.world.fleet.instances()[0].id);
    scene.event("runner-offline").await;
    let rehearsed = fleet(&scene, &["reap", "--dry-run"]).await.stdout;
    assert!(rehearsed.contains("would be deleted"), "{rehearsed}");
    assert_eq!(scene.world.forge.runners().len(), 1);
    let reaped = fleet(&scene, &["reap"]).await.stdout;
    assert!(reaped.contains("its registration deleted"), "{reaped}");
    scene.end().await;
}

async fn a_job_that_could_not_be_run_again_before_the_machine_died_is_by_who_cleans_up(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch_spot(&[]).await.succeeded();
    scene.working().await;
    // The forge is of no help as long as the machine lives.
    scene.world.forge.faults().answer(rerun(&scene), usize::MAX, 500, "{}");
    scene.take_back(Duration::from_secs(8));
    // Where the console goes with the machine, its agent leaves the machine there, or something else that it can write on.
    scene
        .event_where("the machine's end", |event| {
            ["instance-terminated", "instance-stopped"].contains(&event.what)
        })
        .await;
    assert_eq!(scene.world.forge.run(run).unwrap().attempt, 1);
    scene.world.forge.faults().clear();
    let reaped = fleet(&scene, &["reap"]).await.stdout;
    assert!(reaped.contains("runs again"), "{reaped}");
    assert_eq!(scene.world.forge.run(run).unwrap().attempt, 2);
    let again = fleet(&scene, &["reap"]).await.stdout;
    assert!(!again.contains("runs again"), "once: {again}");
    std::fs::write(&gate, "").unwrap();
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}
