//! What GitLab's runners say to the sandbox's GitLab, by plain HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod lab;

use std::time::Duration;

use lab::{Lab, PROJECT, job};
use sandbox::ci::JobSpec;
use sandbox::gitlab::Options;
use serde_json::{Value, json};

const NULL: Value = Value::Null;

/// One that does not wait for long.
async fn quick() -> Lab {
    Lab::with(Options {
        poll: Duration::from_millis(50),
        ..Options::default()
    })
    .await
}

fn graceful() -> Value {
    json!({ "cancel_gracefully": true })
}

#[tokio::test]
async fn a_job_goes_to_a_runner_with_all_its_tags() {
    let lab = quick().await;
    let (_, token) = lab.runner("r").await;
    assert_eq!(lab.request("glrt-unknown", &NULL).await.status, 403);
    let labelled = |key: &str, labels: &[&str]| JobSpec {
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..job(key, "true")
    };
    let run = lab.start(&[
        labelled("untagged", &["self-hosted"]),
        labelled("other", &["GPU", "big"]),
        labelled("lower", &["gpu"]),
    ]);
    let none = lab.request(&token, &NULL).await;
    assert_eq!(
        none.status, 204,
        "it has one of two tags, another case, and takes none without tags"
    );
    assert!(none.header("x-gitlab-last-update").is_some());
    lab.event("runner-online", "r").await;
    let right = lab.start(&[job("right", "echo")]);
    let got = lab.take(&token, &NULL).await;
    assert_eq!(
        (&got["id"], &got["job_info"]["name"]),
        (&json!(lab.job_id(right, "right")), &json!("right"))
    );
    assert_eq!(got["steps"][0]["script"], json!(["echo"]));
    assert!(got["variables"].as_array().unwrap().iter().any(|one| one["key"] == "CI_JOB_TOKEN"));
    assert_eq!(lab.gitlab.runners()[0].labels, ["GPU"]);
    assert!(lab.gitlab.runners()[0].busy);

    let body = json!({ "runner_type": "project_type", "project_id": 21, "tag_list": "GPU,big" });
    let any = lab.json(201, "POST", "/user/runners", &body).await;
    let any = any["token"].as_str().unwrap();
    let names = [lab.take(any, &NULL).await, lab.take(any, &NULL).await].map(|one| one["job_info"]["name"].clone());
    assert_eq!(names, ["untagged", "other"], "one that takes jobs without tags");
    assert_eq!(lab.gitlab.run(run).unwrap().jobs[2].status, "queued");
}

