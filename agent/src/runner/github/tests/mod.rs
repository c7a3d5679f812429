#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hooks;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;

use common::error::{Class, Report};
use common::forge::{Enrollment, Package, Platform, RunnerId};
use common::secret::Secret;
use common::spec::{ForgeKind, RunnerOptions, RunnerSpec};
use tar::EntryType;
use tempfile::TempDir;

use super::{GitHub, RELEASE};
use crate::archive::tests::server::{Server, entry, pack, sha256, whole};
use crate::runner::fixtures::{self, offer, options};
use crate::runner::release::Present;
use crate::runner::{Exit, Hook, Runner as _};
use crate::user::User;

const REPO: &str = "https://github.com/octo/train";

fn spec(repo: &str) -> RunnerSpec {
    fixtures::spec(ForgeKind::GitHub, repo)
}

fn github(dir: &Path, user: Option<User>, package: Option<Package>) -> GitHub {
    GitHub::new(&spec(REPO), dir, user, offer(package)).unwrap()
}

/// Writes down what it gets, and ends as the file `verdict` says, after printing the file `says`.
const CONFIG: &str = r#"#!/bin/bash
[ -e .runner ] && echo 'already configured' && exit 1
tr '\0' '\n' </proc/$$/cmdline >config.argv
env >config.env
id -u >config.uid
cat says 2>/dev/null
echo "the token is $ACTIONS_RUNNER_INPUT_TOKEN"
[ -e verdict ] && exit "$(cat verdict)"
printf '\357\273\277{"agentId": 4711, "agentName": "x"}' >.runner
"#;
const LISTENER: &str = "#!/bin/sh\n[ \"$1\" = --version ] && echo 2.336.0\n";

fn archive() -> Vec<u8> {
    pack(vec![
        entry(EntryType::Regular, "./config.sh", "", 0o755, CONFIG.as_bytes()),
        entry(EntryType::Regular, "./bin/Runner.Listener", "", 0o755, LISTENER.as_bytes()),
    ])
}

async fn served() -> (Server, Package) {
    let bytes = archive();
    let sum = sha256(&bytes);
    let server = Server::start(move |_, _| whole(&bytes)).await;
    let package = Package {
        url: format!("http://{}/actions-runner-linux-x64-2.335.1.tar.gz", server.address)
            .parse()
            .unwrap(),
        sha256: Some(sum),
        token: None,
    };
    (server, package)
}

#[tokio::test]
async fn it_is_installed_registered_and_started_without_a_secret_in_any_argument() {
    let (_server, package) = served().await;
    let dir = TempDir::new().unwrap();
    let runner = github(dir.path(), None, Some(package));
    runner.install().await.unwrap();
    let root = dir.path().join("runner");
    fs::write(root.join(".runner"), "of an earlier life").unwrap();
    let ready = runner
        .configure(&Enrollment::Token(Secret::new("registration-canary")))
        .await
        .unwrap();
    assert_eq!(ready.id, RunnerId::from(4711));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let argv: Vec<String> = read("config.argv").lines().skip(2).map(str::to_owned).collect();
    assert_eq!(
        argv,
        [
            "--unattended",
            "--url",
            REPO,
            "--name",
            "cml-abc",
            "--labels",
            "cml,gpu",
            "--work",
            "_work"
        ]
    );
    assert!(read("config.env").contains("ACTIONS_RUNNER_INPUT_TOKEN=registration-canary"));
    assert!(!read("config.env").contains("forge-canary"));
    assert_eq!((ready.command.program, ready.command.dir), (root.join("bin/Runner.Listener"), root));
    assert_eq!(ready.command.args, ["run"]);
    let env = ready.command.env;
    assert!(
        !env.iter().any(|(name, value)| value.contains("canary") || name.starts_with("CML_")),
        "{env:?}"
    );
    let hook = env.iter().find(|(name, _)| name == "ACTIONS_RUNNER_HOOK_JOB_STARTED").unwrap();
    assert!(
        Path::new(&hook.1).is_file() && Path::new(&hook.1).extension() == Some("sh".as_ref()),
        "{hook:?}"
    );
}

