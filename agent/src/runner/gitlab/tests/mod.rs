#![allow(clippy::unwrap_used, clippy::expect_used)]

mod configure;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;

use common::error::{Class, Report};
use common::forge::{Package, Platform};
use common::spec::{ForgeKind, RunnerOptions, RunnerSpec};
use tempfile::TempDir;
use url::Url;

use super::{GitLab, RELEASE, version_of};
use crate::archive::tests::server::{Server, answer, sha256, whole};
use crate::runner::docker::Docker;
use crate::runner::fixtures::{self, offer, options};
use crate::runner::release::Present;
use crate::runner::{Exit, Runner as _};
use crate::user::User;

/// A runner that says its version, in the form of the real one.
const RUNNER: &str =
    "#!/bin/sh\n[ \"$1\" = --version ] && printf 'Version:      18.6.2\\nGit revision: 0123abcd\\nGit branch:   18-6-stable\\n'\n";

fn spec() -> RunnerSpec {
    fixtures::spec(ForgeKind::GitLab, "https://gitlab.com/octo/train")
}

fn file() -> String {
    format!("gitlab-runner-linux-{}", Platform::current().debian())
}

/// One that runs jobs in a shell, whatever this machine has.
fn gitlab(spec: &RunnerSpec, dir: &Path, user: Option<User>, package: Option<Package>) -> GitLab {
    GitLab {
        docker: nowhere(dir),
        ..GitLab::new(spec, dir, user, offer(package)).unwrap()
    }
}

fn nowhere(dir: &Path) -> Docker {
    Docker::at(&format!("unix://{}", dir.join("no-such-socket").display()))
}

/// A download server with this list of checksums beside the program, and the offer of its release.
async fn served(list: Option<String>, release: &str) -> (Server, Package) {
    let server = Server::start(move |_, head| match (head.contains("/release.sha256"), &list) {
        (true, Some(list)) => whole(list.as_bytes()),
        (true, None) => answer("404 Not Found", "", b"<html>", 6),
        (false, _) => whole(RUNNER.as_bytes()),
    })
    .await;
    let url = format!("http://{}/{release}/binaries/{}?signature=canary", server.address, file());
    let package = Package {
        url: url.parse().unwrap(),
        sha256: None,
        token: None,
    };
    (server, package)
}

fn list(sum: &str) -> String {
    let other = "0".repeat(64);
    format!("{other}  deb/gitlab-runner_amd64.deb\n{sum} *binaries/{}\n", file())
}

