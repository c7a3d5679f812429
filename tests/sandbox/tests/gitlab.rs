//! The sandbox's GitLab by plain HTTP: who may do what, its runners, its pipelines and its hosted jobs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod lab;

use std::time::Duration;

use lab::{Lab, PROJECT, hosted, job};
use sandbox::ci::Checksum;
use sandbox::gitlab::Options;
use sandbox::standin::{self, http::send};
use serde_json::{Value, json};

const NULL: Value = Value::Null;

fn ids(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|item| item["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn only_the_token_opens() {
    let lab = Lab::new().await;
    let url = lab.api("/version");
    let bearer = format!("Bearer {}", lab.gitlab.token());
    for (headers, status) in [
        (vec![], 401),
        (vec![("private-token", "glpat-other")], 401),
        (vec![("private-token", lab.gitlab.token())], 200),
        (vec![("authorization", bearer.as_str())], 200),
    ] {
        let answer = send("GET", &url, &headers, "").await.unwrap();
        assert_eq!(answer.status, status, "{headers:?}");
        if status == 401 {
            assert_eq!(answer.body, r#"{"message":"401 Unauthorized"}"#);
        }
    }
    assert_eq!(lab.get("/user").await["username"], "octo");
    assert_eq!(lab.gitlab.requests().len(), 5);
}

#[tokio::test]
async fn projects_and_groups_have_numbers_and_paths_wherever_the_instance_lies() {
    let lab = Lab::with(Options {
        root: "/gitlab".into(),
        ..Options::default()
    })
    .await;
    assert!(lab.gitlab.repo_url().ends_with("/gitlab/octo/team/train"));
    for id in ["21", "octo%2Fteam%2Ftrain", "Octo%2FTeam%2FTrain"] {
        let project = lab.get(&format!("/projects/{id}")).await;
        assert_eq!(
            (&project["id"], &project["path_with_namespace"]),
            (&json!(21), &json!("octo/team/train"))
        );
        assert_eq!(project["web_url"], json!(lab.gitlab.repo_url()));
    }
    assert_eq!(lab.get("/groups/octo").await["id"], 11);
    assert_eq!(lab.get("/groups/octo%2Fteam").await["id"], 12);
    assert_eq!(lab.get("/groups/12").await["full_path"], "octo/team");
    let missing = lab.refused("GET", "/projects/octo%2Fother", &NULL).await;
    assert_eq!(missing, (404, "404 Project Not Found".into()));
    let missing = lab.refused("GET", "/groups/octo%2Fteam%2Ftrain", &NULL).await;
    assert_eq!(missing, (404, "404 Group Not Found".into()));
    let above = lab.gitlab.url().replace("/gitlab", "/api/v4/version");
    let answer = send("GET", &above, &[("private-token", lab.gitlab.token())], "").await.unwrap();
    assert_eq!(answer.status, 404, "nothing lies above it");
}

#[tokio::test]
async fn a_runner_is_made_found_paused_and_removed() {
    let lab = Lab::new().await;
    let form = "runner_type=project_type&project_id=21&description=form&tag_list=gpu%2Cbig&run_untagged=false&maximum_timeout=3600";
    let headers = [
        ("private-token", lab.gitlab.token()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let made = send("POST", &lab.api("/user/runners"), &headers, form).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.body);
    let made: Value = serde_json::from_str(&made.body).unwrap();
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("glrt-t3_"), "{token}");
    lab.event("runner-registered", "form").await;
    let id = made["id"].as_u64().unwrap();
    let details = lab.get(&format!("/runners/{id}")).await;
    assert_eq!(
        (&details["tag_list"], &details["status"]),
        (&json!(["gpu", "big"]), &json!("never_contacted"))
    );
    assert_eq!(
        (&details["run_untagged"], &details["maximum_timeout"]),
        (&json!(false), &json!(3600))
    );
    let (other, other_token) = lab.runner("json").await;

    let list = lab.get(&format!("{PROJECT}/runners")).await;
    assert_eq!(ids(&list), [other, id]);
    assert!(list[0].get("tag_list").is_none(), "tags are only in the details: {list}");
    for (filter, found) in [
        ("tag_list=gpu", vec![id]),
        ("tag_list=gpu,big", vec![id]),
        ("tag_list=gpu,small", vec![]),
        ("status=online", vec![]),
        ("status=never_contacted&type=project_type", vec![other, id]),
        ("type=group_type", vec![]),
        ("paused=true", vec![]),
    ] {
        assert_eq!(ids(&lab.get(&format!("{PROJECT}/runners?{filter}")).await), found, "{filter}");
    }
    let page = lab.ask("GET", &format!("{PROJECT}/runners?per_page=1&page=1"), &NULL).await;
    assert_eq!((page.header("x-next-page"), page.header("x-total")), (Some("2"), Some("2")));
    assert!(
        page.header("link").unwrap().contains("page=2&per_page=1>; rel=\"next\""),
        "{}",
        page.head
    );
    let page = lab.ask("GET", &format!("{PROJECT}/runners?per_page=1&page=2"), &NULL).await;
    assert_eq!(page.header("x-next-page"), Some(""));

    let paused = lab.json(200, "PUT", &format!("/runners/{id}"), &json!({ "paused": true })).await;
    assert_eq!((&paused["paused"], &paused["active"]), (&json!(true), &json!(false)));
    assert_eq!(lab.request(token, &NULL).await.status, 204);
    assert_eq!(ids(&lab.get(&format!("{PROJECT}/runners?status=online&paused=true")).await), [id]);

    assert_eq!(lab.ask("DELETE", &format!("/runners/{id}"), &NULL).await.status, 204);
    assert_eq!(lab.refused("GET", &format!("/runners/{id}"), &NULL).await.0, 404);
    assert_eq!(lab.refused("DELETE", &format!("/runners/{id}"), &NULL).await.0, 404);
    assert_eq!(lab.request(token, &NULL).await.status, 403);
    let body = json!({ "token": other_token }).to_string();
    let json = [("content-type", "application/json")];
    for (method, path, status) in [
        ("POST", "/runners/verify", 200),
        ("DELETE", "/runners", 204),
        ("POST", "/runners/verify", 403),
    ] {
        assert_eq!(
            send(method, &lab.api(path), &json, &body).await.unwrap().status,
            status,
            "{method} {path}"
        );
    }
    assert!(lab.gitlab.runners().is_empty());
}

#[tokio::test]
async fn a_runner_that_cannot_be_is_refused() {
    let lab = Lab::new().await;
    for (body, status, words) in [
        (json!({}), 400, "runner_type is missing"),
        (json!({ "runner_type": "any" }), 400, "runner_type does not have a valid value"),
        (json!({ "runner_type": "project_type" }), 400, "project_id is missing"),
        (
            json!({ "runner_type": "project_type", "project_id": 1 }),
            400,
            "400 Bad request - Missing/invalid scope",
        ),
        (
            json!({ "runner_type": "group_type", "group_id": 99 }),
            400,
            "400 Bad request - Missing/invalid scope",
        ),
        (
            json!({ "runner_type": "instance_type" }),
            403,
            "403 Forbidden - Insufficient permissions",
        ),
        (
            json!({ "runner_type": "group_type", "group_id": 12, "run_untagged": false }),
            400,
            "400 Bad request - Tags list can not be empty when runner is not allowed to pick untagged jobs",
        ),
        (
            json!({ "runner_type": "group_type", "group_id": 12, "maximum_timeout": 10 }),
            400,
            "400 Bad request - Maximum timeout needs to be at least 10 minutes",
        ),
    ] {
        assert_eq!(lab.refused("POST", "/user/runners", &body).await, (status, words.into()), "{body}");
    }
    let body = json!({ "runner_type": "group_type", "group_id": 11, "tag_list": ["gpu"] });
    let made = lab.json(201, "POST", "/user/runners", &body).await;
    assert_eq!(ids(&lab.get("/groups/octo%2Fteam/runners").await), [made["id"].as_u64().unwrap()]);
    assert_eq!(lab.refused("GET", "/runners/all", &NULL).await.0, 403);
}

#[tokio::test]
async fn a_registration_token_works_only_where_it_is_allowed() {
    let body = json!({ "token": "GR1348941sandbox", "description": "old", "tag_list": "gpu" });
    let words = "410 Gone - runner registration disallowed";
    let lab = Lab::new().await;
    assert_eq!(lab.refused("POST", "/runners", &body).await, (410, words.into()));
    let lab = Lab::with(Options {
        registration_token: Some("GR1348941sandbox".into()),
        admin: true,
        ..Options::default()
    })
    .await;
    let made = lab.json(201, "POST", "/runners", &body).await;
    assert_eq!(ids(&lab.get("/runners/all").await), [made["id"].as_u64().unwrap()]);
    assert_eq!(lab.refused("POST", "/runners", &json!({ "token": "GR1348941other" })).await.0, 403);
}

#[tokio::test]
async fn a_hosted_job_sees_gitlabs_variables() {
    let lab = Lab::with(Options {
        root: "/gitlab".into(),
        ..Options::default()
    })
    .await;
    lab.gitlab.set_hosted_env(vec![("EXTRA".into(), "extra".into())]);
    let script = "echo $GITLAB_CI $CI_PROJECT_ID $CI_PROJECT_PATH $CI_PIPELINE_ID $CI_JOB_ID $CI_JOB_NAME $EXTRA
        echo $CI_SERVER_URL $CI_SERVER_HOST $CI_SERVER_PORT $CI_API_V4_URL
        test \"$PWD\" = \"$CI_PROJECT_DIR\" && test -n \"$CI_JOB_TOKEN\" && echo good >&2";
    let run = lab.start(&[hosted("first", script, &[]), hosted("second", "exit 1", &["first"])]);
    assert_eq!(lab.conclusion(run).await, "failure");
    let (url, id) = (lab.gitlab.url(), lab.job_id(run, "first"));
    let port = url.trim_end_matches("/gitlab").rsplit(':').next().unwrap();
    let mut output = lab.output("first");
    output.sort();
    let mut expected = [
        format!("true 21 octo/team/train {} {id} first extra", run.0),
        format!("{url} 127.0.0.1 {port} {url}/api/v4"),
        "good".into(),
    ];
    expected.sort();
    assert_eq!(output, expected);
    assert_eq!(lab.job(lab.job_id(run, "second")).await["status"], "failed");
    assert_eq!(lab.get(&format!("{PROJECT}/pipelines/{}", run.0)).await["status"], "failed");
}

#[tokio::test]
async fn what_was_retried_runs_again_and_what_was_skipped_follows() {
    let lab = Lab::new().await;
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate").display().to_string();
    let run = lab.start(&[
        hosted("other", "true", &[]),
        hosted("first", &format!("test -e '{gate}'"), &[]),
        hosted("second", "true", &["first"]),
    ]);
    assert_eq!(lab.conclusion(run).await, "failure");
    let first = lab.job_id(run, "first");
    let skipped = lab.job_id(run, "second");
    assert_eq!(lab.job(skipped).await["status"], "skipped");
    std::fs::write(&gate, "").unwrap();
    let again = lab.json(201, "POST", &format!("{PROJECT}/jobs/{first}/retry"), &NULL).await;
    assert_eq!(again["pipeline"]["id"], run.0);
    assert_ne!(again["id"], first);
    let event = lab.event("run-rerun", "ci first").await;
    assert_eq!(event.detail, format!("run {} attempt 2", run.0));
    assert_eq!(lab.conclusion(run).await, "success");
    assert_eq!(lab.job_id(run, "second"), skipped, "it is the same execution");
    let words = "403 Forbidden - Job is not retryable";
    for job in [first, skipped + 100] {
        let refused = lab.refused("POST", &format!("{PROJECT}/jobs/{job}/retry"), &NULL).await;
        let expected = if job == first {
            (403, words.to_owned())
        } else {
            (404, "404 Not found".into())
        };
        assert_eq!(refused, expected, "{job}");
    }
    let path = format!("{PROJECT}/pipelines/{}/jobs", run.0);
    assert_eq!(lab.get(&path).await.as_array().unwrap().len(), 3);
    let all = lab.get(&format!("{path}?include_retried=true")).await;
    assert!(ids(&all).contains(&first), "{all}");
    // One that succeeded may be retried, too.
    let other = lab.job_id(run, "other");
    lab.json(201, "POST", &format!("{PROJECT}/jobs/{other}/retry"), &NULL).await;
    assert_eq!(lab.conclusion(run).await, "success");
}

#[tokio::test]
async fn pipelines_are_retried_cancelled_and_made() {
    let lab = Lab::new().await;
    let run = lab.start(&[hosted("good", "true", &[]), hosted("bad", "false", &[]), job("waits", "true")]);
    lab.event("job-completed", "bad").await;
    let pipeline = format!("{PROJECT}/pipelines/{}", run.0);
    let canceled = lab.json(200, "POST", &format!("{pipeline}/cancel"), &NULL).await;
    assert_eq!(canceled["id"], run.0);
    lab.conclusion(run).await;
    assert_eq!(lab.job(lab.job_id(run, "waits")).await["status"], "canceled");
    lab.json(201, "POST", &format!("{pipeline}/retry"), &NULL).await;
    lab.event("run-rerun", "ci bad,waits").await;
    assert_eq!(lab.job(lab.job_id(run, "waits")).await["status"], "pending");
    let made = lab.json(201, "POST", &format!("{PROJECT}/pipeline?ref=main"), &NULL).await;
    assert_ne!(made["id"], run.0);
    assert_eq!(ids(&lab.get(&format!("{PROJECT}/pipelines")).await).len(), 2);
    assert_eq!(lab.refused("POST", &format!("{PROJECT}/pipeline"), &NULL).await.0, 400);
    let twice = lab.gitlab.run(run).unwrap();
    assert_eq!(twice.attempt, 2);
}

#[tokio::test]
async fn the_runners_program_lies_beside_its_checksums() {
    let (path, _) = standin::gitlab::program().unwrap();
    let sha256 = standin::sha256(&std::fs::read(path).unwrap());
    for (checksum, truncate) in [(Checksum::Right, false), (Checksum::Wrong, true), (Checksum::Missing, false)] {
        let lab = Lab::with(Options {
            checksum,
            truncate_program: truncate,
            ..Options::default()
        })
        .await;
        let template = lab.gitlab.download_template();
        let url = template
            .replace("{version}", "18.6.0")
            .replace("{os}", "linux")
            .replace("{arch}", "amd64");
        let list = send("GET", &url.replace("binaries/gitlab-runner-linux-amd64", "release.sha256"), &[], "")
            .await
            .unwrap();
        let line = format!("{sha256}  binaries/gitlab-runner-linux-amd64");
        assert_eq!(list.status, if checksum == Checksum::Missing { 404 } else { 200 });
        assert_eq!(
            list.body.lines().any(|one| one == line),
            checksum == Checksum::Right,
            "{}",
            list.body
        );
        let head = send("HEAD", &url, &[], "").await.unwrap();
        let length: u64 = head.header("content-length").unwrap().parse().unwrap();
        let whole = std::fs::metadata(standin::gitlab::program().unwrap().0).unwrap().len();
        assert_eq!(length < whole, truncate);
    }
}

#[tokio::test]
async fn faults_strike_what_clients_and_what_runners_say() {
    let lab = Lab::with(Options {
        poll: Duration::from_millis(50),
        ..Options::default()
    })
    .await;
    let (_, token) = lab.runner("r").await;
    lab.gitlab.faults().answer("POST /jobs/request", 1, 503, "{}");
    lab.gitlab.faults().answer("GET /projects/*", 1, 429, "{}");
    assert_eq!(lab.request(&token, &NULL).await.status, 503);
    assert_eq!(lab.request(&token, &NULL).await.status, 204);
    assert_eq!(lab.ask("GET", PROJECT, &NULL).await.status, 429);
    assert_eq!(lab.ask("GET", PROJECT, &NULL).await.status, 200);
    let seen: Vec<String> = lab
        .gitlab
        .requests()
        .into_iter()
        .map(|one| format!("{} {} {}", one.method, one.path, one.status))
        .collect();
    let expected = [
        "POST /user/runners 201".to_owned(),
        format!("GET {PROJECT} 429"),
        format!("GET {PROJECT} 200"),
    ];
    assert_eq!(seen, expected, "what a runner says of its work is not among them");
}
