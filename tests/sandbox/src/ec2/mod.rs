//! EC2 on loopback: the query API for what a launcher calls, with instances that are real processes.

mod answers;
mod check;
mod front;
mod offers;
mod prices;
mod refusal;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::events::{Events, Source};
use crate::faults::Faults;
use crate::fleet::{Fleet, State};
use crate::imds::Metadata;
use crate::shared::{appending, lock};

pub use answers::error;

/// The parameters of a request.
pub type Form = BTreeMap<String, String>;

/// The access key that is accepted; its secret is never sent, and not checked.
pub const ACCESS_KEY: &str = "AKIASANDBOX000000000";

/// An EC2; clones share it.
#[derive(Clone)]
pub struct Ec2(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    events: Events,
    fleet: Fleet,
    faults: Faults,
    launches: Mutex<Vec<Launched>>,
    full: Mutex<BTreeSet<String>>,
    log: Mutex<Vec<(String, Form)>>,
    record: Option<Mutex<std::fs::File>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What EC2 knows of an instance besides how it lives.
#[derive(Clone)]
struct Launched {
    id: String,
    form: Form,
    zone: String,
    metadata: Metadata,
}

impl Ec2 {
    /// Starts one on a free port.
    pub async fn start(events: Events, fleet: Fleet, record: Option<PathBuf>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let record = record.as_deref().map(appending).transpose()?;
        let ec2 = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            events,
            fleet,
            faults: Faults::default(),
            launches: Mutex::default(),
            full: Mutex::default(),
            log: Mutex::default(),
            record,
            task: Mutex::default(),
        }));
        let app = front::app(&ec2);
        *lock(&ec2.0.task) = Some(tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        }));
        Ok(ec2)
    }

    /// Its address: `AWS_ENDPOINT_URL_EC2`.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The next `times` requests of this action are refused with this code of EC2's, with its status and a message like EC2's.
    pub fn fail(&self, action: &str, code: &str, times: usize) {
        let (status, message) = refusal::known(code);
        self.0.faults.answer(action, times, status, &error(code, message));
    }

    /// From now on there is no room for a launch in this zone, or for this type.
    pub fn no_capacity(&self, zone_or_type: &str) {
        lock(&self.0.full).insert(zone_or_type.into());
    }

    /// Every request so far: its action and its parameters.
    pub fn requests(&self) -> Vec<(String, Form)> {
        lock(&self.0.log).clone()
    }

    /// The actions so far.
    pub fn calls(&self) -> Vec<String> {
        self.requests().into_iter().map(|(action, _)| action).collect()
    }

    /// EC2 takes a spot instance back: the notice now, the machine after `left`.
    pub fn take_back(&self, id: &str, left: Duration) {
        if let Some(metadata) = self.metadata(id) {
            metadata.take_back(SystemTime::now() + left);
        }
        self.0.events.push(
            Source::Cloud,
            "spot-notice",
            id,
            format!("the machine is taken in {} s", left.as_secs()),
        );
        self.0.fleet.end_after(id, left, "Server.SpotInstanceTermination");
    }

    /// EC2 advises to leave a spot instance.
    pub fn rebalance(&self, id: &str) {
        if let Some(metadata) = self.metadata(id) {
            metadata.advise(SystemTime::now());
        }
        self.0.events.push(Source::Cloud, "rebalance", id, "recommended");
    }

    /// The metadata service of an instance answers no more.
    pub fn silence_metadata(&self, id: &str) {
        if let Some(metadata) = self.metadata(id) {
            metadata.fall_silent();
        }
        self.0.events.push(Source::Cloud, "metadata-silent", id, "");
    }

    /// Somebody else makes a machine with this name and id, as tags.
    pub fn foreign(&self, name: &str) {
        run::foreign(self, name);
    }

    /// What a command is told; its key is made of `secret`.
    pub fn command_env(&self, secret: &str) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", secret.into()),
            ("AWS_ENDPOINT_URL_EC2", self.url()),
            ("AWS_ENDPOINT_URL_PRICING", self.url()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ]
    }

    /// Ends it.
    pub async fn close(&self) {
        let task = lock(&self.0.task).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    fn launched(&self, id: &str) -> Option<Launched> {
        lock(&self.0.launches).iter().find(|launched| launched.id == id).cloned()
    }

    fn metadata(&self, id: &str) -> Option<Metadata> {
        self.launched(id).map(|launched| launched.metadata)
    }
}

/// EC2's code and name of a state.
const fn names(state: State) -> (u16, &'static str) {
    match state {
        State::Pending => (0, "pending"),
        State::Running => (16, "running"),
        State::Ending => (32, "shutting-down"),
        State::Ended => (48, "terminated"),
        State::Stopped => (80, "stopped"),
    }
}
