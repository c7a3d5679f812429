//! Running a job again that had begun, but had not told yet which one it is: GitHub is asked, and only the right one is run again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::time::Duration;

use common::forge::{Declined, Interrupted, Rerun, RerunOutcome, RerunScope};
use scripted::run::{ACTIONS, World, failed, request};
use scripted::{Reply, answer, empty};
use serde_json::{Value, json};

/// GitHub's clock, in both of its forms: the job was heard of two minutes before.
const NOW: &str = "Thu, 01 Jan 2026 12:00:00 GMT";
const BEGAN: &str = "2026-01-01T11:57:59Z";
const LONG_AGO: &str = "2026-01-01T11:40:00Z";
const ENDED_BEFORE: &str = "2026-01-01T11:57:50Z";
const ENDED: &str = "2026-01-01T11:59:58Z";

/// A job of our runner that was heard of two minutes ago.
fn begun() -> Rerun {
    Rerun {
        job: Interrupted::Begun {
            name: Some("train (1)".into()),
            age: Duration::from_mins(2),
        },
        patience: Duration::ZERO,
        ..request()
    }
}

fn job(run: u64, name: &str, runner: &str, completed: Option<&str>) -> Value {
    json!({ "id": run, "run_id": run, "run_attempt": 1, "name": name, "runner_name": runner, "status": "completed", "conclusion": "failure",
        "started_at": BEGAN, "completed_at": completed })
}

fn listed(id: u64, status: &str, updated: &str) -> Value {
    json!({ "id": id, "status": status, "updated_at": updated })
}

fn runs(runs: &[Value]) -> Reply {
    let body = json!({ "total_count": runs.len(), "workflow_runs": runs });
    Reply::Answer(200, vec![("date", NOW.into())], body.to_string().into_bytes())
}

/// A world in which run 42 had this job, and others had others.
async fn world(ours: Value) -> World {
    let world = World::new([failed()], &[ours]).await.on("runs/42/rerun-failed-jobs", [empty(201)]);
    let all = [
        listed(44, "completed", LONG_AGO),
        listed(43, "in_progress", LONG_AGO),
        listed(42, "completed", "2026-01-01T11:59:55Z"),
    ];
    world.server.on(&format!("GET {ACTIONS}/runs"), [runs(&all)]);
    let mut earlier = job(43, "train (2)", "cml-a", Some(ENDED));
    earlier["started_at"] = json!(LONG_AGO);
    let others = [
        job(43, "train (1)", "other", None),
        earlier,
        job(43, "train (1)", "cml-a", Some(ENDED_BEFORE)),
    ];
    let others = json!({ "total_count": others.len(), "jobs": others });
    world.server.on(&format!("GET {ACTIONS}/runs/43/jobs"), [answer(200, &others)]);
    world
}

#[tokio::test]
async fn the_job_that_our_runner_began_then_is_run_again() {
    let world = world(job(42, "train (1)", "cml-a", Some(ENDED))).await;
    assert_eq!(
        world.rerun(&begun()).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
    assert_eq!(world.posts(), ["runs/42/rerun-failed-jobs"]);
    assert_eq!(
        world.server.count(&format!("GET {ACTIONS}/runs/44/jobs")),
        0,
        "it had ended before ours began"
    );
}

#[tokio::test]
async fn another_job_is_not() {
    for other in [
        job(42, "train (2)", "cml-a", None),
        job(42, "train (1)", "cml-b", None),
        job(42, "train (1)", "cml-a", Some(ENDED_BEFORE)),
    ] {
        let world = world(other.clone()).await;
        let outcome = world.rerun(&begun()).await.unwrap();
        assert_eq!(outcome, RerunOutcome::Declined(Declined::Unknown), "{other}");
        assert_eq!(world.posts(), [""; 0]);
    }
}

#[tokio::test]
async fn one_without_a_name_is_found_by_its_runner_and_its_time() {
    let world = world(job(42, "train (1)", "cml-a", None)).await;
    let unnamed = Rerun {
        job: Interrupted::Begun {
            name: None,
            age: Duration::from_mins(2),
        },
        ..begun()
    };
    // Of the two that are not excluded the later one.
    assert_eq!(
        world.rerun(&unnamed).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
}

#[tokio::test]
async fn it_is_looked_for_until_github_tells_of_it() {
    let world = world(job(42, "train (1)", "cml-a", Some(ENDED))).await;
    world.server.on(
        &format!("GET {ACTIONS}/runs"),
        [runs(&[]), runs(&[]), runs(&[listed(42, "completed", BEGAN)])],
    );
    let patient = Rerun {
        patience: Duration::from_secs(10),
        ..begun()
    };
    assert_eq!(
        world.rerun(&patient).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
}

#[tokio::test]
async fn an_organisation_has_no_list_of_runs() {
    let world = world(job(42, "train (1)", "cml-a", Some(ENDED))).await;
    let error = world.of("octo", &begun()).await.unwrap_err();
    assert!(format!("{error:#}").contains("organisation `octo`"), "{error:#}");
    assert!(world.server.requests().is_empty());
}
