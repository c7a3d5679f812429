//! Machines that are taken away, and jobs that take too long.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{NOTICE, Scene, hosted, job, startup_script, surroundings, until};
use sandbox::ci::RunId;
use sandbox::cloud;
use sandbox::instance::Isolation;

e2e::everywhere! {
    an_idle_spot_machine_leaves_before_it_is_taken,
    a_job_on_a_lost_spot_machine_runs_again,
    the_launch_job_of_the_same_run_makes_the_new_machine,
    no_retry_means_that_nothing_is_run_again,
    a_job_past_the_time_limit_is_interrupted_and_runs_again_up_to_the_attempt_cap,
    advice_to_leave_lets_the_job_finish
        except Azure "it gives no advice: what it announces happens"
        except Kubernetes "it gives no advice: what it announces happens",
    a_job_may_save_its_work_before_it_is_interrupted,
    a_script_that_saves_for_ever_does_not_keep_the_job_from_running_again,
    a_machine_ends_when_it_has_lived_long_enough,
    the_rest_of_a_run_that_does_not_end_is_cancelled_so_that_the_interrupted_job_can_run_again
        except GitLab "it runs single jobs again: nothing else need end",
    a_healthy_job_is_spared_and_the_interrupted_one_left_to_who_cleans_up
        except GitLab "it runs single jobs again: nothing is left to do"
        except Gcp "a machine that is preempted is deleted with its console: what is left to do is lost",
    a_healthy_job_goes_on_while_the_interrupted_one_runs_again
        except GitHub "it runs nothing again before all of a run has ended"
        except Azure "GitHub runs nothing again before all of a run has ended"
        except Gcp "GitHub runs nothing again before all of a run has ended"
        except Kubernetes "GitHub runs nothing again before all of a run has ended",
}

async fn an_idle_spot_machine_leaves_before_it_is_taken(scene: Scene) {
    scene.launch_spot(&["--idle-timeout=never"]).await.succeeded();
    let is_spot = !scene.world.cloud.kind().spot().is_empty();
    assert_eq!(scene.world.fleet.instances()[0].spot, is_spot);
    scene.take_back(NOTICE);
    scene.event("runner-removed").await;
    scene.end().await;
}

async fn a_job_on_a_lost_spot_machine_runs_again(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch_spot(&[]).await.succeeded();
    scene.working().await;
    scene.take_back(NOTICE);
    scene.runs_again(run, &gate).await;
}

async fn the_launch_job_of_the_same_run_makes_the_new_machine(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let launch = hosted("launch", &scene.command_line(scene.world.cloud.kind().spot()));
    let mut train = job("train", &until(&gate));
    train.needs = vec!["launch".into()];
    let run = scene.run(&[launch, train]);
    scene.working().await;
    scene.take_back(NOTICE);
    scene.events("instance-launched", 2).await;
    std::fs::write(&gate, "").unwrap();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

async fn no_retry_means_that_nothing_is_run_again(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch_spot(&["--no-retry"]).await.succeeded();
    scene.working().await;
    scene.take_back(NOTICE);
    assert_eq!(scene.conclusion(run).await, "failure");
    scene.all_gone().await;
    assert_eq!(scene.world.forge.run(run).unwrap().attempt, 1);
    scene.end().await;
}

async fn a_job_past_the_time_limit_is_interrupted_and_runs_again_up_to_the_attempt_cap(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch(&["--job-time-limit=2s", "--max-attempts=2"]).await.succeeded();
    scene.event("run-rerun").await;
    scene.all_gone().await;
    scene.launch(&["--job-time-limit=2s", "--max-attempts=2"]).await.succeeded();
    scene.all_gone().await;
    assert_eq!(scene.conclusion(run).await, "failure");
    assert_eq!(scene.world.forge.run(run).unwrap().attempt, 2);
    scene.end().await;
}

async fn advice_to_leave_lets_the_job_finish(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch_spot(&["--idle-timeout=never"]).await.succeeded();
    scene.working().await;
    let first = scene.world.fleet.instances().remove(0);
    match scene.world.cloud.kind() {
        cloud::Kind::Aws => scene.world.ec2().rebalance(&first.id),
        cloud::Kind::Gcp => scene.world.gce().announce_maintenance(&first.id),
        other => panic!("{} gives no advice", other.name()),
    }
    std::fs::write(&gate, "").unwrap();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

fn on_interrupt(text: &str) -> String {
    startup_script(text).replace("--cloud-startup-script", "--on-interrupt")
}

/// What the agent calls the notice of the world's cloud.
fn notice(scene: &Scene) -> &'static str {
    match scene.world.cloud.kind() {
        cloud::Kind::Aws => "spot instance-action terminate",
        cloud::Kind::Azure => "scheduled event Preempt",
        cloud::Kind::Gcp => "preempted",
        cloud::Kind::Kubernetes => "pod eviction SIGTERM",
    }
}

async fn a_job_may_save_its_work_before_it_is_interrupted(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    let save = on_interrupt("echo \"saved as $(id -un) in $CML_SECONDS_LEFT s because of $CML_INTERRUPT_REASON\"; env");
    scene.launch_spot(&[&save]).await.succeeded();
    scene.working().await;
    scene.take_back(NOTICE);
    let saved = scene
        .event_where("the script's output", |event| event.detail.contains("on interrupt: saved"))
        .await;
    let who = if scene.world.isolation() == Isolation::Overlay {
        "as cml in"
    } else {
        "in"
    };
    assert!(
        saved.detail.contains(who) && saved.detail.contains(&format!("because of {}", notice(&scene))),
        "{saved}"
    );
    let ended = scene.event("job-completed").await;
    assert!(saved.at < ended.at, "the job still ran:\n{}", scene.timeline());
    assert!(!scene.timeline().contains(scene.world.forge.token()), "the script has no token");
    scene.runs_again(run, &gate).await;
}

async fn a_script_that_saves_for_ever_does_not_keep_the_job_from_running_again(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    let save = on_interrupt("trap '' TERM INT; setsid sleep 1000 & sleep 1000");
    scene.launch_spot(&[&save]).await.succeeded();
    scene.working().await;
    scene.take_back(NOTICE / 2);
    scene.runs_again(run, &gate).await;
}

async fn a_machine_ends_when_it_has_lived_long_enough(scene: Scene) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    // Several times what it takes to come online and begin its job, on a machine that does other things too.
    scene.launch(&["--idle-timeout=never", "--max-lifetime=12s"]).await.succeeded();
    scene.event_where("the reason", |event| event.detail.contains("lifetime:12")).await;
    scene.runs_again(run, &gate).await;
}

