//! GitLab as its clients see it: what every request to the REST API needs, and where everything lies.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use serde_json::json;

use super::rest::Refusal;
use super::{GitLab, Options, Own, PREFIX, downloads, job, protocol, rest};
use crate::ci::{Asked, Forge, Message};

/// What a user may ask in a minute.
const RATE_LIMIT: usize = 2000;
const RATE_WINDOW: Duration = Duration::from_mins(1);
/// Requests to the REST API that prove themselves with a token in their body.
const BY_BODY: [&str; 4] = [
    "POST /runners",
    "DELETE /runners",
    "DELETE /runners/managers",
    "POST /runners/verify",
];

/// The whole service.
pub fn app(options: &Options) -> Router<GitLab> {
    let all = Router::new()
        .nest(PREFIX, rest::routes().merge(protocol::routes()))
        .merge(downloads::routes());
    let all = if options.root.is_empty() {
        all
    } else {
        Router::new().nest(&options.root, all)
    };
    all.fallback(|| async { (StatusCode::NOT_FOUND, Json(json!({ "error": "404 Not Found" }))) })
}

impl Forge for Own {
    fn machine(job: u64) -> String {
        format!("hosted-runner-{job}")
    }

    fn repository(&self) -> String {
        self.options.project.clone()
    }

    fn environment(&self, message: &Message, dir: &Path) -> Result<Vec<(String, String)>> {
        let mut env = job::variables(self, message);
        for name in ["CI_PROJECT_DIR", "CI_BUILDS_DIR"] {
            env.push((name.into(), dir.display().to_string()));
        }
        Ok(env)
    }

    fn name<'a>(&self, path: &'a str) -> (&'a str, bool) {
        let below = path.strip_prefix(self.options.root.as_str()).unwrap_or(path);
        // What begins so is what runners say of jobs.
        below
            .strip_prefix(PREFIX)
            .map_or((below, false), |path| (path, !path.starts_with("/jobs/")))
    }

    fn objection(&self, asked: &Asked, headers: &HeaderMap) -> Option<Response> {
        if BY_BODY.contains(&format!("{} {}", asked.method, asked.path).as_str()) {
            return None;
        }
        let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = said("authorization").and_then(|said| said.strip_prefix("Bearer "));
        if said("private-token").or(bearer) == Some(&self.options.token) {
            None
        } else {
            Some(Refusal(401, json!({ "message": "401 Unauthorized" })).into_response())
        }
    }

    /// It is told, and never used up here: a fault can say that it is.
    fn rate(&self, used: usize) -> Vec<(&'static str, String)> {
        let used = used.min(RATE_LIMIT);
        let reset = (SystemTime::now() + RATE_WINDOW).duration_since(SystemTime::UNIX_EPOCH);
        vec![
            ("ratelimit-limit", RATE_LIMIT.to_string()),
            ("ratelimit-observed", used.to_string()),
            ("ratelimit-remaining", (RATE_LIMIT - used).to_string()),
            ("ratelimit-reset", reset.unwrap_or_default().as_secs().to_string()),
        ]
    }
}
