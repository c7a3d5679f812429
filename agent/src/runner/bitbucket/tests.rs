#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use common::error::{Class, Report};
use common::forge::bitbucket::RunnerConfig;
use common::forge::{self, Enrollment};
use common::log::Level;
use common::secret::Secret;
use common::spec::{Credential, ForgeKind, RunnerOptions, RunnerSpec, SPEC_VERSION};
use tar::EntryType;
use tempfile::TempDir;

use super::{Bitbucket, arguments, version_of};
use crate::archive::tests::server::{Server, entry, pack, sha256, whole};
use crate::runner::docker::Docker;
use crate::runner::{Exit, Runner as _};
use crate::user::User;

const PAGE: &str = "https://bitbucket.org/octo/train";

fn spec() -> RunnerSpec {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: RunnerOptions,
    }
    RunnerSpec {
        version: SPEC_VERSION,
        name: "cml-abc".into(),
        forge: ForgeKind::Bitbucket,
        repo: PAGE.parse().unwrap(),
        cloud: None,
        credential: Credential::Token(Secret::new("forge-canary")),
        launch: None,
        log: Level::Info,
        options: <Line as clap::Parser>::parse_from(["cml"]).options,
    }
}

fn open(spec: &RunnerSpec, dir: &Path, user: Option<User>) -> anyhow::Result<Bitbucket> {
    let forge = forge::open(spec.forge, &spec.repo, &Secret::new("forge-canary"))?;
    Ok(Bitbucket {
        // Steps run in a shell, whatever this machine has.
        docker: Docker::at(&format!("unix://{}", dir.join("no-such-socket").display())).here(),
        ..Bitbucket::new(spec, dir, user, Arc::from(forge))?
    })
}

