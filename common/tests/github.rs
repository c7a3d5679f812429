//! The GitHub client against scripted servers: what it sends, and what it makes of every answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use common::error::{Class, Report};
use common::forge::github::GitHub;
use common::forge::{Enroll, Enrollment, Forge as _, Platform, Removal, RunnerId, When, Which};
use common::secret::Secret;
use scripted::{QUICK, Reply, Server, answer, empty, refused};
use serde_json::{Value, json};

const TOKEN: &str = "ghp_canary";
const RUNNERS: &str = "/api/v3/repos/octo/train/actions/runners";

fn open(server: &Server, page: &str) -> GitHub {
    let page = format!("{}/{page}", server.url).parse().unwrap();
    GitHub::new(&page, &Secret::new(TOKEN)).unwrap().with_retry(QUICK)
}

fn train(server: &Server) -> GitHub {
    open(server, "octo/train")
}

fn post(path: &str) -> String {
    format!("POST {RUNNERS}/{path}")
}

fn get(path: &str) -> String {
    format!("GET {RUNNERS}{path}")
}

fn token() -> Reply {
    answer(201, &json!({ "token": "AAAA", "expires_at": "2026-01-01T00:00:00Z" }))
}

fn runner(id: u64, name: &str, status: &str) -> Value {
    let labels = ["self-hosted", "Linux", "X64", "GPU"].map(|name| json!({ "id": 1, "name": name, "type": "custom" }));
    json!({ "id": id, "name": name, "os": "linux", "status": status, "busy": status == "online", "labels": labels })
}

fn list(runners: &[Value]) -> Reply {
    answer(200, &json!({ "total_count": runners.len(), "runners": runners }))
}

fn single(name: &str) -> Enroll {
    Enroll {
        name: name.into(),
        labels: vec!["gpu".into()],
        single: true,
        platform: Platform::Arm64,
        containers: false,
    }
}

/// What the user reads; the token is in none of it.
fn report(error: &anyhow::Error) -> (i32, String) {
    let text = format!("{}\n{error:?}", Report(error));
    assert!(!text.contains(TOKEN), "{text}");
    (Report(error).class().exit_code(), Report(error).to_string())
}

#[tokio::test]
async fn access_is_checked_by_the_one_request_that_needs_it() {
    for (page, path) in [
        ("octo/train", "repos/octo/train"),
        ("octo", "orgs/octo"),
        ("enterprises/acme", "enterprises/acme"),
    ] {
        let server = Server::start().await;
        let line = format!("POST /api/v3/{path}/actions/runners/registration-token");
        server.on(&line, [token()]);
        open(&server, page).check_access().await.unwrap();
        let requests = server.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].line, line);
        let headers = &requests[0].headers;
        assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
        assert_eq!(headers["accept"], "application/vnd.github+json");
        assert_eq!(headers["x-github-api-version"], "2022-11-28");
    }
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let by_workflow = "Resource not accessible by integration";
    let mut said = String::new();
    for (page, refusal) in [
        ("octo/train", refused(401, "Bad credentials")),
        ("octo/train", refused(404, "Not Found")),
        (
            "octo/train",
            refused(403, "Resource not accessible by personal access token").with("x-accepted-github-permissions", "administration=write"),
        ),
        (
            "octo",
            refused(403, "Must have admin rights to Repository.")
                .with("x-oauth-scopes", "repo, workflow")
                .with("x-accepted-oauth-scopes", "admin:org"),
        ),
        ("octo/train", refused(403, by_workflow)),
        ("enterprises/acme", refused(404, "Not Found")),
    ] {
        let server = Server::start().await;
        let path = match page {
            "octo/train" => "repos/octo/train",
            "octo" => "orgs/octo",
            other => other,
        };
        server.on(&format!("POST /api/v3/{path}/actions/runners/registration-token"), [refusal]);
        let (code, text) = report(&open(&server, page).check_access().await.unwrap_err());
        assert_eq!((code, server.requests().len()), (3, 1), "{text}");
        said += &text;
        said += "\n\n";
    }
    insta::assert_snapshot!(said, @r#"
    error: GitHub refused the token: Bad credentials

    hint: it may have expired or been revoked: make a new one with the scope `repo` (classic) or the repository permission "Administration: read and write" (fine-grained)

    error: there is no repository `octo/train`, or the token cannot see it

    hint: check `--repo`; the token needs the scope `repo` (classic) or the repository permission "Administration: read and write" (fine-grained)

    error: GitHub does not let the token do this: Resource not accessible by personal access token

    hint: the token lacks the permission `administration=write`: it needs the scope `repo` (classic) or the repository permission "Administration: read and write" (fine-grained)

    error: GitHub does not let the token do this: Must have admin rights to Repository.

    hint: the token has the scopes [repo, workflow], and needs one of [admin:org]: the scope `admin:org` (classic) or the organisation permission "Self-hosted runners: read and write" (fine-grained)

    error: GitHub does not let the token do this: Resource not accessible by integration

    hint: the token needs the scope `repo` (classic) or the repository permission "Administration: read and write" (fine-grained); the workflow's own GITHUB_TOKEN can never register runners

    error: there is no enterprise `acme`, or the token cannot see it

    hint: check `--repo`; the token needs the scope `manage_runners:enterprise`
    "#);
}

