//! What a job is told: the variables of every job, and the whole of what a runner gets.

use serde_json::{Value, json};

use super::Own;
use super::answers::{BRANCH, FIRST_GROUP, PROJECT, SHA, groups};
use super::rest::VERSION;
use crate::ci::Message;

/// What a job may take unless it says otherwise, in seconds.
const TIMEOUT: u64 = 3600;
/// Why a job can fail, as far as this GitLab knows.
const REASONS: [&str; 8] = [
    "unknown_failure",
    "script_failure",
    "api_failure",
    "stuck_or_timeout_failure",
    "runner_system_failure",
    "job_execution_timeout",
    "runner_unsupported",
    "runner_interrupted",
];

/// The token of a job, with which its runner speaks of it.
pub fn token(own: &Own, job: u64) -> String {
    format!("glcbt-64_{}", own.secret(&format!("job {job}"), 20))
}

/// GitLab's own variables.
pub fn variables(own: &Own, message: &Message) -> Vec<(String, String)> {
    let (server, path) = (&message.server, &message.repository);
    let address = server.trim_start_matches("http://");
    let host = address.split('/').next().unwrap_or_default();
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let (namespace, project) = path.rsplit_once('/').unwrap_or(("", path));
    let pairs = [
        ("CI", "true".to_owned()),
        ("GITLAB_CI", "true".into()),
        ("CI_API_V4_URL", format!("{server}{}", super::PREFIX)),
        ("CI_COMMIT_BRANCH", BRANCH.into()),
        ("CI_COMMIT_REF_NAME", BRANCH.into()),
        ("CI_COMMIT_REF_SLUG", BRANCH.into()),
        ("CI_COMMIT_SHA", SHA.into()),
        ("CI_COMMIT_SHORT_SHA", SHA[..8].into()),
        ("CI_DEFAULT_BRANCH", BRANCH.into()),
        ("CI_JOB_ID", message.job.to_string()),
        ("CI_JOB_NAME", message.name.clone()),
        ("CI_JOB_STAGE", "test".into()),
        ("CI_JOB_TOKEN", token(own, message.job)),
        ("CI_JOB_URL", format!("{server}/{path}/-/jobs/{}", message.job)),
        ("CI_PIPELINE_ID", message.run.to_string()),
        ("CI_PIPELINE_IID", "1".into()),
        ("CI_PIPELINE_SOURCE", "push".into()),
        ("CI_PIPELINE_URL", format!("{server}/{path}/-/pipelines/{}", message.run)),
        ("CI_PROJECT_ID", PROJECT.to_string()),
        ("CI_PROJECT_NAME", project.into()),
        ("CI_PROJECT_NAMESPACE", namespace.into()),
        ("CI_PROJECT_PATH", path.clone()),
        ("CI_PROJECT_URL", format!("{server}/{path}")),
        ("CI_SERVER_HOST", name.into()),
        ("CI_SERVER_PORT", port.into()),
        ("CI_SERVER_PROTOCOL", "http".into()),
        ("CI_SERVER_URL", server.clone()),
        ("CI_SERVER_VERSION", VERSION.into()),
        ("GITLAB_USER_LOGIN", "octo".into()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What a runner gets of a job that may take so many seconds.
pub fn payload(own: &Own, message: &Message, timeout: Option<u64>) -> Value {
    let (token, path) = (token(own, message.job), &message.repository);
    let variable = |(key, value): (String, String)| {
        let masked = value == token;
        json!({ "key": key, "value": value, "public": !masked, "masked": masked, "file": false, "raw": false })
    };
    // There is no Git in this world.
    let fixed = [("GIT_STRATEGY".to_owned(), "none".to_owned())];
    let all = variables(own, message).into_iter().chain(fixed).chain(message.env.iter().cloned());
    let timeout = timeout.unwrap_or(TIMEOUT);
    let namespace = groups(path).last().map_or(FIRST_GROUP, |(id, _)| *id);
    json!({
        "id": message.job,
        "token": token,
        "allow_git_fetch": true,
        "job_info": {
            "id": message.job, "name": message.name, "stage": "test", "project_id": PROJECT, "project_name": path.rsplit('/').next(),
            "project_full_path": path, "pipeline_id": message.run, "namespace_id": namespace, "root_namespace_id": FIRST_GROUP,
            "organization_id": 1, "user_id": 1, "time_in_queue_seconds": 0, "project_jobs_running_on_instance_runners_count": "0",
            "queue_size": 0, "queue_depth": 0,
        },
        "git_info": {
            "repo_url": format!("{}/{path}.git", message.server.replacen("//", &format!("//gitlab-ci-token:{token}@"), 1)),
            "ref": BRANCH, "sha": SHA, "before_sha": "0".repeat(40), "ref_type": "branch", "refspecs": [], "depth": 20,
        },
        "runner_info": { "timeout": timeout, "runner_session_url": null },
        "variables": all.map(variable).collect::<Vec<_>>(),
        "steps": [
            { "name": "script", "script": [message.script], "timeout": timeout, "when": "on_success", "allow_failure": false },
        ],
        "image": { "name": null },
        "services": [], "artifacts": [], "cache": [], "credentials": [], "dependencies": [], "hooks": [],
        "features": { "trace_sections": true, "failure_reasons": REASONS },
    })
}
