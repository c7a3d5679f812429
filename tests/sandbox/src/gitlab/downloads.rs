//! The runner's program, and the list of checksums that lies beside it, as on GitLab's own servers.

use axum::Router;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::GitLab;
use crate::standin;

/// The programs, of which there is one here.
const NAMES: [&str; 2] = ["gitlab-runner-linux-amd64", "gitlab-runner-linux-arm64"];

pub fn routes() -> Router<GitLab> {
    Router::new()
        .route("/downloads/{version}/binaries/{name}", get(program))
        .route("/downloads/{version}/release.sha256", get(checksums))
}

async fn program(Shared(gitlab): Shared<GitLab>, Path((_, name)): Path<(String, String)>) -> Response {
    if NAMES.contains(&name.as_str()) {
        gitlab.own().program.clone().into_response()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

async fn checksums(Shared(gitlab): Shared<GitLab>) -> Response {
    let Some(sha256) = gitlab.own().options.checksum.of(&gitlab.own().sha256) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // The real list names much else before them.
    let other = format!("{}  deb/gitlab-runner_amd64.deb\n", standin::sha256(b"other"));
    let own = NAMES.map(|name| format!("{sha256}  binaries/{name}\n"));
    (other + &own.concat()).into_response()
}
