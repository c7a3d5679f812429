//! EC2 from inside: the metadata service says when a spot machine is taken, and powering off is termination.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use common::http;
use jiff::Timestamp;
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{Host, Interruption, power_off};

/// Where the metadata service is, unless `AWS_EC2_METADATA_SERVICE_ENDPOINT` names another address (as for every AWS SDK).
const ENDPOINT: &str = "http://169.254.169.254";
/// AWS's own advice. Source: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>
const INTERVAL: Duration = Duration::from_secs(5);
/// The rebalance recommendation is asked for with every one of this many looks: it is only advice.
const ADVICE_EVERY: u32 = 3;
/// The service is on the machine's own host: slower than this is broken.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a session token lives; a new one is asked for when half of it is over.
const TOKEN_LIFE: Duration = Duration::from_hours(6);
/// What a spot notice leaves when it does not say. Source: as for [`INTERVAL`].
const NOTICE: Duration = Duration::from_mins(2);

/// An EC2 instance.
pub struct Aws {
    http: Client,
    endpoint: String,
    interval: Duration,
    token: Mutex<Option<(String, Instant)>>,
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
        })
    }

    /// IMDSv2: every request needs a session token.
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
        let token = self.token().await.context("asking the metadata service for a token")?;
        let request = self.http.get(format!("{}/latest/meta-data/{path}", self.endpoint));
        let answer = request.header("x-aws-ec2-metadata-token", token).send().await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED => {
                // It has been forgotten (a machine that was asleep): the next look brings a new one.
                *self.token.lock().await = None;
                anyhow::bail!("the metadata service refused its own token")
            }
            _ => Ok(Some(answer.error_for_status()?.text().await?)),
        }
    }

    async fn notice(&self) -> Result<Option<Interruption>> {
        let Some(text) = self.get("spot/instance-action").await? else {
            return Ok(None);
        };
        Ok(Some(read_notice(&text, Timestamp::now())))
    }

    async fn advice(&self) -> Result<Option<Interruption>> {
        let found = self.get("events/recommendations/rebalance").await?;
        Ok(found.map(|_| Interruption {
            reason: "rebalance recommendation".into(),
            left: NOTICE,
            advice: true,
        }))
    }

    /// Only spot machines are taken with a notice: any other is never asked again.
    async fn is_spot(&self) -> bool {
        let mut told = false;
        loop {
            match self.get("instance-life-cycle").await {
                Ok(life) => return life.as_deref().map(str::trim) == Some("spot"),
                Err(error) if told => tracing::debug!("the metadata service does not answer: {error:#}"),
                Err(error) => {
                    tracing::warn!("the metadata service does not answer, a spot notice would not be seen: {error:#}");
                    told = true;
                }
            }
            sleep(self.interval).await;
        }
    }
}

/// `{"action":"terminate","time":"2026-01-01T00:02:00Z"}`; whatever else it says, the machine is being taken.
fn read_notice(text: &str, now: Timestamp) -> Interruption {
    #[derive(Deserialize)]
    struct Notice {
        action: String,
        time: String,
    }
    let notice: Option<Notice> = serde_json::from_str(text).ok();
    let (action, left) = notice.map_or(("terminate".to_owned(), NOTICE), |notice| {
        let left = notice.time.parse::<Timestamp>().map_or(NOTICE, |time| {
            let left = time.duration_since(now);
            Duration::try_from(left).unwrap_or(Duration::ZERO)
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
        if !self.is_spot().await {
            return std::future::pending().await;
        }
        let mut looks = 0_u32;
        loop {
            match self.notice().await {
                Ok(Some(notice)) => return notice,
                Ok(None) => {}
                Err(error) => tracing::debug!("the metadata service does not answer: {error:#}"),
            }
            if !advised && looks.is_multiple_of(ADVICE_EVERY) {
                match self.advice().await {
                    Ok(Some(advice)) => return advice,
                    Ok(None) => {}
                    Err(error) => tracing::debug!("the metadata service does not answer: {error:#}"),
                }
            }
            looks = looks.wrapping_add(1);
            sleep(self.interval).await;
        }
    }

    async fn terminate(&self) -> Result<()> {
        power_off().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::{get, put};

    use super::{Aws, read_notice};
    use crate::host::Host;

    /// A metadata service; returns its address and the switch of its spot notice.
    async fn service(life: &'static str) -> (String, Arc<AtomicBool>) {
        let taken = Arc::new(AtomicBool::new(false));
        let allowed = |headers: &HeaderMap| headers.get("x-aws-ec2-metadata-token").is_some_and(|token| token == "secret");
        let app = axum::Router::new()
            .route("/latest/api/token", put(|| async { "secret" }))
            .route(
                "/latest/meta-data/instance-life-cycle",
                get(move |headers: HeaderMap| async move {
                    if allowed(&headers) {
                        (StatusCode::OK, life)
                    } else {
                        (StatusCode::UNAUTHORIZED, "")
                    }
                }),
            )
            .route(
                "/latest/meta-data/spot/instance-action",
                get(move |State(taken): State<Arc<AtomicBool>>, headers: HeaderMap| async move {
                    match (allowed(&headers), taken.load(Ordering::Relaxed)) {
                        (false, _) => (StatusCode::UNAUTHORIZED, ""),
                        (true, false) => (StatusCode::NOT_FOUND, ""),
                        (true, true) => (StatusCode::OK, r#"{"action":"terminate","time":"2036-01-01T00:00:00Z"}"#),
                    }
                }),
            )
            .with_state(taken.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (address, taken)
    }

    #[tokio::test]
    async fn a_spot_notice_is_seen() {
        let (address, taken) = service("spot").await;
        let host = Aws::at(&address, Duration::from_millis(5)).unwrap();
        let seen = tokio::spawn(async move { host.next_interruption(false).await });
        taken.store(true, Ordering::Relaxed);
        let notice = tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap().unwrap();
        assert_eq!((notice.reason.as_str(), notice.advice), ("spot instance-action terminate", false));
    }

    #[tokio::test]
    async fn a_machine_that_is_no_spot_machine_is_not_asked() {
        let (address, taken) = service("on-demand").await;
        taken.store(true, Ordering::Relaxed);
        let host = Aws::at(&address, Duration::from_millis(1)).unwrap();
        assert!(!host.is_spot().await);
    }

    #[test]
    fn a_notice_that_cannot_be_read_is_a_notice() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let notice = read_notice(r#"{"action":"stop\u001b[2J","time":"2026-01-01T00:01:30Z"}"#, now);
        assert_eq!((notice.reason.as_str(), notice.left.as_secs()), ("spot instance-action stop2J", 90));
        assert_eq!(read_notice("garbage", now).left.as_secs(), 120);
        assert_eq!(
            read_notice(r#"{"action":"stop","time":"2025-01-01T00:00:00Z"}"#, now)
                .left
                .as_secs(),
            0
        );
    }
}
