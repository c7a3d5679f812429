//! The Bitbucket client against scripted servers: what it sends, and what it makes of every answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use common::error::{Class, Report};
use common::forge::bitbucket::{Bitbucket, RunnerConfig};
use common::forge::{Enroll, Enrollment, Forge as _, Platform, Removal, RunnerId, When, Which};
use common::secret::Secret;
use scripted::{QUICK, Reply, Server, answer, empty};
use serde_json::{Value, json};

const TOKEN: &str = "ATCTT3canary";
const TRAIN: &str = "/2.0/repositories/octo/train";
const RUNNERS: &str = "/2.0/repositories/octo/train/pipelines-config/runners";
const NOBODY: &str = "%7B00000000-0000-0000-0000-000000000000%7D";
const OURS: &str = "{7b54c4fa-0000-4000-8000-000000000001}";
const OURS_IN_PATH: &str = "%7B7b54c4fa-0000-4000-8000-000000000001%7D";

fn open_as(server: &Server, page: &str, token: &str) -> Bitbucket {
    let page = format!("{}/{page}", server.url).parse().unwrap();
    Bitbucket::new(&page, &Secret::new(token)).unwrap().with_retry(QUICK)
}

fn train(server: &Server) -> Bitbucket {
    open_as(server, "octo/train", TOKEN)
}

fn refused(status: u16, message: &str) -> Reply {
    answer(status, &json!({ "type": "error", "error": { "message": message } }))
}

fn runner(uuid: &str, name: &str, status: &str) -> Value {
    let state = json!({ "type": "pipeline_runner_state", "status": status, "cordoned": false, "updated_on": "2026-01-01T00:00:00Z" });
    json!({ "type": "pipeline_runner", "uuid": uuid, "name": name, "labels": ["self.hosted", "linux.shell", "gpu"], "state": state })
}

fn with_state(mut runner: Value, name: &str, value: Value) -> Value {
    runner["state"][name] = value;
    runner
}

fn page(runners: &[Value], next: Option<&str>) -> Reply {
    let mut page = json!({ "page": 1, "pagelen": 100, "size": runners.len(), "values": runners });
    if let Some(next) = next {
        page["next"] = next.into();
    }
    answer(200, &page)
}

/// A server that knows the repository and has these runners.
async fn world(runners: &[Value]) -> Server {
    let server = Server::start().await;
    let repository = json!({ "uuid": "{repository}", "full_name": "octo/train", "workspace": { "uuid": "{workspace}", "slug": "octo" } });
    server.on(&format!("GET {TRAIN}"), [answer(200, &repository)]);
    server.on(&format!("GET {RUNNERS}"), [page(runners, None)]);
    server
}

/// What the user reads; the token is in none of it.
fn report(error: &anyhow::Error) -> (i32, String) {
    let text = format!("{}\n{error:?}", Report(error));
    assert!(!text.contains("canary"), "{text}");
    (Report(error).class().exit_code(), Report(error).to_string())
}

