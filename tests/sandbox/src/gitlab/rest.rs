//! The REST API, as far as runners and pipelines go: its routes, and what all of them share.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::answers::{self, PROJECT};
use super::{GitLab, PREFIX, pipelines, runners};
use crate::ci::{Forge as _, Page};
use crate::form;

/// Items on a page, unless another number is asked for.
const PAGE: usize = 20;
/// The version that it says it has.
pub const VERSION: &str = "18.6.0";

pub fn routes() -> Router<GitLab> {
    Router::new()
        .route("/version", get(version))
        .route("/user", get(user))
        .route("/projects/{id}", get(project))
        .route("/groups/{id}", get(group))
        .merge(runners::routes())
        .merge(pipelines::routes())
        .route("/projects/{id}/pipeline", post(pipelines::create))
}

/// An answer or a refusal.
pub type Answer = Result<Response, Refusal>;

/// A status and a body.
pub struct Refusal(pub u16, pub Value);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.1)).into_response()
    }
}

/// Refuses with GitLab's words.
pub fn refuse<T>(status: u16, message: &str) -> Result<T, Refusal> {
    Err(Refusal(status, json!({ "message": message })))
}

/// What is not found, or not seen by this token.
pub fn nothing<T>() -> Result<T, Refusal> {
    refuse(404, "404 Not found")
}

/// Refuses a parameter.
pub fn wrong<T>(what: &str) -> Result<T, Refusal> {
    Err(Refusal(400, json!({ "error": what })))
}

/// An answer with a body.
pub fn say(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

/// What was asked with: the query, and a body that is a form or JSON.
#[derive(Debug, Default)]
pub struct Params(BTreeMap<String, Value>);

impl Params {
    /// Reads them. Source: Grape takes them from everywhere alike.
    pub fn read(query: &BTreeMap<String, String>, headers: &HeaderMap, body: &Bytes) -> Result<Self, Refusal> {
        let text = |(name, value): (&String, &String)| (name.trim_end_matches("[]").to_owned(), json!(value));
        let mut all: BTreeMap<String, Value> = query.iter().map(text).collect();
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        if kind.starts_with("application/json") && !body.is_empty() {
            let Ok(Value::Object(given)) = serde_json::from_slice(body) else {
                return wrong("Problem occurred while parsing request body");
            };
            all.extend(given);
        } else {
            let form = form::parse(&String::from_utf8_lossy(body));
            all.extend(form.iter().map(text));
        }
        all.retain(|_, value| !value.is_null());
        Ok(Self(all))
    }

    /// A text, or a number as text.
    pub fn text(&self, name: &str) -> Option<String> {
        let value = self.0.get(name)?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse()
            .map_or_else(|_| wrong(&format!("{name} is invalid")), |number| Ok(Some(number)))
    }

    pub fn switch(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.text(name).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "t" | "on") => Ok(Some(true)),
            Some("false" | "0" | "f" | "off") => Ok(Some(false)),
            Some(_) => wrong(&format!("{name} is invalid")),
        }
    }

    /// A list: separated by commas, or an array.
    pub fn list(&self, name: &str) -> Option<Vec<String>> {
        let parts: Vec<String> = match self.0.get(name)? {
            Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
            value => value.as_str().unwrap_or_default().split(',').map(str::to_owned).collect(),
        };
        let parts = parts.iter().map(|part| part.trim().to_owned());
        Some(parts.filter(|part| !part.is_empty()).collect())
    }

    /// The part of a list that is asked for, and headers that say where the other parts are.
    pub fn page(&self, gitlab: &GitLab, path: &str, all: Vec<Value>) -> Answer {
        let number = |name: &str| {
            self.number(name)
                .map(|number| number.and_then(|number| usize::try_from(number).ok()))
        };
        let page = Page::new(number("per_page")?, number("page")?, PAGE, all.len());
        let kept = self.0.keys().filter(|name| !["per_page", "page"].contains(&name.as_str()));
        let kept: Vec<String> = kept
            .map(|name| format!("&{name}={}", self.text(name).unwrap_or_default()))
            .collect();
        let kept = kept.concat();
        let url = gitlab.url();
        let links = page.links(|number| format!("{url}{PREFIX}{path}?page={number}&per_page={}{kept}", page.size));
        let shown = |number: Option<usize>| number.map_or_else(String::new, |number| number.to_string());
        let pairs = [
            ("link", links),
            ("x-next-page", shown(page.next())),
            ("x-page", page.number.to_string()),
            ("x-per-page", page.size.to_string()),
            ("x-prev-page", shown(page.previous())),
            ("x-total", page.total.to_string()),
            ("x-total-pages", page.pages().to_string()),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.extend(HeaderValue::try_from(value).map(|value| (header::HeaderName::from_static(name), value)));
        }
        Ok((headers, Json(json!(page.part(all)))).into_response())
    }
}

/// Refuses a project that is not here: `id` is its number or its path.
pub fn check_project(gitlab: &GitLab, id: &str) -> Result<(), Refusal> {
    if id == PROJECT.to_string() || id.eq_ignore_ascii_case(&gitlab.own().repository()) {
        return Ok(());
    }
    refuse(404, "404 Project Not Found")
}

/// The group with this number or path.
pub fn find_group(gitlab: &GitLab, id: &str) -> Result<(u64, String), Refusal> {
    let path = gitlab.own().repository();
    let is_it = |(number, path): &(u64, &str)| id == number.to_string() || id.eq_ignore_ascii_case(path);
    let found = answers::groups(&path).into_iter().find(is_it);
    found.map_or_else(|| refuse(404, "404 Group Not Found"), |(id, path)| Ok((id, path.to_owned())))
}

async fn version() -> Response {
    say(StatusCode::OK, json!({ "version": VERSION, "revision": "0123456789a" }))
}

async fn user(Shared(gitlab): Shared<GitLab>) -> Response {
    say(StatusCode::OK, answers::user(&gitlab))
}

async fn project(Shared(gitlab): Shared<GitLab>, Path(id): Path<String>) -> Answer {
    check_project(&gitlab, &id)?;
    Ok(say(StatusCode::OK, answers::project(&gitlab)))
}

async fn group(Shared(gitlab): Shared<GitLab>, Path(id): Path<String>) -> Answer {
    let (id, path) = find_group(&gitlab, &id)?;
    Ok(say(StatusCode::OK, answers::group(&gitlab, (id, &path))))
}

/// The query of a request.
pub type Asked = Query<BTreeMap<String, String>>;
