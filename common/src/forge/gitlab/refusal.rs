//! What GitLab's refusals mean, and what to do about them.

use serde_json::Value;

use crate::error::{Class, Failure};
use crate::http::Answer;

/// GitLab's own words: `message` is a text, a list, or lists by field; `error` stands where the request itself was wrong.
pub fn message(answer: &Answer) -> String {
    let body: Value = answer.json().unwrap_or_default();
    match body.get("message").or_else(|| body.get("error")) {
        Some(Value::String(text)) => text.clone(),
        Some(other) if !other.is_null() => other.to_string(),
        _ => answer.status.to_string(),
    }
}

/// The failure that an answer other than success means; `needed` is what the token must have.
pub fn of(answer: &Answer, what: &str, needed: &str) -> anyhow::Error {
    let said = message(answer);
    let failure = match answer.status.as_u16() {
        401 => Failure::new(Class::Access, format!("GitLab refused the token: {said}"))
            .hint(format!("it may have expired or been revoked: make a new one with {needed}")),
        403 => Failure::new(Class::Access, format!("GitLab does not let the token do this: {said}")).hint(format!(
            "the token needs {needed}; a job's own CI_JOB_TOKEN can never register runners"
        )),
        404 => Failure::new(Class::Access, format!("there is no {what}, or the token cannot see it"))
            .hint(format!("check `--repo`; the token needs {needed}")),
        status => Failure::new(Class::Unexpected, format!("GitLab answered {status}: {said}")),
    };
    failure.into()
}
