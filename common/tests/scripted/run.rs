//! A scripted workflow run, number 42 of `octo/train`, and requests to run its job again.

use std::time::Duration;

use anyhow::Result;
use common::forge::github::GitHub;
use common::forge::{Forge as _, Interrupted, Job, Rerun, RerunOutcome};
use common::secret::Secret;
use serde_json::{Value, json};

use super::{QUICK, Reply, Server, answer, launched, rerun_of};

pub const ACTIONS: &str = "/api/v3/repos/octo/train/actions";
pub const ALREADY: &str = "This workflow is already running";

pub fn run(status: &str, conclusion: Option<&str>, attempt: u32) -> Reply {
    answer(
        200,
        &json!({ "id": 42, "status": status, "conclusion": conclusion, "run_attempt": attempt }),
    )
}

pub fn running() -> Reply {
    run("in_progress", None, 1)
}

pub fn failed() -> Reply {
    run("completed", Some("failure"), 1)
}

pub fn job(id: u64, runner: &str, conclusion: Option<&str>, started: &str) -> Value {
    json!({ "id": id, "run_id": 42, "status": "completed", "conclusion": conclusion, "runner_name": runner, "started_at": started })
}

pub const MORNING: &str = "2026-01-01T08:00:00Z";
pub const NOON: &str = "2026-01-01T12:00:00Z";

pub fn interrupted() -> Value {
    job(1, "cml-a", Some("failure"), NOON)
}

/// A job of this run, whose hook has told so.
pub fn of(run: &str, repository: &str) -> Interrupted {
    Interrupted::Known(Job {
        run: run.into(),
        attempt: 1,
        repository: repository.into(),
        key: "train".into(),
    })
}

pub fn request() -> Rerun {
    rerun_of(of("42", "octo/train"))
}

/// A request by a machine that was launched from the same run, on this runner.
pub fn launched_on(runner: &str) -> Rerun {
    launched(request(), "42", runner)
}

/// One that gives the run no time to end by itself.
pub fn impatient() -> Rerun {
    Rerun {
        patience: Duration::ZERO,
        ..request()
    }
}

pub struct World {
    pub server: Server,
}

impl World {
    /// A run with these states in turn, and these jobs; nothing may be asked of it yet.
    pub async fn new(states: impl IntoIterator<Item = Reply>, jobs: &[Value]) -> Self {
        let server = Server::start().await;
        server.on(&format!("GET {ACTIONS}/runs/42"), states);
        let jobs = json!({ "total_count": jobs.len(), "jobs": jobs });
        server.on(&format!("GET {ACTIONS}/runs/42/jobs"), [answer(200, &jobs)]);
        Self { server }
    }

    pub fn on(self, path: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.server.on(&format!("POST {ACTIONS}/{path}"), replies);
        self
    }

    pub async fn rerun(&self, request: &Rerun) -> Result<RerunOutcome> {
        self.of("octo/train", request).await
    }

    pub async fn of(&self, page: &str, request: &Rerun) -> Result<RerunOutcome> {
        let page = format!("{}/{page}", self.server.url).parse().unwrap();
        let github = GitHub::new(&page, &Secret::new("ghp_canary")).unwrap().with_retry(QUICK);
        github.rerun(request).await
    }

    /// What was asked to change, without the common part.
    pub fn posts(&self) -> Vec<String> {
        let prefix = format!("POST {ACTIONS}/");
        self.server.posts().iter().map(|line| line.replacen(&prefix, "", 1)).collect()
    }
}
