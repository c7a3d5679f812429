//! Runners in a Kubernetes cluster: what only a cluster has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use e2e::{Scene, is_isolated, until};
use sandbox::cloud::Kind;
use sandbox::faults::{Effect, Fault, Gate};
use sandbox::kubernetes::Obstacle;

/// Every call that makes something, in order.
const CALLS: [&str; 3] = ["create jobs", "create secrets", "patch jobs"];

async fn cluster() -> Scene {
    Scene::over(Kind::Kubernetes).await
}

fn next(request: &str, effect: Effect) -> Fault {
    Fault {
        request: request.into(),
        skip: 0,
        times: 1,
        effect,
    }
}

#[tokio::test]
async fn a_job_runs_in_a_pod_that_goes() {
    let scene = cluster().await;
    let run = scene.job("echo trained && test -z \"$REPO_TOKEN$KUBERNETES_CONFIGURATION\"");
    let launched = scene.launch(&[]).await;
    launched.succeeded();
    assert!(launched.stdout.contains("10.1.0.10"), "{launched:#?}");
    assert_eq!(scene.conclusion(run).await, "success");
    assert_eq!(
        scene.world.cluster().calls()[..4],
        ["create jobs", "create secrets", "patch jobs", "list jobs"]
    );
    scene.end().await;
}

#[tokio::test]
async fn the_agent_is_the_first_process_and_its_secret_is_none_of_the_jobs() {
    if !is_isolated("the_agent_is_the_first_process_and_its_secret_is_none_of_the_jobs") {
        return;
    }
    let scene = cluster().await;
    let run = scene.job(
        "test \"$(cat /proc/1/comm)\" = cml-agent && test \"$(id -un)\" = cml && ! cat /run/cml/start && ! cat /var/lib/cml/spec.json
        sh -c 'sleep 0.1 & sleep 0.05' && sleep 1 && ! grep -s '^State:.Z' /proc/[0-9]*/status",
    );
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.end().await;
}

