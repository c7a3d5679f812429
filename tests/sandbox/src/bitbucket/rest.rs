//! The REST API: its routes, and what all of them share.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::answers::{self, REPOSITORY, WORKSPACE, uuid};
use super::{Bitbucket, PREFIX, pipelines, runners};
use crate::ci::Page;

/// Items on a page, unless another number is asked for.
const PAGE: usize = 10;

/// The query of a request.
pub type Asked = Query<BTreeMap<String, String>>;

/// The parts of a path, by their names.
pub type Parts = Path<BTreeMap<String, String>>;

pub fn routes() -> Router<Bitbucket> {
    Router::new()
        .route("/workspaces/{workspace}", get(workspace))
        .route("/repositories/{workspace}/{repo}", get(repository))
        .merge(runners::routes())
        .merge(pipelines::routes())
}

/// An answer or a refusal.
pub type Answer = Result<Response, Refusal>;

/// A status and Bitbucket's words.
pub struct Refusal(pub u16, pub &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({ "type": "error", "error": { "message": self.1 } });
        (status, Json(body)).into_response()
    }
}

/// What is not found, or not seen by this token.
pub const NOTHING: Refusal = Refusal(404, "Resource not found");

/// An answer with a body.
pub fn say(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

/// Refuses what is not ours: a path names workspace and repository by slug or by UUID.
pub fn check(bitbucket: &Bitbucket, parts: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let (workspace, repo) = bitbucket.own().options.repository.split_once('/').unwrap_or_default();
    let is = |name: &str, slug: &str, uuid: &str| parts.get(name).is_none_or(|part| part.eq_ignore_ascii_case(slug) || part == uuid);
    let ours = is("workspace", workspace, &uuid(WORKSPACE, 1)) && is("repo", repo, &uuid(REPOSITORY, 1));
    if ours { Ok(()) } else { Err(NOTHING) }
}

/// The part of a list that is asked for.
pub fn page(bitbucket: &Bitbucket, path: &str, query: &BTreeMap<String, String>, all: Vec<Value>) -> Response {
    let number = |name: &str| query.get(name).and_then(|text| text.parse().ok());
    let page = Page::new(number("pagelen"), number("page"), PAGE, all.len());
    let kept = query.iter().filter(|(name, _)| !["pagelen", "page"].contains(&name.as_str()));
    let kept: Vec<String> = kept.map(|(name, value)| format!("&{name}={value}")).collect();
    let kept = kept.concat();
    let url = |number: usize| format!("{}{PREFIX}{path}?page={number}&pagelen={}{kept}", bitbucket.url(), page.size);
    let mut body = json!({ "page": page.number, "pagelen": page.size, "size": page.total, "values": [] });
    if let Some(next) = page.next() {
        body["next"] = json!(url(next));
    }
    body["values"] = json!(page.part(all));
    say(StatusCode::OK, body)
}

async fn workspace(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts) -> Answer {
    check(&bitbucket, &parts)?;
    Ok(say(StatusCode::OK, answers::workspace(&bitbucket)))
}

async fn repository(Shared(bitbucket): Shared<Bitbucket>, Path(parts): Parts) -> Answer {
    check(&bitbucket, &parts)?;
    Ok(say(StatusCode::OK, answers::repository(&bitbucket)))
}
