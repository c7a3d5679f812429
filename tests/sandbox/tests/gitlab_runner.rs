//! The stand-in for GitLab's runner, run for real: what it logs, how it ends, and what the server makes of it. With `GITLAB_RUNNER_BIN`
//! the real one is run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod lab;

use std::process::Stdio;

use lab::process::Runner;
use lab::{Lab, PROJECT, alive, gone, job, until};
use nix::sys::signal::Signal;
use sandbox::standin;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A machine with a runner that is registered.
struct Machine {
    lab: Lab,
    dir: TempDir,
    id: u64,
    token: String,
}

impl Machine {
    async fn new() -> Self {
        let lab = Lab::new().await;
        let (id, token) = lab.runner("r").await;
        let dir = tempfile::tempdir().unwrap();
        Self { lab, dir, id, token }
    }

    /// The program, with the token in its environment.
    fn command(&self, args: &[&str]) -> Command {
        let url = self.lab.gitlab.url();
        let all = [&["--log-format", "json", "run-single", "--url", &url], args].concat();
        let mut command = lab::process::program(standin::gitlab::program().unwrap().0, &all, self.dir.path());
        command.current_dir(self.dir.path()).env("CI_SERVER_TOKEN", &self.token);
        command
    }

    fn start(&self, more: &[&str]) -> Runner {
        let args = ["--executor", "shell", "--description", "r"];
        Runner::start(&mut self.command(&[&args[..], more].concat()))
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// Waits for a line with this message.
async fn logged(runner: &mut Runner, message: &str) -> Value {
    let says = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["msg"] == message);
    let line = runner.line_that(message, says).await;
    serde_json::from_str(&line).unwrap()
}

/// The messages so far.
fn messages(runner: &Runner) -> Vec<String> {
    let parse = |line: &String| serde_json::from_str::<Value>(line).ok()?["msg"].as_str().map(str::to_owned);
    runner.said.iter().filter_map(parse).collect()
}

const SUBMITTED: &str = "Submitting job to coordinator...ok";

/// A script that says that it runs, and goes on until the file `gate` is there.
fn held(pid: &str, gate: &str) -> String {
    format!("echo $$ >'{pid}.new' && mv '{pid}.new' '{pid}'; while [ ! -e '{gate}' ]; do sleep 0.05; done")
}

/// Waits for what a held script wrote.
async fn read(path: &str) -> String {
    until("the script runs", || std::path::Path::new(path).exists()).await;
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[tokio::test]
async fn it_does_as_many_jobs_as_it_may_and_logs_each() {
    let machine = Machine::new().await;
    let lab = &machine.lab;
    let mut runner = machine.start(&["--max-builds", "2", "--builds-dir", "work"]);
    let url = lab.gitlab.url();
    let short = &machine.token["glrt-t3_".len()..][..9];
    logged(&mut runner, &format!("Starting runner for {url} with token {short} ...")).await;
    let mut first = job("first", "echo $OWN $CI_JOB_ID $CI_PIPELINE_ID; test \"$PWD\" = \"$CI_PROJECT_DIR\"");
    first.env = vec![("OWN".into(), "own".into())];
    let good = lab.start(&[first]);
    let id = lab.job_id(good, "first");
    let received = logged(&mut runner, "Checking for jobs... received").await;
    assert_eq!((&received["job"], &received["level"]), (&json!(id), &json!("info")));
    assert_eq!(received["repo_url"], format!("{}.git", lab.gitlab.repo_url()));
    let begun = logged(&mut runner, SUBMITTED).await;
    assert_eq!((&begun["code"], &begun["job-status"]), (&json!(200), &json!("running")));
    let done = logged(&mut runner, "Job succeeded").await;
    assert_eq!((&done["job"], &done["pipeline_id"]), (&json!(id), &json!(good.0)));
    assert_eq!(
        (&done["project_full_path"], &done["name"]),
        (&json!("octo/team/train"), &json!("first"))
    );
    assert!(done["duration_s"].is_f64());
    let told = logged(&mut runner, SUBMITTED).await;
    assert_eq!(
        (&told["job"], &told["job-status"]),
        (&json!(id), &json!("success")),
        "it is told after it is logged"
    );
    assert_eq!(lab.conclusion(good).await, "success");
    assert!(
        lab.output("first").contains(&format!("own {id} {}", good.0)),
        "{:?}",
        lab.output("first")
    );

    let bad = lab.start(&[job("second", "exit 3")]);
    let failed = logged(&mut runner, "Job failed: exit status 3").await;
    assert_eq!(
        (&failed["failure_reason"], &failed["exit_code"]),
        (&json!("script_failure"), &json!(3))
    );
    assert_eq!((&failed["level"], &failed["job-status"]), (&json!("warning"), &json!("failed")));
    logged(&mut runner, "Submitting job to coordinator... job failed").await;
    logged(&mut runner, "This runner has processed its build limit, so now exiting").await;
    assert_eq!(runner.code().await, Some(0));
    assert_eq!(lab.conclusion(bad).await, "failure");
    assert_eq!(lab.job(lab.job_id(bad, "second")).await["failure_reason"], "script_failure");
    assert!(machine.dir.path().join("work").join(short).join("0/octo/team/train").is_dir());
    let lines = runner.said.iter().filter(|line| line.starts_with('{'));
    for line in lines {
        let at = |name: &str| line.find(&format!("\"{name}\":")).unwrap();
        assert!(at("level") < at("msg") && at("msg") < at("time"), "{line}");
    }
    assert!(!runner.said.join("\n").contains(&machine.token), "the token is not shown");
}

#[tokio::test]
async fn a_request_to_exit_aborts_the_job() {
    for (signal, words) in [(Signal::SIGTERM, "terminated"), (Signal::SIGINT, "interrupt")] {
        let machine = Machine::new().await;
        let mut runner = machine.start(&[]);
        let pid = machine.path("pid");
        let run = machine.lab.start(&[job("train", &held(&pid, "/nowhere"))]);
        let pid = read(&pid).await;
        runner.signal(signal);
        logged(&mut runner, &format!("Requested exit: {words}")).await;
        let failed = logged(&mut runner, &format!("Job failed: aborted: {words}")).await;
        assert_eq!(failed["failure_reason"], "runner_interrupted");
        assert_eq!(runner.code().await, Some(0));
        gone(&pid).await;
        assert_eq!(machine.lab.conclusion(run).await, "failure");
        let told = machine.lab.job(machine.lab.job_id(run, "train")).await;
        assert_eq!(told["failure_reason"], "runner_interrupted");
    }
}

#[tokio::test]
async fn a_request_to_quit_waits_for_the_job() {
    let machine = Machine::new().await;
    let mut runner = machine.start(&[]);
    let (pid, gate) = (machine.path("pid"), machine.path("gate"));
    let run = machine.lab.start(&[job("train", &held(&pid, &gate))]);
    read(&pid).await;
    runner.signal(Signal::SIGQUIT);
    logged(&mut runner, "Requested quit, waiting for builds to finish").await;
    std::fs::write(&gate, "").unwrap();
    logged(&mut runner, "Job succeeded").await;
    assert_eq!(runner.code().await, Some(0));
    assert_eq!(machine.lab.conclusion(run).await, "success");
}

#[tokio::test]
async fn a_request_to_quit_is_noticed_when_the_question_for_work_is_answered() {
    let machine = Machine::new().await;
    let mut runner = machine.start(&[]);
    machine.lab.event("runner-online", "r").await;
    runner.signal(Signal::SIGQUIT);
    logged(&mut runner, "Requested quit, waiting for builds to finish").await;
    assert_eq!(runner.code().await, Some(0));
    assert_eq!(machine.lab.gitlab.runners().len(), 1, "it stays registered");
}

/// A script that SIGTERM does not end.
fn stubborn(pid: &str) -> String {
    format!("trap '' TERM; {}", held(pid, "/nowhere"))
}

#[tokio::test]
async fn a_second_signal_ends_it_with_its_job_untold() {
    let machine = Machine::new().await;
    let mut runner = machine.start(&[]);
    let pid = machine.path("pid");
    machine.lab.start(&[job("train", &stubborn(&pid))]);
    let pid = read(&pid).await;
    runner.signal(Signal::SIGTERM);
    logged(&mut runner, "Requested exit: terminated").await;
    runner.signal(Signal::SIGTERM);
    let last = logged(&mut runner, "forced exit: terminated").await;
    assert_eq!(last["level"], "fatal");
    assert_eq!(runner.code().await, Some(1));
    assert!(alive(&pid), "what SIGTERM does not end is left behind");
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_stubborn_job_outlasts_its_patience() {
    let machine = Machine::new().await;
    let mut command = machine.command(&["--executor", "shell"]);
    command.env("STANDIN_SHUTDOWN_MS", "300");
    let mut runner = Runner::start(&mut command);
    let pid = machine.path("pid");
    let run = machine.lab.start(&[job("train", &stubborn(&pid))]);
    let pid = read(&pid).await;
    runner.signal(Signal::SIGTERM);
    runner
        .line_that("shutdown timed out", |line| line.contains("shutdown timed out"))
        .await;
    assert_eq!(runner.code().await, Some(1));
    assert_eq!(machine.lab.conclusion(run).await, "failure");
    let told = machine.lab.job(machine.lab.job_id(run, "train")).await;
    assert_eq!(told["failure_reason"], "stuck_or_timeout_failure", "nobody told how it ended");
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn one_that_was_deleted_waits_and_still_hears_signals() {
    let machine = Machine::new().await;
    let mut runner = machine.start(&["--wait-timeout", "1"]);
    machine.lab.event("runner-online", "r").await;
    machine.lab.ask("DELETE", &format!("/runners/{}", machine.id), &Value::Null).await;
    let told = logged(&mut runner, "Checking for jobs... forbidden").await;
    assert_eq!(told["level"], "error");
    logged(&mut runner, "Runner is not healthy!").await;
    runner.signal(Signal::SIGTERM);
    assert_eq!(runner.code().await, Some(0));
}

#[tokio::test]
async fn it_waits_for_work_only_so_long() {
    let machine = Machine::new().await;
    let mut runner = machine.start(&["--wait-timeout", "1"]);
    let words = "This runner has not received a job in 1 seconds, so now exiting";
    assert_eq!(logged(&mut runner, words).await["level"], "info");
    assert_eq!(runner.code().await, Some(0));
}

#[tokio::test]
async fn a_job_that_is_cancelled_on_the_server_is_ended() {
    let machine = Machine::new().await;
    let mut runner = machine.start(&["--max-builds", "1"]);
    let pid = machine.path("pid");
    let run = machine.lab.start(&[job("train", &held(&pid, "/nowhere"))]);
    let pid = read(&pid).await;
    let path = format!("{PROJECT}/jobs/{}/cancel", machine.lab.job_id(run, "train"));
    machine.lab.json(201, "POST", &path, &Value::Null).await;
    logged(&mut runner, "Job failed: canceled").await;
    assert_eq!(runner.code().await, Some(0));
    gone(&pid).await;
    assert_eq!(machine.lab.conclusion(run).await, "cancelled");
}

#[tokio::test]
async fn a_job_ends_at_its_time_limit() {
    let machine = Machine::new().await;
    let mut runner = machine.start(&["--max-builds", "1"]);
    let mut late = job("train", &held(&machine.path("pid"), "/nowhere"));
    late.timeout = Some(std::time::Duration::from_secs(1));
    let run = machine.lab.start(&[late]);
    let failed = |line: &str| line.contains("Job failed: execution took longer than 1s seconds");
    let line = runner.line_that("the time limit", failed).await;
    assert!(line.contains("job_execution_timeout"), "{line}");
    assert_eq!(runner.code().await, Some(0));
    assert_eq!(machine.lab.conclusion(run).await, "failure");
}

#[tokio::test]
async fn what_it_cannot_do_it_refuses() {
    let machine = Machine::new().await;
    for (args, words) in [
        (vec!["--executor", "shell", "--colour"], "flag provided but not defined: -colour"),
        (vec!["--executor", "ssh2"], "Unknown executor: ssh2"),
        (vec![], "Missing Executor"),
        (vec!["--executor", "shell", "--token", ""], "Missing Token"),
    ] {
        let output = machine.command(&args).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let program = standin::gitlab::program().unwrap().0;
    let output = Command::new(program).arg("--version").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.lines().next().unwrap().starts_with("Version:      "), "{said}");
}

#[tokio::test]
async fn a_runner_of_a_configuration_file_is_as_it_says_there() {
    let machine = Machine::new().await;
    let (url, token) = (machine.lab.gitlab.url(), &machine.token);
    let own = format!(
        "name = \"r\"\nurl = \"{url}\"\ntoken = \"{token}\"\nexecutor = \"shell\"\nbuilds_dir = \"{}\"\n",
        machine.path("own")
    );
    let file = machine.path("config.toml");
    std::fs::write(&file, format!("concurrent = 1\n[[runners]]\nname = \"other\"\n[[runners]]\n{own}")).unwrap();
    let program = standin::gitlab::program().unwrap().0;
    let mut command = Command::new(program);
    let args = [
        "--log-format",
        "json",
        "run-single",
        "--config",
        &file,
        "--runner",
        "r",
        "--max-builds",
        "1",
    ];
    command
        .args(args)
        .current_dir(machine.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut runner = Runner::start(&mut command);
    let run = machine.lab.start(&[job("train", "true")]);
    logged(&mut runner, "Job succeeded").await;
    assert_eq!(runner.code().await, Some(0));
    assert_eq!(machine.lab.conclusion(run).await, "success");
    assert!(machine.dir.path().join("own").is_dir());
    assert!(machine.dir.path().join(".runner_system_id").is_file());
    let output = machine.command(&["--config", &file, "--runner", "none"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not find a runner with the name 'none'"));
}

#[tokio::test]
async fn what_is_said_of_docker_is_in_its_log() {
    let machine = Machine::new().await;
    let args = [
        "--executor",
        "docker",
        "--docker-image",
        "alpine",
        "--docker-volumes",
        "/a:/a",
        "--docker-volumes",
        "/b:/b",
    ];
    let mut command = machine.command(&[&args[..], &["--docker-gpus", "all", "--max-builds", "1"]].concat());
    if standin::gitlab::program().unwrap().1 {
        // The real one needs a daemon.
        return;
    }
    let mut runner = Runner::start(&mut command);
    let said = logged(&mut runner, "Docker executor of the stand-in runs jobs as a shell").await;
    assert_eq!(said["docker-volumes"], json!(["/a:/a", "/b:/b"]));
    assert_eq!((&said["docker-image"], &said["docker-gpus"]), (&json!(["alpine"]), &json!(["all"])));
    let run = machine.lab.start(&[job("train", "true")]);
    assert_eq!(runner.code().await, Some(0));
    assert_eq!(machine.lab.conclusion(run).await, "success");
    assert!(messages(&runner).contains(&"Job succeeded".to_owned()));
}
