//! What GitHub gives a job.

use crate::ci::Message;

/// GitHub's own variables.
pub fn environment(message: &Message) -> Vec<(String, String)> {
    let pairs = [
        ("CI", "true".to_owned()),
        ("GITHUB_ACTIONS", "true".into()),
        ("GITHUB_ACTOR", "octo".into()),
        ("GITHUB_API_URL", format!("{}{}", message.server, super::PREFIX)),
        ("GITHUB_ACTION", "__run".into()),
        ("GITHUB_EVENT_NAME", "push".into()),
        ("GITHUB_JOB", message.key.clone()),
        ("GITHUB_REF", "refs/heads/main".into()),
        ("GITHUB_REPOSITORY", message.repository.clone()),
        ("GITHUB_REPOSITORY_ID", "1".into()),
        (
            "GITHUB_REPOSITORY_OWNER",
            message.repository.split('/').next().unwrap_or_default().into(),
        ),
        ("GITHUB_RUN_ATTEMPT", message.attempt.to_string()),
        ("GITHUB_RUN_ID", message.run.to_string()),
        ("GITHUB_RUN_NUMBER", "1".into()),
        ("GITHUB_SERVER_URL", message.server.clone()),
        ("GITHUB_SHA", "0123456789abcdef0123456789abcdef01234567".into()),
        ("GITHUB_TRIGGERING_ACTOR", "octo".into()),
        ("GITHUB_WORKFLOW", message.workflow.clone()),
        ("RUNNER_ARCH", crate::standin::ARCH.into()),
        ("RUNNER_NAME", message.runner.clone()),
        ("RUNNER_OS", "Linux".into()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
