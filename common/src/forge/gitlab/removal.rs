//! Removing a registration without taking its runner from a job.

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::GitLab;
use crate::forge::{Removal, RunnerId};
use crate::http::Answer;

/// GitLab refuses nothing, so that the runner is paused before it is looked whether it has a job: none can come in between.
pub async fn withdraw(gitlab: &GitLab, id: &RunnerId) -> Result<Removal> {
    let paused = pause(gitlab, id, true).await?;
    match paused.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(Removal::Gone),
        _ => return Err(gitlab.refused(&paused)),
    }
    let removal = match has_job(gitlab, id).await {
        Ok(Some(true)) => Ok(Removal::Busy("it runs a job".into())),
        Ok(Some(false)) => delete(gitlab, id).await,
        Ok(None) => Ok(Removal::Gone),
        Err(error) => Err(error),
    };
    // A runner that stays must get jobs again, whatever it stays for.
    if matches!(removal, Ok(Removal::Busy(_)) | Err(_)) {
        match pause(gitlab, id, false).await {
            Ok(answer) if answer.status == StatusCode::OK => {}
            other => tracing::warn!("the runner stays paused: {:?}", other.map(|answer| answer.status)),
        }
    }
    removal
}

/// Whether a runner has a job, as far as the server knows; `None` if it does not know the runner.
pub async fn has_job(gitlab: &GitLab, id: &RunnerId) -> Result<Option<bool>> {
    let answer = gitlab
        .call(Method::GET, &format!("/runners/{id}/jobs?status=running&per_page=1"))
        .await?;
    match answer.status {
        StatusCode::OK => Ok(Some(!answer.json::<Vec<Value>>()?.is_empty())),
        StatusCode::NOT_FOUND => Ok(None),
        _ => Err(gitlab.refused(&answer)),
    }
}

async fn pause(gitlab: &GitLab, id: &RunnerId, paused: bool) -> Result<Answer> {
    let request = gitlab.request(Method::PUT, &format!("/runners/{id}")).await?;
    gitlab.api.fetch(request.json(&json!({ "paused": paused }))).await
}

/// Whatever its runner does.
pub async fn delete(gitlab: &GitLab, id: &RunnerId) -> Result<Removal> {
    let answer = gitlab.call(Method::DELETE, &format!("/runners/{id}")).await?;
    match answer.status {
        StatusCode::NO_CONTENT => Ok(Removal::Removed),
        StatusCode::NOT_FOUND => Ok(Removal::Gone),
        _ => Err(gitlab.refused(&answer)),
    }
}