#[tokio::test]
async fn an_answer_that_is_not_githubs_is_no_proof() {
    for reply in [empty(200), answer(201, &json!({})), Reply::Answer(201, vec![], b"<html>".to_vec())] {
        let server = Server::start().await;
        server.on(&post("registration-token"), [reply]);
        let (code, _) = report(&train(&server).check_access().await.unwrap_err());
        assert_eq!(code, 1);
    }
}

#[test]
fn a_token_with_a_line_break_is_refused_without_showing_it() {
    let page = "https://github.com/octo/train".parse().unwrap();
    let error = GitHub::new(&page, &Secret::new(format!("{TOKEN}\nx"))).err().unwrap();
    assert_eq!(report(&error).0, Class::Usage.exit_code());
}

#[tokio::test]
async fn every_page_of_runners_is_read() {
    let server = Server::start().await;
    let next = format!(
        "<{}{RUNNERS}?page=2>; rel=\"next\", <{}{RUNNERS}?page=3>; rel=\"last\"",
        server.url, server.url
    );
    let previous = format!("<{}{RUNNERS}?page=2>; rel=\"prev\"", server.url);
    server.on(
        &get(""),
        [
            list(&[runner(1, "a", "online")]).with("link", &next),
            empty(502),
            list(&[runner(2, "b", "offline")]).with("link", next),
            list(&[runner(3, "c", "offline")]).with("link", previous),
        ],
    );
    let runners = train(&server).runners(Which::All).await.unwrap();
    let seen: Vec<_> = runners
        .iter()
        .map(|runner| (runner.id.clone(), runner.name.as_str(), runner.online, runner.busy))
        .collect();
    assert_eq!(
        seen,
        [
            (1.into(), "a", true, true),
            (2.into(), "b", false, false),
            (3.into(), "c", false, false)
        ]
    );
    assert!(runners[0].has_labels(&["gpu".into(), "linux".into()]));
    let queries: Vec<_> = server.requests().into_iter().map(|request| request.query).collect();
    assert_eq!(
        queries,
        [
            "per_page=100&page=1",
            "per_page=100&page=2",
            "per_page=100&page=2",
            "per_page=100&page=3"
        ]
    );
}

#[tokio::test]
async fn a_runner_is_found_by_its_exact_name() {
    let server = Server::start().await;
    server.on(&get(""), [list(&[runner(1, "gpu", "online"), runner(2, "gpu-2", "online")])]);
    let runners = train(&server).runners(Which::Named("gpu")).await.unwrap();
    assert_eq!(
        runners.iter().map(|runner| runner.id.clone()).collect::<Vec<_>>(),
        [RunnerId::from(1)]
    );
    assert_eq!(server.requests()[0].query, "name=gpu&per_page=100&page=1");
}

#[tokio::test]
async fn a_runner_of_many_jobs_gets_a_registration_token() {
    let server = Server::start().await;
    server.on(&post("registration-token"), [token()]);
    let request = Enroll {
        single: false,
        ..single("cml-a")
    };
    let Enrollment::Token(token) = train(&server).enroll(&request).await.unwrap() else {
        panic!("not a token");
    };
    assert_eq!(token.expose(), "AAAA");
}

fn configuration() -> Reply {
    answer(
        201,
        &json!({ "runner": runner(7, "cml-a", "offline"), "encoded_jit_config": "e30=" }),
    )
}

#[tokio::test]
async fn a_runner_of_one_job_gets_a_configuration() {
    let server = Server::start().await;
    server.on(&post("generate-jitconfig"), [configuration()]);
    let Enrollment::Made { id, config } = train(&server).enroll(&single("cml-a")).await.unwrap() else {
        panic!("not a configuration");
    };
    assert_eq!((id, config.expose()), (RunnerId::from(7), "e30="));
    let labels = ["self-hosted", "Linux", "ARM64", "gpu"];
    let body = json!({ "name": "cml-a", "runner_group_id": 1, "labels": labels, "work_folder": "_work" });
    assert_eq!(server.requests()[0].body, body);
}

