//! The REST API, as far as runners and workflow runs go.

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::again::Again;
use super::answers::{self, Place};
use super::front::PREFIX;
use super::run::RunId;
use super::state::State;
use super::{GitHub, lock, protocol};
use crate::standin;

/// How long a registration token is valid, in seconds.
const TOKEN_LIFE: u64 = 3600;

pub fn routes() -> Router<GitHub> {
    let runners = Router::new()
        .route("/", get(list))
        .route("/registration-token", post(token))
        .route("/remove-token", post(token))
        .route("/generate-jitconfig", post(jit))
        .route("/downloads", get(downloads))
        .route("/{id}", get(one).delete(remove));
    let runs = Router::new()
        .route("/runs/{run}", get(run))
        .route("/runs/{run}/jobs", get(jobs))
        .route("/runs/{run}/attempts/{attempt}/jobs", get(attempt_jobs))
        .route("/runs/{run}/rerun", post(rerun))
        .route("/runs/{run}/rerun-failed-jobs", post(rerun_failed))
        .route("/runs/{run}/cancel", post(cancel))
        .route("/runs/{run}/force-cancel", post(force_cancel))
        .route("/jobs/{job}/rerun", post(rerun_job));
    Router::new()
        .nest("/repos/{owner}/{repo}/actions/runners", runners.clone())
        .nest("/orgs/{owner}/actions/runners", runners)
        .nest("/repos/{owner}/{repo}/actions", runs)
}

/// An answer or a refusal.
type Answer = Result<Response, Refusal>;

struct Refusal(u16, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(answers::error(self.0, &self.1))).into_response()
    }
}

fn refuse<T>(status: u16, message: &str) -> Result<T, Refusal> {
    Err(Refusal(status, message.into()))
}

/// The repository or organisation in the path.
#[derive(Deserialize)]
struct Scope {
    owner: String,
    repo: Option<String>,
    id: Option<u64>,
    run: Option<u64>,
    job: Option<u64>,
    attempt: Option<u32>,
}

impl Scope {
    fn check(&self, github: &GitHub) -> Result<(), Refusal> {
        let options = &github.0.options;
        if self.owner == options.owner && self.repo.as_ref().is_none_or(|repo| *repo == options.repo) {
            return Ok(());
        }
        refuse(404, "Not Found")
    }

    fn run(&self) -> RunId {
        RunId(self.run.unwrap_or_default())
    }
}

async fn token(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    scope.check(&github)?;
    let token = github.change(|state| {
        let token = format!("AREG{:026}", state.fresh_id());
        state.tokens.push(token.clone());
        token
    });
    let ends = std::time::SystemTime::now() + std::time::Duration::from_secs(TOKEN_LIFE);
    Ok((
        StatusCode::CREATED,
        Json(json!({ "token": token, "expires_at": answers::time(ends) })),
    )
        .into_response())
}

#[derive(Deserialize)]
struct Page {
    name: Option<String>,
    #[serde(rename = "per_page")]
    size: Option<usize>,
    #[serde(rename = "page")]
    number: Option<usize>,
}

impl Page {
    /// The part of a list that was asked for, and the header that says that there is more.
    fn of(&self, all: Vec<Value>, path: &str, github: &GitHub) -> (usize, Vec<Value>, HeaderMap) {
        let (size, page) = (self.size.unwrap_or(30).clamp(1, 100), self.number.unwrap_or(1).max(1));
        let total = all.len();
        let mut headers = HeaderMap::new();
        if page * size < total {
            let link = format!("<{}{PREFIX}{path}?per_page={size}&page={}>; rel=\"next\"", github.url(), page + 1);
            if let Ok(link) = HeaderValue::try_from(link) {
                headers.insert(header::LINK, link);
            }
        }
        (total, all.into_iter().skip((page - 1) * size).take(size).collect(), headers)
    }
}

async fn list(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, Query(page): Query<Page>) -> Answer {
    scope.check(&github)?;
    let all: Vec<Value> = {
        let state = lock(&github.0.state);
        let named = |runner: &&super::state::Registration| page.name.as_ref().is_none_or(|name| runner.name == *name);
        state.runners.iter().filter(named).map(answers::runner).collect()
    };
    let (total, runners, headers) = page.of(all, "/actions/runners", &github);
    Ok((headers, Json(json!({ "total_count": total, "runners": runners }))).into_response())
}

async fn one(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    scope.check(&github)?;
    match lock(&github.0.state).runner(scope.id.unwrap_or_default()) {
        Some(runner) => Ok(Json(answers::runner(runner)).into_response()),
        None => refuse(404, "Not Found"),
    }
}

