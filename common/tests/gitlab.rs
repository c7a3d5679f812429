//! The GitLab client against scripted servers: what it sends, and what it makes of every answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use common::error::{Class, Report};
use common::forge::gitlab::{GitLab, RunnerConfig};
use common::forge::{Enroll, Enrollment, Forge as _, Platform, RunnerId, Which};
use common::secret::Secret;
use scripted::{QUICK, Reply, Server, answer, empty, refused};
use serde_json::{Value, json};

const TOKEN: &str = "glpat-canary";
const API: &str = "/api/v4";
const RUNNERS: &str = "GET /api/v4/projects/21/runners";
const MAKE: &str = "POST /api/v4/user/runners";
const OLD_MAKE: &str = "POST /api/v4/runners";

fn open(server: &Server, page: &str) -> GitLab {
    let page = format!("{}/{page}", server.url).parse().unwrap();
    GitLab::new(&page, &Secret::new(TOKEN)).unwrap().with_retry(QUICK)
}

/// The project `octo/train`, on a server that knows it.
async fn train() -> (Server, GitLab) {
    let server = Server::start().await;
    let project = json!({ "id": 21, "path_with_namespace": "octo/train" });
    server.on("GET /api/v4/projects/octo%2Ftrain", [answer(200, &project)]);
    let gitlab = open(&server, "octo/train");
    (server, gitlab)
}

/// One whose status is not told with its job's, as before GitLab 18.
fn old_runner(id: u64, name: &str, status: &str) -> Value {
    json!({ "id": id, "description": name, "status": status, "runner_type": "project_type", "paused": false })
}

fn runner(id: u64, name: &str, status: &str, job: &str) -> Value {
    let mut runner = old_runner(id, name, status);
    runner["job_execution_status"] = job.into();
    runner
}

fn list(runners: &[Value]) -> Reply {
    answer(200, &json!(runners)).with("x-next-page", "")
}

fn made(id: u64) -> Reply {
    answer(201, &json!({ "id": id, "token": "glrt-canary", "token_expires_at": null }))
}

