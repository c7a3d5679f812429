//! Google Compute Engine on loopback: the API for what a launcher calls, with instances that are real processes.

mod answers;
mod check;
mod front;
mod instances;
pub mod metadata;
mod offers;
mod operations;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::events::{Events, Source};
use crate::faults::Faults;
use crate::fleet::{Fleet, State};
use crate::shared::{appending, lock};
use metadata::Metadata;
use operations::Operation;

/// The project that commands work for.
pub const PROJECT: &str = "sandbox-project";

/// The option that gives a machine an account, whose roles allow all.
pub const OPTION: &str = "--cloud-permission-set=ci@sandbox-project.iam.gserviceaccount.com";

/// A Compute Engine; clones share it.
#[derive(Clone)]
pub struct Gce(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    events: Events,
    fleet: Fleet,
    faults: Faults,
    machines: Mutex<Vec<Machine>>,
    operations: Mutex<Vec<Operation>>,
    /// Codes that the next operations end with.
    failing: Mutex<Vec<(String, usize)>>,
    full: Mutex<BTreeSet<String>>,
    log: Mutex<Vec<Request>>,
    record: Option<Mutex<std::fs::File>>,
    tasks: Mutex<JoinSet<()>>,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// `instances.insert`
    pub call: String,
    /// Its path and query.
    pub path: String,
    /// Its body; null where it has none.
    pub body: Value,
}

/// What Compute Engine knows of an instance besides how it lives.
#[derive(Clone)]
struct Machine {
    /// A number, which is also the fleet's id.
    id: String,
    name: String,
    zone: String,
    body: Value,
    metadata: Metadata,
}

impl Gce {
    /// Starts one on a free port.
    pub async fn start(events: Events, fleet: Fleet, record: Option<PathBuf>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let record = record.as_deref().map(appending).transpose()?;
        let gce = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            events,
            fleet,
            faults: Faults::default(),
            machines: Mutex::default(),
            operations: Mutex::default(),
            failing: Mutex::default(),
            full: Mutex::default(),
            log: Mutex::default(),
            record,
            tasks: Mutex::new(JoinSet::new()),
        }));
        let app = front::app(&gce);
        lock(&gce.0.tasks).spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(gce)
    }

    /// Its address: `CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE`.
    pub fn url(&self) -> String {
        format!("http://{}/compute/v1/", self.0.address)
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The next `times` requests of this call are refused with this code of Google's: at once, or, if it is one of operations, when the operation
    /// has ended.
    pub fn fail(&self, call: &str, code: &str, times: usize) {
        match answers::known(code) {
            Some((status, message)) => self
                .0
                .faults
                .answer(call, times, status, &answers::error(status, code, message).to_string()),
            None => lock(&self.0.failing).push((code.to_owned(), times)),
        }
    }

    /// From now on there is no room in this zone, or for this machine type.
    pub fn no_capacity(&self, zone_or_type: &str) {
        lock(&self.0.full).insert(zone_or_type.into());
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.0.log).clone()
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.call).collect()
    }

    /// Google takes a spot machine back: the notice now, the machine after `left`.
    pub fn take_back(&self, id: &str, left: Duration) {
        if let Some(metadata) = self.metadata(id) {
            metadata.set("instance/preempted", "TRUE");
        }
        let detail = format!("the machine is taken in {} s", left.as_secs());
        self.0.events.push(Source::Cloud, "spot-notice", id, detail);
        self.0.fleet.end_after(id, left, "compute.instances.preempted");
    }

    /// The host of a machine is going to be maintained, and the machine cannot be moved.
    pub fn announce_maintenance(&self, id: &str) {
        if let Some(metadata) = self.metadata(id) {
            metadata.set("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE");
        }
        self.0
            .events
            .push(Source::Cloud, "maintenance-event", id, "the machine will be stopped");
    }

    /// The metadata service of an instance answers no more.
    pub fn silence_metadata(&self, id: &str) {
        if let Some(metadata) = self.metadata(id) {
            metadata.fall_silent();
        }
        self.0.events.push(Source::Cloud, "metadata-silent", id, "");
    }

    /// Somebody else makes a machine of this name.
    pub fn foreign(&self, name: &str) {
        instances::foreign(self, name);
    }

    /// What a command is told: a federation with an identity of its own, as on GitHub; its key is made of `secret`.
    pub fn command_env(&self, secret: &str) -> Vec<(&'static str, String)> {
        let base = format!("http://{}", self.0.address);
        let credentials = json!({
            "type": "external_account",
            "audience": front::AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{base}/v1/token"),
            "credential_source": {
                "url": format!("{base}/identity"),
                "headers": {"Authorization": format!("Bearer {secret}")},
                "format": {"type": "json", "subject_token_field_name": "value"},
            },
        });
        vec![
            ("GOOGLE_APPLICATION_CREDENTIALS_DATA", credentials.to_string()),
            ("GOOGLE_CLOUD_PROJECT", PROJECT.into()),
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", self.url()),
        ]
    }

    /// Ends it.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
    }

    fn metadata(&self, id: &str) -> Option<Metadata> {
        let machines = lock(&self.0.machines);
        machines
            .iter()
            .find(|machine| machine.id == id)
            .map(|machine| machine.metadata.clone())
    }

    /// The machine of this name, as long as something is left of it.
    fn machine(&self, zone: &str, name: &str) -> Option<(Machine, State)> {
        let machines = lock(&self.0.machines);
        let named = machines
            .iter()
            .rev()
            .find(|machine| machine.zone == zone && (machine.name == name || machine.id == name))?;
        let state = self.0.fleet.instance(&named.id)?.state;
        (state != State::Ended).then(|| (named.clone(), state))
    }
}
