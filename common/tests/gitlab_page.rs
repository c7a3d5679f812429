//! What a page on a GitLab is, and that its token goes nowhere else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use common::error::{Class, Report};
use common::forge::gitlab::{GitLab, RunnerConfig};
use common::forge::{Enroll, Enrollment, Forge as _, Platform};
use common::secret::Secret;
use scripted::{QUICK, Reply, Server, answer, empty, refused};
use serde_json::json;

const TOKEN: &str = "glpat-canary";
const MAKE: &str = "/api/v4/user/runners";

fn open(server: &Server, page: &str) -> GitLab {
    let page = format!("{}/{page}", server.url).parse().unwrap();
    GitLab::new(&page, &Secret::new(TOKEN)).unwrap().with_retry(QUICK)
}

/// How servers answer what they do not know: GitLab itself, one that shows people a page, one that sends them to a login page, which asks
/// for a password, and one that lets nobody in.
fn strangers() -> [Reply; 6] {
    let html = |status: u16| Reply::Answer(status, vec![("content-type", "text/html".into())], b"<html>Sign in</html>".to_vec());
    [
        refused(404, "404 Not Found"),
        html(200),
        html(404),
        html(403),
        html(401),
        empty(302).with("location", "/users/sign_in"),
    ]
}

/// Answers as a GitLab below `prefix` that has the project `octo/train`, the groups `octo` and `octo/team`, and these alone.
fn knows(server: &Server, prefix: &str) {
    let api = format!("{prefix}/api/v4");
    let on = |path: &str, reply: Reply| server.on(&format!("GET {api}{path}"), [reply]);
    let project = json!({ "id": 21, "path_with_namespace": "octo/train", "full_path_of_nothing": 1 });
    on("/projects/octo%2Ftrain", answer(200, &project));
    for (id, path) in [(11, "octo"), (12, "octo/team")] {
        let group = json!({ "id": id, "full_path": path, "path": "team" });
        on(&format!("/groups/{}", path.replace('/', "%2F")), answer(200, &group));
    }
    on("/version", answer(200, &json!({ "version": "18.6.0", "revision": "0" })));
    for list in ["/projects/21/runners", "/groups/11/runners", "/groups/12/runners", "/runners/all"] {
        on(list, answer(200, &json!([])));
    }
    let made = json!({ "id": 5, "token": "glrt-canary" });
    server.on(&format!("POST {prefix}{MAKE}"), [answer(201, &made)]);
}

fn enroll() -> Enroll {
    Enroll {
        name: "cml-a".into(),
        labels: vec!["gpu".into()],
        single: false,
        platform: Platform::X64,
        containers: false,
    }
}

#[tokio::test]
async fn the_server_says_what_a_page_is_wherever_it_lives() {
    for (number, stranger) in strangers().into_iter().enumerate() {
        for prefix in ["", "/gitlab", "/tools/gitlab"] {
            for (page, kind) in [
                ("/octo/train", "project_type"),
                ("/octo/train/", "project_type"),
                ("/octo", "group_type"),
                ("/octo/team", "group_type"),
                ("", "instance_type"),
                ("/", "instance_type"),
            ] {
                let server = Server::start().await;
                server.otherwise(stranger.clone());
                server.on("GET /users/sign_in", [Reply::Answer(200, vec![], b"<html>".to_vec())]);
                knows(&server, prefix);
                let gitlab = open(&server, format!("{prefix}{page}").trim_start_matches('/'));
                let Enrollment::Made { config, .. } = gitlab.enroll(&enroll()).await.unwrap() else {
                    panic!("not a registration");
                };
                let config: RunnerConfig = serde_json::from_str(config.expose()).unwrap();
                assert_eq!(
                    config.server,
                    format!("{}{prefix}", server.url),
                    "stranger {number}: {prefix}{page}"
                );
                let asked = server.requests().pop().unwrap();
                assert_eq!(asked.line, format!("POST {prefix}{MAKE}"));
                assert_eq!(asked.body["runner_type"], kind, "stranger {number}: {prefix}{page}");
            }
        }
    }
}

