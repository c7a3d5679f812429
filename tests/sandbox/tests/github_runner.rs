//! The stand-in runner, unpacked and run for real: what it prints, how it ends, and what the service makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hub;

use std::time::Duration;

use hub::machine::{LISTENER, LISTENING, Machine, Runner, start, token};
use hub::{Hub, alive, gone, job, until};
use nix::sys::signal::Signal;
use sandbox::faults::{Effect, Fault, Gate};
use sandbox::github::{Options, Order};

/// A step has less time to end than with the real one.
const GRACE: (&str, &str) = ("STANDIN_STEP_GRACE_MS", "300");

#[tokio::test]
async fn it_runs_two_jobs_and_leaves_when_it_is_interrupted() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let mut runner = start(&machine);
    runner.line(LISTENING).await;
    hub.event("runner-online", "r").await;
    let mut hostile = job("first", "echo out; test \"$GITHUB_JOB $RUNNER_NAME $OWN\" = 'first r own'");
    hostile.name = "x completed with result: Succeeded".into();
    hostile.env = vec![("OWN".into(), "own".into())];
    let first = hub.start(&[hostile]);
    runner
        .line("Job x completed with result: Succeeded completed with result: Succeeded")
        .await;
    assert_eq!(hub.conclusion(first).await, "success");
    let second = hub.start(&[job("second", "false")]);
    runner.line("Job second completed with result: Failed").await;
    assert_eq!(hub.conclusion(second).await, "failure");
    let out = hub.events.all().into_iter().find(|event| event.what == "job-output");
    assert_eq!(out.map(|event| event.detail), Some("out".into()));
    runner.signal(Signal::SIGINT);
    runner.line("Exiting...").await;
    assert_eq!(runner.code().await, Some(0));
    hub.event("runner-offline", "r").await;
    assert_eq!(hub.github.runners().len(), 1, "it stays registered");
}

#[tokio::test]
async fn hooks_see_the_job_and_a_failing_one_fails_it() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let log = machine.path("hooks");
    let note = |word: &str| {
        format!(
            "echo {word} $GITHUB_RUN_ID $GITHUB_RUN_ATTEMPT $GITHUB_REPOSITORY $GITHUB_JOB >>'{}'",
            log.display()
        )
    };
    let (started, completed) = (
        machine.hook("started.sh", &note("started")),
        machine.hook("completed.sh", &note("completed")),
    );
    let mut command = machine.command(LISTENER, &["run"]);
    command
        .env("ACTIONS_RUNNER_HOOK_JOB_STARTED", &started)
        .env("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", &completed);
    let _runner = Runner::start(&mut command);
    let run = hub.start(&[job("train", "true")]);
    assert_eq!(hub.conclusion(run).await, "success");
    let ids = format!("{} 1 octo/train train", run.0);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), format!("started {ids}\ncompleted {ids}\n"));
    machine.hook("started.sh", "exit 3");
    assert_eq!(hub.conclusion(hub.start(&[job("train", "true")])).await, "failure");
}

#[tokio::test]
async fn an_interrupted_job_is_canceled_here_and_failed_there() {
    for whole_group in [false, true] {
        let hub = Hub::new().await;
        let machine = Machine::configured(&hub, "r", &[]).await;
        let completed = machine.hook("completed.sh", &format!("touch '{}'", machine.path("completed").display()));
        let mut command = machine.command(LISTENER, &["run"]);
        command.env("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", completed).env(GRACE.0, GRACE.1);
        let mut runner = Runner::start(&mut command);
        let run = hub.start(&[job("train", "echo ready; while :; do sleep 0.05; done")]);
        hub.event("job-output", "train").await;
        if whole_group {
            runner.signal_group(Signal::SIGINT);
        } else {
            runner.signal(Signal::SIGINT);
        }
        runner.line("Exiting...").await;
        runner.line("Job train completed with result: Canceled").await;
        assert_eq!(runner.code().await, Some(0));
        assert_eq!(hub.conclusion(run).await, "failure");
        assert!(!machine.path("completed").exists(), "no hook runs on a shutdown");
    }
}

#[tokio::test]
async fn a_job_that_is_interrupted_before_its_worker_starts_is_cancelled_without_a_line() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let mut runner = start(&machine);
    runner.line(LISTENING).await;
    let gate = Gate::default();
    hub.github.faults().add(Fault {
        request: "POST /_runner/renew".into(),
        skip: 0,
        times: 1,
        effect: Effect::Hold(gate.clone()),
    });
    let run = hub.start(&[job("train", "true")]);
    gate.reached().await;
    runner.signal(Signal::SIGINT);
    runner.line("Running job: train").await;
    runner.line("Exiting...").await;
    assert_eq!(runner.code().await, Some(0));
    assert_eq!(hub.conclusion(run).await, "cancelled");
}

