//! EC2 from inside: the metadata service says when a spot machine is taken, and powering off is termination.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use common::http;
use common::spec::{CloudKind, JobMetadata};
use jiff::Timestamp;
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::attention::Attention;
use super::metadata::Guard;
use super::silence::Silence;
use super::{Host, Interruption, Will, power_off};

/// Where the metadata service is, unless `AWS_EC2_METADATA_SERVICE_ENDPOINT` names another address (as for every AWS SDK).
const ENDPOINT: &str = "http://169.254.169.254";
/// It is asked with a hop limit of 1. Source: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>
const GUARD: Guard = Guard {
    cloud: CloudKind::Aws,
    v6: Some("fd00:ec2::254"),
    one_hop: true,
};
/// [AWS's own advice][notices] is five; two of the 120 seconds are given for waking the machine less than twenty times a minute (a look
/// wakes twice: when it is time, and when the answer is there).
///
/// [notices]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
const INTERVAL: Duration = Duration::from_secs(7);
/// The same while a job runs: a notice is seen within two seconds, and waking does not matter beside the job.
const BUSY_INTERVAL: Duration = Duration::from_millis(1750);
/// The rebalance recommendation is asked for with every one of this many looks: it is only advice.
const ADVICE_EVERY: u32 = 8;
/// The service is on the machine's own host: slower than this is broken.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a session token lives; a new one is asked for when half of it is over.
const TOKEN_LIFE: Duration = Duration::from_hours(6);
/// What a spot notice leaves when it does not say. Source: as for [`INTERVAL`].
pub const NOTICE: Duration = Duration::from_mins(2);

/// An EC2 instance.
pub struct Aws {
    http: Client,
    endpoint: String,
    interval: Duration,
    token: Mutex<Option<(String, Instant)>>,
    attention: Attention,
}

impl Aws {
    /// An instance whose metadata service is where the environment says, else where it always is.
    pub fn new() -> Result<Self> {
        let endpoint = std::env::var("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|_| ENDPOINT.into());
        let interval = std::env::var("CML_METADATA_INTERVAL")
            .ok()
            .and_then(|ms| ms.parse().ok())
            .map(Duration::from_millis);
        Self::at(&endpoint, interval.unwrap_or(INTERVAL))
    }

    fn at(endpoint: &str, interval: Duration) -> Result<Self> {
        Ok(Self {
            http: http::local(ANSWER)?,
            endpoint: endpoint.trim_end_matches('/').into(),
            interval,
            token: Mutex::new(None),
            attention: Attention::new(),
        })
    }

    /// `IMDSv2`: every request needs a session token.
    async fn token(&self) -> Result<String> {
        let mut held = self.token.lock().await;
        if let Some((token, at)) = held.as_ref()
            && at.elapsed() < TOKEN_LIFE / 2
        {
            return Ok(token.clone());
        }
        let request = self.http.request(Method::PUT, format!("{}/latest/api/token", self.endpoint));
        let life = TOKEN_LIFE.as_secs().to_string();
        let answer = request
            .header("x-aws-ec2-metadata-token-ttl-seconds", life)
            .send()
            .await?
            .error_for_status()?;
        let token = answer.text().await?;
        *held = Some((token.clone(), Instant::now()));
        Ok(token)
    }

    /// One value; none where the service knows none.
    async fn get(&self, path: &str) -> Result<Option<String>> {
        Ok(self.get_at(path).await?.map(|(value, _)| value))
    }

    /// The same, and when it was said by the service's clock: the machine's own may be wrong.
    async fn get_at(&self, path: &str) -> Result<Option<(String, Timestamp)>> {
        let mut answer = self.ask(path).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            // The token has been forgotten: the machine was asleep, or the service began again.
            *self.token.lock().await = None;
            answer = self.ask(path).await?;
        }
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.error_for_status()?;
        let now = http::server_time(answer.headers());
        Ok(Some((answer.text().await?, now)))
    }

    async fn ask(&self, path: &str) -> Result<Response> {
        let token = self.token().await.context("asking the metadata service for a token")?;
        let request = self.http.get(format!("{}/latest/{path}", self.endpoint));
        Ok(request.header("x-aws-ec2-metadata-token", token).send().await?)
    }