/// A notice tells a time of day: the machine's own clock must not say how long it leaves.
async fn a_notice_is_acted_on_in_time(cloud: cloud::Kind, days: &str) {
    let scene = Scene::over(cloud).await;
    surroundings::let_clock_jump(scene.world.dir());
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    let save = on_interrupt("trap '' TERM INT; sleep 1000");
    scene.launch_spot(&[&save]).await.succeeded();
    scene.working().await;
    scene.inside(&scene.first().id, &surroundings::jump(days));
    scene.take_back(NOTICE);
    scene.runs_again(run, &gate).await;
}

/// Both ways, where a notice tells when.
async fn a_clock_that_jumped(test: &str, cloud: cloud::Kind) {
    if !e2e::is_isolated(test) {
        return;
    }
    if surroundings::clock_library().is_none() {
        e2e::skip(test, "needs the library of faketime(1) (Debian's package libfaketime)");
        return;
    }
    tokio::join!(
        a_notice_is_acted_on_in_time(cloud, "+1d"),
        a_notice_is_acted_on_in_time(cloud, "-1d")
    );
}

#[tokio::test]
async fn a_clock_that_jumped_loses_no_job_on_ec2() {
    a_clock_that_jumped("a_clock_that_jumped_loses_no_job_on_ec2", cloud::Kind::Aws).await;
}

#[tokio::test]
async fn a_clock_that_jumped_loses_no_job_on_azure() {
    a_clock_that_jumped("a_clock_that_jumped_loses_no_job_on_azure", cloud::Kind::Azure).await;
}

/// A run of a job on our machine and a healthy one on the forge's, of which ours is interrupted.
async fn with_a_healthy_sibling(scene: &Scene, policy: &str) -> RunId {
    let gate = scene.world.dir().join("gate");
    let healthy = format!("while [ ! -e '{}' ]; do sleep 0.05; done", gate.display());
    let run = scene.run(&[job("train", &until(&gate)), hosted("healthy", &healthy)]);
    scene.launch_spot(&[policy]).await.succeeded();
    scene.working().await;
    scene.take_back(NOTICE / 2);
    run
}

fn conclusion_of(scene: &Scene, run: RunId, key: &str) -> Option<String> {
    let view = scene.world.forge.run(run).unwrap();
    view.jobs.into_iter().find(|job| job.key == key).unwrap().conclusion
}

async fn the_rest_of_a_run_that_does_not_end_is_cancelled_so_that_the_interrupted_job_can_run_again(scene: Scene) {
    let run = with_a_healthy_sibling(&scene, "--retry-policy=restart").await;
    let gate = scene.world.dir().join("gate");
    scene.runs_again(run, &gate).await;
}

async fn a_healthy_job_is_spared_and_the_interrupted_one_left_to_who_cleans_up(scene: Scene) {
    let run = with_a_healthy_sibling(&scene, "--retry-policy=spare").await;
    scene.all_gone().await;
    assert_eq!(conclusion_of(&scene, run, "train").as_deref(), Some("failure"));
    assert_eq!(conclusion_of(&scene, run, "healthy"), None, "it still works");
    std::fs::write(scene.world.dir().join("gate"), "").unwrap();
    assert_eq!(scene.conclusion(run).await, "failure");
    let reaped = Scene::finish(scene.command(&["runner", "reap", &scene.cloud()])).await;
    assert!(reaped.stdout.contains("runs again"), "{reaped:#?}");
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    assert_eq!(
        conclusion_of(&scene, run, "healthy").as_deref(),
        Some("success"),
        "of its first attempt"
    );
    scene.end().await;
}

async fn a_healthy_job_goes_on_while_the_interrupted_one_runs_again(scene: Scene) {
    let run = with_a_healthy_sibling(&scene, "--retry-policy=restart").await;
    scene.event("run-rerun").await;
    assert_eq!(conclusion_of(&scene, run, "healthy"), None, "it still works");
    let gate = scene.world.dir().join("gate");
    scene.runs_again(run, &gate).await;
}