#[tokio::test]
async fn a_step_that_ignores_signals_is_killed_with_its_children() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let mut command = machine.command(LISTENER, &["run"]);
    let mut runner = Runner::start(command.env(GRACE.0, GRACE.1));
    let script = "trap '' INT TERM; (trap '' INT TERM; while :; do sleep 0.05; done) & echo $!; while :; do sleep 0.05; done";
    hub.start(&[job("train", script)]);
    let child = hub.event("job-output", "train").await.detail;
    runner.signal(Signal::SIGTERM);
    assert_eq!(runner.code().await, Some(0));
    gone(&child).await;
}

#[tokio::test]
async fn what_a_job_leaves_behind_is_killed_unless_it_hides() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let _runner = start(&machine);
    // Until it is another program, what hides still carries the mark.
    let script = "setsid sleep 600 >/dev/null 2>&1 & echo $!
        RUNNER_TRACKING_ID= setsid sleep 601 >/dev/null 2>&1 & echo $!
        until grep -q sleep /proc/$!/comm; do :; done";
    let run = hub.start(&[job("train", script)]);
    assert_eq!(hub.conclusion(run).await, "success");
    let events = hub.events.all();
    let pids: Vec<&str> = events
        .iter()
        .filter(|event| event.what == "job-output")
        .map(|event| event.detail.as_str())
        .collect();
    gone(pids[0]).await;
    assert!(alive(pids[1]));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pids[1].parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_cancelled_job_runs_the_hook_and_the_runner_goes_on() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let completed = machine.hook("completed.sh", &format!("touch '{}'", machine.path("completed").display()));
    let mut command = machine.command(LISTENER, &["run"]);
    command.env("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", completed).env(GRACE.0, GRACE.1);
    let mut runner = Runner::start(&mut command);
    let run = hub.start(&[job("train", "echo ready; sleep 600")]);
    hub.event("job-output", "train").await;
    hub.json(202, "POST", &format!("/runs/{}/cancel", run.0), "").await;
    runner.line("Job train completed with result: Canceled").await;
    assert_eq!(hub.conclusion(run).await, "cancelled");
    assert!(machine.path("completed").exists());
    assert_eq!(hub.conclusion(hub.start(&[job("next", "true")])).await, "success");
}

#[tokio::test]
async fn a_busy_runner_cannot_be_removed_and_a_removed_one_ends() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let mut runner = start(&machine);
    let gate = machine.path("gate");
    let run = hub.start(&[job("train", &format!("while [ ! -e '{}' ]; do sleep 0.05; done", gate.display()))]);
    hub.event("job-started", "train").await;
    let id = hub.github.runners()[0].id;
    let (status, message) = hub.refused("DELETE", &format!("/runners/{id}"), "").await;
    assert!(status == 422 && message.contains("\"r\" is still running a job"), "{message}");
    let remove = token(&hub, "remove-token").await;
    let refused = machine
        .command("config.sh", &["remove", "--token", &remove])
        .output()
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    std::fs::write(&gate, "").unwrap();
    assert_eq!(hub.conclusion(run).await, "success");
    hub.json(204, "DELETE", &format!("/runners/{id}"), "").await;
    runner
        .line("The runner no longer exists on the server. Cleaning up local configuration.")
        .await;
    assert_eq!(runner.code().await, Some(0));
    assert!(!machine.root().join(".runner").exists());
}

#[tokio::test]
async fn a_deleted_registration_is_seen_at_the_start() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let id = hub.github.runners()[0].id;
    hub.json(204, "DELETE", &format!("/runners/{id}"), "").await;
    let mut runner = start(&machine);
    let deleted = |line: &str| line.starts_with("Failed to create a session. The runner registration has been deleted from the server");
    runner.line_that("deleted", deleted).await;
    assert_eq!(runner.code().await, Some(1));
    std::fs::remove_file(machine.root().join(".runner")).unwrap();
    let mut runner = start(&machine);
    runner.line("Runner is not configured.").await;
    assert_eq!(runner.code().await, Some(1));
}

