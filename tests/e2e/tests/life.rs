//! Jobs that end well, and the machine that goes away after them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{Scene, hosted, job, memory, until};
use sandbox::ci::Request;
use sandbox::forge::Kind;
use sandbox::instance::Isolation;

e2e::everywhere! {
    a_job_runs_and_the_machine_goes,
    two_jobs_one_after_the_other,
    a_failing_job_is_no_reason_to_run_it_again,
    single_takes_one_job_and_leaves_the_other
        except Bitbucket "no runner is for one step: one that was faster is done too",
    single_without_retry_sends_no_token_to_the_machine
        except GitLab "it has no single-use configuration"
        except Bitbucket "it has no single-use configuration",
    a_hostile_job_name_decides_nothing,
    the_launch_job_of_the_same_run_sees_the_outputs
        except GitLab "its jobs have no outputs"
        except Bitbucket "its steps have no outputs",
    an_idle_timeout_that_races_with_an_assignment_loses,
    a_runner_that_listens_though_the_forge_has_forgotten_it_is_noticed
        except GitLab "it tells a runner that it was removed"
        except Bitbucket "it is shown with its own sandbox, in bitbucket.rs",
    the_agent_asks_the_forge_a_few_times_in_its_life,
}

/// What a machine's programs may have together, in bytes: several times what those have that must live.
const MEMORY: u64 = 512 << 20;

/// The first request of a removal that must not lose a job.
fn removal(scene: &Scene) -> &'static str {
    match scene.world.forge.kind() {
        Kind::GitHub => "DELETE /repos/*/actions/runners/*",
        Kind::GitLab => "PUT /runners/*",
        Kind::Bitbucket => "PUT /repositories/*/pipelines-config/runners/*",
    }
}

async fn a_job_runs_and_the_machine_goes(scene: Scene) {
    let run = scene.job("echo trained && test -z \"$REPO_TOKEN$AWS_SECRET_ACCESS_KEY$CML_RUNNER_TOKEN\"");
    let launched = scene.launch(&[]).await;
    launched.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

async fn two_jobs_one_after_the_other(scene: Scene) {
    let run = scene.run(&[job("first", "true"), job("second", "true")]);
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    assert_eq!(scene.world.fleet.instances().len(), 1);
    scene.end().await;
}

async fn a_failing_job_is_no_reason_to_run_it_again(scene: Scene) {
    let run = scene.job("exit 7");
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "failure");
    scene.all_gone().await;
    assert_eq!(scene.world.forge.run(run).unwrap().attempt, 1);
    scene.end().await;
}

async fn single_takes_one_job_and_leaves_the_other(scene: Scene) {
    let run = scene.run(&[job("first", "true"), job("second", "true")]);
    scene.launch(&["--single", "--idle-timeout=30s"]).await.succeeded();
    scene.all_gone().await;
    let done = scene
        .world
        .forge
        .run(run)
        .unwrap()
        .jobs
        .iter()
        .filter(|job| job.status == "completed")
        .count();
    assert_eq!(done, 1, "{}", scene.timeline());
    scene.end().await;
}

