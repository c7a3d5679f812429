//! Bitbucket as its clients see it: what every request to the REST API needs, and where everything lies.

use std::path::Path;

use anyhow::Result;
use axum::Router;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;

use super::answers::{BRANCH, PIPELINE, REPOSITORY, STEP, uuid};
use super::rest::{NOTHING, Refusal};
use super::{Bitbucket, Own, PREFIX, protocol, rest};
use crate::ci::{Asked, Forge, Message};

/// The whole service.
pub fn app() -> Router<Bitbucket> {
    Router::new()
        .nest(PREFIX, rest::routes())
        .merge(protocol::routes())
        .fallback(|| async { NOTHING.into_response() })
}

/// Bitbucket's own variables.
/// Source: <https://support.atlassian.com/bitbucket-cloud/docs/variables-and-secrets/>
pub fn variables(message: &Message) -> Vec<(String, String)> {
    let (workspace, repo) = message.repository.split_once('/').unwrap_or_default();
    let pairs = [
        ("CI", "true".to_owned()),
        ("BITBUCKET_BRANCH", BRANCH.into()),
        ("BITBUCKET_BUILD_NUMBER", message.run.to_string()),
        ("BITBUCKET_GIT_HTTP_ORIGIN", format!("{}/{}", message.server, message.repository)),
        ("BITBUCKET_PIPELINE_UUID", uuid(PIPELINE, message.run)),
        ("BITBUCKET_REPO_FULL_NAME", message.repository.clone()),
        ("BITBUCKET_REPO_SLUG", repo.into()),
        ("BITBUCKET_REPO_UUID", uuid(REPOSITORY, 1)),
        ("BITBUCKET_STEP_UUID", uuid(STEP, message.job)),
        ("BITBUCKET_WORKSPACE", workspace.into()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Forge for Own {
    fn machine(job: u64) -> String {
        format!("hosted-{job}")
    }

    fn repository(&self) -> String {
        self.options.repository.clone()
    }

    fn environment(&self, message: &Message, dir: &Path) -> Result<Vec<(String, String)>> {
        let mut env = variables(message);
        env.push(("BITBUCKET_CLONE_DIR".into(), dir.display().to_string()));
        Ok(env)
    }

    fn name<'a>(&self, path: &'a str) -> (&'a str, bool) {
        path.strip_prefix(PREFIX).map_or((path, false), |path| (path, true))
    }

    fn objection(&self, _: &Asked, headers: &HeaderMap) -> Option<Response> {
        let said = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let token = &self.options.token;
        let wanted = if token.contains(':') {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(token))
        } else {
            format!("Bearer {token}")
        };
        (said != wanted).then(|| Refusal(401, "Token is invalid, expired, or not supported for this endpoint.").into_response())
    }

    fn rate(&self, _: usize) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