#[tokio::test]
async fn a_single_use_configuration_goes_by_the_environment_and_needs_no_config() {
    let (_server, package) = served().await;
    let dir = TempDir::new().unwrap();
    let runner = github(dir.path(), None, Some(package));
    runner.install().await.unwrap();
    let enrollment = Enrollment::Made {
        id: RunnerId::from(7),
        config: Secret::new("jit-canary"),
    };
    let ready = runner.configure(&enrollment).await.unwrap();
    assert_eq!(
        (ready.id, ready.command.args.as_slice()),
        (RunnerId::from(7), ["run".to_owned()].as_slice())
    );
    assert!(
        ready
            .command
            .env
            .contains(&("ACTIONS_RUNNER_INPUT_JITCONFIG".into(), "jit-canary".into()))
    );
    assert!(!dir.path().join("runner/config.argv").exists());
}

#[tokio::test]
async fn what_config_says_is_explained_without_the_token() {
    let (_server, package) = served().await;
    let dir = TempDir::new().unwrap();
    let runner = github(dir.path(), None, Some(package));
    runner.install().await.unwrap();
    fs::write(dir.path().join("runner/verdict"), "1").unwrap();
    for (says, class, expected) in [
        ("A runner exists with the same name cml-abc.", Class::NameInUse, "--reuse"),
        ("Libicu's dependencies is missing for Dotnet Core 6.0", Class::NotOnline, "libicu"),
        (
            "Http response code: NotFound from 'POST https://api.github.com/actions/runner-registration' 404",
            Class::Access,
            "clock",
        ),
        ("something else", Class::NotOnline, "something else"),
    ] {
        fs::write(dir.path().join("runner/says"), format!("{says}\n")).unwrap();
        let error = runner
            .configure(&Enrollment::Token(Secret::new("registration-canary")))
            .await
            .unwrap_err();
        let report = Report(&error);
        assert_eq!(report.class(), class, "{report}");
        let text = report.to_string();
        assert!(
            text.contains(expected) && text.contains("****") && !text.contains("canary"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn one_that_is_there_is_used_again_and_the_wrong_one_is_replaced() {
    let (server, package) = served().await;
    let dir = TempDir::new().unwrap();
    github(dir.path(), None, Some(package.clone())).install().await.unwrap();
    github(dir.path(), None, None).install().await.unwrap();
    // Baked by somebody else: it says its version itself.
    fs::remove_file(dir.path().join("runner/.cml-package")).unwrap();
    github(dir.path(), None, None).install().await.unwrap();
    assert_eq!(server.requests.lock().unwrap().len(), 1);
    let mut spec = spec(REPO);
    spec.options.runner_version = Some("2.337.0".into());
    spec.options.runner_url = Some(format!("http://{}/mirror/v{{version}}/{{os}}-{{arch}}.tar.gz", server.address));
    let pinned = || GitHub::new(&spec, dir.path(), None, offer(None)).unwrap();
    fs::create_dir(dir.path().join("runner/_work")).unwrap();
    pinned().install().await.unwrap();
    pinned().install().await.unwrap();
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    let path = format!("GET /mirror/v2.337.0/linux-{}.tar.gz", Platform::current().github());
    assert!(requests[1].starts_with(&path), "{}", requests[1]);
    assert!(dir.path().join("runner/_work").exists());
}

#[tokio::test]
async fn a_package_comes_from_where_the_user_says_else_from_the_forge() {
    let offered = Package {
        url: "https://forge/actions-runner-linux-arm64-2.335.1.tar.gz".parse().unwrap(),
        sha256: Some("of the forge".into()),
        token: Some(Secret::new("t")),
    };
    let cases = [
        (None, None, None, offered.url.as_str(), Some("of the forge"), Some("2.335.1"), 1),
        (
            Some("2.330.0"),
            None,
            None,
            "https://github.com/actions/runner/releases/download/v2.330.0/actions-runner-linux-arm64-2.330.0.tar.gz",
            None,
            Some("2.330.0"),
            0,
        ),
        (
            None,
            Some("https://m/{os}/{arch}/{version}.tgz"),
            None,
            "https://m/linux/arm64/2.335.1.tgz",
            Some("of the forge"),
            Some("2.335.1"),
            1,
        ),
        (
            None,
            Some("https://m/{os}/x.tgz"),
            Some("mine"),
            "https://m/linux/x.tgz",
            Some("mine"),
            None,
            0,
        ),
        (
            Some("2.330.0"),
            Some("https://m/{version}.tgz"),
            None,
            "https://m/2.330.0.tgz",
            None,
            Some("2.330.0"),
            0,
        ),
    ];
    for (version, url, sum, expected, expected_sum, expected_version, asked) in cases {
        let forge = offer(Some(offered.clone()));
        let options = RunnerOptions {
            runner_version: version.map(Into::into),
            runner_url: url.map(Into::into),
            runner_sha256: sum.map(Into::into),
            ..options()
        };
        let found = RELEASE.find(&options, forge.as_ref(), Platform::Arm64).await.unwrap();
        assert_eq!(found.source.url.as_str(), expected);
        assert_eq!(found.source.sha256.as_deref(), expected_sum, "{expected}");
        assert_eq!(found.version.as_deref(), expected_version, "{expected}");
        assert_eq!(
            found.source.token.is_some(),
            expected == offered.url.as_str(),
            "the forge's token is for the forge: {expected}"
        );
        assert_eq!(forge.asked.load(Ordering::Relaxed), asked, "{expected}");
    }
    let options = RunnerOptions {
        runner_url: Some("not an address".into()),
        ..options()
    };
    let error = RELEASE.find(&options, offer(None).as_ref(), Platform::X64).await.unwrap_err();
    assert!(Report(&error).hint().unwrap().contains("--runner-url"));
}

#[test]
fn a_runner_that_github_takes_no_more_is_replaced() {
    let present = |version: &str| Present {
        version: Some(version.into()),
        url: None,
    };
    let fits = |version: &str| RELEASE.fits(&present(version), &options());
    assert!(fits("2.329.0") && fits("2.400.0") && fits("3.0.0"));
    assert!(!fits("2.328.9") && !fits("2.9.0") && !fits("") && !fits("2.330"));
    assert!(!RELEASE.fits(&Present::default(), &options()));
}

#[test]
fn each_exit_is_understood() {
    let dir = TempDir::new().unwrap();
    let runner = github(dir.path(), None, None);
    let exit = |code: i32| runner.read_exit(ExitStatus::from_raw(code << 8));
    assert_eq!(exit(0), Exit::Done);
    assert_eq!([exit(2), exit(3), exit(4)], [Exit::Restart; 3]);
    assert_eq!([exit(1), exit(5), exit(7)], [Exit::Failed(1), Exit::Failed(5), Exit::Failed(7)]);
    assert_eq!(runner.read_exit(ExitStatus::from_raw(9)), Exit::Failed(137));
}

#[tokio::test]
async fn a_restart_waits_for_the_update() {
    let dir = TempDir::new().unwrap();
    let runner = github(dir.path(), None, None);
    let root = dir.path().join("runner");
    fs::create_dir(&root).unwrap();
    let settle = runner.settle(ExitStatus::from_raw(3 << 8));
    tokio::pin!(settle);
    tokio::select! {
        biased;
        () = &mut settle => panic!("it did not wait"),
        () = tokio::task::yield_now() => {}
    }
    fs::write(root.join("update.finished"), "").unwrap();
    settle.await;
    assert!(!root.join("update.finished").exists(), "the next update makes it again");
}

#[tokio::test]
async fn as_a_job_user_it_owns_its_runner_and_its_words_and_nothing_else() {
    if !nix::unistd::Uid::effective().is_root() {
        crate::user::skip("as_a_job_user_it_owns_its_runner_and_its_words_and_nothing_else", "needs root");
        return;
    }
    let (_server, package) = served().await;
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let user = User {
        name: "nobody-has-this-name".into(),
        uid: 61_237,
        gid: 61_237,
        home: dir.path().into(),
    };
    let runner = github(dir.path(), Some(user), Some(package));
    runner.install().await.unwrap();
    runner.configure(&Enrollment::Token(Secret::new("t"))).await.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("runner/config.uid")).unwrap(), "61237\n");
    let look = |path: &str| {
        fs::metadata(dir.path().join(path))
            .map(|found| (found.uid(), found.mode() & 0o7777))
            .unwrap()
    };
    assert_eq!(look(""), (0, 0o711));
    assert_eq!(look("hooks"), (61_237, 0o700));
    assert_eq!(look("hook-scripts"), (0, 0o755));
    assert_eq!(look("hook-scripts/started.sh"), (0, 0o755));
    assert_eq!(look("runner/config.sh"), (61_237, 0o755));
    // A word that the user leaves is taken.
    let word = dir.path().join("hooks/job");
    fs::write(&word, "completed\n").unwrap();
    chown(&word, Some(61_237), Some(61_237)).unwrap();
    assert_eq!(runner.read_hook(), Some(Hook::Completed));
}