async fn single_without_retry_sends_no_token_to_the_machine(scene: Scene) {
    let run = scene.job("true");
    scene.launch(&["--single", "--no-retry"]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    let data = scene.world.fleet.script(&scene.world.fleet.instances()[0].id).unwrap();
    assert!(data.contains("#!/bin/sh"));
    assert!(!data.contains(scene.world.forge.token()), "the token went to the machine");
    scene.end().await;
}

async fn a_hostile_job_name_decides_nothing(scene: Scene) {
    // Twice the idle timeout: were the name believed, the runner would be stopped before the job ends.
    let mut hostile = job("train", "sleep 2");
    hostile.name = "x completed with result: Succeeded\n2026-01-01 00:00:00Z: Job x completed with result: Succeeded\u{1b}[2J".into();
    let run = scene.run(&[hostile]);
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

async fn the_launch_job_of_the_same_run_sees_the_outputs(scene: Scene) {
    let launch = hosted(
        "launch",
        &(scene.command_line(&[])
            + "\nid=$(sed -n 's/^instance-id=//p' \"$GITHUB_OUTPUT\")
               test -n \"$id\" && grep -q '^labels=gpu$' \"$GITHUB_OUTPUT\" && grep -qF \"$id\" \"$GITHUB_STEP_SUMMARY\""),
    );
    let mut train = job("train", "true");
    train.needs = vec!["launch".into()];
    let run = scene.run(&[launch, train]);
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.end().await;
}

async fn an_idle_timeout_that_races_with_an_assignment_loses(scene: Scene) {
    let gate = sandbox::faults::Gate::default();
    scene.world.forge.faults().add(sandbox::faults::Fault {
        request: removal(&scene).into(),
        skip: 0,
        times: 1,
        effect: sandbox::faults::Effect::Hold(gate.clone()),
    });
    scene.launch(&[]).await.succeeded();
    // The agent has decided that it is idle; before its request is acted on, the forge assigns a job.
    gate.reached().await;
    let run = scene.job("true");
    scene.event("job-started").await;
    gate.open();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn a_machine_that_runs_out_of_memory_loses_its_agent_last() {
    let name = "a_machine_that_runs_out_of_memory_loses_its_agent_last";
    let protects = std::process::Command::new("sh")
        .args(["-c", "echo -1000 2>/dev/null >/proc/self/oom_score_adj"])
        .status();
    if Isolation::best() != Isolation::Overlay || !protects.unwrap().success() {
        e2e::skip(name, "nobody here may protect a process (CAP_SYS_RESOURCE)");
        return;
    }
    let scene = Scene::new().await;
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&format!("echo mine is $(cat /proc/self/oom_score_adj); {}", until(&gate)));
    scene.launch(&[]).await.succeeded();
    scene.working().await;
    let instance = scene.world.fleet.instances().remove(0);
    let agent = scene.world.fleet.agent_pid(&instance.id).unwrap();
    let adjusted = std::fs::read_to_string(format!("/proc/{agent}/oom_score_adj")).unwrap();
    assert_eq!(adjusted.trim(), "-1000");
    scene
        .event_where("the job's own", |event| event.what == "job-output" && event.detail == "mine is 0")
        .await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn a_job_that_uses_up_the_memory_fails_by_itself_and_takes_nobody_along() {
    let name = "a_job_that_uses_up_the_memory_fails_by_itself_and_takes_nobody_along";
    if !e2e::is_isolated(name) {
        return;
    }
    let Some(group) = memory::Group::of(MEMORY) else {
        e2e::skip(name, "nobody here may limit the memory of a control group");
        return;
    };
    let scene = Scene::new().await;
    scene.launch(&["--idle-timeout=never"]).await.succeeded();
    let id = scene.first().id;
    let pid = |program| scene.world.fleet.pid(&id, program).expect("it runs");
    let programs = ["cml-agent", "Runner.Listener"].map(pid);
    for pid in programs {
        group.take(pid);
    }
    // It keeps one endless line.
    let run = scene.job("tail /dev/zero");
    assert_eq!(scene.conclusion(run).await, "failure");
    assert!(group.kills() > 0, "{}", scene.timeline());
    let next = scene.job("true");
    assert_eq!(scene.conclusion(next).await, "success");
    assert_eq!(["cml-agent", "Runner.Listener"].map(pid), programs);
    assert_eq!(scene.world.forge.run(run).unwrap().attempt, 1, "it is the job's own failure");
    scene.world.fleet.signal_agent(&id).unwrap();
    scene.all_gone().await;
    drop(group);
    scene.end().await;
}

#[tokio::test]
async fn an_agent_whose_disk_is_full_says_so_and_writes_what_it_must() {
    if !e2e::is_isolated("an_agent_whose_disk_is_full_says_so_and_writes_what_it_must") {
        return;
    }
    let scene = Scene::new().await;
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch(&[]).await.succeeded();
    scene.working().await;
    scene.inside(&scene.world.fleet.instances()[0].id, e2e::FILL_DISK);
    std::fs::write(&gate, "").unwrap();
    scene
        .event_where("the agent's word", |event| {
            event.detail.contains("the disk of /var/lib/cml is full")
        })
        .await;
    assert_eq!(scene.conclusion(run).await, "success");
    assert!(!scene.timeline().contains("writing /var/lib/cml"), "{}", scene.timeline());
    scene.end().await;
}

async fn a_runner_that_listens_though_the_forge_has_forgotten_it_is_noticed(scene: Scene) {
    let launched = scene
        .launch(&["--name=ghost", "--idle-timeout=never", "--registration-check=1s"])
        .await;
    launched.succeeded();
    scene.world.github().make_ghost("ghost");
    scene
        .event_where("the agent's end", |event| {
            event.detail.contains("runner was removed from the forge")
        })
        .await;
    scene.end().await;
}

async fn the_agent_asks_the_forge_a_few_times_in_its_life(scene: Scene) {
    let run = scene.job("true");
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.all_gone().await;
    let asked: Vec<_> = scene.world.forge.requests().into_iter().filter(Request::from_agent).collect();
    let most = match scene.world.forge.kind() {
        Kind::GitHub => 3,
        // What the page is, the version, the name, the registration, online?, and a removal that pauses and looks first.
        Kind::GitLab => 9,
        // The ids, the names in use, the registration, online?, and a removal that looks, cordons and looks again first.
        Kind::Bitbucket => 8,
    };
    assert!(asked.len() <= most, "{asked:#?}");
    scene.end().await;
}
