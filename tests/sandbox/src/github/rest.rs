//! The REST API, as far as runners and workflow runs go: its routes, and what all of them share.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::PREFIX;
use super::{GitHub, answers, app, runners, runs};
use crate::ci::{Page as Part, RunId};

/// Items on a page, unless another number is asked for.
const PAGE: usize = 30;

pub fn routes() -> Router<GitHub> {
    let own = |scope: &str| {
        let path = |rest: &str| format!("{scope}/actions/runners{rest}");
        Router::new()
            .route(&format!("{scope}/installation"), get(app::installation))
            .route(&path(""), get(runners::list))
            .route(&path("/registration-token"), post(runners::registration_token))
            .route(&path("/remove-token"), post(runners::remove_token))
            .route(&path("/generate-jitconfig"), post(runners::jit))
            .route(&path("/downloads"), get(runners::downloads))
            .route(&path("/{id}"), get(runners::one).delete(runners::remove))
    };
    let runs = Router::new()
        .route("/runs", get(runs::list))
        .route("/runs/{run}", get(runs::one))
        .route("/runs/{run}/jobs", get(runs::jobs))
        .route("/runs/{run}/attempts/{attempt}", get(runs::attempt))
        .route("/runs/{run}/attempts/{attempt}/jobs", get(runs::attempt_jobs))
        .route("/runs/{run}/rerun", post(runs::rerun))
        .route("/runs/{run}/rerun-failed-jobs", post(runs::rerun_failed))
        .route("/runs/{run}/cancel", post(runs::cancel))
        .route("/runs/{run}/force-cancel", post(runs::force_cancel))
        .route("/jobs/{job}", get(runs::job))
        .route("/jobs/{job}/rerun", post(runs::rerun_job));
    own("/repos/{owner}/{repo}")
        .merge(own("/orgs/{owner}"))
        .nest("/repos/{owner}/{repo}/actions", runs)
        .route("/app/installations/{id}/access_tokens", post(app::mint))
}

/// An answer or a refusal.
pub type Answer = Result<Response, Refusal>;

/// A status and GitHub's words.
pub struct Refusal(pub u16, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(answers::error(self.0, &self.1))).into_response()
    }
}

pub fn refuse<T>(status: u16, message: &str) -> Result<T, Refusal> {
    Err(Refusal(status, message.into()))
}

/// What is not found, or not seen by this token.
pub fn nothing<T>() -> Result<T, Refusal> {
    refuse(404, "Not Found")
}

/// An answer with a body.
pub fn say(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

/// Reads a body, in which every field must be known.
pub fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal(422, format!("Invalid request.\n\n{error}")))
}

/// Reads a body that need not be there.
pub fn read_any<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, Refusal> {
    let given: Option<T> = if body.is_empty() { None } else { read(body)? };
    Ok(given.unwrap_or_default())
}

/// A body that says nothing.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// What the path names.
#[derive(Deserialize)]
pub struct Scope {
    owner: String,
    repo: Option<String>,
    pub id: Option<u64>,
    run: Option<u64>,
    pub job: Option<u64>,
    pub attempt: Option<u32>,
}

impl Scope {
    /// Refuses what belongs to nobody here.
    pub fn check(&self, github: &GitHub) -> Result<(), Refusal> {
        let options = &github.own().options;
        let same = |given: &str, own: &str| given.eq_ignore_ascii_case(own);
        if same(&self.owner, &options.owner) && self.repo.as_ref().is_none_or(|repo| same(repo, &options.repo)) {
            return Ok(());
        }
        nothing()
    }

    /// The path of the repository or organisation.
    pub fn path(&self) -> String {
        match &self.repo {
            Some(repo) => format!("/repos/{}/{repo}", self.owner),
            None => format!("/orgs/{}", self.owner),
        }
    }

    pub fn run(&self) -> RunId {
        RunId(self.run.unwrap_or_default())
    }
}

/// Which part of a list is asked for.
#[derive(Deserialize)]
pub struct Page {
    pub name: Option<String>,
    pub filter: Option<String>,
    #[serde(rename = "per_page")]
    size: Option<usize>,
    #[serde(rename = "page")]
    number: Option<usize>,
}

impl Page {
    /// Answers with the part of a list that was asked for, and says in a header where the other parts are.
    pub fn answer(&self, github: &GitHub, path: &str, list: &str, all: Vec<Value>) -> Response {
        let part = Part::new(self.size, self.number, PAGE, all.len());
        let kept = [("name", &self.name), ("filter", &self.filter)];
        let kept: String = kept
            .iter()
            .filter_map(|(name, value)| Some(format!("&{name}={}", value.as_ref()?)))
            .collect();
        let url = github.url();
        let links = part.links(|number| format!("{url}{PREFIX}{path}?per_page={}&page={number}{kept}", part.size));
        let mut headers = HeaderMap::new();
        if let Some(links) = HeaderValue::try_from(links).ok().filter(|links| !links.is_empty()) {
            headers.insert(header::LINK, links);
        }
        let total = part.total;
        (headers, Json(serde_json::json!({ "total_count": total, list: part.part(all) }))).into_response()
    }
}
