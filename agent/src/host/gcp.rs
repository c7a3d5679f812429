//! Compute Engine from inside: the metadata service says when the machine is taken, and the machine deletes itself where it may.

mod end;

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use common::http;
use common::spec::{CloudKind, JobMetadata};
use reqwest::{Client, StatusCode};
use tokio::time::{Instant, sleep, sleep_until};

use super::metadata::Guard;
use super::silence::Silence;
use super::{Host, Interruption, Will, grace, power_off};

/// Where the metadata service is, unless `GCE_METADATA_HOST` names another host (as for every client of Google's). Not by name: that would
/// take a name server.
const HOST: &str = "169.254.169.254";
/// On machines without IPv4 it has the other address. Source: <https://docs.cloud.google.com/compute/docs/metadata/querying-metadata>
const GUARD: Guard = Guard {
    cloud: CloudKind::Gcp,
    v6: Some("fd20:ce::254"),
    one_hop: false,
};
/// How long the service holds a question, in seconds, while there is nothing new: what [Google's own agent][agent] asks for.
///
/// [agent]: https://github.com/GoogleCloudPlatform/guest-agent
const HANG: u64 = 60;
/// How long it may take to answer beside that: it is on the machine's own host.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after a question that was not held: one that failed, above all.
const PAUSE: Duration = Duration::from_secs(5);
/// What a preemption leaves: [`preemptionNoticeDuration`][notice], which the launcher asks for. The 30 seconds of the shutdown come on top.
///
/// [notice]: https://docs.cloud.google.com/compute/docs/instances/create-use-spot#preemption-notice
const NOTICE: Duration = Duration::from_mins(2);
/// What an announced [maintenance][events] leaves a machine that cannot be moved: an hour with GPUs.
///
/// [events]: https://docs.cloud.google.com/compute/docs/gpus/gpu-host-maintenance
const MAINTENANCE: Duration = Duration::from_hours(1);

/// A Compute Engine instance.
pub struct Gcp {
    http: Client,
    host: String,
    pause: Duration,
}

/// A value, and the tag that tells it from a later one.
#[derive(Debug, Default)]
struct Value {
    text: String,
    tag: Option<String>,
}

impl Gcp {
    /// An instance whose metadata service is where the environment says, else where it always is.
    pub fn new() -> Result<Self> {
        let host = std::env::var("GCE_METADATA_HOST").unwrap_or_else(|_| HOST.into());
        let pause = std::env::var("CML_METADATA_INTERVAL").ok().and_then(|ms| ms.parse().ok());
        Self::at(&host, pause.map_or(PAUSE, Duration::from_millis))
    }

    fn at(host: &str, pause: Duration) -> Result<Self> {
        Ok(Self {
            http: http::local(Duration::from_secs(HANG) + ANSWER)?,
            host: host.into(),
            pause,
        })
    }

    /// One value; none where the service knows none. With what was last `seen`, it is held until there is something else.
    async fn get(&self, path: &str, seen: Option<&Value>) -> Result<Option<Value>> {
        let mut request = self.http.get(format!("http://{}/computeMetadata/v1/{path}", self.host));
        request = match seen.and_then(|seen| seen.tag.as_ref()) {
            Some(tag) => request.query(&[("wait_for_change", "true"), ("timeout_sec", &HANG.to_string()), ("last_etag", tag)]),
            None => request.timeout(ANSWER),
        };
        let answer = request.header("metadata-flavor", "Google").send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.error_for_status()?;
        let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        let text = answer.text().await?.trim().to_owned();
        Ok(Some(Value { text, tag }))
    }

    async fn text(&self, path: &str) -> Result<Option<String>> {
        Ok(self.get(path, None).await?.map(|value| value.text))
    }