fn enroll(labels: &[&str]) -> Enroll {
    Enroll {
        name: "cml-a".into(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        single: true,
        platform: Platform::X64,
        containers: false,
    }
}

/// What the user reads; the token is in none of it.
fn report(error: &anyhow::Error) -> (i32, String) {
    let text = format!("{}\n{error:?}", Report(error));
    assert!(!text.contains("canary"), "{text}");
    (Report(error).class().exit_code(), Report(error).to_string())
}

fn config(enrollment: Enrollment) -> (RunnerId, RunnerConfig) {
    let Enrollment::Made { id, config } = enrollment else {
        panic!("not a registration");
    };
    (id, serde_json::from_str(config.expose()).unwrap())
}

#[tokio::test]
async fn access_is_checked_by_one_look_that_leaves_nothing_behind() {
    let (server, gitlab) = train().await;
    server.on(RUNNERS, [list(&[runner(1, "a", "online", "idle")]).with("x-next-page", "2")]);
    gitlab.check_access().await.unwrap();
    let requests = server.requests();
    assert_eq!(requests[1].query, "type=project_type&per_page=1&page=1");
    assert_eq!((requests.len(), server.posts().len()), (2, 0));
    for request in requests {
        assert_eq!(request.headers["authorization"], format!("Bearer {TOKEN}"));
        assert!(!request.headers.contains_key("private-token"));
    }
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let mut said = String::new();
    for refusal in [
        refused(401, "401 Unauthorized"),
        refused(403, "403 Forbidden"),
        answer(
            403,
            &json!({ "error": "insufficient_scope", "error_description": "more privileges", "scope": "api" }),
        ),
        refused(404, "404 Project Not Found"),
        answer(400, &json!({ "message": { "tag_list": ["is too long"] } })),
        empty(418),
    ] {
        let (server, gitlab) = train().await;
        server.on(RUNNERS, [refusal]);
        let (_, text) = report(&gitlab.check_access().await.unwrap_err());
        assert_eq!(server.count(RUNNERS), 1, "{text}");
        said += &text;
        said += "\n\n";
    }
    insta::assert_snapshot!(said, @r#"
    error: GitLab refused the token: 401 Unauthorized

    hint: it may have expired or been revoked: make a new one with the scope `api`, and at least the role Maintainer in the project

    error: GitLab does not let the token do this: 403 Forbidden

    hint: the token needs the scope `api`, and at least the role Maintainer in the project; a job's own CI_JOB_TOKEN can never register runners

    error: GitLab does not let the token do this: insufficient_scope

    hint: the token needs the scope `api`, and at least the role Maintainer in the project; a job's own CI_JOB_TOKEN can never register runners

    error: there is no project `octo/train`, or the token cannot see it

    hint: check `--repo`; the token needs the scope `api`, and at least the role Maintainer in the project

    error: GitLab answered 400: {"tag_list":["is too long"]}

    error: GitLab answered 418: 418 I'm a teapot
    "#);
}

#[tokio::test]
async fn the_name_is_refused_if_another_runner_has_it() {
    let (server, gitlab) = train().await;
    server.on(RUNNERS, [list(&[runner(1, "cml-a", "offline", "idle")])]);
    let (code, text) = report(&gitlab.enroll(&enroll(&["gpu"])).await.unwrap_err());
    assert_eq!((code, server.posts().len()), (Class::NameInUse.exit_code(), 0), "{text}");
}

#[tokio::test]
async fn a_registration_is_made_with_its_tags_and_its_token_goes_to_the_runner_only() {
    let (server, gitlab) = train().await;
    server.on(RUNNERS, [list(&[])]);
    server.on(MAKE, [made(5)]);
    let (id, config) = config(gitlab.enroll(&enroll(&["gpu", "cml"])).await.unwrap());
    assert_eq!((id, config.server), (RunnerId::from(5), server.url.clone()));
    assert_eq!(config.token.expose(), "glrt-canary");
    let body = json!({
        "runner_type": "project_type", "project_id": 21, "description": "cml-a", "tag_list": ["gpu", "cml"], "run_untagged": false,
        "locked": true,
    });
    assert_eq!(server.requests().pop().unwrap().body, body);
    gitlab.enroll(&enroll(&[])).await.unwrap();
    let body = server.requests().pop().unwrap().body;
    assert_eq!(
        (&body["tag_list"], &body["run_untagged"]),
        (&json!([]), &json!(true)),
        "without tags it would get no job at all"
    );
}

#[tokio::test]
async fn a_group_and_a_whole_gitlab_have_runners_of_their_own_kind() {
    let server = Server::start().await;
    let group = json!({ "id": 11, "full_path": "octo/team" });
    server.on("GET /api/v4/groups/octo%2Fteam", [answer(200, &group)]);
    server.on("GET /api/v4/version", [answer(200, &json!({ "version": "18.6.0" }))]);
    server.on("GET /api/v4/groups/11/runners", [list(&[])]);
    server.on("GET /api/v4/runners/all", [list(&[])]);
    server.on(MAKE, [made(5)]);
    open(&server, "octo/team").enroll(&enroll(&["gpu"])).await.unwrap();
    let of_group = server.requests().pop().unwrap().body;
    assert_eq!(
        (&of_group["runner_type"], &of_group["group_id"]),
        (&json!("group_type"), &json!(11))
    );
    assert!(of_group.get("project_id").is_none());
    open(&server, "").enroll(&enroll(&["gpu"])).await.unwrap();
    let requests = server.requests();
    let of_all = &requests[requests.len() - 1].body;
    assert_eq!(of_all["runner_type"], "instance_type");
    assert!(of_all.get("group_id").is_none() && of_all.get("project_id").is_none());
    assert_eq!(requests[requests.len() - 2].query, "type=instance_type&per_page=100&page=1");
}

#[tokio::test]
async fn a_registration_that_was_lost_is_deleted_and_made_again() {
    for lost in [Reply::Reset, Reply::CutShort, empty(502)] {
        let (server, gitlab) = train().await;
        let leftover = list(&[
            runner(5, "cml-a", "never_contacted", "idle"),
            runner(6, "cml-b", "never_contacted", "idle"),
        ]);
        server.on(RUNNERS, [list(&[]), leftover]);
        server.on(MAKE, [lost, made(7)]);
        server.on("DELETE /api/v4/runners/5", [empty(204)]);
        let (id, _) = config(gitlab.enroll(&enroll(&["gpu"])).await.unwrap());
        assert_eq!(id, RunnerId::from(7));
        assert_eq!(server.posts(), [MAKE, "DELETE /api/v4/runners/5", MAKE]);
    }
}

#[tokio::test]
async fn a_lost_answer_never_costs_another_its_registration() {
    let (server, gitlab) = train().await;
    let others = [runner(5, "cml-a", "online", "idle"), runner(6, "cml-a", "offline", "idle")];
    server.on(RUNNERS, [list(&[]), list(&others)]);
    server.on(MAKE, [Reply::Reset, made(7)]);
    gitlab.enroll(&enroll(&["gpu"])).await.unwrap();
    assert_eq!(server.posts(), [MAKE, MAKE]);
}

#[tokio::test]
async fn answers_that_are_lost_for_ever_end() {
    let (server, gitlab) = train().await;
    server.on(RUNNERS, [list(&[])]);
    server.on(MAKE, [Reply::Reset]);
    let (code, text) = report(&gitlab.enroll(&enroll(&["gpu"])).await.unwrap_err());
    assert_eq!((code, server.posts().len()), (1, 3), "{text}");
}

#[tokio::test]
async fn an_old_gitlab_makes_a_registration_with_the_projects_own_token() {
    let (server, gitlab) = train().await;
    server.on(RUNNERS, [list(&[])]);
    let project = json!({ "id": 21, "path_with_namespace": "octo/train", "runners_token": "GR1348941-canary" });
    server.on("GET /api/v4/projects/21", [answer(200, &project)]);
    server.on(OLD_MAKE, [made(5)]);
    let (id, config) = config(gitlab.enroll(&enroll(&["gpu"])).await.unwrap());
    assert_eq!((id, config.token.expose()), (RunnerId::from(5), "glrt-canary"));
    let asked = server.requests().pop().unwrap();
    assert_eq!(asked.line, OLD_MAKE);
    let (body, fields) = (asked.body, ["token", "description", "tag_list", "run_untagged"]);
    assert_eq!(
        fields.map(|field| body[field].clone()),
        [json!("GR1348941-canary"), json!("cml-a"), json!(["gpu"]), json!(false)]
    );
}

#[tokio::test]
async fn an_old_gitlab_that_does_not_let_it_says_so() {
    let gone = "410 Gone - runner registration disallowed";
    for (page, reply, class, expected) in [
        (json!({ "runners_token": "x" }), refused(410, gone), Class::Unexpected, gone),
        (json!({ "runners_token": null }), made(5), Class::Access, "Maintainer"),
    ] {
        let (server, gitlab) = train().await;
        server.on(RUNNERS, [list(&[])]);
        server.on("GET /api/v4/projects/21", [answer(200, &page)]);
        server.on(OLD_MAKE, [reply]);
        let (code, text) = report(&gitlab.enroll(&enroll(&["gpu"])).await.unwrap_err());
        assert_eq!(code, class.exit_code(), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn every_page_of_runners_is_read() {
    let (server, gitlab) = train().await;
    server.on(
        RUNNERS,
        [
            answer(200, &json!([runner(1, "a", "online", "active")])).with("x-next-page", 2),
            empty(502),
            answer(200, &json!([runner(2, "b", "stale", "idle"), old_runner(3, "c", "online")])).with("x-next-page", 3),
            answer(200, &json!([{ "id": 4, "description": null, "status": "never_contacted" }])),
        ],
    );
    let runners = gitlab.runners(Which::All).await.unwrap();
    let seen: Vec<_> = runners
        .iter()
        .map(|runner| (runner.id.clone(), runner.name.as_str(), runner.online, runner.busy))
        .collect();
    assert_eq!(
        seen,
        [
            (1.into(), "a", true, true),
            (2.into(), "b", false, false),
            (3.into(), "c", true, false),
            (4.into(), "", false, false)
        ]
    );
    let queries: Vec<_> = server.requests().into_iter().skip(1).map(|request| request.query).collect();
    let of = |number: u32| format!("type=project_type&per_page=100&page={number}");
    assert_eq!(queries, [of(1), of(2), of(2), of(3)]);
}

#[tokio::test]
async fn a_runner_is_found_by_its_exact_name() {
    let (server, gitlab) = train().await;
    server.on(
        RUNNERS,
        [list(&[runner(1, "gpu", "online", "idle"), runner(2, "gpu-2", "online", "idle")])],
    );
    let runners = gitlab.runners(Which::Named("gpu")).await.unwrap();
    assert_eq!(runners.len(), 1);
    assert_eq!(runners[0].id, RunnerId::from(1));
}

#[tokio::test]
async fn those_with_all_labels_are_the_servers_to_find_and_none_is_looked_at_where_it_tells_what_it_does() {
    let (server, gitlab) = train().await;
    let matching = [runner(1, "a", "online", "active"), runner(2, "b", "online", "idle")];
    let all = [
        &matching[..],
        &[runner(3, "cml-a", "offline", "idle"), runner(4, "c", "online", "idle")],
    ]
    .concat();
    server.on(RUNNERS, [list(&matching), list(&all)]);
    let labels = ["gpu".to_owned(), "cml".to_owned()];
    let runners = gitlab.runners(Which::Matching("cml-a", &labels)).await.unwrap();
    let seen: Vec<_> = runners
        .iter()
        .map(|runner| (runner.id.clone(), runner.busy, runner.has_labels(&labels)))
        .collect();
    assert_eq!(
        seen,
        [(1.into(), true, true), (2.into(), false, true), (3.into(), false, false)],
        "and the one of the name, which need not have them"
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[1].query, "type=project_type&tag_list=gpu%2Ccml&per_page=100&page=1");
}

#[tokio::test]
async fn an_old_gitlab_is_asked_about_each_matching_runner_that_is_online() {
    let (server, gitlab) = train().await;
    let matching = [
        old_runner(1, "a", "online"),
        old_runner(2, "b", "offline"),
        old_runner(3, "cml-a", "online"),
        old_runner(4, "d", "online"),
    ];
    server.on(RUNNERS, [list(&matching)]);
    server.on("GET /api/v4/runners/1/jobs", [answer(200, &json!([{ "id": 7 }]))]);
    server.on("GET /api/v4/runners/3/jobs", [answer(200, &json!([]))]);
    let labels = ["gpu".to_owned()];
    let runners = gitlab.runners(Which::Matching("cml-a", &labels)).await.unwrap();
    let busy: Vec<_> = runners.iter().map(|runner| runner.busy).collect();
    assert_eq!(busy, [true, false, false, false], "the last one is gone meanwhile");
    assert_eq!(server.requests().len(), 1 + 2 + 3);
    let look = server
        .requests()
        .into_iter()
        .find(|request| request.line.ends_with("/1/jobs"))
        .unwrap();
    assert_eq!(look.query, "status=running&per_page=1");
}

#[tokio::test]
async fn the_package_is_of_the_servers_version_or_the_latest() {
    const RELEASES: &str = "https://s3.dualstack.us-east-1.amazonaws.com/gitlab-runner-downloads";
    for (version, platform, file) in [
        (
            answer(200, &json!({ "version": "18.6.1-ee" })),
            Platform::X64,
            "v18.6.0/binaries/gitlab-runner-linux-amd64",
        ),
        (
            answer(200, &json!({ "version": "17.11.3" })),
            Platform::Arm64,
            "v17.11.0/binaries/gitlab-runner-linux-arm64",
        ),
        (
            answer(200, &json!({ "version": "18.7.0-pre" })),
            Platform::X64,
            "latest/binaries/gitlab-runner-linux-amd64",
        ),
        (
            answer(200, &json!({ "version": "?" })),
            Platform::X64,
            "latest/binaries/gitlab-runner-linux-amd64",
        ),
        (
            refused(403, "403 Forbidden"),
            Platform::Arm64,
            "latest/binaries/gitlab-runner-linux-arm64",
        ),
        (
            Reply::Answer(200, vec![], b"<html>".to_vec()),
            Platform::X64,
            "latest/binaries/gitlab-runner-linux-amd64",
        ),
    ] {
        let (server, gitlab) = train().await;
        server.on(&format!("GET {API}/version"), [version]);
        let package = gitlab.package(platform).await.unwrap();
        assert_eq!(package.url.as_str(), format!("{RELEASES}/{file}"));
        assert!(
            package.sha256.is_none() && package.token.is_none(),
            "its checksum is in a list beside it"
        );
    }
}
