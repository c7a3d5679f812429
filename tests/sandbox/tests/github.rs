//! The sandbox's GitHub by plain HTTP: its state machine, its refusals, its pages and its hosted jobs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hub;

use std::time::Duration;

use hub::{Hub, REPO, gone, hosted, job};
use sandbox::ci::Checksum;
use sandbox::faults::{Effect, Fault};
use sandbox::github::Options;
use sandbox::standin::{self, http::send};
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn requests_without_a_good_token_are_refused_and_all_are_noted() {
    let hub = Hub::new().await;
    let url = hub.api(&format!("{REPO}/actions/runners"));
    let agent = ("user-agent", "cml-agent/1");
    for (headers, status, message) in [
        (vec![agent], 401, "Requires authentication"),
        (vec![agent, ("authorization", "Bearer wrong")], 401, "Bad credentials"),
        (vec![("authorization", "Bearer wrong")], 403, "User-Agent"),
    ] {
        let answer = send("GET", &url, &headers, "").await.unwrap();
        assert_eq!(answer.status, status);
        assert!(answer.body.contains(message), "{}", answer.body);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("5000"));
        assert!(answer.header("x-ratelimit-reset").unwrap().parse::<u64>().unwrap() > 1_700_000_000);
    }
    hub.json(200, "GET", "/runners", "").await;
    let noted = hub.github.requests();
    assert_eq!(noted.iter().map(|request| request.status).collect::<Vec<_>>(), [401, 401, 403, 200]);
    assert_eq!(noted[0].path, "/repos/octo/train/actions/runners");
    assert!(noted[0].from_agent() && !noted[3].from_agent());
    assert!(noted.is_sorted_by_key(|request| request.at));
}

#[tokio::test]
async fn what_belongs_to_another_repository_is_not_found() {
    let hub = Hub::unrecorded().await;
    let authorization = format!("token {}", hub.github.token());
    let headers = [("authorization", authorization.as_str()), ("user-agent", "test/1")];
    for path in ["/repos/octo/other/actions/runners", "/orgs/other/actions/runners", "/nonsense"] {
        assert_eq!(send("GET", &hub.api(path), &headers, "").await.unwrap().status, 404, "{path}");
    }
    for path in ["/repos/Octo/Train/actions/runners", "/orgs/octo/actions/runners"] {
        assert_eq!(send("GET", &hub.api(path), &headers, "").await.unwrap().status, 200, "{path}");
    }
}

#[tokio::test]
async fn runners_come_in_pages_that_lead_to_each_other() {
    let hub = Hub::new().await;
    for number in 0..5 {
        hub.runner(&format!("runner-{number}"), &["gpu"]).await;
    }
    let (mut path, mut seen) = ("/runners?per_page=2".to_owned(), Vec::new());
    loop {
        let answer = hub.ask("GET", &path, "").await;
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["total_count"], 5);
        seen.extend(names(&body["runners"]).into_iter().map(str::to_owned));
        let links = answer.header("link").unwrap();
        let next = links
            .split(", ")
            .find_map(|link| link.strip_suffix(">; rel=\"next\"")?.strip_prefix('<'));
        let Some(next) = next else { break };
        path = next
            .strip_prefix(&hub.api(&format!("{REPO}/actions")))
            .expect("a page of the same list")
            .to_owned();
    }
    assert_eq!(seen, ["runner-0", "runner-1", "runner-2", "runner-3", "runner-4"]);
    let one = hub.json(200, "GET", "/runners?name=runner-3", "").await;
    assert_eq!(names(&one["runners"]), ["runner-3"]);
    assert!(hub.ask("GET", "/runners", "").await.header("link").is_none());
}