    async fn notice(&self) -> Result<Option<Interruption>> {
        let said = self.get_at("meta-data/spot/instance-action").await?;
        Ok(said.map(|(text, now)| read_notice(&text, now)))
    }

    async fn advice(&self) -> Result<Option<Interruption>> {
        let found = self.get("meta-data/events/recommendations/rebalance").await?;
        Ok(found.map(|_| Interruption {
            reason: "rebalance recommendation".into(),
            left: NOTICE,
            advice: true,
        }))
    }

    /// Only spot machines are taken with a notice: any other is never asked again.
    async fn waits_for_notices(&self) -> bool {
        let mut silence = Silence::default();
        loop {
            match self.get("meta-data/instance-life-cycle").await {
                Ok(life) => return life.as_deref().map(str::trim) == Some("spot"),
                Err(error) => silence.heard(Some(&error)),
            }
            sleep(self.interval).await;
        }
    }

    /// Looks until there is something to tell.
    async fn watch(&self, advice: bool) -> Result<Interruption> {
        let look = |looks: u32| self.look(advice && looks.is_multiple_of(ADVICE_EVERY));
        self.attention.watch(self.interval, BUSY_INTERVAL, look).await
    }

    /// What this machine is, for whoever reads the log when it is gone.
    async fn describe(&self) -> Result<()> {
        let Some(document) = self.get("dynamic/instance-identity/document").await? else {
            return Ok(());
        };
        let identity: Identity = serde_json::from_str(&document).context("reading the instance's identity")?;
        tracing::info!(
            instance = identity.instance_id,
            kind = identity.instance_type,
            zone = identity.availability_zone,
            image = identity.image_id,
            "this is an EC2 instance"
        );
        Ok(())
    }

    /// One look; the advice, which is asked for more seldom, is heard only once.
    async fn look(&self, advice: bool) -> Result<Option<Interruption>> {
        match self.notice().await? {
            None if advice => self.advice().await,
            notice => Ok(notice),
        }
    }
}

/// The part of the [identity document][docs] that tells machines apart.
///
/// [docs]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    instance_id: String,
    instance_type: String,
    availability_zone: String,
    image_id: String,
}

/// `{"action":"terminate","time":"2026-01-01T00:02:00Z"}`; whatever else it says, the machine is being taken.
pub fn read_notice(text: &str, now: Timestamp) -> Interruption {
    #[derive(Deserialize)]
    struct Notice {
        action: String,
        time: String,
    }
    let notice: Option<Notice> = serde_json::from_str(text).ok();
    let (action, left) = notice.map_or(("terminate".to_owned(), NOTICE), |notice| {
        let left = notice.time.parse::<Timestamp>().map_or(NOTICE, |time| {
            let left = time.duration_since(now);
            // There never is more, whatever the clocks say.
            Duration::try_from(left).unwrap_or(Duration::ZERO).min(NOTICE)
        });
        (notice.action, left)
    });
    let action: String = action.chars().filter(char::is_ascii_alphanumeric).collect();
    Interruption {
        reason: format!("spot instance-action {action}"),
        left,
        advice: false,
    }
}

#[async_trait]
impl Host for Aws {
    async fn next_interruption(&self, advised: bool) -> Interruption {
        if !advised && let Err(error) = self.describe().await {
            tracing::debug!("what this instance is, is not known: {error:#}");
        }
        if self.waits_for_notices().await {
            match self.watch(!advised).await {
                Ok(interruption) => return interruption,
                Err(error) => tracing::error!("a spot notice would not be seen: {error:#}"),
            }
        }
        std::future::pending().await
    }

    fn attend(&self, busy: bool) {
        self.attention.set(busy);
    }

    async fn guard_metadata(&self, reach: JobMetadata) -> Result<()> {
        if self.endpoint != ENDPOINT {
            tracing::info!("the metadata service is not where it always is, and not guarded: {}", self.endpoint);
            return Ok(());
        }
        GUARD.set(reach).await
    }

    async fn terminate(&self, _: &Will) -> Result<()> {
        power_off().await
    }
}

#[cfg(test)]
mod tests;