#[tokio::test]
async fn the_server_is_asked_once_what_a_page_is() {
    let server = Server::start().await;
    knows(&server, "");
    let gitlab = open(&server, "octo/train");
    gitlab.check_access().await.unwrap();
    gitlab.check_access().await.unwrap();
    assert_eq!(server.count("GET /api/v4/projects/octo%2Ftrain"), 1);
}

#[tokio::test]
async fn a_page_that_is_nothing_is_refused_with_a_hint() {
    for (stranger, said) in strangers().into_iter().zip([
        "there is no project or group",
        "there is no project or group",
        "there is no project or group",
        "403 Forbidden",
        "401 Unauthorized",
        "there is no project or group",
    ]) {
        let server = Server::start().await;
        server.otherwise(stranger);
        server.on("GET /users/sign_in", [Reply::Answer(200, vec![], b"<html>".to_vec())]);
        let error = open(&server, "octo/nothing").check_access().await.unwrap_err();
        let text = Report(&error).to_string();
        assert_eq!(Report(&error).class(), Class::Access, "{text}");
        assert!(
            text.contains(said) && text.contains("the scope `api`") && !text.contains(TOKEN),
            "{text}"
        );
    }
}

#[tokio::test]
async fn gitlabs_own_refusal_ends_the_search() {
    for refusal in [
        refused(401, "401 Unauthorized"),
        answer(
            401,
            &json!({ "error": "invalid_token", "error_description": "Token was revoked. You have to re-authorize from the user." }),
        ),
        answer(403, &json!({ "error": "insufficient_scope", "scope": "api read_api" })),
    ] {
        let server = Server::start().await;
        server.otherwise(refusal);
        let error = open(&server, "octo/train").check_access().await.unwrap_err();
        assert_eq!(Report(&error).class(), Class::Access);
        assert_eq!(server.requests().len(), 1, "{error:#}");
    }
}

#[test]
fn a_token_is_never_sent_in_clear() {
    let token = Secret::new(TOKEN);
    for page in [
        "http://gitlab.example.com/octo/train",
        "http://127.0.0.1.example.com/octo",
        "http://10.0.0.1/octo",
        "ftp://gitlab.example.com/octo",
        "http://user:secret@gitlab.example.com/octo",
    ] {
        let error = GitLab::new(&page.parse().unwrap(), &token).err().unwrap();
        let text = Report(&error).to_string();
        assert_eq!(Report(&error).class(), Class::Usage, "{text}");
        assert!(
            text.contains("use https") && !text.contains("secret") && !text.contains(TOKEN),
            "{text}"
        );
    }
    for page in [
        "https://gitlab.example.com/octo",
        "http://127.0.0.1:1/octo",
        "http://[::1]/octo",
        "http://localhost/octo",
    ] {
        assert!(GitLab::new(&page.parse().unwrap(), &token).is_ok(), "{page}");
    }
    let page = "https://gitlab.com/octo/train".parse().unwrap();
    let error = GitLab::new(&page, &Secret::new(format!("{TOKEN}\nx"))).err().unwrap();
    assert_eq!(Report(&error).class(), Class::Usage);
    assert!(!format!("{error:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_token_does_not_follow_to_another_host() {
    let (server, other) = (Server::start().await, Server::start().await);
    server.otherwise(empty(302).with("location", format!("{}/elsewhere", other.url)));
    other.otherwise(Reply::Answer(200, vec![], b"<html>".to_vec()));
    open(&server, "octo/train").check_access().await.unwrap_err();
    let followed = other.requests();
    assert!(!followed.is_empty());
    for request in followed {
        let sent = format!("{:?} {}", request.headers, request.query);
        assert!(!sent.contains(TOKEN), "{sent}");
    }
}