/// A Java that says this of its version.
fn java(dir: &Path, says: &str) -> Vec<PathBuf> {
    let path = dir.join("java");
    fs::write(
        &path,
        format!("#!/bin/sh\necho 'Picked up JAVA_TOOL_OPTIONS: -Xmx1g' >&2\necho '{says}' >&2\n"),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    vec!["/nowhere/java".into(), path]
}

/// A runner that is downloaded from the server, with a Java.
async fn served(dir: &Path, user: Option<User>) -> (Server, Bitbucket) {
    let bytes = pack(vec![
        entry(EntryType::Regular, "bin/start.sh", "", 0o644, b"#!/bin/sh\n"),
        entry(EntryType::Regular, "bin/runner.jar", "", 0o644, b"PK"),
    ]);
    let sum = sha256(&bytes);
    let server = Server::start(move |_, _| whole(&bytes)).await;
    let mut spec = spec();
    spec.options.runner_url = Some(format!(
        "http://{}/atlassian-bitbucket-pipelines-runner-5.7.0.tar.gz",
        server.address
    ));
    spec.options.runner_sha256 = Some(sum);
    let mut runner = open(&spec, dir, user).unwrap();
    runner.java = java(dir, "openjdk version \"17.0.15\" 2025-04-15");
    (server, runner)
}

fn config() -> RunnerConfig {
    RunnerConfig {
        account_uuid: "{workspace}".into(),
        repository_uuid: Some("{repository}".into()),
        runner_uuid: "{runner}".into(),
        oauth_client_id: "client".into(),
        oauth_client_secret: Secret::new("secret-canary \"\\ '$x"),
        containers: false,
    }
}

fn made() -> Enrollment {
    Enrollment::Made {
        id: "{runner}".to_owned().into(),
        config: Secret::new(serde_json::to_string(&config()).unwrap()),
    }
}

#[tokio::test]
async fn it_is_installed_and_started_without_a_secret_in_any_argument_or_variable() {
    let dir = TempDir::new().unwrap();
    let (server, runner) = served(dir.path(), None).await;
    runner.install().await.unwrap();
    runner.install().await.unwrap();
    assert_eq!(server.requests.lock().unwrap().len(), 1, "what is there will do");
    let ready = runner.configure(&made()).await.unwrap();
    // Once more, after an earlier life.
    runner.configure(&made()).await.unwrap();
    assert_eq!(ready.id.to_string(), "{runner}");
    let root = dir.path().join("runner");
    let file = root.join(arguments::NAME);
    let command = ready.command;
    assert_eq!((command.program, command.dir), (dir.path().join("java"), root.join("bin")));
    assert_eq!(command.args, [format!("@{}", file.display()), "-jar".into(), "./runner.jar".into()]);
    assert!(!command.env.iter().any(|(_, value)| value.contains("canary")), "{:?}", command.env);
    let text = fs::read_to_string(&file).unwrap();
    for argument in [
        r#""-Dbitbucket.pipelines.runner.account.uuid={workspace}""#,
        r#""-Dbitbucket.pipelines.runner.repository.uuid={repository}""#,
        r#""-Dbitbucket.pipelines.runner.uuid={runner}""#,
        r#""-Dbitbucket.pipelines.runner.oauth.client.id=client""#,
        r#""-Dbitbucket.pipelines.runner.oauth.client.secret=secret-canary \"\\ '$x""#,
        r#""-Dbitbucket.pipelines.runner.runtime=linux-shell""#,
    ] {
        assert!(text.lines().any(|line| line == argument), "{argument}: {text}");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn java_itself_reads_the_file_as_it_was_meant() {
    const TEST: &str = "java_itself_reads_the_file_as_it_was_meant";
    let Some(java) = crate::supervise::find_program("java") else {
        crate::user::skip(TEST, "needs java");
        return;
    };
    let dir = TempDir::new().unwrap();
    let (_server, runner) = served(dir.path(), None).await;
    runner.install().await.unwrap();
    runner.configure(&made()).await.unwrap();
    let file = dir.path().join("runner").join(arguments::NAME);
    let output = Command::new(java)
        .arg(format!("@{}", file.display()))
        .args(["-XshowSettings:properties", "-version"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for property in [
        "bitbucket.pipelines.runner.oauth.client.secret = secret-canary \"\\ '$x",
        "bitbucket.pipelines.runner.repository.uuid = {repository}",
    ] {
        assert!(said.lines().any(|line| line.trim() == property), "{said}");
    }
}

#[tokio::test]
async fn without_a_java_that_will_do_nothing_is_installed() {
    for (says, expected) in [
        (Some("openjdk version \"1.8.0_402\""), "is Java 8"),
        (Some("what?"), "does not say"),
        (None, "not on this machine"),
    ] {
        let dir = TempDir::new().unwrap();
        let (server, mut runner) = served(dir.path(), None).await;
        runner.java = says.map(|says| java(dir.path(), says)).unwrap_or_default();
        let error = runner.install().await.unwrap_err();
        let report = Report(&error);
        assert_eq!(report.class(), Class::NotOnline);
        assert!(report.to_string().contains(expected), "{report}");
        assert!(report.hint().unwrap().contains("--cloud-startup-script"));
        assert!(server.requests.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn as_a_job_user_it_owns_its_secret() {
    if !nix::unistd::Uid::effective().is_root() {
        crate::user::skip("as_a_job_user_it_owns_its_secret", "needs root");
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let user = User {
        name: "nobody-has-this-name".into(),
        uid: 61_238,
        gid: 61_238,
        home: dir.path().into(),
    };
    let (_server, runner) = served(dir.path(), Some(user)).await;
    runner.install().await.unwrap();
    let ready = runner.configure(&made()).await.unwrap();
    assert_eq!(ready.command.user.unwrap().uid, 61_238);
    let found = fs::metadata(dir.path().join("runner").join(arguments::NAME)).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (61_238, 0o600));
}

#[test]
fn an_address_names_its_version() {
    let of = |url: &str| version_of(&url.parse().unwrap());
    assert_eq!(
        of("https://m/x/atlassian-bitbucket-pipelines-runner-5.7.0.tar.gz").as_deref(),
        Some("5.7.0")
    );
    assert_eq!(of("https://m/x/atlassian-bitbucket-pipelines-runner-latest.tar.gz"), None);
}

#[test]
fn each_exit_is_understood() {
    let dir = TempDir::new().unwrap();
    let runner = open(&spec(), dir.path(), None).unwrap();
    assert_eq!(runner.read_exit(ExitStatus::from_raw(0)), Exit::Done);
    assert_eq!(runner.read_exit(ExitStatus::from_raw(1 << 8)), Exit::Failed(1));
    assert_eq!(runner.read_exit(ExitStatus::from_raw(9)), Exit::Failed(137));
}
