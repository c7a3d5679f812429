//! GitHub's JSON, with every field that its published description requires.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::registry::Orders;
use crate::ci::{Job, Registration, Run, conclusion};

/// A commit that every run of this world is of.
const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// RFC 3339, as GitHub writes times.
pub fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.0}"))
}

/// A refusal.
pub fn error(status: u16, message: &str) -> Value {
    json!({ "message": message, "documentation_url": "https://docs.github.com/rest", "status": status.to_string() })
}

/// A registered runner.
pub fn runner(registration: &Registration<Orders>) -> Value {
    let own = ["self-hosted", "Linux", "X64", "ARM64"];
    let label = |(at, name): (usize, &String)| {
        let kind = if own.contains(&name.as_str()) { "read-only" } else { "custom" };
        json!({ "id": at + 1, "name": name, "type": kind })
    };
    json!({
        "id": registration.id,
        "runner_group_id": 1,
        "name": registration.name,
        "os": "linux",
        "status": if registration.online { "online" } else { "offline" },
        "busy": !registration.jobs.is_empty(),
        "ephemeral": registration.ephemeral,
        "version": registration.version,
        "labels": registration.labels.iter().enumerate().map(label).collect::<Vec<_>>(),
    })
}

/// What the addresses in an answer start with.
pub struct Place<'a> {
    pub api: &'a str,
    pub owner: &'a str,
    pub repo: &'a str,
}

impl Place<'_> {
    fn url(&self, rest: &str) -> String {
        format!("{}/repos/{}/{}{rest}", self.api, self.owner, self.repo)
    }

    pub fn owner(&self) -> Value {
        let url = format!("{}/users/{}", self.api, self.owner);
        let mut owner = json!({ "login": self.owner, "id": 1, "node_id": "U_1", "gravatar_id": "", "type": "User", "site_admin": false });
        for key in [
            "avatar",
            "events",
            "followers",
            "following",
            "gists",
            "html",
            "organizations",
            "received_events",
            "repos",
            "starred",
            "subscriptions",
        ] {
            owner[format!("{key}_url")] = json!(format!("{url}/{key}"));
        }
        owner["url"] = json!(url);
        owner
    }

    fn repository(&self) -> Value {
        let mut repository = json!({
            "id": 1, "node_id": "R_1", "name": self.repo, "full_name": format!("{}/{}", self.owner, self.repo), "owner": self.owner(),
            "private": true, "fork": false, "description": null, "url": self.url(""),
        });
        let urls = [
            "archive",
            "assignees",
            "blobs",
            "branches",
            "collaborators",
            "comments",
            "commits",
            "compare",
            "contents",
            "contributors",
            "deployments",
            "downloads",
            "events",
            "forks",
            "git_commits",
            "git_refs",
            "git_tags",
            "hooks",
            "html",
            "issue_comment",
            "issue_events",
            "issues",
            "keys",
            "labels",
            "languages",
            "merges",
            "milestones",
            "notifications",
            "pulls",
            "releases",
            "stargazers",
            "statuses",
            "subscribers",
            "subscription",
            "tags",
            "teams",
            "trees",
        ];
        for key in urls {
            repository[format!("{key}_url")] = json!(self.url(&format!("/{key}")));
        }
        repository
    }

    /// An attempt of a workflow run.
    pub fn run(&self, run: &Run, attempt: u32) -> Value {
        let url = self.url(&format!("/actions/runs/{}", run.id.0));
        let (status, ended) = if attempt == run.attempt {
            (run.status(), run.ended.then(|| run.conclusion()))
        } else {
            ("completed", Some(conclusion(&run.executions(attempt))))
        };
        let completed = run.jobs.iter().filter_map(|job| job.completed).max().filter(|_| run.ended);
        let person = json!({ "name": "octo", "email": "octo@example.com" });
        let mut answer = json!({
            "id": run.id.0, "node_id": "WFR_1", "name": run.workflow.name, "head_branch": "main", "head_sha": SHA, "run_number": 1,
            "run_attempt": attempt, "display_title": run.workflow.name, "event": "push", "status": status, "conclusion": ended,
            "path": ".github/workflows/ci.yml", "workflow_id": 1, "url": url, "html_url": url, "created_at": time(run.created),
            "updated_at": time(completed.unwrap_or_else(SystemTime::now)), "run_started_at": time(run.started), "pull_requests": [],
            "actor": self.owner(), "triggering_actor": self.owner(),
            "repository": self.repository(), "head_repository": self.repository(),
            "head_commit": {
                "id": SHA, "tree_id": SHA, "message": "train", "timestamp": time(run.created), "author": person, "committer": person,
            },
        });
        for key in ["jobs", "logs", "check_suite", "cancel", "rerun", "artifacts", "workflow"] {
            answer[format!("{key}_url")] = json!(format!("{url}/{key}"));
        }
        let previous = (attempt > 1).then(|| format!("{url}/attempts/{}", attempt - 1));
        answer["previous_attempt_url"] = json!(previous);
        answer
    }

    /// An execution of a job.
    pub fn job(&self, run: &Run, job: &Job) -> Value {
        let url = self.url(&format!("/actions/jobs/{}", job.id));
        let runner = job.runner.as_ref();
        json!({
            "id": job.id, "node_id": "J_1", "run_id": run.id.0, "run_url": self.url(&format!("/actions/runs/{}", run.id.0)),
            "run_attempt": job.attempt, "head_sha": SHA, "head_branch": "main", "workflow_name": run.workflow.name, "name": job.spec.name,
            "url": url, "html_url": url, "check_run_url": self.url(&format!("/check-runs/{}", job.id)),
            "status": job.status.name(), "conclusion": job.status.conclusion(), "labels": job.spec.labels, "steps": [],
            "created_at": time(job.created), "started_at": time(job.started.unwrap_or(job.created)), "completed_at": job.completed.map(time),
            "runner_id": runner.map(|(id, _)| id), "runner_name": runner.map(|(_, name)| name),
            "runner_group_id": runner.map(|_| 1), "runner_group_name": runner.map(|_| "Default"),
        })
    }
}
