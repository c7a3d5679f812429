//! The hooks are run as the runner runs them, and lie as a job could.

use std::fs;

use common::forge::Job;
use tempfile::TempDir;

use super::{github, offer, spec};
use crate::runner::github::GitHub;
use crate::runner::{Hook, Runner as _};

/// Runs a hook as the runner does: `bash -e`, with the job's variables.
fn run_hook(runner: &GitHub, name: &str, job: [&str; 4]) {
    let variables = runner.hooks.environment();
    let (_, path) = variables.iter().find(|(variable, _)| variable.ends_with(name)).unwrap();
    let names = ["GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_REPOSITORY", "GITHUB_JOB"];
    let mut hook = std::process::Command::new("bash");
    hook.arg("-e")
        .arg(path)
        .env_clear()
        .env("PATH", "/bin:/usr/bin")
        .envs(names.iter().zip(job));
    let output = hook.output().unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}

fn started(run: &str, attempt: u32, repository: &str, key: &str) -> Hook {
    Hook::Started(Job {
        run: run.into(),
        attempt,
        repository: repository.into(),
        key: key.into(),
    })
}

#[test]
fn the_hooks_tell_which_job_runs() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("it's $(here)");
    fs::create_dir(&dir).unwrap();
    let runner = github(&dir, None, None);
    runner.hooks.prepare().unwrap();
    assert_eq!(runner.read_hook(), None);
    run_hook(&runner, "STARTED", ["123", "2", "octo/train", "build_it-1"]);
    assert_eq!(runner.read_hook(), Some(started("123", 2, "octo/train", "build_it-1")));
    assert_eq!(runner.read_hook(), None, "said once");
    run_hook(&runner, "COMPLETED", ["123", "2", "octo/train", "build_it-1"]);
    assert_eq!(runner.read_hook(), Some(Hook::Completed));
    run_hook(&runner, "COMPLETED", ["123", "2", "octo/train", "build_it-1"]);
    run_hook(&runner, "STARTED", ["124", "1", "octo/renamed", "x"]);
    assert_eq!(
        runner.read_hook(),
        Some(started("124", 1, "octo/train", "x")),
        "the last word counts; the repository is ours by whatever name"
    );
    assert_eq!(runner.read_hook(), None);
    assert_eq!(fs::read_dir(dir.join("hooks")).unwrap().count(), 0);
    // A hook that can write nothing does not fail the job.
    fs::remove_dir(dir.join("hooks")).unwrap();
    run_hook(&runner, "STARTED", ["1", "1", "octo/train", "x"]);
}

#[test]
fn what_a_job_forges_is_not_believed() {
    let dir = TempDir::new().unwrap();
    let runner = GitHub::new(&spec("https://github.com/octo"), dir.path(), None, offer(None)).unwrap();
    runner.hooks.prepare().unwrap();
    let word = dir.path().join("hooks/job");
    let long = "1".repeat(21);
    let many = "x".repeat(100_000);
    for text in [
        "",
        "started",
        "started\n1\n1\nocto/train",
        "started\n1\n1\nocto/train\nx\nmore",
        "started\n\n1\nocto/train\nx",
        "started\n-1\n1\nocto/train\nx",
        "started\n1\n0\nocto/train\nx",
        "started\n1\n99999999999\nocto/train\nx",
        &format!("started\n{long}\n1\nocto/train\nx"),
        "started\n1\n1\nother/train\nx",
        "started\n1\n1\nocto\nx",
        "started\n1\n1\nocto/..\nx",
        "started\n1\n1\nocto/a/../../b\nx",
        "started\n1\n1\nocto/train?x\nx",
        "started\n1\n1\nocto/train\n",
        "started\n1\n1\nocto/train\n9x",
        "started\n1\n1\nocto/train\nx y",
        "started\n1/../2\n1\nocto/train\nx",
        &format!("started\n1\n1\nocto/train\n{many}"),
    ] {
        fs::write(&word, text).unwrap();
        assert_eq!(runner.read_hook(), None, "{text:.60}");
        assert!(!word.exists());
    }
    let good = "started\n1\n1\nOcto/train\nx\n";
    fs::write(&word, good).unwrap();
    assert_eq!(runner.read_hook(), Some(started("1", 1, "Octo/train", "x")));
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, good).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &word).unwrap();
    assert_eq!(runner.read_hook(), None, "a link");
    nix::unistd::mkfifo(&word, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(runner.read_hook(), None, "a pipe must not block us");
    fs::create_dir_all(word.join("deep")).unwrap();
    assert_eq!(runner.read_hook(), None, "a directory");
    fs::write(&word, good).unwrap();
    assert_eq!(
        runner.read_hook(),
        Some(started("1", 1, "Octo/train", "x")),
        "and the next word is read again"
    );
    assert!(elsewhere.exists());
}