fn asked(server: &Server) -> Vec<String> {
    let requests = server.requests.lock().unwrap();
    requests
        .iter()
        .map(|head| head.split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn it_is_installed_with_the_checksum_that_gitlab_publishes_beside_it() {
    let (server, package) = served(Some(list(&sha256(RUNNER.as_bytes()))), "v18.6.0").await;
    let dir = TempDir::new().unwrap();
    gitlab(&spec(), dir.path(), None, Some(package)).install().await.unwrap();
    let program = dir.path().join("runner/gitlab-runner");
    assert_eq!(fs::read_to_string(&program).unwrap(), RUNNER);
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o777, 0o755);
    let file = format!("/v18.6.0/binaries/{}", file());
    assert_eq!(asked(&server), ["/v18.6.0/release.sha256", file.as_str()]);
    assert!(
        !server.requests.lock().unwrap()[0].contains("canary"),
        "the signature is for the download"
    );
}

#[tokio::test]
async fn a_program_that_is_not_the_published_one_is_not_used() {
    for (list, class, expected) in [
        (Some(list(&"0".repeat(64))), Class::Unexpected, "it is not used"),
        (Some(list("nonsense")), Class::Usage, "SHA-256"),
        (
            Some("aa  binaries/gitlab-runner-linux-riscv64\n".into()),
            Class::Unexpected,
            "--runner-sha256",
        ),
        (Some(String::new()), Class::Unexpected, "does not have the runner's checksum"),
    ] {
        let (_server, package) = served(list, "v18.6.0").await;
        let dir = TempDir::new().unwrap();
        let error = gitlab(&spec(), dir.path(), None, Some(package)).install().await.unwrap_err();
        let text = Report(&error).to_string();
        assert_eq!(Report(&error).class(), class, "{text}");
        assert!(text.contains(expected) && !text.contains("canary"), "{text}");
        assert!(!dir.path().join("runner/gitlab-runner").exists());
    }
}

#[tokio::test]
async fn a_server_without_a_list_serves_all_the_same_and_the_users_own_checksum_needs_none() {
    let (server, package) = served(None, "v18.6.0").await;
    let dir = TempDir::new().unwrap();
    gitlab(&spec(), dir.path(), None, Some(package.clone())).install().await.unwrap();
    assert_eq!(asked(&server).len(), 2);
    let mut spec = spec();
    spec.options.runner_sha256 = Some(sha256(RUNNER.as_bytes()));
    let dir = TempDir::new().unwrap();
    gitlab(&spec, dir.path(), None, Some(package)).install().await.unwrap();
    assert_eq!(asked(&server).len(), 3);
}

#[tokio::test]
async fn one_that_is_there_is_used_again() {
    for release in ["v18.6.0", "latest"] {
        let (server, package) = served(None, release).await;
        let dir = TempDir::new().unwrap();
        gitlab(&spec(), dir.path(), None, Some(package)).install().await.unwrap();
        gitlab(&spec(), dir.path(), None, None).install().await.unwrap();
        // Baked by somebody else: it says its version itself.
        fs::remove_file(dir.path().join("runner/.cml-package")).unwrap();
        gitlab(&spec(), dir.path(), None, None).install().await.unwrap();
        assert_eq!(asked(&server).len(), 2, "{release}");
    }
}

#[tokio::test]
async fn a_pinned_version_comes_from_the_mirror_with_its_list_and_replaces_another() {
    let (server, package) = served(Some(list(&sha256(RUNNER.as_bytes()))), "v18.6.0").await;
    let dir = TempDir::new().unwrap();
    gitlab(&spec(), dir.path(), None, Some(package)).install().await.unwrap();
    let mut spec = spec();
    spec.options.runner_version = Some("17.11.4".into());
    spec.options.runner_url = Some(format!(
        "http://{}/mirror/v{{version}}/binaries/gitlab-runner-{{os}}-{{arch}}",
        server.address
    ));
    gitlab(&spec, dir.path(), None, None).install().await.unwrap();
    gitlab(&spec, dir.path(), None, None).install().await.unwrap();
    let file = format!("/mirror/v17.11.4/binaries/{}", file());
    assert_eq!(asked(&server)[2..], ["/mirror/v17.11.4/release.sha256", file.as_str()]);
}

#[tokio::test]
async fn a_package_comes_from_where_the_user_says_else_from_the_forge() {
    let offered = |release: &str| Package {
        url: format!("https://forge/{release}/binaries/gitlab-runner-linux-arm64")
            .parse()
            .unwrap(),
        sha256: Some("of the forge".into()),
        token: None,
    };
    let own = "https://s3.dualstack.us-east-1.amazonaws.com/gitlab-runner-downloads/v17.1.0/binaries/gitlab-runner-linux-arm64";
    for (release, pinned, template, expected, version, asked) in [
        (
            "v18.6.0",
            None,
            None,
            "https://forge/v18.6.0/binaries/gitlab-runner-linux-arm64",
            Some("18.6.0"),
            1,
        ),
        (
            "latest",
            None,
            None,
            "https://forge/latest/binaries/gitlab-runner-linux-arm64",
            None,
            1,
        ),
        ("v18.6.0", Some("17.1.0"), None, own, Some("17.1.0"), 0),
        (
            "v18.6.0",
            None,
            Some("https://m/{os}/{arch}/{version}"),
            "https://m/linux/arm64/18.6.0",
            Some("18.6.0"),
            1,
        ),
        (
            "v18.6.0",
            Some("17.1.0"),
            Some("https://m/{version}"),
            "https://m/17.1.0",
            Some("17.1.0"),
            0,
        ),
        ("v18.6.0", None, Some("https://m/runner"), "https://m/runner", None, 0),
    ] {
        let forge = offer(Some(offered(release)));
        let options = RunnerOptions {
            runner_version: pinned.map(Into::into),
            runner_url: template.map(Into::into),
            // Nothing is asked for its checksum.
            runner_sha256: Some("mine".into()),
            ..options()
        };
        let found = RELEASE.find(&options, forge.as_ref(), Platform::Arm64).await.unwrap();
        assert_eq!(found.source.url.as_str(), expected);
        assert_eq!(found.version.as_deref(), version, "{expected}");
        assert_eq!(found.source.sha256.as_deref(), Some("mine"), "{expected}");
        assert_eq!(forge.asked.load(Ordering::Relaxed), asked, "{expected}");
    }
    // The newest one has no number to fill in.
    let options = RunnerOptions {
        runner_url: Some("https://m/{version}".into()),
        ..options()
    };
    let error = RELEASE
        .find(&options, offer(Some(offered("latest"))).as_ref(), Platform::X64)
        .await
        .unwrap_err();
    assert!(Report(&error).hint().unwrap().contains("--runner-version"), "{error:#}");
}

#[test]
fn a_version_is_in_the_address_or_is_not_known() {
    for (address, version) in [
        ("https://h/p/v18.6.0/binaries/gitlab-runner-linux-amd64", Some("18.6.0")),
        ("https://h/18.6.0/binaries/x", Some("18.6.0")),
        ("https://h/latest/binaries/x", None),
        ("https://h/v18.6/binaries/x", None),
        ("https://h/v18.6.0/x", None),
        ("https://h/binaries/x", None),
        ("https://h", None),
        ("data:x", None),
    ] {
        assert_eq!(version_of(&address.parse::<Url>().unwrap()).as_deref(), version, "{address}");
    }
}

#[test]
fn a_runner_that_knows_no_tokens_of_the_server_is_replaced() {
    let fits = |version: &str| {
        let present = Present {
            version: Some(version.into()),
            url: None,
        };
        RELEASE.fits(&present, &options())
    };
    assert!(fits("16.0.0") && fits("18.6.2") && fits("100.0.0"));
    assert!(!fits("15.11.1") && !fits("9.9.9") && !fits("development version") && !fits("18.6"));
}

#[test]
fn each_exit_is_understood() {
    let dir = TempDir::new().unwrap();
    let runner = gitlab(&spec(), dir.path(), None, None);
    assert_eq!(runner.read_exit(ExitStatus::from_raw(0)), Exit::Done);
    assert_eq!(runner.read_exit(ExitStatus::from_raw(1 << 8)), Exit::Failed(1));
    assert_eq!(runner.read_exit(ExitStatus::from_raw(9)), Exit::Failed(137));
    assert_eq!(runner.read_hook(), None, "its log tells more");
}
