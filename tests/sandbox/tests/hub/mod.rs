//! A GitHub, and plain HTTP to it, for its tests: no client of ours stands between them and the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

pub mod machine;
#[path = "../process/mod.rs"]
pub mod process;

pub use process::*;
use sandbox::ci::{JobSpec, RunId, Workflow};
use sandbox::events::{Event, Events};
use sandbox::github::{GitHub, Options};
use sandbox::standin::http::{Answer, send};
use serde_json::Value;

/// The path of the repository in the API.
pub const REPO: &str = "/repos/octo/train";

pub struct Hub {
    pub github: GitHub,
    pub events: Events,
}

impl Hub {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// One whose exchanges are never held against GitHub's description: what is wrong with them is the test.
    pub async fn unrecorded() -> Self {
        Self::with(Options {
            record: None,
            ..Options::default()
        })
        .await
    }

    pub async fn with(options: Options) -> Self {
        let events = Events::default();
        let github = GitHub::start(events.clone(), options).await.expect("a GitHub on loopback");
        Self { github, events }
    }

    /// A request to a path of the repository, as the owner of the token.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let authorization = format!("Bearer {}", self.github.token());
        let headers = [("authorization", authorization.as_str()), ("user-agent", "test/1")];
        send(method, &self.api(&format!("{REPO}/actions{path}")), &headers, body)
            .await
            .expect("an answer")
    }

    pub fn api(&self, path: &str) -> String {
        format!("{}/api/v3{path}", self.github.url())
    }

    /// The body of an answer that must have this status.
    pub async fn json(&self, status: u16, method: &str, path: &str, body: &str) -> Value {
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or(Value::Null)
    }

    /// The refusal of a request: its status and GitHub's words.
    pub async fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = self.ask(method, path, body).await;
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.status, said["message"].as_str().unwrap().to_owned())
    }

    /// Registers a runner for one job that never connects; returns its id.
    pub async fn runner(&self, name: &str, labels: &[&str]) -> u64 {
        let body = serde_json::json!({ "name": name, "runner_group_id": 1, "labels": labels });
        let answer = self.json(201, "POST", "/runners/generate-jitconfig", &body.to_string()).await;
        answer["runner"]["id"].as_u64().unwrap()
    }

    pub fn start(&self, jobs: &[JobSpec]) -> RunId {
        self.github.start_run(Workflow {
            name: "ci".into(),
            jobs: jobs.to_vec(),
        })
    }

    /// Waits for the end of a run; returns its conclusion.
    pub async fn conclusion(&self, run: RunId) -> String {
        let view = self.github.wait_run(run, PATIENCE).await;
        process::conclusion(&self.events, view)
    }

    /// Waits for an event of this kind about this subject.
    pub async fn event(&self, what: &str, subject: &str) -> Event {
        process::event(&self.events, what, subject).await
    }

    pub fn timeline(&self) -> String {
        process::timeline(&self.events)
    }
}
