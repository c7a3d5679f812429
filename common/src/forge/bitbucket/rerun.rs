//! Running an interrupted step again. Bitbucket has no request for it: what its web page calls a re-run is not in its API, so that a new
//! pipeline of the same target is started, as <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-pipelines/> describes it.
//!
//! No pipeline knows that it repeats another. The guard against loops is therefore ours: how many pipelines there are of the commit and
//! target counts as the number of attempts, and a newer one than ours as somebody's re-run.

use anyhow::{Context as _, Result};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::Bitbucket;
use super::refusal::{self, Permission};
use super::scope::{encoded, is_uuid};
use crate::forge::{Declined, Interrupted, Rerun, RerunOutcome, RerunScope, lost, pace};

/// How Bitbucket writes that a pipeline or a step has ended, and that it did well.
const COMPLETED: &str = "COMPLETED";
const SUCCESSFUL: &str = "SUCCESSFUL";

#[derive(Deserialize)]
struct Pipeline {
    build_number: u64,
    state: State,
    target: Value,
}

#[derive(Deserialize)]
struct State {
    name: String,
    result: Option<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    name: String,
}

impl State {
    fn has_ended(&self) -> bool {
        self.name == COMPLETED
    }

    fn is_success(&self) -> bool {
        self.has_ended() && self.result.as_ref().is_some_and(|result| result.name == SUCCESSFUL)
    }
}

pub async fn rerun(bitbucket: &Bitbucket, request: &Rerun) -> Result<RerunOutcome> {
    timeout(request.budget, request_again(bitbucket, request))
        .await
        .unwrap_or_else(|_| {
            Err(anyhow::anyhow!(
                "Bitbucket did not let the interrupted step run again within {} s",
                request.budget.as_secs()
            ))
        })
}

async fn request_again(bitbucket: &Bitbucket, request: &Rerun) -> Result<RerunOutcome> {
    // Its runner tells the ids of a step with its first word of it.
    let Interrupted::Known(job) = &request.job else {
        return Ok(RerunOutcome::Declined(Declined::Unknown));
    };
    // What told us of the step may be forged: it must not lead our token to pipelines that are none of ours.
    let repository = bitbucket
        .scope
        .repository(&job.repository)
        .filter(|_| is_uuid(&job.run) && is_uuid(&job.key));
    let repository = repository.with_context(|| {
        format!(
            "pipeline `{}` of `{}` does not belong to the {}",
            job.run, job.repository, bitbucket.scope
        )
    })?;
    let pipelines = format!("{repository}/pipelines");
    let conversation = Conversation {
        bitbucket,
        request,
        pipeline: format!("{pipelines}/{}", encoded(&job.run)),
        step: encoded(&job.key),
        pipelines: pipelines + "/",
    };
    conversation
        .hold()
        .await
        .with_context(|| format!("running pipeline {} again", job.run))
}

struct Conversation<'a> {
    bitbucket: &'a Bitbucket,
    request: &'a Rerun,
    /// The path of the repository's pipelines.
    pipelines: String,
    /// The path of the pipeline.
    pipeline: String,
    /// The step in it.
    step: String,
}

