//! GitLab's JSON.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::GitLab;
use super::rules::{Kept, Scope, status, tags};
use crate::ci::{Forge as _, Job, Registration, Run};

/// A commit that every pipeline of this world is of.
pub const SHA: &str = "0123456789abcdef0123456789abcdef01234567";
/// The branch that it is on.
pub const BRANCH: &str = "main";
/// The project's id.
pub const PROJECT: u64 = 21;
/// The id of the outermost group; each group in it has the next one.
pub const FIRST_GROUP: u64 = 11;

/// RFC 3339 with milliseconds, as GitLab writes times.
pub fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

fn seconds(from: Option<SystemTime>, to: Option<SystemTime>) -> Option<f64> {
    let to = to.unwrap_or_else(SystemTime::now);
    from.and_then(|from| to.duration_since(from).ok()).map(|time| time.as_secs_f64())
}

/// The paths of the groups that a project is in, outermost first, with their ids.
pub fn groups(project: &str) -> Vec<(u64, &str)> {
    let ends = project.match_indices('/').map(|(end, _)| &project[..end]);
    (FIRST_GROUP..).zip(ends).collect()
}

/// Whoever the token belongs to.
pub fn user(gitlab: &GitLab) -> Value {
    json!({
        "id": 1, "username": "octo", "name": "Octo", "state": "active", "locked": false, "avatar_url": null, "web_url": format!("{}/octo", gitlab.url()),
    })
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A group.
pub fn group(gitlab: &GitLab, (id, path): (u64, &str)) -> Value {
    json!({
        "id": id, "name": last(path), "path": last(path), "full_name": path.replace('/', " / "), "full_path": path, "visibility": "private",
        "web_url": format!("{}/groups/{path}", gitlab.url()), "parent_id": (id > FIRST_GROUP).then(|| id - 1), "description": "",
        "runners_token": gitlab.own().options.registration_token,
    })
}

/// The project.
pub fn project(gitlab: &GitLab) -> Value {
    let path = gitlab.own().repository();
    let (id, parent) = groups(&path).last().copied().unwrap_or((1, ""));
    json!({
        "id": PROJECT, "name": last(&path), "path": last(&path), "path_with_namespace": path, "name_with_namespace": path.replace('/', " / "),
        "description": null, "default_branch": BRANCH, "web_url": gitlab.repo_url(), "visibility": "private", "archived": false,
        "http_url_to_repo": format!("{}.git", gitlab.repo_url()),
        "namespace": { "id": id, "name": last(parent), "path": last(parent), "kind": "group", "full_path": parent, "parent_id": null },
        "runners_token": gitlab.own().options.registration_token,
        "permissions": { "project_access": { "access_level": 40, "notification_level": 3 }, "group_access": null },
    })
}

/// Where a runner is.
pub fn runner_status(runner: &Registration<Kept>) -> &'static str {
    match runner.seen {
        None => "never_contacted",
        Some(_) if runner.online => "online",
        Some(_) => "offline",
    }
}

/// A runner in a list. Its tags are only in its details.
pub fn runner(runner: &Registration<Kept>) -> Value {
    let idle = if runner.jobs.is_empty() { "idle" } else { "active" };
    json!({
        "id": runner.id, "description": runner.name, "ip_address": runner.seen.map(|_| "127.0.0.1"), "active": !runner.own.paused,
        "paused": runner.own.paused, "is_shared": runner.own.scope == Scope::Instance, "runner_type": runner.own.scope.name(),
        "name": runner.own.info.get("name"), "online": runner.online, "status": runner_status(runner), "job_execution_status": idle,
        "created_at": time(runner.own.created),
    })
}

