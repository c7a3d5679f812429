//! A scripted pipeline, number 42 of the project 21, and requests to run its job 7 again.

use std::time::Duration;

use anyhow::Result;
use common::forge::gitlab::GitLab;
use common::forge::{Forge as _, Interrupted, Job, Rerun, RerunOutcome};
use common::secret::Secret;
use serde_json::{Value, json};

use super::{QUICK, Reply, Server, answer, launched, refused, rerun_of};

pub const API: &str = "/api/v4";
pub const PROJECT: &str = "/api/v4/projects/21";
pub const NOT_RETRYABLE: &str = "403 Forbidden - Job is not retryable";
const GROUP: &str = "octo";
const TRAIN: &str = "octo/train";

/// An execution of a job.
pub fn job(id: u64, name: &str, status: &str) -> Value {
    json!({ "id": id, "name": name, "status": status, "pipeline": { "id": 42, "project_id": 21, "status": "running" } })
}

/// The interrupted one.
pub fn ours(status: &str) -> Value {
    job(7, "train", status)
}

/// Job 7 in these states in turn.
pub fn states(states: &[&str]) -> Vec<Reply> {
    states.iter().map(|status| answer(200, &ours(status))).collect()
}

/// What a retry is answered with.
pub fn made(id: u64, name: &str) -> Reply {
    answer(201, &job(id, name, "pending"))
}

pub fn executions(jobs: &[Value]) -> Reply {
    answer(200, &json!(jobs))
}

pub fn of(run: &str, repository: &str) -> Interrupted {
    Interrupted::Known(Job {
        run: run.into(),
        attempt: 1,
        repository: repository.into(),
        key: String::new(),
    })
}

pub fn request() -> Rerun {
    rerun_of(of("7", TRAIN))
}

/// A request by a machine that this job of this pipeline launched.
pub fn launched_by(job: &str, pipeline: &str) -> Rerun {
    launched(request(), pipeline, job)
}

/// One that gives the job no time to end by itself.
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
    /// Job 7 in these states in turn, and the pipeline with these executions in turn; nothing may be asked of it yet.
    pub async fn new(states: Vec<Reply>, pipeline: Vec<Reply>) -> Self {
        let server = Server::start().await;
        let id = |id: u64, name: &str, path: &str| answer(200, &json!({ "id": id, name: path }));
        server.on(&format!("GET {API}/projects/octo%2Ftrain"), [id(21, "path_with_namespace", TRAIN)]);
        server.on(&format!("GET {API}/groups/octo"), [id(11, "full_path", GROUP)]);
        server.on(&format!("GET {API}/version"), [answer(200, &json!({ "version": "18.6.0" }))]);
        // By its number, and by its path for a group or a whole GitLab.
        for project in [PROJECT.to_owned(), format!("{API}/projects/octo%2Ftrain")] {
            server.on(&format!("GET {project}/jobs/7"), states.clone());
            server.on(&format!("GET {project}/pipelines/42/jobs"), pipeline.clone());
        }
        Self { server }
    }

    /// One whose pipeline stays as it is.
    pub async fn still(status: &str, pipeline: &[Value]) -> Self {
        Self::new(states(&[status]), vec![executions(pipeline)]).await
    }

    /// Answers what is asked of a job.
    pub fn on(self, path: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: Vec<_> = replies.into_iter().collect();
        self.server.on(&format!("POST {PROJECT}/jobs/{path}"), replies.clone());
        self.server.on(&format!("POST {API}/projects/octo%2Ftrain/jobs/{path}"), replies);
        self
    }

    /// Lets every job run again, as GitLab does: those that ended well too.
    pub fn lets_all_again(self) -> Self {
        self.on("7/retry", [made(101, "train")]).on("5/retry", [made(100, "launch")])
    }

    /// Refuses to run ours again.
    pub fn refuses(self) -> Self {
        self.on("7/retry", [refused(403, NOT_RETRYABLE)])
    }

    pub async fn rerun(&self, request: &Rerun) -> Result<RerunOutcome> {
        self.of(TRAIN, request).await
    }

    pub async fn of(&self, page: &str, request: &Rerun) -> Result<RerunOutcome> {
        let page = format!("{}/{page}", self.server.url).parse().unwrap();
        let gitlab = GitLab::new(&page, &Secret::new("glpat-canary")).unwrap().with_retry(QUICK);
        gitlab.rerun(request).await
    }

    /// What was asked to change, without the common part.
    pub fn posts(&self) -> Vec<String> {
        let prefix = format!("POST {PROJECT}/jobs/");
        self.server.posts().iter().map(|line| line.replacen(&prefix, "", 1)).collect()
    }
}