impl Conversation<'_> {
    async fn hold(&self) -> Result<RerunOutcome> {
        let pipeline = match self.ended().await? {
            Ok(pipeline) => pipeline,
            Err(declined) => return Ok(RerunOutcome::Declined(declined)),
        };
        let body = json!({ "target": pipeline.target });
        for _ in 0..lost::TRIES {
            let request = self.bitbucket.request(Method::POST, &self.pipelines).json(&body);
            let Some(answer) = lost::send_once(request, &self.bitbucket.api.retry).await? else {
                if self.guard(&pipeline).await? == Some(Declined::AlreadyRerun) {
                    return Ok(RerunOutcome::Requested(RerunScope::WholeRun));
                }
                continue;
            };
            if answer.status.is_success() {
                return Ok(RerunOutcome::Requested(RerunScope::WholeRun));
            }
            return Err(self.bitbucket.refused(&answer, Permission::Pipelines));
        }
        Err(lost::give_up())
    }

    /// Waits until the pipeline has ended, or until there is a reason to leave it alone: two pipelines of one commit would do the work of
    /// its other steps twice, and a deployment perhaps against each other.
    async fn ended(&self) -> Result<Result<Pipeline, Declined>> {
        let (began, patience) = (Instant::now(), self.request.patience);
        let mut is_stopped = false;
        loop {
            let Some(pipeline) = self.pipeline().await? else {
                return Ok(Err(Declined::Unknown));
            };
            if pipeline.state.is_success() || self.has_succeeded().await? {
                return Ok(Err(Declined::Succeeded));
            }
            if let Some(declined) = self.guard(&pipeline).await? {
                return Ok(Err(declined));
            }
            if pipeline.state.has_ended() {
                return Ok(Ok(pipeline));
            }
            if !is_stopped && began.elapsed() >= patience {
                // Healthy steps die with it, so only when ours cannot run again otherwise.
                tracing::warn!("the pipeline does not end by itself: stopping it, so that the interrupted step can run again");
                self.stop().await?;
                is_stopped = true;
            }
            sleep(pace::interval(patience)).await;
        }
    }

    async fn stop(&self) -> Result<()> {
        let answer = self
            .bitbucket
            .call(Method::POST, &format!("{}/stopPipeline", self.pipeline))
            .await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            // It has ended meanwhile; the next look tells.
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT => {
                tracing::info!("the pipeline is not stopped: {}", refusal::message(&answer));
                Ok(())
            }
            _ => Err(self.bitbucket.refused(&answer, Permission::Pipelines)),
        }
    }

    async fn pipeline(&self) -> Result<Option<Pipeline>> {
        let answer = self.bitbucket.call(Method::GET, &self.pipeline).await?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.bitbucket.refused(&answer, Permission::Pipelines)),
        }
    }

    /// Whether our step ended well after all; where Bitbucket does not know it, the pipeline tells.
    async fn has_succeeded(&self) -> Result<bool> {
        #[derive(Deserialize)]
        struct Step {
            state: State,
        }
        let answer = self
            .bitbucket
            .call(Method::GET, &format!("{}/steps/{}", self.pipeline, self.step))
            .await?;
        match answer.status {
            StatusCode::OK => Ok(answer.json::<Step>()?.state.is_success()),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.bitbucket.refused(&answer, Permission::Pipelines)),
        }
    }

    /// Why the pipeline must be left alone.
    async fn guard(&self, pipeline: &Pipeline) -> Result<Option<Declined>> {
        let target = Identity::of(&pipeline.target);
        let commit = target.commit.context("Bitbucket does not tell the pipeline's commit")?;
        let query = [("target.commit.hash", commit), ("sort", "-created_on")];
        let all: Vec<Pipeline> = self.bitbucket.pages(&self.pipelines, &query, Permission::Pipelines).await?;
        let mut same = all.iter().filter(|other| Identity::of(&other.target) == target);
        if same.clone().any(|other| other.build_number > pipeline.build_number) {
            return Ok(Some(Declined::AlreadyRerun));
        }
        // Ours is one of them, even if the list does not have it yet.
        let others = same.by_ref().filter(|other| other.build_number != pipeline.build_number).count();
        let attempts = u32::try_from(others + 1).unwrap_or(u32::MAX);
        Ok((attempts >= self.request.max_attempts).then_some(Declined::AttemptsUsedUp(attempts)))
    }
}

/// What makes two targets the same, whatever else is told of them.
#[derive(Debug, PartialEq, Eq)]
struct Identity<'a> {
    commit: Option<&'a str>,
    /// Kind, branch or tag, pull request, and which part of bitbucket-pipelines.yml.
    rest: [Option<&'a Value>; 7],
}

impl<'a> Identity<'a> {
    fn of(target: &'a Value) -> Self {
        const PARTS: [&str; 7] = [
            "/type",
            "/ref_type",
            "/ref_name",
            "/pullrequest/id",
            "/destination",
            "/selector/type",
            "/selector/pattern",
        ];
        Self {
            commit: target.pointer("/commit/hash").and_then(Value::as_str),
            // Told as null, or not at all.
            rest: PARTS.map(|part| target.pointer(part).filter(|value| !value.is_null())),
        }
    }
}