/// A runner with its details.
pub fn runner_details(gitlab: &GitLab, registration: &Registration<Kept>) -> Value {
    let own = &registration.own;
    let mut answer = runner(registration);
    let ago = registration.seen.map(|seen| SystemTime::now() - seen.elapsed());
    let path = gitlab.own().repository();
    let groups = groups(&path).into_iter().filter(|(id, _)| own.scope == Scope::Group(*id));
    let details = json!({
        "tag_list": registration.labels, "run_untagged": own.run_untagged, "locked": own.locked, "maximum_timeout": own.maximum_timeout,
        "access_level": own.access_level, "maintenance_note": own.note, "contacted_at": ago.map(time),
        "version": own.info.get("version"), "revision": own.info.get("revision"), "platform": own.info.get("platform"),
        "architecture": own.info.get("architecture"),
        "projects": if own.scope == Scope::Project { vec![project(gitlab)] } else { Vec::new() },
        "groups": groups.map(|one| group(gitlab, one)).collect::<Vec<_>>(),
    });
    for (name, value) in details.as_object().into_iter().flatten() {
        answer[name] = value.clone();
    }
    answer
}

/// A pipeline, in short.
fn pipeline_in_short(gitlab: &GitLab, run: &Run) -> Value {
    let completed = run.jobs.iter().filter_map(|job| job.completed).max().filter(|_| run.ended);
    json!({
        "id": run.id.0, "iid": 1, "project_id": PROJECT, "sha": SHA, "ref": BRANCH, "status": pipeline_status(run), "source": "push",
        "created_at": time(run.created), "updated_at": time(completed.unwrap_or_else(SystemTime::now)),
        "web_url": format!("{}/-/pipelines/{}", gitlab.repo_url(), run.id.0),
    })
}

/// A pipeline.
pub fn pipeline(gitlab: &GitLab, run: &Run) -> Value {
    let completed = run.jobs.iter().filter_map(|job| job.completed).max().filter(|_| run.ended);
    let started = run.jobs.iter().filter_map(|job| job.started).min();
    let mut answer = pipeline_in_short(gitlab, run);
    let details = json!({
        "name": run.workflow.name, "before_sha": "0".repeat(40), "tag": false, "yaml_errors": null, "user": user(gitlab), "coverage": null,
        "started_at": started.map(time), "finished_at": completed.map(time), "committed_at": null, "queued_duration": null,
        "duration": completed.and_then(|_| seconds(started, completed)).map(Duration::from_secs_f64).map(|time| time.as_secs()),
    });
    for (name, value) in details.as_object().into_iter().flatten() {
        answer[name] = value.clone();
    }
    answer
}

/// GitLab's name for where a pipeline is.
pub fn pipeline_status(run: &Run) -> &'static str {
    let any = |wanted: &str| run.jobs.iter().any(|job| status(job) == wanted);
    match run.conclusion() {
        "success" if run.ended => "success",
        "failure" if run.ended => "failed",
        _ if run.ended => "canceled",
        _ if any("running") => "running",
        _ if any("canceling") => "canceling",
        _ if run.jobs.iter().any(|job| job.started.is_some()) => "running",
        _ if any("pending") => "pending",
        _ => "created",
    }
}

/// An execution of a job.
pub fn job(gitlab: &GitLab, run: &Run, job: &Job, runner: Option<&Value>) -> Value {
    let queued = seconds(Some(job.created), job.started);
    json!({
        "id": job.id, "status": status(job), "stage": "test", "name": job.spec.name, "ref": BRANCH, "tag": false, "coverage": null,
        "allow_failure": false, "created_at": time(job.created), "started_at": job.started.map(time), "finished_at": job.completed.map(time),
        "erased_at": null, "duration": seconds(job.started, job.completed).filter(|_| job.started.is_some()), "queued_duration": queued,
        "user": user(gitlab), "commit": { "id": SHA, "short_id": &SHA[..8], "title": "train", "message": "train" },
        "pipeline": pipeline_in_short(gitlab, run), "failure_reason": job.reason,
        "web_url": format!("{}/-/jobs/{}", gitlab.repo_url(), job.id), "project": { "ci_job_token_scope_enabled": false },
        "artifacts": [], "artifacts_expire_at": null, "archived": false, "runner": runner, "runner_manager": null, "tag_list": tags(&job.spec),
    })
}