fn enroll(labels: &[&str]) -> Enroll {
    Enroll {
        name: "cml-a".into(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        single: false,
        platform: Platform::X64,
        containers: false,
    }
}

fn made() -> Reply {
    let mut runner = runner(OURS, "cml-a", "UNREGISTERED");
    runner["oauth_client"] =
        json!({ "id": "client", "secret": "client-secret", "token_endpoint": "https://auth.example.com", "audience": "a" });
    answer(201, &runner)
}

#[tokio::test]
async fn access_is_checked_by_deleting_what_is_not_there() {
    for (token, authorization) in [
        (TOKEN, format!("Bearer {TOKEN}")),
        // me@example.com:canary
        ("me@example.com:canary", "Basic bWVAZXhhbXBsZS5jb206Y2FuYXJ5".to_owned()),
    ] {
        let server = world(&[]).await;
        open_as(&server, "octo/train", token).check_access().await.unwrap();
        let requests = server.requests();
        assert!(requests.iter().all(|request| request.headers["authorization"] == authorization));
        assert_eq!(server.posts(), [format!("DELETE {RUNNERS}/{NOBODY}")]);
    }
}

#[tokio::test]
async fn a_workspace_has_runners_too() {
    let server = Server::start().await;
    server.on(
        "GET /2.0/workspaces/octo",
        [answer(200, &json!({ "uuid": "{workspace}", "slug": "octo" }))],
    );
    let runners = "/2.0/workspaces/octo/pipelines-config/runners";
    server.on(&format!("GET {runners}"), [page(&[], None)]);
    server.on(&format!("POST {runners}"), [made()]);
    let octo = open_as(&server, "octo", TOKEN);
    octo.check_access().await.unwrap();
    let Enrollment::Made { config, .. } = octo.enroll(&enroll(&[])).await.unwrap() else {
        panic!("not made");
    };
    let config: RunnerConfig = serde_json::from_str(config.expose()).unwrap();
    assert_eq!((config.account_uuid.as_str(), config.repository_uuid), ("{workspace}", None));
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let lacking = json!({ "type": "error", "error": { "message": "Your credentials lack one or more required privilege scopes.",
        "detail": { "granted": ["runner"], "required": ["runner:write"] } } });
    let delete = format!("DELETE {RUNNERS}/{NOBODY}");
    let mut said = String::new();
    for (line, refusal) in [
        (format!("GET {TRAIN}"), empty(401)),
        (format!("GET {TRAIN}"), refused(404, "Repository octo/train not found")),
        (delete, answer(403, &lacking)),
        (format!("GET {RUNNERS}"), refused(400, "Pipelines are not enabled")),
    ] {
        let server = world(&[]).await;
        server.on(&line, [refusal]);
        let (_, text) = report(&train(&server).check_access().await.unwrap_err());
        said += &text;
        said += "\n\n";
    }
    insta::assert_snapshot!(said, @r#"
    error: Bitbucket refused the token: 401 Unauthorized

    hint: an API token is given as `EMAIL:TOKEN`, an access token as it is (app passwords have ended); it needs the scopes `read:repository:bitbucket`, `read:runner:bitbucket` and `write:runner:bitbucket` (API token) or `repository`, `runner` and `runner:write` (access token), and its owner the administration of the repository

    error: there is no repository `octo/train`, or the token cannot see it

    hint: check `--repo`; the token needs the scopes `read:repository:bitbucket`, `read:runner:bitbucket` and `write:runner:bitbucket` (API token) or `repository`, `runner` and `runner:write` (access token), and its owner the administration of the repository

    error: Bitbucket does not let the token do this: Your credentials lack one or more required privilege scopes.

    hint: the token has the scopes [runner], and this takes [runner:write]: it needs the scopes `read:repository:bitbucket`, `read:runner:bitbucket` and `write:runner:bitbucket` (API token) or `repository`, `runner` and `runner:write` (access token), and its owner the administration of the repository

    error: Bitbucket answered 400: Pipelines are not enabled
    "#);
}

#[test]
fn a_token_with_a_line_break_is_refused_without_showing_it() {
    let page = "https://bitbucket.org/octo/train".parse().unwrap();
    let error = Bitbucket::new(&page, &Secret::new(format!("{TOKEN}\nx"))).err().unwrap();
    assert_eq!(report(&error).0, Class::Usage.exit_code());
}

#[tokio::test]
async fn every_page_of_runners_is_read_and_each_is_understood() {
    let server = Server::start().await;
    let next = format!("{}{RUNNERS}?page=2&pagelen=100", server.url);
    let busy = with_state(runner("{2}", "b", "ONLINE"), "step", json!({ "uuid": "{step}" }));
    server.on(
        &format!("GET {RUNNERS}"),
        [
            page(&[runner("{1}", "a", "ONLINE"), busy], Some(&next)),
            empty(502),
            page(
                &[
                    with_state(runner("{3}", "c", "ONLINE"), "cordoned", json!(true)),
                    runner("{4}", "d", "UNREGISTERED"),
                ],
                None,
            ),
        ],
    );
    let runners = train(&server).runners(Which::All).await.unwrap();
    let seen: Vec<_> = runners
        .iter()
        .map(|runner| (runner.id.to_string(), runner.name.as_str(), runner.online, runner.busy))
        .collect();
    assert_eq!(
        seen,
        [
            ("{1}".to_owned(), "a", true, false),
            ("{2}".to_owned(), "b", true, true),
            ("{3}".to_owned(), "c", false, false),
            ("{4}".to_owned(), "d", false, false)
        ]
    );
    let queries: Vec<_> = server.requests().into_iter().map(|request| request.query).collect();
    assert_eq!(queries, ["pagelen=100", "page=2&pagelen=100", "page=2&pagelen=100"]);
}

#[tokio::test]
async fn a_list_that_goes_on_elsewhere_is_not_followed() {
    let server = Server::start().await;
    let elsewhere = Server::start().await;
    for next in [
        format!("{}{RUNNERS}?page=2", elsewhere.url),
        format!("{}/2.0.example.com/", server.url),
    ] {
        server.on(&format!("GET {RUNNERS}"), [page(&[], Some(&next))]);
        report(&train(&server).runners(Which::All).await.unwrap_err());
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_runner_is_made_with_bitbuckets_own_labels_and_what_it_is_configured_with() {
    for (containers, place) in [(false, "linux.shell"), (true, "linux")] {
        let server = world(&[runner("{other}", "other", "ONLINE")]).await;
        server.on(&format!("POST {RUNNERS}"), [made()]);
        let labels = enroll(&["cml", "gpu.a10"]);
        let Enrollment::Made { id, config } = train(&server).enroll(&Enroll { containers, ..labels }).await.unwrap() else {
            panic!("not made");
        };
        assert_eq!(id, RunnerId::from(OURS.to_owned()));
        let expected = RunnerConfig {
            account_uuid: "{workspace}".into(),
            repository_uuid: Some("{repository}".into()),
            runner_uuid: OURS.into(),
            oauth_client_id: "client".into(),
            oauth_client_secret: Secret::new("client-secret"),
            containers,
        };
        assert_eq!(serde_json::from_str::<RunnerConfig>(config.expose()).unwrap(), expected);
        let all = server.requests();
        let post = all.iter().find(|request| request.line.starts_with("POST")).unwrap();
        let body = json!({ "name": "cml-a", "labels": ["self.hosted", place, "cml", "gpu.a10"] });
        assert_eq!(post.body, body);
    }
}

#[tokio::test]
async fn an_illegal_label_is_refused_before_anything_is_asked() {
    let server = world(&[]).await;
    let (code, text) = report(&train(&server).enroll(&enroll(&["cml", "GPU"])).await.unwrap_err());
    assert!(code == 2 && text.contains("`GPU`"), "{text}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_name_in_use_has_a_class_of_its_own() {
    for status in ["ONLINE", "OFFLINE", "UNREGISTERED"] {
        let server = world(&[runner("{other}", "cml-a", status)]).await;
        let (code, text) = report(&train(&server).enroll(&enroll(&[])).await.unwrap_err());
        assert!(code == 6 && text.contains("another runner has the name `cml-a`"), "{text}");
        assert_eq!(server.posts(), [""; 0]);
    }
}

#[tokio::test]
async fn a_secret_that_was_lost_leaves_no_registration_behind() {
    let server = world(&[]).await;
    let one_that_works = runner("{other}", "cml-a", "ONLINE");
    server.on(
        &format!("GET {RUNNERS}"),
        [
            page(&[], None),
            page(&[runner(OURS, "cml-a", "UNREGISTERED"), one_that_works], None),
        ],
    );
    server.on(&format!("POST {RUNNERS}"), [Reply::Reset, made()]);
    let delete = format!("DELETE {RUNNERS}/{OURS_IN_PATH}");
    server.on(&delete, [empty(204)]);
    train(&server).enroll(&enroll(&[])).await.unwrap();
    let post = format!("POST {RUNNERS}");
    assert_eq!(server.posts(), [post.clone(), delete, post]);
}

#[tokio::test]
async fn answers_that_are_lost_for_ever_end() {
    let server = world(&[]).await;
    server.on(&format!("POST {RUNNERS}"), [Reply::Reset]);
    let (code, text) = report(&train(&server).enroll(&enroll(&[])).await.unwrap_err());
    assert_eq!((code, server.posts().len()), (1, 3), "{text}");
}

fn ours() -> Value {
    runner(OURS, "cml-a", "ONLINE")
}

#[tokio::test]
async fn an_idle_runner_is_cordoned_before_it_goes() {
    let server = Server::start().await;
    let path = format!("{RUNNERS}/{OURS_IN_PATH}");
    server.on(&format!("GET {path}"), [answer(200, &ours())]);
    server.on(&format!("PUT {path}"), [answer(200, &ours())]);
    server.on(&format!("DELETE {path}"), [empty(204)]);
    let removal = train(&server).unregister(&OURS.to_owned().into(), When::Idle).await.unwrap();
    assert_eq!(removal, Removal::Removed);
    assert_eq!(server.posts(), [format!("PUT {path}"), format!("DELETE {path}")]);
    let put = &server.requests()[1];
    let body = json!({ "name": "cml-a", "labels": ["self.hosted", "linux.shell", "gpu"], "state": { "cordoned": true } });
    assert_eq!(put.body, body);
}

#[tokio::test]
async fn one_that_has_a_step_stays_and_takes_steps_again() {
    let server = Server::start().await;
    let path = format!("{RUNNERS}/{OURS_IN_PATH}");
    // The step came in before the cordon, and into view after it.
    let busy = with_state(ours(), "step", json!({ "uuid": "{step}" }));
    server.on(&format!("GET {path}"), [answer(200, &ours()), answer(200, &busy)]);
    server.on(&format!("PUT {path}"), [answer(200, &ours())]);
    let removal = train(&server).unregister(&OURS.to_owned().into(), When::Idle).await.unwrap();
    assert!(matches!(removal, Removal::Busy(_)), "{removal:?}");
    let cordons: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|request| request.line.starts_with("PUT"))
        .collect();
    let cordons: Vec<_> = cordons
        .iter()
        .map(|request| request.body["state"]["cordoned"].as_bool().unwrap())
        .collect();
    assert_eq!(cordons, [true, false]);
    assert_eq!(server.count(&format!("DELETE {path}")), 0);
}

#[tokio::test]
async fn one_is_not_left_cordoned_by_who_waits_no_longer() {
    let server = Server::start().await;
    let path = format!("{RUNNERS}/{OURS_IN_PATH}");
    let busy = with_state(ours(), "step", json!({ "uuid": "{step}" }));
    server.on(&format!("GET {path}"), [answer(200, &busy)]);
    server.on(&format!("PUT {path}"), [answer(200, &busy)]);
    let (train, id) = (train(&server), OURS.to_owned().into());
    tokio::select! {
        biased;
        _ = train.unregister(&id, When::Idle) => panic!("answered at once"),
        () = std::future::ready(()) => {}
    }
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.posts().len() < 2 && std::time::Instant::now() < patience {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let last = server
        .requests()
        .into_iter()
        .rfind(|request| request.line.starts_with("PUT"))
        .unwrap();
    assert_eq!(last.body["state"]["cordoned"], false);
}

#[tokio::test]
async fn one_that_cannot_be_cordoned_goes_all_the_same_if_it_has_no_step() {
    let server = Server::start().await;
    let path = format!("{RUNNERS}/{OURS_IN_PATH}");
    server.on(&format!("GET {path}"), [answer(200, &ours())]);
    server.on(&format!("PUT {path}"), [refused(400, "Bad request")]);
    server.on(&format!("DELETE {path}"), [empty(204)]);
    let removal = train(&server).unregister(&OURS.to_owned().into(), When::Idle).await.unwrap();
    assert_eq!(removal, Removal::Removed);
    server.on(&format!("PUT {path}"), [refused(403, "Forbidden")]);
    assert_eq!(
        report(&train(&server).unregister(&OURS.to_owned().into(), When::Idle).await.unwrap_err()).0,
        3
    );
}

#[tokio::test]
async fn a_stopped_runner_is_deleted_and_gone_is_gone() {
    let path = format!("{RUNNERS}/{OURS_IN_PATH}");
    for (reply, when, removal) in [
        (empty(204), When::Stopped, Removal::Removed),
        (refused(404, "Not Found"), When::Stopped, Removal::Gone),
        (refused(404, "Not Found"), When::Idle, Removal::Gone),
    ] {
        let server = Server::start().await;
        server.on(&format!("DELETE {path}"), [reply]);
        assert_eq!(train(&server).unregister(&OURS.to_owned().into(), when).await.unwrap(), removal);
    }
    let server = Server::start().await;
    server.on(&format!("DELETE {path}"), [empty(401)]);
    assert_eq!(
        report(&train(&server).unregister(&OURS.to_owned().into(), When::Stopped).await.unwrap_err()).0,
        3
    );
}

#[tokio::test]
async fn the_package_is_the_pinned_one_for_every_processor() {
    let server = Server::start().await;
    for platform in [Platform::X64, Platform::Arm64] {
        let package = train(&server).package(platform).await.unwrap();
        let path = package.url.path();
        assert!(
            path.contains("/atlassian-bitbucket-pipelines-runner-") && path.ends_with(".tar.gz"),
            "{path}"
        );
    }
    assert!(server.requests().is_empty());
}
