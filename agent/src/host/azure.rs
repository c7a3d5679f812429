//! Azure from inside: the metadata service says what is about to happen to the machine, and who it is when it deletes itself. Powering off alone does not end
//! the bill.

mod compute;
pub mod events;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use common::log::escape;
use common::secret::Secret;
use common::spec::{CloudKind, JobMetadata};
use common::{http, last_words, phase};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep};

use super::attention::Attention;
use super::metadata::Guard;
use super::{Host, Interruption, Will, power_off};
use crate::console::Console;
use compute::Compute;
use events::{Event, Events};

/// Where the metadata service is, unless `AZURE_POD_IDENTITY_AUTHORITY_HOST` names another address (as for Azure's SDKs).
const ENDPOINT: &str = "http://169.254.169.254";
/// It has no address in the new protocol. Source: <https://learn.microsoft.com/en-us/azure/virtual-machines/instance-metadata-service>
const GUARD: Guard = Guard {
    cloud: CloudKind::Azure,
    v6: None,
    one_hop: false,
};
/// The versions of what is asked for there.
const EVENTS: &str = "/metadata/scheduledevents?api-version=2020-07-01";
const COMPUTE: &str = "/metadata/instance/compute?api-version=2021-02-01&format=json";
const TOKEN: &str = "/metadata/identity/oauth2/token";
const TOKEN_VERSION: &str = "2018-02-01";
/// Resource Manager, unless `AZURE_RESOURCE_MANAGER_ENDPOINT` names another address; and the version of its groups and machines.
const GROUPS: &str = "2021-04-01";
const MACHINES: &str = "2024-07-01";
/// A group's tags; below the group.
const TAGS: &str = "/providers/Microsoft.Resources/tags/default";
const FORCED: (&str, &str) = ("forceDeletionTypes", "Microsoft.Compute/virtualMachines");

/// A spot machine has [30 seconds][notices] from the notice; seven of them are given, while it has no job, for waking it seldom.
///
/// [notices]: https://learn.microsoft.com/en-us/azure/virtual-machines/linux/scheduled-events#event-scheduling
const INTERVAL: Duration = Duration::from_secs(7);
/// The same while a job runs: Azure's advice is once a second.
const BUSY_INTERVAL: Duration = Duration::from_millis(1250);
/// Any other machine has ten minutes at least, or five where its owner said so. Source: as for [`INTERVAL`].
const REGULAR_INTERVAL: Duration = Duration::from_secs(30);
/// The service is on the machine's own host: slower than this is broken.
const ANSWER: Duration = Duration::from_secs(5);
/// Except for the first question for events, which switches them on. Source: as for [`INTERVAL`], "Enable and disable".
const FIRST_ANSWER: Duration = Duration::from_mins(2);

/// What it says of a group that goes already.
const BEING_DELETED: &str = "ResourceGroupBeingDeleted";

/// How long deleting is tried: a right that the launcher has given may not be known everywhere yet ([up to ten minutes][late]), but this agent's last step
/// ends before.
///
/// [late]: https://learn.microsoft.com/en-us/azure/role-based-access-control/troubleshooting#symptom---role-assignment-changes-are-not-being-detected
const PATIENCE: Duration = Duration::from_mins(4);
/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How often the group is asked to take tags: an eviction leaves 30 s for all of the end.
const TRIES: usize = 3;

/// A virtual machine.
pub struct Azure {
    http: Client,
    first: Client,
    outside: Client,
    endpoint: String,
    manager: Option<String>,
    interval: Option<Duration>,
    attention: Attention,
    compute: OnceCell<Compute>,
    /// What this machine was told last, to be acknowledged when it has cleaned up.
    event: Mutex<Option<Event>>,
    patience: Duration,
}

#[derive(Deserialize)]
struct Token {
    access_token: Secret,
}