async fn remove(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    scope.check(&github)?;
    let id = scope.id.unwrap_or_default();
    github.change(|state| {
        let Some(runner) = state.runner(id) else {
            return refuse(404, "Not Found");
        };
        if runner.job.is_some() {
            let message = format!("Bad request - Runner \"{}\" is still running a job\"", runner.name);
            return refuse(422, &message);
        }
        state.remove_runner(id);
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Jit {
    name: String,
    runner_group_id: u64,
    labels: Vec<String>,
    #[serde(default)]
    work_folder: Option<String>,
}

async fn jit(
    Shared(github): Shared<GitHub>,
    Path(scope): Path<Scope>,
    body: Result<Json<Jit>, axum::extract::rejection::JsonRejection>,
) -> Answer {
    scope.check(&github)?;
    let Ok(Json(body)) = body else {
        return refuse(422, "Validation Failed");
    };
    if body.runner_group_id != 1 || body.labels.is_empty() || body.labels.len() > 100 {
        return refuse(422, "Validation Failed");
    }
    let work = body.work_folder.unwrap_or_else(|| "_work".into());
    github.change(|state| {
        let Some((id, secret)) = state.register(&body.name, body.labels, true) else {
            return refuse(409, "Already exists - A runner with the name already exists.");
        };
        let files = protocol::files(&github, id, &body.name, &secret, &work, true);
        let files: serde_json::Map<String, Value> = files
            .into_iter()
            .map(|(name, text)| (name.into(), json!(STANDARD.encode(text))))
            .collect();
        let config = STANDARD.encode(Value::Object(files).to_string());
        let runner = state.runner(id).map(|runner| answers::runner(runner));
        Ok((StatusCode::CREATED, Json(json!({ "runner": runner, "encoded_jit_config": config }))).into_response())
    })
}

async fn downloads(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    scope.check(&github)?;
    let sum = standin::sha256(&standin::archive().map_err(|error| Refusal(500, error.to_string()))?);
    let one = |arch: &str| json!({ "os": "linux", "architecture": arch, "download_url": github.archive_url(), "filename": standin::archive_name(), "sha256_checksum": sum });
    Ok(Json(json!([one("x64"), one("arm64")])).into_response())
}

/// Answers something about a run, if there is one.
fn about(github: &GitHub, scope: &Scope, answer: impl FnOnce(&Place<'_>, &super::state::Run) -> Value) -> Result<Value, Refusal> {
    scope.check(github)?;
    let api = format!("{}{PREFIX}", github.url());
    let options = &github.0.options;
    let place = Place {
        api: &api,
        owner: &options.owner,
        repo: &options.repo,
    };
    let state = lock(&github.0.state);
    match state.runs.iter().find(|run| run.id == scope.run()) {
        Some(run) => Ok(answer(&place, run)),
        None => refuse(404, "Not Found"),
    }
}

// The method itself is not general enough over lifetimes.
#[allow(clippy::redundant_closure_for_method_calls)]
async fn run(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    Ok(Json(about(&github, &scope, |place, run| place.run(run))?).into_response())
}

async fn jobs(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, Query(page): Query<Page>) -> Answer {
    job_list(&github, &scope, &page, None)
}

async fn attempt_jobs(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>, Query(page): Query<Page>) -> Answer {
    job_list(&github, &scope, &page, scope.attempt)
}

fn job_list(github: &GitHub, scope: &Scope, page: &Page, attempt: Option<u32>) -> Answer {
    let all = about(github, scope, |place, run| {
        let wanted = |job: &&super::state::Job| attempt.is_none_or(|attempt| job.attempt == attempt);
        run.jobs.iter().filter(wanted).map(|job| place.job(run, job)).collect()
    })?;
    let all = all.as_array().cloned().unwrap_or_default();
    let (total, jobs, headers) = page.of(all, &format!("/actions/runs/{}/jobs", scope.run().0), github);
    Ok((headers, Json(json!({ "total_count": total, "jobs": jobs }))).into_response())
}

fn again(github: &GitHub, scope: &Scope, run: RunId, again: &Again) -> Answer {
    scope.check(github)?;
    match github.change(|state| state.rerun(run, again)) {
        Ok(()) => Ok((StatusCode::CREATED, Json(json!({}))).into_response()),
        Err("Not Found") => refuse(404, "Not Found"),
        Err(message) => refuse(403, message),
    }
}

async fn rerun(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    again(&github, &scope, scope.run(), &Again::All)
}

async fn rerun_failed(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    again(&github, &scope, scope.run(), &Again::Failed)
}

async fn rerun_job(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    let job = scope.job.unwrap_or_default();
    let of = |state: &State| {
        state
            .runs
            .iter()
            .find(|run| run.jobs.iter().any(|one| one.id == job))
            .map(|run| run.id)
    };
    let run = of(&lock(&github.0.state));
    match run {
        Some(run) => again(&github, &scope, run, &Again::Job(job)),
        None => refuse(403, "Only jobs from the current attempt can be re-run"),
    }
}

fn end(github: &GitHub, scope: &Scope, force: bool) -> Answer {
    scope.check(github)?;
    if github.change(|state| state.cancel(scope.run(), force)) {
        return Ok((StatusCode::ACCEPTED, Json(json!({}))).into_response());
    }
    refuse(409, "Cannot cancel a workflow run that is completed.")
}

async fn cancel(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    end(&github, &scope, false)
}

async fn force_cancel(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    end(&github, &scope, true)
}
