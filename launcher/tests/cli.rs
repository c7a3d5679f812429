//! The launcher's command line from outside: the built program in a clean environment. `UPDATE_GOLDEN=1` rewrites the golden files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli");

/// A host of its own: a home, the program, and no other program on the search path.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        // Beside the build, so that the program can be linked: a copy would be open for writing while another test starts a process.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for name in ["home", "bin", "empty"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::hard_link(env!("CARGO_BIN_EXE_cml"), folder.path().join("bin/cml")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.path("bin").join(program));
        command.env_clear().env("HOME", self.path("home")).env("PATH", self.path("empty"));
        command.current_dir(self.path("empty")).stdin(Stdio::null());
        command
    }

    /// An agent that says how it was started.
    fn install_agent(&self) {
        symlink(Path::new(GOLDEN).join("agent.sh"), self.path("bin/cml-agent")).unwrap();
    }

    /// `NAME=VALUE` words, then the options.
    fn run(&self, line: &str) -> Output {
        let mut command = self.command("cml");
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let options = words.iter().position(|word| *word == "cml").unwrap();
        command.envs(words[..options].iter().filter_map(|word| word.split_once('=')));
        command.args(&words[options + 1..]).output().unwrap()
    }
}

/// Compares with a golden file, or rewrites it.
fn golden(name: &str, text: &str) {
    let file = Path::new(GOLDEN).join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, text).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == text, "{} differs, run `make golden`; now it is:\n{text}", file.display());
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn help() {
    let world = World::new();
    let mut text = String::new();
    for line in ["cml --help", "cml runner --help"] {
        let output = world.run(line);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        write!(text, "$ {line}\n{}\n", stdout(&output)).unwrap();
    }
    golden("help.txt", &text);
    for line in ["cml -h", "cml --foo --help"] {
        assert_eq!(world.run(line).stdout, world.run("cml --help").stdout, "{line}");
    }
    for line in ["cml runner launch --help", "cml --name=x runner --help", "cml runner -h"] {
        assert_eq!(world.run(line).stdout, world.run("cml runner --help").stdout, "{line}");
    }
    let version = format!("cml {}\n", env!("CARGO_PKG_VERSION"));
    for line in ["cml --version", "cml runner -V"] {
        assert_eq!(stdout(&world.run(line)), version, "{line}");
    }
}

/// Each is refused before anything is asked of anyone.
const ERRORS: &str = "
cml
cml comment
cml runner lunch
cml runner launch --foo
cml runner --cloud-tpye=m
cml runner -x
cml runner --name
cml runner --idle-timeout --single
cml runner --idle-timeout=soon
CML_RUNNER_IDLE_TIMEOUT=soon cml runner
RUNNER_IDLE_TIMEOUT=soon cml runner
cml runner --single=maybe
CML_RUNNER_SINGLE=maybe cml runner
cml runner --cloud=awz
CML_RUNNER_CLOUD=awz cml runner
cml runner --cloud=
cml runner --driver=gitea
cml runner --log=loud
cml runner --cloud-hdd-size=big
CML_RUNNER_MAX_ATTEMPTS=-1 cml runner
cml runner --cloud-spot-price=0
cml runner --cloud=aws --cloud-startup-script=%%%
cml runner --agent-sha256=abc
cml runner --labels=,
cml runner --reuse --single
CML_RUNNER_REUSE=true cml runner --reuse-idle
CML_RUNNER_SINGLE=true CML_RUNNER_REUSE=true cml runner
CML_RUNNER_LABELS=, cml runner
cml runner --cloud=azure --cloud-aws-subnet=subnet-1
CML_RUNNER_CLOUD_AWS_SECURITY_GROUP=sg-1 cml runner --cloud=gcp
cml runner --cloud=aws --cloud-kubernetes-node-selector=a=b
cml runner --cloud=kubernetes --cloud-permission-set=x
cml runner
cml runner --repo=https://git.example.com/octo/train
cml runner --repo=https://github.com/octo/train/tree/main
cml runner --repo=ftp://example.com/octo/train
CML_REPO=https://github.com cml runner
cml runner --repo=octo/train
GITHUB_TOKEN=canary cml runner --repo=https://gitlab.com/octo/train
REPO_TOKEN=canary cml runner --repo=octo/train --docker-volumes=/a:/b
REPO_TOKEN=canary cml runner --repo=https://bitbucket.org/octo/train --reuse-idle
REPO_TOKEN=canary cml runner --repo=https://bitbucket.org/octo/train --docker-image=ubuntu:24.04
REPO_TOKEN=canary cml runner --repo=https://bitbucket.org/octo/train --executor=docker --labels=linux.shell
REPO_TOKEN=canary cml runner --repo=https://bitbucket.org/octo/train --labels=cml,GPU
REPO_TOKEN=canary cml runner --repo=octo/train --name=../x
REPO_TOKEN=canary cml runner --repo=octo/train
";

