//! Removing a runner of GitLab. It may have just got a job: GitLab does not refuse that, so that the order of the requests must see to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use common::error::{Class, Report};
use common::forge::gitlab::GitLab;
use common::forge::{Forge as _, Removal, When};
use common::secret::Secret;
use scripted::{QUICK, Reply, Server, answer, empty, refused};
use serde_json::json;

const PAUSE: &str = "PUT /api/v4/runners/7";
const LOOK: &str = "GET /api/v4/runners/7/jobs";
const DELETE: &str = "DELETE /api/v4/runners/7";

/// A server that knows the runner, whose look at its jobs and whose removal are answered like this.
async fn asked(look: Reply, delete: Reply) -> Server {
    let server = Server::start().await;
    let project = json!({ "id": 21, "path_with_namespace": "octo/train" });
    server.on("GET /api/v4/projects/octo%2Ftrain", [answer(200, &project)]);
    server.on(PAUSE, [answer(200, &json!({ "id": 7 }))]);
    server.on(LOOK, [look]);
    server.on(DELETE, [delete]);
    server
}

async fn remove(server: &Server) -> anyhow::Result<Removal> {
    unregister(server, When::Idle).await
}

async fn unregister(server: &Server, when: When) -> anyhow::Result<Removal> {
    let page = format!("{}/octo/train", server.url).parse().unwrap();
    let gitlab = GitLab::new(&page, &Secret::new("glpat-canary")).unwrap().with_retry(QUICK);
    gitlab.unregister(&7.into(), when).await
}

/// What was asked after the page was known, in order.
fn order(server: &Server) -> Vec<String> {
    let requests = server.requests().into_iter().skip(1);
    requests
        .map(|request| match request.body.get("paused") {
            Some(paused) => format!("{} {paused}", request.line),
            None => request.line,
        })
        .collect()
}

fn idle() -> Reply {
    answer(200, &json!([]))
}

fn busy() -> Reply {
    answer(200, &json!([{ "id": 41, "status": "running" }]))
}

fn paused(paused: bool) -> String {
    format!("{PAUSE} {paused}")
}

#[tokio::test]
async fn an_idle_runner_is_paused_before_anybody_looks_so_that_no_job_comes_in_between() {
    let server = asked(idle(), empty(204)).await;
    assert_eq!(remove(&server).await.unwrap(), Removal::Removed);
    assert_eq!(order(&server), [&paused(true), LOOK, DELETE]);
    assert_eq!(server.requests()[2].query, "status=running&per_page=1");
}

#[tokio::test]
async fn a_runner_with_a_job_stays_and_gets_jobs_again() {
    let server = asked(busy(), empty(204)).await;
    assert!(matches!(remove(&server).await.unwrap(), Removal::Busy(_)));
    assert_eq!(order(&server), [&paused(true), LOOK, &paused(false)]);
}

#[tokio::test]
async fn a_runner_that_is_gone_is_gone_whenever_that_is_seen() {
    let gone = || refused(404, "404 Runner Not Found");
    let server = asked(idle(), gone()).await;
    assert_eq!(remove(&server).await.unwrap(), Removal::Gone);
    let server = asked(gone(), empty(204)).await;
    assert_eq!(remove(&server).await.unwrap(), Removal::Gone);
    assert_eq!(order(&server), [&paused(true), LOOK]);
    let server = asked(idle(), empty(204)).await;
    server.on(PAUSE, [gone()]);
    assert_eq!(remove(&server).await.unwrap(), Removal::Gone);
    assert_eq!(order(&server), [paused(true)]);
}

#[tokio::test]
async fn a_runner_that_stays_for_any_other_reason_gets_jobs_again_too() {
    let forbidden = || refused(403, "403 Forbidden");
    let server = asked(forbidden(), empty(204)).await;
    remove(&server).await.unwrap_err();
    assert_eq!(order(&server), [&paused(true), LOOK, &paused(false)]);
    let server = asked(idle(), forbidden()).await;
    remove(&server).await.unwrap_err();
    assert_eq!(order(&server), [&paused(true), LOOK, DELETE, &paused(false)]);
    let server = asked(idle(), empty(204)).await;
    server.on(PAUSE, [forbidden()]);
    remove(&server).await.unwrap_err();
    assert_eq!(order(&server), [paused(true)], "it never was paused");
}

#[tokio::test]
async fn a_runner_that_cannot_be_told_to_go_on_is_busy_all_the_same() {
    let server = asked(busy(), empty(204)).await;
    server.on(PAUSE, [answer(200, &json!({ "id": 7 })), refused(403, "403 Forbidden")]);
    assert!(matches!(remove(&server).await.unwrap(), Removal::Busy(_)));
}

#[tokio::test]
async fn a_runner_that_has_stopped_is_removed_at_once() {
    for (reply, removal) in [
        (empty(204), Removal::Removed),
        (refused(404, "404 Runner Not Found"), Removal::Gone),
    ] {
        let server = asked(busy(), empty(204)).await;
        server.on(DELETE, [Reply::Reset, reply]);
        assert_eq!(unregister(&server, When::Stopped).await.unwrap(), removal);
        assert_eq!(order(&server), [DELETE, DELETE]);
    }
    let shared = "403 Forbidden - Runner associated with more than one project";
    let server = asked(idle(), refused(403, shared)).await;
    let error = unregister(&server, When::Stopped).await.unwrap_err();
    assert_eq!(Report(&error).class(), Class::Access);
    assert!(format!("{error:#}").contains(shared), "{error:#}");
}

#[tokio::test]
async fn a_runner_is_not_left_paused_by_who_waits_no_longer() {
    let server = asked(busy(), empty(204)).await;
    tokio::select! {
        biased;
        _ = remove(&server) => panic!("answered at once"),
        () = std::future::ready(()) => {}
    }
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.count(PAUSE) < 2 && std::time::Instant::now() < patience {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(order(&server), [&paused(true), LOOK, &paused(false)]);
}
