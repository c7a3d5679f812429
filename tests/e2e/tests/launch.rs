//! What the launcher decides, and what it says when it cannot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{LABEL, Scene, until};
use sandbox::forge::Kind;

e2e::everywhere! {
    reuse_takes_an_online_runner_with_the_labels,
    reuse_idle_does_not_take_a_busy_runner
        except Bitbucket "`--reuse-idle` is refused: its API is not said to tell who is busy",
    reuse_idle_takes_an_idle_runner
        except Bitbucket "`--reuse-idle` is refused: its API is not said to tell who is busy",
    an_offline_runner_is_not_reused
        except GitLab "it takes a runner for online until it has been silent for two hours",
    a_name_in_use_is_found_before_any_cost,
    a_token_that_is_refused_costs_nothing,
    a_forge_that_stumbles_is_asked_again,
    a_dry_run_changes_nothing_and_shows_no_secret
        except Azure "it shows requests to Resource Manager: azure.rs has it"
        except Gcp "it shows an insert: gcp.rs has it"
        except Kubernetes "it shows a Job: kubernetes.rs has it",
    the_result_is_one_json_object,
}

/// The first request of every launch.
fn first_request(scene: &Scene) -> &'static str {
    match scene.world.forge.kind() {
        Kind::GitHub => REGISTRATION,
        Kind::GitLab => "GET /projects/*",
        Kind::Bitbucket => "GET /repositories/*",
    }
}

/// What tells that the runner is online.
fn list(scene: &Scene) -> &'static str {
    match scene.world.forge.kind() {
        Kind::GitHub => "GET /repos/*/actions/runners*",
        Kind::GitLab => "GET /projects/*/runners",
        Kind::Bitbucket => "GET /repositories/*/runners",
    }
}

/// Proves on GitHub that the token may register.
const REGISTRATION: &str = "POST /repos/*/actions/runners/registration-token";

async fn reuse_takes_an_online_runner_with_the_labels(scene: Scene) {
    scene.launch(&["--idle-timeout=30s", "--name=first"]).await.succeeded();
    let second = scene.launch(&["--reuse"]).await;
    second.succeeded();
    assert!(second.stderr.contains("Reusing existing"), "{}", second.stderr);
    let by_name = scene.launch(&["--reuse", "--name=first", "--labels=other"]).await;
    by_name.succeeded();
    assert_eq!(scene.world.fleet.instances().len(), 1, "nothing new was made");
    let other = scene.launch(&["--reuse", "--labels=gpu,big"]).await;
    other.succeeded();
    assert_eq!(scene.world.fleet.instances().len(), 2, "no runner had all the labels");
    for instance in scene.world.fleet.instances() {
        scene.world.fleet.vanish(&instance.id);
    }
    scene.world.close().await;
}

