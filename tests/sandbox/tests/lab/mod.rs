//! A GitLab, and plain HTTP to it, for its tests: no client of ours stands between them and the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

#[path = "../process/mod.rs"]
pub mod process;

pub use process::*;
use sandbox::ci::{JobSpec, RunId, Workflow};
use sandbox::events::{Event, Events};
use sandbox::gitlab::{GitLab, Options};
use sandbox::standin::http::{Answer, send};
use serde_json::{Value, json};

/// The project, as it stands in paths of the API.
pub const PROJECT: &str = "/projects/octo%2Fteam%2Ftrain";

pub struct Lab {
    pub gitlab: GitLab,
    pub events: Events,
}

impl Lab {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let events = Events::default();
        let gitlab = GitLab::start(events.clone(), options).await.expect("a GitLab on loopback");
        Self { gitlab, events }
    }

    pub fn api(&self, path: &str) -> String {
        format!("{}/api/v4{path}", self.gitlab.url())
    }

    /// A request to the API as the owner of the token, with a JSON body.
    pub async fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("private-token", self.gitlab.token()), ("content-type", "application/json")];
        send(method, &self.api(path), &headers, &body).await.expect("an answer")
    }

    /// The body of an answer that must have this status.
    pub async fn json(&self, status: u16, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or(Value::Null)
    }

    pub async fn get(&self, path: &str) -> Value {
        self.json(200, "GET", path, &Value::Null).await
    }

    /// The refusal of a request: its status and GitLab's words.
    pub async fn refused(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let answer = self.ask(method, path, body).await;
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        let words = said["message"].as_str().or(said["error"].as_str());
        (answer.status, words.unwrap_or_default().to_owned())
    }

    /// Makes a runner with the tag of [`job`]; returns its id and its token.
    pub async fn runner(&self, name: &str) -> (u64, String) {
        let body =
            json!({ "runner_type": "project_type", "project_id": 21, "description": name, "tag_list": "GPU", "run_untagged": false });
        let made = self.json(201, "POST", "/user/runners", &body).await;
        (made["id"].as_u64().unwrap(), made["token"].as_str().unwrap().to_owned())
    }

    pub fn start(&self, jobs: &[JobSpec]) -> RunId {
        self.gitlab.start_run(Workflow {
            name: "ci".into(),
            jobs: jobs.to_vec(),
        })
    }

    /// The id of the latest execution of a job.
    pub fn job_id(&self, run: RunId, key: &str) -> u64 {
        let view = self.gitlab.run(run).unwrap();
        view.jobs.iter().find(|job| job.key == key).unwrap().id
    }

    /// A job, as the API tells it.
    pub async fn job(&self, id: u64) -> Value {
        self.get(&format!("{PROJECT}/jobs/{id}")).await
    }

    /// Waits for the end of a run; returns its conclusion.
    pub async fn conclusion(&self, run: RunId) -> String {
        let view = self.gitlab.wait_run(run, PATIENCE).await;
        process::conclusion(&self.events, view)
    }

    /// Waits for an event of this kind about this subject.
    pub async fn event(&self, what: &str, subject: &str) -> Event {
        process::event(&self.events, what, subject).await
    }

    pub fn timeline(&self) -> String {
        process::timeline(&self.events)
    }

    /// What the log of a job says, in lines.
    pub fn output(&self, key: &str) -> Vec<String> {
        let all = self.events.all().into_iter();
        all.filter(|event| event.what == "job-output" && event.subject == key)
            .map(|event| event.detail)
            .collect()
    }

    /// A runner's question for work.
    pub async fn request(&self, token: &str, features: &Value) -> Answer {
        let body = json!({ "token": token, "info": { "name": "gitlab-runner", "version": "18.6.0", "features": features } });
        self.as_runner("POST", "/jobs/request", &[], &body).await
    }

    /// A runner's question for work, which must get a job.
    pub async fn take(&self, token: &str, features: &Value) -> Value {
        let answer = self.request(token, features).await;
        assert_eq!(answer.status, 201, "{}\n{}", answer.head, self.timeline());
        serde_json::from_str(&answer.body).unwrap()
    }

    /// A runner's word about a job that it was given.
    pub async fn tell(&self, job: &Value, state: &str, reason: &str) -> Answer {
        let body = json!({ "token": job["token"], "state": state, "failure_reason": reason });
        self.as_runner("PUT", &format!("/jobs/{}", job["id"]), &[], &body).await
    }

    /// A piece of a job's log.
    pub async fn append(&self, job: &Value, range: &str, piece: &str) -> Answer {
        let path = self.api(&format!("/jobs/{}/trace", job["id"]));
        let headers = [("job-token", job["token"].as_str().unwrap()), ("content-range", range)];
        send("PATCH", &path, &headers, piece).await.unwrap()
    }

    async fn as_runner(&self, method: &str, path: &str, more: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [&[("content-type", "application/json")][..], more].concat();
        send(method, &self.api(path), &headers, &body.to_string()).await.unwrap()
    }
}