#[test]
fn errors() {
    let world = World::new();
    let mut text = String::new();
    for line in ERRORS.lines().filter(|line| !line.is_empty()) {
        let output = world.run(line);
        assert_eq!(output.stdout, b"", "{line}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("canary"), "{line}: {stderr}");
        write!(text, "$ {line}\n{stderr}exit {}\n\n", output.status.code().unwrap()).unwrap();
        // Not a terminal: every line is one JSON object.
        for record in stderr.lines() {
            let record: serde_json::Value = serde_json::from_str(record).unwrap();
            assert!(record["level"].is_string() && record["message"].is_string(), "{line}: {record}");
        }
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
    }
    golden("errors.txt", &text);
    assert_eq!(fs::read_dir(world.path("home")).unwrap().count(), 0, "nothing was made");
}

const SECRET: &str = "canary-token";

#[test]
fn without_a_cloud_it_becomes_the_agent() {
    let world = World::new();
    world.install_agent();
    symlink("cml", world.path("bin/cml-runner")).unwrap();
    let mut command = world.command("cml-runner");
    command
        .env("REPO_TOKEN", SECRET)
        .args(["--repo=octo/train", "--name=mine", "--workdir=work", "--single"]);
    command.args(["--cloud-startup-script=ZWNobyBoaQo="]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    child.stdin.take().unwrap().write_all(b"7\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let state = world.path("home/.cml/mine");
    let spec = state.join("spec.json");
    let expected = format!("args: run --spec {}\ntoken: none\npid: {pid}\n", spec.display());
    assert_eq!(stdout(&output), expected, "{output:?}");
    assert_eq!(output.status.code(), Some(7), "the agent's exit code is ours");

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&spec)), (0o700, 0o600));
    let text = fs::read_to_string(&spec).unwrap();
    let read = common::spec::RunnerSpec::from_json(&text).unwrap();
    assert_eq!(
        (read.name.as_str(), read.repo.as_str(), read.cloud),
        ("mine", "https://github.com/octo/train", None)
    );
    assert!(matches!(read.credential, common::spec::Credential::Token(token) if token.expose() == SECRET));
    assert!(read.options.single);
    assert_eq!(read.options.workdir, Some(world.path("empty").canonicalize().unwrap().join("work")));
    assert_eq!(read.options.cloud_startup_script, None, "it is for instances");
}

#[test]
fn a_name_that_runs_is_refused_until_it_ends() {
    let world = World::new();
    world.install_agent();
    let command = |name: &str| {
        let mut command = world.command("cml");
        command.env("REPO_TOKEN", SECRET).args(["runner", "--repo=octo/train", name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut first = command("--name=mine");
    let mut started = String::new();
    BufReader::new(first.stdout.as_mut().unwrap()).read_line(&mut started).unwrap();
    assert!(started.starts_with("args: "), "{started}");

    let second = command("--name=mine").wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(6), "{second:?}");
    let record: serde_json::Value = serde_json::from_slice(&second.stderr).unwrap();
    let message = format!("the runner `mine` is running on this host (process {})", first.id());
    assert_eq!(record["message"], message);
    let mut other = command("--name=other");
    other.stdin.take().unwrap().write_all(b"0\n").unwrap();
    assert!(other.wait().unwrap().success());

    first.stdin.take().unwrap().write_all(b"0\n").unwrap();
    assert!(first.wait().unwrap().success());
    let mut third = command("--name=mine");
    third.stdin.take().unwrap().write_all(b"0\n").unwrap();
    assert!(third.wait().unwrap().success(), "a lock ends with its process");
}

#[test]
fn a_dry_run_makes_nothing_and_shows_no_secret() {
    let world = World::new();
    world.install_agent();
    let output = world.run("REPO_TOKEN=canary cml runner --repo=octo/train --name=mine --dry-run");
    let text = stdout(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(
        text.contains("\"token\": \"****\"") && text.contains("cml-agent run --spec"),
        "{text}"
    );
    assert!(!text.contains("canary"));
    assert_eq!(fs::read_dir(world.path("home")).unwrap().count(), 0);
}

#[test]
fn the_repository_comes_from_the_checkout() {
    let git = Command::new("git").arg("--version").output();
    if !git.is_ok_and(|output| output.status.success()) {
        skip("the_repository_comes_from_the_checkout", "git is not installed");
        return;
    }
    let world = World::new();
    world.install_agent();
    for arguments in [
        &["init", "-q"][..],
        &["remote", "add", "origin", "https://x:canary@github.com/octo/train.git"],
    ] {
        let status = Command::new("git")
            .args(arguments)
            .current_dir(world.path("empty"))
            .status()
            .unwrap();
        assert!(status.success());
    }
    let mut command = world.command("cml");
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("REPO_TOKEN", SECRET);
    let output = command.args(["runner", "--dry-run"]).output().unwrap();
    let text = stdout(&output);
    assert!(text.contains("\"repo\": \"https://github.com/octo/train\""), "{output:?}");
    assert!(!text.contains("canary"), "{text}");
}

fn skip(test: &str, reason: &str) {
    println!("{test}: {reason}");
    if let Some(file) = std::env::var_os("CML_TEST_SKIPS") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
}