/// Why Resource Manager refuses.
#[derive(Default, Deserialize)]
struct Refused {
    error: Code,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Code {
    code: String,
}

impl Azure {
    /// A machine whose metadata service is where the environment says, else where it always is.
    pub fn new() -> Result<Self> {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let interval = get("CML_METADATA_INTERVAL")
            .and_then(|ms| ms.parse().ok())
            .map(Duration::from_millis);
        let endpoint = get("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| ENDPOINT.into());
        Self::at(&endpoint, get("AZURE_RESOURCE_MANAGER_ENDPOINT"), interval)
    }

    fn at(endpoint: &str, manager: Option<String>, interval: Option<Duration>) -> Result<Self> {
        Ok(Self {
            http: http::local(ANSWER)?,
            first: http::local(FIRST_ANSWER)?,
            outside: http::client()?,
            endpoint: endpoint.trim_end_matches('/').into(),
            manager: manager.map(|manager| manager.trim_end_matches('/').into()),
            interval,
            attention: Attention::new(),
            compute: OnceCell::new(),
            event: Mutex::new(None),
            patience: PATIENCE,
        })
    }

    async fn get(&self, client: &Client, path: &str) -> Result<reqwest::Response> {
        let request = client.get(format!("{}{path}", self.endpoint)).header("metadata", "true");
        Ok(request.send().await?.error_for_status()?)
    }

    /// What this machine is; asked until it is known.
    async fn compute(&self) -> Result<&Compute> {
        let ask = || async {
            let found: Compute = self.get(&self.http, COMPUTE).await?.json().await?;
            tracing::info!(
                instance = found.name,
                group = found.resource_group_name,
                kind = found.vm_size,
                region = found.location,
                "this is an Azure machine"
            );
            anyhow::Ok(found)
        };
        self.compute.get_or_try_init(ask).await.context("asking what this machine is")
    }

    /// One look, which may take long when it is the first.
    async fn look(&self, is_first: bool) -> Result<Option<Interruption>> {
        let client = if is_first { &self.first } else { &self.http };
        let name = self.compute().await.map(|compute| compute.name.clone()).unwrap_or_default();
        let answer = self.get(client, EVENTS).await?;
        // By the service's clock: the machine's own may be wrong.
        let now = http::server_time(answer.headers());
        let events: Events = answer.json().await?;
        let Some(event) = events.ending(&name) else {
            return Ok(None);
        };
        let notice = event.interruption(now);
        *self.event.lock().await = Some(event);
        Ok(Some(notice))
    }

    /// Lets Azure go on with what it announced: everything is cleaned up.
    async fn acknowledge(&self) {
        let Some(event) = self.event.lock().await.take().filter(|event| !event.id.is_empty()) else {
            return;
        };
        let body = json!({ "StartRequests": [{ "EventId": event.id }] });
        let request = self.http.post(format!("{}{EVENTS}", self.endpoint)).header("metadata", "true");
        if let Err(error) = request.json(&body).send().await {
            tracing::debug!("the event cannot be acknowledged: {error:#}");
        }
    }

    /// A token for Resource Manager, as the identity that may delete.
    async fn token(&self, compute: &Compute) -> Result<Secret> {
        let resource = format!("{}/", compute.manager());
        let mut request = self.http.get(format!("{}{TOKEN}", self.endpoint)).header("metadata", "true");
        request = request.query(&[("api-version", TOKEN_VERSION), ("resource", &resource)]);
        if let Some(identity) = compute.identity() {
            request = request.query(&[("msi_res_id", identity)]);
        }
        let answer = request.send().await?.error_for_status()?;
        Ok(answer.json::<Token>().await?.access_token)
    }

    /// Asks Resource Manager to change a resource; one that is gone already, or going, is success.
    async fn change(&self, compute: &Compute, request: RequestBuilder) -> Result<()> {
        let token = self.token(compute).await.context("asking for a token of this machine's identity")?;
        let request = request.header(
            reqwest::header::AUTHORIZATION,
            http::authorization(&format!("Bearer {}", token.expose()))?,
        );
        let answer = request.send().await.map_err(reqwest::Error::without_url)?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        let refused: Refused = answer.json().await.unwrap_or_default();
        if refused.error.code == BEING_DELETED {
            return Ok(());
        }
        bail!("Azure answered {status} {}", escape(&refused.error.code))
    }

    /// A request to Resource Manager, whose token is still missing.
    fn request(&self, compute: &Compute, method: Method, path: &str) -> RequestBuilder {
        let manager = self.manager.as_deref().unwrap_or(compute.manager());
        self.outside.request(method, format!("{manager}{path}"))
    }

    /// Writes what is still to be done on the group, which outlives the machine then. Whether it stands there.
    async fn leave(&self, compute: &Compute, pending: &str) -> bool {
        if !compute.owns_group() {
            tracing::error!("the job that is to run again is lost with this machine: its group is somebody else's, and gets no tags");
            return false;
        }
        let body = json!({ "operation": "Merge", "properties": { "tags": last_words::split(pending) } });
        for _ in 0..TRIES {
            let request = self.request(compute, Method::PATCH, &format!("{}{TAGS}", compute.group()));
            match self.change(compute, request.query(&[("api-version", GROUPS)]).json(&body)).await {
                Ok(()) => return true,
                Err(error) => tracing::warn!("the group takes no tags: {error:#}"),
            }
            sleep(PAUSES.0).await;
        }
        tracing::error!("the job that is to run again is lost with this machine: its group takes no tags");
        false
    }

    /// Deletes the group that this machine is in with all that is in it, or at least the machine; only the machine where something is left to be done.
    async fn delete_self(&self, pending: Option<&str>) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        let mut pause = PAUSES.0;
        loop {
            let error = match self.try_to_delete(pending).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::warn!(
                "this machine cannot delete itself yet: {error:#}; trying again in {} s",
                pause.as_secs()
            );
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn try_to_delete(&self, pending: Option<&str>) -> Result<()> {
        let compute = self.compute().await?;
        let is_left = match pending {
            Some(pending) => self.leave(compute, pending).await,
            None => false,
        };
        if compute.owns_group() && !is_left {
            let request = self.request(compute, Method::DELETE, &compute.group());
            let deleted = self.change(compute, request.query(&[("api-version", GROUPS), FORCED])).await;
            let Err(error) = deleted else {
                tracing::info!("deleting the resource group {}", compute.resource_group_name);
                return Ok(());
            };
            tracing::warn!("deleting the resource group {}: {error:#}", compute.resource_group_name);
        }
        let request = self.request(compute, Method::DELETE, &compute.machine());
        let request = request.query(&[("api-version", MACHINES), ("forceDeletion", "true")]);
        self.change(compute, request).await.context("deleting this machine")?;
        tracing::info!("deleting this machine; its group is left to `cml runner reap`");
        Ok(())
    }
}

#[async_trait]
impl Host for Azure {
    async fn next_interruption(&self, _: bool) -> Interruption {
        let compute = self.compute().await;
        if let Err(error) = &compute {
            tracing::debug!("what this machine is, is not known: {error:#}");
        }
        // Whoever does not know looks often.
        let is_spot = compute.map_or(true, Compute::is_spot);
        let (idle, busy) = match (self.interval, is_spot) {
            (Some(interval), _) => (interval, BUSY_INTERVAL),
            (None, true) => (INTERVAL, BUSY_INTERVAL),
            (None, false) => (REGULAR_INTERVAL, REGULAR_INTERVAL),
        };
        match self.attention.watch(idle, busy, |looks| self.look(looks == 0)).await {
            Ok(interruption) => return interruption,
            Err(error) => tracing::error!("a notice would not be seen: {error:#}"),
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

    async fn terminate(&self, will: &Will) -> Result<()> {
        will.read().await;
        let deleted = self.delete_self(will.pending.as_deref()).await;
        self.acknowledge().await;
        let Err(error) = deleted else {
            return Ok(());
        };
        let words = format!(
            "this machine cannot delete itself, and COSTS MONEY even when it is off, until `cml runner reap` or you delete it: {error:#}"
        );
        tracing::error!("{words}");
        Console::open(true).phase("terminate", phase::State::Fail, &words);
        power_off().await
    }
}

#[cfg(test)]
mod tests;