#[tokio::test]
async fn a_name_in_use_has_a_class_of_its_own() {
    let server = Server::start().await;
    let taken = "Already exists - A runner with the name *** already exists.";
    server.on(&post("generate-jitconfig"), [refused(409, taken)]);
    let (code, text) = report(&train(&server).enroll(&single("cml-a")).await.unwrap_err());
    assert_eq!(code, 6);
    assert!(text.contains("another runner has the name `cml-a`"), "{text}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_configuration_that_was_lost_leaves_no_registration_behind() {
    let server = Server::start().await;
    let labels = ["self-hosted", "Linux", "ARM64", "gpu"].map(|name| json!({ "name": name }));
    let ours = json!({ "id": 7, "name": "cml-a", "os": "linux", "status": "offline", "busy": false, "labels": labels });
    server.on(&post("generate-jitconfig"), [Reply::Reset, configuration()]);
    server.on(&get(""), [list(&[ours])]);
    server.on(&format!("DELETE {RUNNERS}/7"), [empty(204)]);
    train(&server).enroll(&single("cml-a")).await.unwrap();
    let (jit, delete) = (post("generate-jitconfig"), format!("DELETE {RUNNERS}/7"));
    assert_eq!(server.posts(), [jit.clone(), delete, jit]);
}

#[tokio::test]
async fn a_lost_answer_never_costs_another_its_registration() {
    for other in [runner(8, "cml-a", "online"), runner(8, "cml-a", "offline")] {
        let server = Server::start().await;
        server.on(&post("generate-jitconfig"), [Reply::Reset, refused(409, "Already exists")]);
        server.on(&get(""), [list(&[other])]);
        let (code, _) = report(&train(&server).enroll(&single("cml-a")).await.unwrap_err());
        assert_eq!((code, server.count(&format!("DELETE {RUNNERS}/8"))), (6, 0));
    }
}

#[tokio::test]
async fn answers_that_are_lost_for_ever_end() {
    let server = Server::start().await;
    server.on(&post("generate-jitconfig"), [Reply::Reset]);
    server.on(&get(""), [list(&[])]);
    let (code, text) = report(&train(&server).enroll(&single("cml-a")).await.unwrap_err());
    assert_eq!((code, server.posts().len()), (1, 3), "{text}");
}

#[tokio::test]
async fn unregistering_tells_removed_from_gone_and_busy() {
    let busy = "Bad request - Runner \"cml-a\" is still running a job\"";
    for (reply, removal) in [
        (empty(204), Removal::Removed),
        (refused(404, "Not Found"), Removal::Gone),
        (refused(422, busy), Removal::Busy(busy.into())),
    ] {
        let server = Server::start().await;
        server.on(&format!("DELETE {RUNNERS}/7"), [reply]);
        assert_eq!(train(&server).unregister(&RunnerId::from(7), When::Stopped).await.unwrap(), removal);
    }
    let server = Server::start().await;
    server.on(&format!("DELETE {RUNNERS}/7"), [refused(401, "Bad credentials")]);
    assert_eq!(
        report(&train(&server).unregister(&RunnerId::from(7), When::Stopped).await.unwrap_err()).0,
        3
    );
}

#[tokio::test]
async fn a_removal_whose_answer_was_lost_is_done() {
    let server = Server::start().await;
    server.on(&format!("DELETE {RUNNERS}/7"), [Reply::Reset, refused(404, "Not Found")]);
    assert_eq!(
        train(&server).unregister(&RunnerId::from(7), When::Stopped).await.unwrap(),
        Removal::Gone
    );
}

#[tokio::test]
async fn the_package_is_the_one_for_linux_and_the_platform() {
    let offer = |os: &str, architecture: &str| {
        json!({ "os": os, "architecture": architecture, "filename": "f",
            "download_url": format!("https://example.com/{os}-{architecture}.tar.gz") })
    };
    let mut ours = offer("linux", "arm64");
    ours["sha256_checksum"] = "ab12".into();
    ours["temp_download_token"] = "temporary".into();
    let server = Server::start().await;
    let all = json!([
        offer("osx", "x64"),
        offer("osx", "arm64"),
        offer("linux", "arm"),
        offer("linux", "x64"),
        ours
    ]);
    server.on(
        &get("/downloads"),
        [answer(200, &all), answer(200, &all), answer(200, &json!([offer("win", "x64")]))],
    );
    let github = train(&server);
    let package = github.package(Platform::Arm64).await.unwrap();
    assert_eq!(package.url.as_str(), "https://example.com/linux-arm64.tar.gz");
    assert_eq!(package.sha256.as_deref(), Some("ab12"));
    assert_eq!(package.token.unwrap().expose(), "temporary");
    let package = github.package(Platform::X64).await.unwrap();
    assert_eq!(
        (package.url.path(), package.sha256, package.token),
        ("/linux-x64.tar.gz", None, None)
    );
    let (_, text) = report(&github.package(Platform::X64).await.unwrap_err());
    assert!(text.contains("no runner for linux-x64") && text.contains("--runner-url"), "{text}");
}