#[tokio::test]
async fn just_in_time_and_ephemeral_runners_take_one_job() {
    let hub = Hub::new().await;
    let body = r#"{"name":"jit","runner_group_id":1,"labels":["self-hosted","gpu"]}"#;
    let config = hub.json(201, "POST", "/runners/generate-jitconfig", body).await;
    let jit = Machine::new(&hub.github).await;
    let mut command = jit.command(LISTENER, &["run"]);
    command.env("ACTIONS_RUNNER_INPUT_JITCONFIG", config["encoded_jit_config"].as_str().unwrap());
    let leak = "! env | grep ACTIONS_RUNNER_INPUT";
    one_job(&hub, &jit, Runner::start(&mut command), leak).await;
    let ephemeral = Machine::configured(&hub, "ephemeral", &["--ephemeral"]).await;
    one_job(&hub, &ephemeral, start(&ephemeral), "true").await;
}

async fn one_job(hub: &Hub, machine: &Machine, mut runner: Runner, script: &str) {
    runner.line(LISTENING).await;
    assert!(hub.github.runners()[0].ephemeral);
    assert_eq!(
        hub.conclusion(hub.start(&[job("train", script)])).await,
        "success",
        "{}",
        hub.timeline()
    );
    runner.line("√ Removed .runner").await;
    assert_eq!(runner.code().await, Some(0));
    assert!(hub.github.runners().is_empty() && !machine.root().join(".runner").exists());
}

#[tokio::test]
async fn a_killed_runner_loses_its_job_when_the_lock_ends() {
    let options = Options {
        lock_expiry: Duration::from_millis(700),
        ..Options::default()
    };
    let hub = Hub::with(options).await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let mut runner = start(&machine);
    let run = hub.start(&[job("train", "echo ready; sleep 600")]);
    hub.event("job-output", "train").await;
    runner.signal_group(Signal::SIGKILL);
    assert_eq!(runner.code().await, None);
    assert_eq!(hub.conclusion(run).await, "failure");
    hub.event("runner-offline", "r").await;
}

#[tokio::test]
async fn a_job_that_nobody_takes_up_is_queued_again() {
    let options = Options {
        lock_expiry: Duration::from_millis(700),
        ..Options::default()
    };
    let hub = Hub::with(options).await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let run = hub.start(&[job("train", "true")]);
    // The job is given to the runner, but the runner never hears of it.
    hub.github.faults().add(Fault {
        request: "POST /_runner/next".into(),
        skip: 0,
        times: 1,
        effect: Effect::LoseAnswer,
    });
    let mut runner = start(&machine);
    runner.line_that("lost", |line| line.starts_with("Runner connect error: ")).await;
    runner.line("Runner reconnected.").await;
    assert_eq!(hub.conclusion(run).await, "success");
    assert!(
        hub.events
            .all()
            .iter()
            .any(|event| event.what == "job-queued" && event.detail == "again")
    );
    assert_eq!(hub.github.run(run).unwrap().attempt, 1);
}

#[tokio::test]
async fn orders_end_it_with_the_codes_of_the_real_one() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let mut runner = start(&machine);
    runner.line(LISTENING).await;
    assert!(hub.github.order("r", Order::Update));
    runner
        .line("Runner will exit shortly for update, should be back online within 10 seconds.")
        .await;
    assert_eq!(runner.code().await, Some(3));
    until("the update script ends", || machine.root().join("update.finished").exists()).await;
    for (value, code) in [("", 1), ("1", 7)] {
        let mut command = machine.command(LISTENER, &["run"]);
        let mut runner = Runner::start(command.env("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", value));
        runner.line(LISTENING).await;
        assert!(hub.github.order("r", Order::Deprecated));
        assert_eq!(runner.code().await, Some(code), "{:?}", runner.said);
    }
}

#[tokio::test]
async fn a_second_session_is_refused() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let mut first = start(&machine);
    first.line(LISTENING).await;
    let mut second = start(&machine);
    second.line("A session for this runner already exists.").await;
    assert_eq!(second.code().await, Some(5));
    assert_eq!(hub.conclusion(hub.start(&[job("train", "true")])).await, "success");
}

#[tokio::test]
async fn its_script_restarts_and_ends_it_as_the_real_one_does() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let mut runner = Runner::start(&mut machine.command("run.sh", &[]));
    runner.line(LISTENING).await;
    hub.github.order("r", Order::Update);
    runner.line("Restarting runner...").await;
    runner.line(LISTENING).await;
    runner.signal_group(Signal::SIGINT);
    assert_eq!(runner.code().await, Some(0));
    assert!(runner.said.iter().any(|line| line == "Exiting runner..."), "{:?}", runner.said);

    let mut command = machine.command("run.sh", &[]);
    let mut trapping = Runner::start(command.env("RUNNER_MANUALLY_TRAP_SIG", "1"));
    trapping.line(LISTENING).await;
    trapping.signal(Signal::SIGTERM);
    assert_eq!(trapping.code().await, Some(143), "{:?}", trapping.said);
    hub.event("runner-offline", "r").await;
}
