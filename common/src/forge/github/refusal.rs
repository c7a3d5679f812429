//! What GitHub's refusals mean, and what to do about them.

use serde::Deserialize;

use super::scope::Scope;
use crate::error::{Class, Failure};
use crate::http::Answer;

/// What was asked for, in terms of what a token must be allowed to do.
#[derive(Debug, Clone, Copy)]
pub enum Permission {
    /// To register, list and remove runners.
    Runners,
    /// To read, cancel and re-run workflow runs.
    Runs,
}

impl Permission {
    const fn needed(self, scope: &Scope) -> &'static str {
        match self {
            Self::Runners => scope.runner_permission(),
            Self::Runs => "the scope `repo` (classic) or the repository permission \"Actions: read and write\" (fine-grained)",
        }
    }
}

/// GitHub's own words, or the status where it has none.
pub fn message(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Body {
        message: String,
    }
    answer
        .json::<Body>()
        .map_or_else(|_| answer.status.to_string(), |body| body.message)
}

/// The failure that an answer other than success means.
pub fn of(answer: &Answer, scope: &Scope, permission: Permission) -> anyhow::Error {
    let said = message(answer);
    let needed = permission.needed(scope);
    let failure = match answer.status.as_u16() {
        401 => Failure::new(Class::Access, format!("GitHub refused the token: {said}"))
            .hint(format!("it may have expired or been revoked: make a new one with {needed}")),
        403 if is_permission(&said) => {
            Failure::new(Class::Access, format!("GitHub does not let the token do this: {said}")).hint(missing(answer, permission, needed))
        }
        404 => Failure::new(Class::Access, format!("there is no {scope}, or the token cannot see it"))
            .hint(format!("check `--repo`; the token needs {needed}")),
        status => Failure::new(Class::Unexpected, format!("GitHub answered {status}: {said}")),
    };
    failure.into()
}

/// Whether a 403 speaks of the token. GitHub gives the same status for what nobody may do, such as running a run again after a month.
fn is_permission(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    !["cannot be retried", "can be re-run", "over a month ago", "already running"]
        .iter()
        .any(|words| said.contains(words))
}

/// What is missing, in the words of the answer itself where it names it.
/// Sources: [permissions](https://docs.github.com/en/rest/authentication/permissions-required-for-fine-grained-personal-access-tokens),
/// [scopes](https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps).
fn missing(answer: &Answer, permission: Permission, needed: &str) -> String {
    if let Some(permissions) = answer.header("x-accepted-github-permissions").filter(|text| !text.is_empty()) {
        return format!("the token lacks the permission `{permissions}`: it needs {needed}");
    }
    match (
        answer.header("x-oauth-scopes"),
        answer.header("x-accepted-oauth-scopes"),
        permission,
    ) {
        (Some(has), Some(accepted), _) if !accepted.is_empty() => {
            format!("the token has the scopes [{has}], and needs one of [{accepted}]: {needed}")
        }
        (.., Permission::Runners) => format!("the token needs {needed}; the workflow's own GITHUB_TOKEN can never register runners"),
        (.., Permission::Runs) => format!("the token needs {needed}"),
    }
}