#[tokio::test]
async fn a_registration_lives_from_its_making_to_its_removal() {
    let hub = Hub::new().await;
    let id = hub.runner("r", &["gpu"]).await;
    let again = json!({ "name": "r", "runner_group_id": 1, "labels": ["x"] }).to_string();
    let (status, message) = hub.refused("POST", "/runners/generate-jitconfig", &again).await;
    assert!(status == 409 && message.starts_with("Already exists"), "{message}");
    let runner = hub.json(200, "GET", &format!("/runners/{id}"), "").await;
    assert_eq!(
        (&runner["status"], &runner["busy"], &runner["ephemeral"]),
        (&json!("offline"), &json!(false), &json!(true))
    );
    hub.json(204, "DELETE", &format!("/runners/{id}"), "").await;
    assert_eq!(hub.refused("DELETE", &format!("/runners/{id}"), "").await.0, 404);
    assert_eq!(hub.refused("GET", &format!("/runners/{id}"), "").await.0, 404);
    hub.event("runner-removed", "r").await;
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let hub = Hub::unrecorded().await;
    let run = hub.start(&[hosted("a", "true", &[])]);
    hub.conclusion(run).await;
    let rerun = format!("/runs/{}/rerun", run.0);
    for (path, body) in [
        (
            "/runners/generate-jitconfig",
            r#"{"name":"r","runner_group_id":1,"labels":["a"],"work_directory":"_work"}"#,
        ),
        ("/runners/generate-jitconfig", r#"{"name":"r","runner_group_id":1,"labels":[]}"#),
        ("/runners/generate-jitconfig", r#"{"name":"r","labels":["a"]}"#),
        ("/runners/registration-token", r#"{"ephemeral":true}"#),
        (&rerun, r#"{"enable_debug_log":true}"#),
    ] {
        assert_eq!(hub.refused("POST", path, body).await.0, 422, "{path} {body}");
    }
    hub.json(201, "POST", &rerun, r#"{"enable_debug_logging":true}"#).await;
}

#[tokio::test]
async fn the_runner_program_is_offered_with_its_checksum() {
    let hub = Hub::new().await;
    let offers = hub.json(200, "GET", "/runners/downloads", "").await;
    let x64 = offers.as_array().unwrap().iter().find(|one| one["architecture"] == "x64").unwrap();
    assert_eq!(x64["sha256_checksum"], standin::sha256(&hub.github.archive()));
    let url = x64["download_url"].as_str().unwrap();
    assert!(url.ends_with(x64["filename"].as_str().unwrap()));
    assert_eq!(send("GET", url, &[], "").await.unwrap().status, 200);

    for (checksum, expected) in [(Checksum::Missing, Value::Null), (Checksum::Wrong, json!("0".repeat(64)))] {
        let hub = Hub::with(Options {
            checksum,
            ..Options::default()
        })
        .await;
        assert_eq!(hub.json(200, "GET", "/runners/downloads", "").await[0]["sha256_checksum"], expected);
    }
}

#[tokio::test]
async fn a_truncated_archive_is_half_of_it() {
    let whole = Hub::new().await.github.archive();
    let options = Options {
        truncate_archive: true,
        ..Options::default()
    };
    let half = Hub::with(options).await.github.archive();
    assert_eq!(half, whole.slice(..whole.len() / 2));
}

#[tokio::test]
async fn hosted_jobs_are_processes_with_githubs_environment() {
    let hub = Hub::new().await;
    hub.github.set_hosted_env(vec![("FROM_WORLD".into(), "world".into())]);
    let script = r#"
        test "$GITHUB_ACTIONS $GITHUB_REPOSITORY $GITHUB_JOB $GITHUB_RUN_ATTEMPT" = "true octo/train first 1"
        test "$FROM_WORLD $FROM_JOB" = "world job"
        echo name=value >>"$GITHUB_OUTPUT"; echo done >>"$GITHUB_STEP_SUMMARY"
        case $RUNNER_NAME in "GitHub Actions "*) ;; *) exit 1 ;; esac
        echo "$GITHUB_SERVER_URL $GITHUB_API_URL $GITHUB_RUN_ID"; echo complaint >&2"#;
    let mut first = hosted("first", script, &[]);
    first.env = vec![("FROM_JOB".into(), "job".into())];
    let run = hub.start(&[first, hosted("second", "false", &["first"]), hosted("third", "true", &["second"])]);
    assert_eq!(hub.conclusion(run).await, "failure", "{}", hub.timeline());
    let jobs = hub.github.run(run).unwrap().jobs;
    let conclusions: Vec<_> = jobs.iter().map(|job| job.conclusion.as_deref().unwrap()).collect();
    assert_eq!(conclusions, ["success", "failure", "skipped"]);
    let url = hub.github.url();
    let said = |line: &str| {
        hub.events
            .all()
            .iter()
            .any(|event| event.what == "job-output" && event.detail == line)
    };
    assert!(
        said(&format!("{url} {url}/api/v3 {}", run.0)) && said("complaint"),
        "{}",
        hub.timeline()
    );
}

#[tokio::test]
async fn a_run_cannot_run_again_while_it_runs() {
    let hub = Hub::new().await;
    let run = hub.start(&[job("train", "true")]);
    for verb in ["rerun", "rerun-failed-jobs"] {
        let refusal = hub.refused("POST", &format!("/runs/{}/{verb}", run.0), "").await;
        assert_eq!(refusal, (403, "This workflow is already running".into()));
    }
    assert_eq!(hub.json(200, "GET", &format!("/runs/{}", run.0), "").await["status"], "queued");
    hub.json(202, "POST", &format!("/runs/{}/cancel", run.0), "").await;
    assert_eq!(hub.conclusion(run).await, "cancelled");
    assert_eq!(hub.refused("POST", &format!("/runs/{}/cancel", run.0), "").await.0, 409);
    assert_eq!(hub.refused("POST", "/runs/1/cancel", "").await.0, 404);
}

#[tokio::test]
async fn failed_jobs_run_again_with_their_dependents_and_history_stays() {
    let hub = Hub::new().await;
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("flag");
    let flaky = format!("test -e '{0}' || {{ touch '{0}'; exit 1; }}", flag.display());
    let run = hub.start(&[
        hosted("good", "true", &[]),
        hosted("flaky", &flaky, &[]),
        hosted("after", "true", &["flaky"]),
    ]);
    assert_eq!(hub.conclusion(run).await, "failure");
    let first = hub.json(200, "GET", &format!("/runs/{}/jobs", run.0), "").await;
    hub.json(201, "POST", &format!("/runs/{}/rerun-failed-jobs", run.0), "").await;
    assert_eq!(hub.conclusion(run).await, "success");

    let answer = hub.json(200, "GET", &format!("/runs/{}", run.0), "").await;
    assert_eq!((&answer["run_attempt"], &answer["conclusion"]), (&json!(2), &json!("success")));
    let past = hub.json(200, "GET", &format!("/runs/{}/attempts/1", run.0), "").await;
    assert_eq!((&past["run_attempt"], &past["conclusion"]), (&json!(1), &json!("failure")));
    let listed = async |rest: &str| hub.json(200, "GET", &format!("/runs/{}/{rest}", run.0), "").await["total_count"].clone();
    assert_eq!(listed("jobs").await, 3);
    assert_eq!(listed("jobs?filter=all").await, 5);
    assert_eq!(listed("attempts/1/jobs").await, 3);
    assert_eq!(listed("attempts/2/jobs").await, 2);
    assert_eq!(hub.refused("GET", &format!("/runs/{}/attempts/3", run.0), "").await.0, 404);

    let old = first["jobs"].as_array().unwrap().iter().find(|job| job["name"] == "flaky").unwrap();
    assert_eq!(
        hub.json(200, "GET", &format!("/jobs/{}", old["id"]), "").await["conclusion"],
        "failure"
    );
    let refusal = hub.refused("POST", &format!("/jobs/{}/rerun", old["id"]), "").await;
    assert_eq!(refusal, (403, "Only jobs from the current attempt can be re-run".into()));
    let refusal = hub.refused("POST", &format!("/runs/{}/rerun-failed-jobs", run.0), "").await;
    assert_eq!(refusal, (403, "This workflow run cannot be retried".into()));
}

#[tokio::test]
async fn a_job_runs_again_with_all_that_needs_it() {
    let hub = Hub::new().await;
    let run = hub.start(&[
        hosted("launch", "true", &[]),
        hosted("train", "true", &["launch"]),
        hosted("report", "true", &["train"]),
        hosted("other", "true", &[]),
    ]);
    assert_eq!(hub.conclusion(run).await, "success");
    let launch = hub.github.run(run).unwrap().jobs[0].id;
    hub.json(201, "POST", &format!("/jobs/{launch}/rerun"), "").await;
    assert_eq!(hub.conclusion(run).await, "success");
    let attempts: Vec<_> = hub.github.run(run).unwrap().jobs.iter().map(|job| job.attempt).collect();
    assert_eq!(attempts, [2, 2, 2, 1]);
}

#[tokio::test]
async fn a_run_has_fifty_attempts() {
    let hub = Hub::new().await;
    let run = hub.start(&[job("train", "true")]);
    let (cancel, rerun) = (format!("/runs/{}/force-cancel", run.0), format!("/runs/{}/rerun", run.0));
    for _ in 1..50 {
        hub.json(202, "POST", &cancel, "").await;
        hub.json(201, "POST", &rerun, "").await;
    }
    hub.json(202, "POST", &cancel, "").await;
    assert_eq!(
        hub.refused("POST", &rerun, "").await,
        (403, "This workflow run cannot be retried".into())
    );
}

#[tokio::test]
async fn a_cancelled_or_late_hosted_job_is_interrupted() {
    let hub = Hub::new().await;
    let run = hub.start(&[hosted("sleepy", "echo ready; sleep 600", &[])]);
    hub.event("job-output", "sleepy").await;
    hub.json(202, "POST", &format!("/runs/{}/cancel", run.0), "").await;
    assert_eq!(hub.conclusion(run).await, "cancelled");
    let mut late = hosted("late", "sleep 600", &[]);
    late.timeout = Some(Duration::from_millis(50));
    let run = hub.start(&[late]);
    assert_eq!(hub.conclusion(run).await, "cancelled");
}

#[tokio::test]
async fn faults_strike_before_during_and_after_the_act() {
    let hub = Hub::new().await;
    let token = "POST /repos/*/actions/runners/registration-token";
    let fault = |effect: Effect| Fault {
        request: token.into(),
        skip: 0,
        times: 1,
        effect,
    };
    let headers = vec![("x-accepted-github-permissions".to_owned(), "administration=write".to_owned())];
    let body = r#"{"message":"Resource not accessible by personal access token"}"#.to_owned();
    hub.github.faults().add(fault(Effect::Answer {
        status: 403,
        headers,
        body,
    }));
    let refused = hub.ask("POST", "/runners/registration-token", "").await;
    assert_eq!(
        (refused.status, refused.header("x-accepted-github-permissions")),
        (403, Some("administration=write"))
    );

    let authorization = format!("Bearer {}", hub.github.token());
    let headers = [("authorization", authorization.as_str()), ("user-agent", "test/1")];
    let url = hub.api(&format!("{REPO}/actions/runners/registration-token"));
    hub.github.faults().add(fault(Effect::Reset));
    assert!(send("POST", &url, &headers, "").await.is_err());
    let acted = hub.github.requests().len();
    hub.github.faults().add(fault(Effect::LoseAnswer));
    assert!(send("POST", &url, &headers, "").await.is_err());
    assert_eq!(hub.github.requests().len(), acted + 1, "it was acted on");
    hub.json(201, "POST", "/runners/registration-token", "").await;
}

#[tokio::test]
async fn exchanges_are_recorded_one_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record");
    let options = Options {
        record: Some(record.clone()),
        ..Options::default()
    };
    let hub = Hub::with(options).await;
    hub.runner("r", &["gpu"]).await;
    hub.json(200, "GET", "/runners?per_page=1", "").await;
    let text = std::fs::read_to_string(&record).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["request_body"]["labels"], json!(["gpu"]));
    assert_eq!(lines[0]["response_body"]["runner"]["name"], "r");
    assert_eq!((&lines[1]["method"], &lines[1]["query"]), (&json!("GET"), &json!("per_page=1")));
    assert_eq!(
        (&lines[1]["path"], &lines[1]["status"]),
        (&json!("/repos/octo/train/actions/runners"), &json!(200))
    );
}

#[tokio::test]
async fn closing_ends_the_processes_of_hosted_jobs() {
    let hub = Hub::new().await;
    hub.start(&[hosted("sleepy", "echo $$; sleep 600", &[])]);
    let pid = hub.event("job-output", "sleepy").await.detail;
    hub.github.close().await;
    gone(&pid).await;
}
