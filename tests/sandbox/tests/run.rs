//! `cml-sandbox run`, from outside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write as _;
use std::process::{Command, Output};

/// Runs a rehearsal; nothing when the launcher and the agent are not built beside it.
fn run(test: &str, args: &[&str]) -> Option<Output> {
    if let Err(reason) = sandbox::standin::program("cml").and_then(|_| sandbox::standin::program("cml-agent")) {
        println!("{test}: {reason}");
        if let Some(path) = std::env::var_os("CML_TEST_SKIPS") {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "{test}: {reason}").unwrap();
        }
        return None;
    }
    let mut command = Command::new(sandbox::standin::program("cml-sandbox").unwrap());
    command.arg("run").args(args);
    // What a CI job of the real world has.
    command
        .env("GITHUB_REPOSITORY", "real/world")
        .env("AWS_PROFILE", "production")
        .env("CI", "true");
    Some(command.output().unwrap())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_command_sees_the_world_and_not_its_caller() {
    let Some(output) = run("the_command_sees_the_world", &["--", "sh", "-c", "env; command -v cml; exit 7"]) else {
        return;
    };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    for name in ["GITHUB_REPOSITORY=", "AWS_PROFILE=", "CI="] {
        assert!(!stdout.lines().any(|line| line.starts_with(name)), "{stdout}");
    }
    for name in [
        "CML_RUNNER_REPO=http://127.0.0.1:",
        "AWS_ENDPOINT_URL_EC2=http://127.0.0.1:",
        "HTTPS_PROXY=http://127.0.0.1:",
    ] {
        assert!(stdout.lines().any(|line| line.starts_with(name)), "{name} is missing in {stdout}");
    }
    assert!(stdout.ends_with("/cml\n"), "{stdout}");
    assert!(stderr.contains("instances "), "it says how they are isolated: {stderr}");
}

#[test]
fn another_forge_is_asked_for_by_its_name() {
    let Some(output) = run("another_forge_is_asked_for", &["--forge=gitlab", "--", "env"]) else {
        return;
    };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let url = |name: &str| stdout.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let page = url("CML_RUNNER_REPO=").unwrap();
    let server = page.strip_suffix("/octo/team/train").unwrap();
    assert_eq!(url("CML_RUNNER_DRIVER=").as_deref(), Some("gitlab"));
    let template = format!("{server}/downloads/{{version}}/binaries/gitlab-runner-{{os}}-{{arch}}");
    assert_eq!(url("CML_RUNNER_RUNNER_URL="), Some(template));
    let unknown = run("another_forge_is_asked_for", &["--forge=gerrit", "--", "env"]).unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("github, gitlab"), "{}", text(&unknown.stderr));
}

#[test]
fn a_launch_is_rehearsed_to_its_end_with_what_goes_wrong_meanwhile() {
    let launch = "cml runner --cloud=aws --cloud-spot --labels=gpu --idle-timeout=3s";
    let args = [
        "--job=self-hosted,gpu: echo trained >&2",
        "--fail=RunInstances=Unsupported",
        "--",
        "sh",
        "-c",
        launch,
    ];
    let Some(output) = run("a_launch_is_rehearsed", &args) else {
        return;
    };
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for told in [
        "in us-west-1b (spot)",
        "job completed job1 success",
        "runner removed",
        "instance terminated",
    ] {
        assert!(stderr.contains(told), "`{told}` is missing in {stderr}");
    }
}

#[test]
fn a_spot_machine_is_taken_back() {
    let launch = "cml runner --cloud=aws --cloud-spot --labels=gpu --idle-timeout=never";
    let Some(output) = run(
        "a_spot_machine_is_taken_back",
        &["--spot-notice-after=3s", "--", "sh", "-c", launch],
    ) else {
        return;
    };
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    for told in ["spot notice", "instance terminated"] {
        assert!(stderr.contains(told), "`{told}` is missing in {stderr}");
    }
}

#[test]
fn what_is_left_is_told_and_is_no_success() {
    let launch = "cml runner --cloud=aws --labels=gpu --idle-timeout=never";
    let Some(output) = run("what_is_left_is_told", &["--linger=0s", "--", "sh", "-c", launch]) else {
        return;
    };
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(70), "{stderr}");
    assert!(stderr.contains("left when the world ended") && stderr.contains("i-"), "{stderr}");
}