async fn reuse_idle_does_not_take_a_busy_runner(scene: Scene) {
    scene.launch(&["--name=first"]).await.succeeded();
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.event("job-started").await;
    scene.launch(&["--reuse-idle"]).await.succeeded();
    assert_eq!(scene.world.fleet.instances().len(), 2, "the first is busy");
    std::fs::write(&gate, "").unwrap();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

async fn reuse_idle_takes_an_idle_runner(scene: Scene) {
    scene.launch(&["--idle-timeout=5s"]).await.succeeded();
    scene.launch(&["--reuse-idle"]).await.succeeded();
    assert_eq!(scene.world.fleet.instances().len(), 1);
    scene.end().await;
}

async fn an_offline_runner_is_not_reused(scene: Scene) {
    scene.launch(&["--idle-timeout=never"]).await.succeeded();
    let first = scene.world.fleet.instances().remove(0);
    scene.world.fleet.vanish(&first.id);
    scene.event("runner-offline").await;
    scene.launch(&["--reuse"]).await.succeeded();
    assert_eq!(scene.world.fleet.instances().len(), 2);
    // The vanished machine's registration is the one thing that nobody is left to remove.
    scene.all_gone().await;
    let left = scene.world.close().await;
    assert_eq!((left.live_instances.len(), left.registrations.len()), (0, 1), "{left:#?}");
}

async fn a_name_in_use_is_found_before_any_cost(scene: Scene) {
    scene.launch(&["--name=taken", "--idle-timeout=3s"]).await.succeeded();
    scene.launch(&["--name=taken"]).await.failed_with(6, &["taken", "hint"]);
    assert_eq!(scene.world.fleet.instances().len(), 1);
    scene.end().await;
}

async fn a_token_that_is_refused_costs_nothing(scene: Scene) {
    let (role, page) = match scene.world.forge.kind() {
        Kind::GitHub => ("dministration", "octo/train"),
        Kind::GitLab => ("the scope `api`", "octo/"),
        Kind::Bitbucket => ("write:runner:bitbucket", "octo/train"),
    };
    for (status, body, says) in [
        (401, r#"{"message":"Bad credentials"}"#, "token"),
        (403, r#"{"message":"Resource not accessible by personal access token"}"#, role),
        (404, r#"{"message":"Not Found"}"#, page),
    ] {
        scene.world.forge.faults().clear();
        scene.world.forge.faults().answer(first_request(&scene), 99, status, body);
        let outcome = scene.launch(&[]).await;
        outcome.failed_with(3, &[says, "hint"]);
        assert!(!outcome.stderr.contains(scene.world.forge.token()), "{}", outcome.stderr);
        assert!(scene.world.fleet.instances().is_empty());
    }
    scene.end().await;
}

async fn a_forge_that_stumbles_is_asked_again(scene: Scene) {
    let faults = scene.world.forge.faults();
    faults.answer(first_request(&scene), 1, 502, "<html>Bad gateway</html>");
    faults.add(sandbox::faults::Fault {
        request: list(&scene).into(),
        skip: 0,
        times: 1,
        effect: sandbox::faults::Effect::Reset,
    });
    let run = scene.job("true");
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn rate_limits_are_waited_for() {
    let scene = Scene::new().await;
    for (header, value) in [("retry-after", "1".to_owned()), ("x-ratelimit-reset", soon())] {
        let mut headers = vec![(header.to_owned(), value)];
        if header == "x-ratelimit-reset" {
            headers.push(("x-ratelimit-remaining".into(), "0".into()));
        }
        scene.world.forge.faults().add(sandbox::faults::Fault {
            request: REGISTRATION.into(),
            skip: 0,
            times: 1,
            effect: sandbox::faults::Effect::Answer {
                status: 403,
                headers,
                body: r#"{"message":"You have exceeded a rate limit"}"#.into(),
            },
        });
    }
    scene.launch(&[]).await.succeeded();
    scene.end().await;
}

/// A second from now, as GitHub writes the end of a rate limit.
fn soon() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (now.as_secs() + 1).to_string()
}

#[tokio::test]
async fn a_zone_without_capacity_is_passed_over() {
    let scene = Scene::new().await;
    let refusal = sandbox::ec2::error(
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient capacity in us-west-1a",
    );
    scene.world.cloud.faults().answer("RunInstances", 1, 500, &refusal);
    scene.launch(&[]).await.succeeded();
    let zones: Vec<_> = scene
        .world
        .ec2()
        .requests()
        .into_iter()
        .filter(|(action, _)| action == "RunInstances")
        .collect();
    assert_eq!(zones.len(), 2);
    assert_ne!(
        zones[0].1["ClientToken"], zones[1].1["ClientToken"],
        "another attempt is another request"
    );
    scene.end().await;
}

#[tokio::test]
async fn what_the_cloud_refuses_is_named() {
    for (code, message, exit, says) in [
        ("InsufficientInstanceCapacity", "There is no Spot capacity available", 4, "capacity"),
        (
            "SpotMaxPriceTooLow",
            "Your Spot request price of 0.001 is lower than the minimum",
            4,
            "price",
        ),
        (
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current limit of 0",
            4,
            "quota",
        ),
        (
            "UnauthorizedOperation",
            "You are not authorized to perform this operation",
            3,
            "ec2:RunInstances",
        ),
    ] {
        let scene = Scene::new().await;
        let refusal = sandbox::ec2::error(code, message);
        scene.world.cloud.faults().answer("RunInstances", 999, 400, &refusal);
        scene
            .launch(&["--cloud-spot", "--cloud-spot-price=0.001"])
            .await
            .failed_with(exit, &[code, says]);
        assert!(scene.world.fleet.instances().is_empty());
        scene.end().await;
    }
}

#[tokio::test]
async fn throttling_is_waited_for() {
    let scene = Scene::new().await;
    let refusal = sandbox::ec2::error("RequestLimitExceeded", "Request limit exceeded.");
    scene.world.cloud.faults().answer("RunInstances", 2, 503, &refusal);
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.world.fleet.instances().len(), 1);
    scene.end().await;
}

async fn a_dry_run_changes_nothing_and_shows_no_secret(scene: Scene) {
    let outcome = scene.launch(&["--dry-run"]).await;
    outcome.succeeded();
    assert!(
        outcome.stdout.contains("RunInstances") && outcome.stdout.contains("#!/bin/sh"),
        "{}",
        outcome.stdout
    );
    let shown = outcome.stdout + &outcome.stderr;
    assert!(!shown.contains(scene.world.forge.token()), "{shown}");
    let writes = scene
        .world
        .forge
        .requests()
        .into_iter()
        .filter(|request| request.method != "GET")
        .count();
    assert_eq!(writes, 0);
    assert!(
        scene
            .world
            .ec2()
            .requests()
            .iter()
            .all(|(action, _)| action.starts_with("Describe"))
    );
    scene.end().await;
}

async fn the_result_is_one_json_object(scene: Scene) {
    let outcome = scene.launch(&["--output=json", "--name=named"]).await;
    outcome.succeeded();
    let result: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(result["name"], "named");
    assert_eq!(result["labels"][0], LABEL);
    scene.end().await;
}