#[tokio::test]
async fn what_a_pod_waits_for_is_told_while_it_waits_and_when_that_was_too_long() {
    let words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    for (obstacle, said) in [
        (Obstacle::Unschedulable(words.into()), ["Unschedulable", words]),
        (
            Obstacle::Waiting("ErrImagePull".into(), "registry.example/none: not found".into()),
            ["ErrImagePull", "registry.example/none: not found"],
        ),
        (
            Obstacle::Refused("pods \"x\" is forbidden: exceeded quota: compute".into()),
            ["FailedCreate", "exceeded quota: compute"],
        ),
    ] {
        let scene = cluster().await;
        scene.world.cluster().obstruct(Some(obstacle));
        let launched = scene.launch(&["--provisioning-timeout=4s"]).await;
        launched.failed_with(5, &said);
        launched.failed_with(5, &["waiting for", "phase `pod` had begun", "hint"]);
        assert!(scene.world.cluster().objects().is_empty(), "{:?}", scene.world.cluster().objects());
        scene.end().await;
    }
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_pod() {
    for call in CALLS {
        let scene = cluster().await;
        scene.world.cloud.faults().add(next(call, Effect::LoseAnswer));
        let run = scene.job("true");
        scene.launch(&[]).await.succeeded();
        assert_eq!(scene.conclusion(run).await, "success", "{call}");
        assert_eq!(scene.world.fleet.instances().len(), 1, "{call}");
        assert_eq!(scene.world.cloud.calls().iter().filter(|made| **made == call).count(), 2, "{call}");
        scene.end().await;
    }
}

#[tokio::test]
async fn a_refusal_of_any_call_leaves_nothing() {
    for call in CALLS {
        for (reason, code, said) in [
            ("Forbidden", 3, "docs/clouds/kubernetes.md"),
            ("Unauthorized", 3, "credentials"),
            ("QuotaExceeded", 4, "exceeded quota"),
            ("Invalid", 2, "Invalid"),
        ] {
            let scene = cluster().await;
            scene.world.cloud.fail(call, reason, 1);
            scene.launch(&[]).await.failed_with(code, &[said]);
            let left = scene.world.cluster().objects();
            assert!(left.is_empty(), "{call} {reason}: {left:?}");
            scene.end().await;
        }
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let scene = cluster().await;
    for (call, reason) in [
        ("create jobs", "TooManyRequests"),
        ("create secrets", "ServiceUnavailable"),
        ("patch jobs", "InternalError"),
    ] {
        scene.world.cloud.fail(call, reason, 1);
    }
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.world.fleet.instances().len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn a_launcher_that_is_killed_at_any_call_leaves_what_terminate_removes() {
    for call in CALLS {
        for is_acted_on in [false, true] {
            let scene = cluster().await;
            let gate = Gate::default();
            // Acted on before the launcher dies, or never.
            let effect = if is_acted_on {
                Effect::LoseAnswer
            } else {
                Effect::Hold(gate.clone())
            };
            let mut faults = vec![next(call, effect)];
            if is_acted_on {
                faults.push(next(call, Effect::Hold(gate.clone())));
            }
            for fault in faults {
                scene.world.cloud.faults().add(fault);
            }
            let mut launcher = scene.start(&["--name=killed"]);
            gate.reached().await;
            launcher.kill().await.unwrap();
            let cluster = scene.world.cluster();
            let is_begun = call == "patch jobs" && is_acted_on;
            assert_eq!(
                scene.world.fleet.instances().len(),
                usize::from(is_begun),
                "{call}: nothing is paid for"
            );
            if !cluster.objects().is_empty() {
                let ended = Scene::finish(scene.command(&["runner", "terminate", "killed", "--cloud=kubernetes"])).await;
                ended.succeeded();
            }
            scene.all_gone().await;
            assert!(cluster.objects().is_empty(), "{call} {is_acted_on}: {:?}", cluster.objects());
            scene.world.close().await;
        }
    }
}

async fn fleet(scene: &Scene, words: &[&str]) -> String {
    let line: Vec<&str> = ["runner"].iter().chain(words).chain(&["--cloud=kubernetes"]).copied().collect();
    let outcome = Scene::finish(scene.command(&line)).await;
    outcome.succeeded();
    outcome.stdout
}

#[tokio::test]
async fn a_pod_is_listed_read_and_terminated_by_its_name() {
    let scene = cluster().await;
    scene.launch(&["--name=trainer", "--idle-timeout=never"]).await.succeeded();
    let table = fleet(&scene, &["list"]).await;
    assert!(["trainer", "Running", "idle"].iter().all(|word| table.contains(word)), "{table}");
    let console = fleet(&scene, &["logs", "trainer"]).await;
    assert!(console.contains("cml-phase name=online state=ok"), "{console}");
    assert!(fleet(&scene, &["reap"]).await.contains("nothing to clean up"));
    let ended = fleet(&scene, &["terminate", "trainer"]).await;
    assert!(ended.contains("terminated"), "{ended}");
    scene.all_gone().await;
    assert!(scene.world.cluster().objects().is_empty());
    scene.end().await;
}

#[tokio::test]
async fn a_job_that_could_not_be_run_again_before_its_pod_was_killed_is_by_who_cleans_up() {
    let scene = cluster().await;
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch(&[]).await.succeeded();
    scene.working().await;
    // The forge is of no help as long as the pod lives.
    let rerun = "POST /repos/*/rerun-failed-jobs";
    scene.world.forge.faults().answer(rerun, usize::MAX, 500, "{}");
    scene.take_back(Duration::from_secs(8));
    scene.all_gone().await;
    assert_eq!(scene.world.forge.run(run).unwrap().attempt, 1);
    scene.world.forge.faults().clear();
    let reaped = fleet(&scene, &["reap"]).await;
    assert!(reaped.contains("runs again"), "{reaped}");
    std::fs::write(&gate, "").unwrap();
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn a_rehearsal_shows_the_job_and_makes_nothing() {
    let scene = cluster().await;
    let shown = scene.launch(&["--dry-run", "--cloud-gpu=t4"]).await;
    shown.succeeded();
    for text in [
        "\"kind\": \"Job\"",
        "\"nvidia.com/gpu\": \"1\"",
        "in the namespace ci",
        "# start-up data",
    ] {
        assert!(shown.stdout.contains(text), "{text}: {}", shown.stdout);
    }
    assert!(!shown.stdout.contains(scene.world.forge.token()));
    assert!(scene.world.cloud.calls().is_empty());
    scene.end().await;
}

#[tokio::test]
async fn what_has_no_meaning_is_refused_before_anything_is_made() {
    let scene = cluster().await;
    for (option, said) in [
        ("--cloud-spot", "`--cloud-spot` is not supported"),
        ("--cloud-type=m7i.2xlarge", "is no machine type of kubernetes"),
        ("--cloud-region=us-east-1", "is no region of kubernetes"),
        ("--cloud-aws-subnet=subnet-1", "`--cloud-aws-subnet` is not supported"),
        ("--cloud-ssh-private=x", "`--cloud-ssh-private` is not supported"),
    ] {
        scene.launch(&[option]).await.failed_with(2, &[said]);
    }
    assert!(scene.world.cloud.calls().is_empty());
    scene.end().await;
}
