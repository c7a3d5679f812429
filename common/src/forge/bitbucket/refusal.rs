//! What Bitbucket's refusals mean, and what to do about them.

use serde::Deserialize;
use serde_json::Value;

use super::scope::Scope;
use crate::error::{Class, Failure};
use crate::http::Answer;

/// What was asked for, in terms of what a token must be allowed to do.
#[derive(Debug, Clone, Copy)]
pub enum Permission {
    /// To register, list and remove runners.
    Runners,
    /// To read, stop and start pipelines.
    Pipelines,
}

impl Permission {
    const fn needed(self, scope: &Scope) -> &'static str {
        match self {
            Self::Runners => scope.runner_permission(),
            Self::Pipelines => {
                "the scopes `read:pipeline:bitbucket` and `write:pipeline:bitbucket` (API token) or `pipeline:write` (access token)"
            }
        }
    }
}

#[derive(Deserialize)]
struct Body {
    error: Told,
}

#[derive(Deserialize)]
struct Told {
    message: String,
    #[serde(default)]
    detail: Value,
}

fn told(answer: &Answer) -> Option<Told> {
    answer.json::<Body>().ok().map(|body| body.error)
}

/// Bitbucket's own words, or the status where it has none.
pub fn message(answer: &Answer) -> String {
    match told(answer) {
        Some(Told {
            message,
            detail: Value::String(detail),
        }) if !detail.is_empty() => format!("{message} ({detail})"),
        Some(told) => told.message,
        None => answer.status.to_string(),
    }
}

/// The failure that an answer other than success means.
pub fn of(answer: &Answer, scope: &Scope, permission: Permission) -> anyhow::Error {
    let said = message(answer);
    let needed = permission.needed(scope);
    let failure = match answer.status.as_u16() {
        401 => Failure::new(Class::Access, format!("Bitbucket refused the token: {said}")).hint(format!(
            "an API token is given as `EMAIL:TOKEN`, an access token as it is (app passwords have ended); it needs {needed}"
        )),
        403 => Failure::new(Class::Access, format!("Bitbucket does not let the token do this: {said}"))
            .hint(format!("the token{} needs {needed}", missing(answer))),
        404 => Failure::new(Class::Access, format!("there is no {scope}, or the token cannot see it"))
            .hint(format!("check `--repo`; the token needs {needed}")),
        status => Failure::new(Class::Unexpected, format!("Bitbucket answered {status}: {said}")),
    };
    failure.into()
}

/// What the answer says that the token has, and should have.
fn missing(answer: &Answer) -> String {
    let list = |detail: &Value, name: &str| {
        let scopes = detail.get(name)?.as_array()?;
        Some(scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "))
    };
    let detail = told(answer).map(|told| told.detail).unwrap_or_default();
    match (list(&detail, "granted"), list(&detail, "required")) {
        (Some(granted), Some(required)) => format!(" has the scopes [{granted}], and this takes [{required}]: it"),
        _ => String::new(),
    }
}