    /// Waits until a value is one that means something.
    async fn watch(&self, path: &str, meaning: fn(&str) -> Option<Interruption>) -> Interruption {
        let mut silence = Silence::default();
        let mut seen = None;
        loop {
            let asked = Instant::now();
            let is_first = seen.is_none();
            let value = self.get(path, seen.as_ref()).await;
            silence.heard(value.as_ref().err());
            // After an error, and where there is no such value yet, the next question must not be held: what is new meanwhile would be old to it.
            seen = value.unwrap_or_default();
            if let Some(interruption) = seen.as_ref().and_then(|value| meaning(&value.text)) {
                return interruption;
            }
            // The first answer comes at once, and the next question is held; only a service that fails, knows nothing, or holds nothing is spared.
            if !(is_first && seen.as_ref().is_some_and(|seen| seen.tag.is_some())) {
                sleep_until(asked + self.pause).await;
            }
        }
    }

    /// Only spot machines are taken with a notice.
    async fn is_spot(&self) -> bool {
        let mut silence = Silence::default();
        loop {
            match self.text("instance/scheduling/preemptible").await {
                Ok(word) => return word.is_some_and(|word| word.eq_ignore_ascii_case("true")),
                Err(error) => silence.heard(Some(&error)),
            }
            sleep(self.pause).await;
        }
    }

    /// What this machine is, for whoever reads the log when it is gone.
    async fn describe(&self) -> Result<()> {
        let part = async |name: &str| -> Result<String> {
            let text = self.text(&format!("instance/{name}")).await?.unwrap_or_default();
            Ok(last(&text).to_owned())
        };
        let (instance, kind) = (part("name").await?, part("machine-type").await?);
        let (zone, image) = (part("zone").await?, part("image").await?);
        tracing::info!(instance, kind, zone, image, "this is a Compute Engine instance");
        Ok(())
    }
}

/// The last part of a path, which is a name.
pub fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `instance/preempted`: TRUE from the notice on. Source:
/// <https://docs.cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption>
pub fn preempted(text: &str) -> Option<Interruption> {
    text.eq_ignore_ascii_case("true").then(|| Interruption {
        reason: "preempted".into(),
        left: grace(NOTICE),
        advice: false,
    })
}

/// `instance/maintenance-event`: a machine that is moved loses nothing; one that cannot be has an hour to finish what it does. Source:
/// <https://docs.cloud.google.com/compute/docs/metadata/getting-live-migration-notice>
pub fn maintained(text: &str) -> Option<Interruption> {
    text.starts_with("TERMINATE").then(|| Interruption {
        reason: "maintenance-event terminate".into(),
        left: MAINTENANCE,
        advice: true,
    })
}

#[async_trait]
impl Host for Gcp {
    async fn next_interruption(&self, advised: bool) -> Interruption {
        if !advised && let Err(error) = self.describe().await {
            tracing::debug!("what this instance is, is not known: {error:#}");
        }
        let notice = async {
            if self.is_spot().await {
                return self.watch("instance/preempted", preempted).await;
            }
            std::future::pending().await
        };
        let advice = async {
            if !advised {
                return self.watch("instance/maintenance-event", maintained).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            notice = notice => notice,
            advice = advice => advice,
        }
    }

    fn attend(&self, _: bool) {
        // The service holds the question until there is something to tell: nothing is seen sooner by asking more often.
    }

    async fn guard_metadata(&self, reach: JobMetadata) -> Result<()> {
        if self.host != HOST {
            tracing::info!("the metadata service is not where it always is, and not guarded: {}", self.host);
            return Ok(());
        }
        GUARD.set(reach).await
    }

    /// Deletes itself where its service account may, and powers off in any case: a machine that only stops has a disk left. The console goes with a
    /// machine that is deleted, and stays with one that is stopped.
    async fn terminate(&self, will: &Will) -> Result<()> {
        if will.pending.is_some() {
            tracing::warn!("this machine only stops: the job that is to run again stands on its console, where `cml runner reap` finds it");
            return power_off().await;
        }
        will.read().await;
        match self.delete_itself().await.context("deleting this instance") {
            Ok(()) => {}
            Err(error) => tracing::warn!("{error:#}: it only powers off; `cml runner reap` removes the stopped machine and its disk"),
        }
        power_off().await
    }
}

#[cfg(test)]
mod tests;