#[tokio::test]
async fn a_runner_tells_how_its_job_goes() {
    let lab = quick().await;
    let (id, token) = lab.runner("r").await;
    let run = lab.start(&[job("train", "echo")]);
    let got = lab.take(&token, &NULL).await;
    let path = format!("/runners/{id}/jobs?status=running");
    assert_eq!(lab.get(&path).await[0]["id"], got["id"]);
    let begun = lab.tell(&got, "running", "").await;
    assert_eq!((begun.status, begun.header("job-status")), (200, Some("running")));
    let first = lab.append(&got, "0-7", "one\ntwo ").await;
    assert_eq!((first.status, first.header("range")), (202, Some("0-8")));
    let gap = lab.append(&got, "20-22", "...").await;
    assert_eq!((gap.status, gap.header("range")), (416, Some("0-8")));
    assert_eq!(lab.append(&got, "8-12", "three").await.status, 202);
    let forged = json!({ "id": got["id"], "token": "glcbt-other" });
    assert_eq!(lab.tell(&forged, "success", "").await.status, 403);
    let done = lab.tell(&got, "success", "").await;
    assert_eq!((done.status, done.header("job-status")), (200, Some("success")));
    assert_eq!(lab.conclusion(run).await, "success");
    assert_eq!(lab.output("train"), ["one", "two three"]);
    let late = lab.append(&got, "13-15", "...").await;
    assert_eq!((late.status, late.header("job-status")), (403, Some("success")));
    assert!(lab.get(&path).await.as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_job_that_nobody_speaks_of_is_stuck() {
    let lab = Lab::with(Options {
        lock_expiry: Duration::from_millis(200),
        ..Options::default()
    })
    .await;
    let (_, token) = lab.runner("r").await;
    let run = lab.start(&[job("train", "true")]);
    let got = lab.take(&token, &NULL).await;
    assert_eq!(lab.conclusion(run).await, "failure");
    let told = lab.job(got["id"].as_u64().unwrap()).await;
    assert_eq!(
        (&told["status"], &told["failure_reason"]),
        (&json!("failed"), &json!("stuck_or_timeout_failure"))
    );
}

#[tokio::test]
async fn a_running_job_cannot_be_retried_and_its_runner_can_be_deleted() {
    let lab = quick().await;
    let (id, token) = lab.runner("r").await;
    let run = lab.start(&[job("train", "true")]);
    let got = lab.take(&token, &NULL).await;
    let retry = format!("{PROJECT}/jobs/{}/retry", got["id"]);
    let words = "403 Forbidden - Job is not retryable";
    assert_eq!(lab.refused("POST", &retry, &NULL).await, (403, words.into()));
    assert_eq!(lab.ask("DELETE", &format!("/runners/{id}"), &NULL).await.status, 204);
    assert_eq!(lab.request(&token, &NULL).await.status, 403);
    assert_eq!(lab.tell(&got, "running", "").await.status, 200, "its job goes on");
    assert_eq!(lab.tell(&got, "failed", "runner_interrupted").await.status, 200);
    assert_eq!(lab.conclusion(run).await, "failure");
    assert_eq!(lab.job(got["id"].as_u64().unwrap()).await["failure_reason"], "runner_interrupted");
    assert_eq!(lab.ask("POST", &retry, &NULL).await.status, 201);
}

#[tokio::test]
async fn a_cancelled_job_waits_for_a_runner_that_can_tell() {
    let lab = quick().await;
    let (_, token) = lab.runner("r").await;
    for (features, status) in [(graceful(), "canceling"), (NULL, "canceled")] {
        let run = lab.start(&[job("train", "true")]);
        let got = lab.take(&token, &features).await;
        let cancel = format!("{PROJECT}/jobs/{}/cancel", got["id"]);
        assert_eq!(lab.json(201, "POST", &cancel, &NULL).await["status"], status);
        let told = lab.tell(&got, "running", "").await;
        let expected = if status == "canceling" { 200 } else { 403 };
        assert_eq!((told.status, told.header("job-status")), (expected, Some(status)));
        lab.tell(&got, "failed", "unknown_failure").await;
        assert_eq!(lab.conclusion(run).await, "cancelled");
    }
    let run = lab.start(&[job("train", "true")]);
    let cancel = format!("{PROJECT}/jobs/{}/cancel", lab.job_id(run, "train"));
    assert_eq!(lab.json(201, "POST", &cancel, &NULL).await["status"], "canceled");
    assert_eq!(lab.conclusion(run).await, "cancelled");
}

#[tokio::test]
async fn a_job_is_retried_before_its_runner_knows_that_it_is_cancelled() {
    let lab = quick().await;
    let (_, token) = lab.runner("r").await;
    let run = lab.start(&[job("train", "true")]);
    let got = lab.take(&token, &graceful()).await;
    for what in ["cancel", "retry"] {
        lab.json(201, "POST", &format!("{PROJECT}/jobs/{}/{what}", got["id"]), &NULL).await;
    }
    let told = lab.tell(&got, "running", "").await;
    assert_eq!((told.status, told.header("job-status")), (200, Some("canceling")));
    lab.tell(&got, "failed", "unknown_failure").await;
    assert_eq!(lab.job(got["id"].as_u64().unwrap()).await["status"], "canceled");
    let again = lab.take(&token, &graceful()).await;
    lab.tell(&again, "success", "").await;
    assert_eq!(lab.conclusion(run).await, "success");
    assert!(!lab.gitlab.runners()[0].busy);
}
