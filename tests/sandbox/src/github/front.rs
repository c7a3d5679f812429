//! GitHub as its clients see it: what every request to the REST API needs, and what every job is told.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::rest::Refusal;
use super::{GitHub, Own, answers, app, hosted, protocol, rest};
use crate::ci::{Asked, Forge, Message};

/// The path of the API on a GitHub Enterprise Server.
pub const PREFIX: &str = "/api/v3";
/// What a user may ask in an hour.
const RATE_LIMIT: usize = 5000;
const RATE_WINDOW: Duration = Duration::from_hours(1);

/// The whole service.
pub fn app() -> Router<GitHub> {
    Router::new()
        .nest(PREFIX, rest::routes())
        .merge(protocol::routes())
        .fallback(|| async { (StatusCode::NOT_FOUND, axum::Json(answers::error(404, "Not Found"))) })
}

impl Forge for Own {
    fn machine(job: u64) -> String {
        format!("GitHub Actions {job}")
    }

    fn repository(&self) -> String {
        format!("{}/{}", self.options.owner, self.options.repo)
    }

    fn environment(&self, message: &Message, dir: &Path) -> Result<Vec<(String, String)>> {
        let files = [
            ("GITHUB_OUTPUT", "output"),
            ("GITHUB_STEP_SUMMARY", "summary"),
            ("GITHUB_ENV", "env"),
            ("GITHUB_PATH", "path"),
        ];
        let mut env = hosted::environment(message);
        for name in ["GITHUB_WORKSPACE", "RUNNER_TEMP"] {
            env.push((name.into(), dir.display().to_string()));
        }
        for (name, file) in files {
            let path = dir.join(file);
            std::fs::write(&path, "")?;
            env.push((name.into(), path.display().to_string()));
        }
        Ok(env)
    }

    fn name<'a>(&self, path: &'a str) -> (&'a str, bool) {
        path.strip_prefix(PREFIX).map_or((path, false), |path| (path, true))
    }

    fn objection(&self, asked: &Asked, headers: &HeaderMap) -> Option<Response> {
        let refuse = |status, words: &str| Some(Refusal(status, words.into()).into_response());
        if asked.user_agent.is_empty() {
            return refuse(
                403,
                "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
            );
        }
        let Some(said) = headers.get("authorization") else {
            return refuse(401, "Requires authentication");
        };
        let said = said.to_str().unwrap_or_default();
        let token = said.strip_prefix("Bearer ").or_else(|| said.strip_prefix("token "));
        match app::check(self, asked, token.unwrap_or_default()) {
            _ if token == Some(&self.options.token) && !app::is_for_apps(&asked.path) => None,
            Ok(()) => None,
            Err(Refusal(status, words)) => refuse(status, &words),
        }
    }

    /// It is told, and never used up here: a fault can say that it is.
    fn rate(&self, used: usize) -> Vec<(&'static str, String)> {
        let used = used.min(RATE_LIMIT);
        let reset = (SystemTime::now() + RATE_WINDOW).duration_since(SystemTime::UNIX_EPOCH);
        vec![
            ("x-ratelimit-limit", RATE_LIMIT.to_string()),
            ("x-ratelimit-used", used.to_string()),
            ("x-ratelimit-remaining", (RATE_LIMIT - used).to_string()),
            ("x-ratelimit-reset", reset.unwrap_or_default().as_secs().to_string()),
        ]
    }
}
