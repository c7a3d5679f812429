//! Azure on loopback: Resource Manager for what a launcher calls, the authority that gives it tokens, and machines that are real processes.

mod answers;
mod check;
mod front;
mod groups;
mod identities;
mod machines;
pub mod metadata;
mod operations;
mod prices;
mod roles;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::events::{Events, Source};
use crate::faults::Faults;
use crate::fleet::Fleet;
use crate::shared::{appending, lock};
use metadata::Metadata;

/// The one subscription.
pub const SUBSCRIPTION: &str = "00000000-0000-4000-8000-00000000a2e0";
/// The one tenant.
pub const TENANT: &str = "11111111-1111-4111-8111-111111111111";
/// The one identity that is the user's own, which may delete any group.
pub const IDENTITY: &str = "/subscriptions/00000000-0000-4000-8000-00000000a2e0/resourceGroups/own/providers/Microsoft.ManagedIdentity/userAssignedIdentities/ender";
/// The one service principal.
pub const CLIENT: &str = "22222222-2222-4222-8222-222222222222";

/// An Azure; clones share it.
#[derive(Clone)]
pub struct Azure(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    events: Events,
    fleet: Fleet,
    faults: Faults,
    state: Mutex<State>,
    log: Mutex<Vec<Asked>>,
    record: Option<Mutex<std::fs::File>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// A request that was made.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What it was: `PUT machine`.
    pub call: String,
    /// Method and path.
    pub line: String,
    /// Its body, or null.
    pub body: Value,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<String, Group>,
    operations: BTreeMap<u64, Operation>,
    /// Types that there is no room for, at once or later.
    full: BTreeMap<String, When>,
    /// The launcher may not assign roles.
    powerless: bool,
    /// How many requests a role that was assigned is not known for.
    slow_rights: usize,
    secret: String,
    next: u64,
}

/// When a refusal comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// As the answer.
    AtOnce,
    /// From the operation that was begun.
    Later,
}

/// A resource group and what is in it.
struct Group {
    name: String,
    location: String,
    tags: BTreeMap<String, String>,
    /// Since when it goes.
    deleting: Option<SystemTime>,
    network: Option<Value>,
    machine: Option<Machine>,
    /// By their resource ids in lower case.
    identities: BTreeMap<String, Identity>,
    /// The principals that may do anything in it.
    contributors: BTreeSet<String>,
}

struct Identity {
    principal: String,
    /// A new one is not known at once to whoever gives rights.
    known: bool,
}

struct Machine {
    body: Value,
    created: SystemTime,
    metadata: Metadata,
}

/// Something that takes its time: it has ended when it was asked for this often.
struct Operation {
    left: usize,
    failure: Option<&'static str>,
}

impl Azure {
    /// Starts one on a free port.
    pub async fn start(events: Events, fleet: Fleet, record: Option<PathBuf>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let record = record.as_deref().map(appending).transpose()?;
        let azure = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            events,
            fleet,
            faults: Faults::default(),
            state: Mutex::default(),
            log: Mutex::default(),
            record,
            task: Mutex::default(),
        }));
        let app = front::app(&azure);
        *lock(&azure.0.task) = Some(tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        }));
        Ok(azure)
    }

    /// Its address: Resource Manager's and the authority's.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The next `times` requests of this kind (`PUT machine`) are refused with this code of Azure's.
    pub fn fail(&self, call: &str, code: &str, times: usize) {
        let (status, message) = answers::known(code);
        self.0
            .faults
            .answer(call, times, status, &answers::error(code, message).to_string());
    }

    /// From now on there is no room for this type, which the answer says.
    pub fn no_capacity(&self, kind: &str) {
        lock(&self.0.state).full.insert(kind.into(), When::AtOnce);
    }

    /// The same, which the operation says that making a machine begins.
    pub fn no_capacity_later(&self, kind: &str) {
        lock(&self.0.state).full.insert(kind.into(), When::Later);
    }

    /// The launcher's principal may not assign roles.
    pub fn take_away_rights(&self) {
        lock(&self.0.state).powerless = true;
    }

    /// A role that is assigned is not known for so many requests.
    pub fn delay_rights(&self, requests: usize) {
        lock(&self.0.state).slow_rights = requests;
    }

    /// The names of the groups that there are.
    pub fn groups(&self) -> Vec<String> {
        groups::sweep(self);
        lock(&self.0.state).groups.values().map(|group| group.name.clone()).collect()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Asked> {
        lock(&self.0.log).clone()
    }

    /// What they were.
    pub fn calls(&self) -> Vec<String> {
        self.requests().into_iter().map(|asked| asked.call).collect()
    }

    /// Azure evicts a machine: the notice now, the machine goes after `left`, its group stays.
    pub fn take_back(&self, id: &str, left: Duration) {
        if let Some(metadata) = self.metadata(id) {
            metadata.announce("Preempt", SystemTime::now() + left);
        }
        let detail = format!("the machine is taken in {} s", left.as_secs());
        self.0.events.push(Source::Cloud, "spot-notice", id, detail);
        self.0.fleet.end_after(id, left, "it was evicted");
    }

    /// The metadata service of a machine answers no more.
    pub fn silence_metadata(&self, id: &str) {
        if let Some(metadata) = self.metadata(id) {
            metadata.fall_silent();
        }
        self.0.events.push(Source::Cloud, "metadata-silent", id, "");
    }

    fn metadata(&self, id: &str) -> Option<Metadata> {
        let state = lock(&self.0.state);
        Some(state.groups.get(id)?.machine.as_ref()?.metadata.clone())
    }

    /// Somebody else makes a group of this name, and a machine in it.
    pub fn foreign(&self, name: &str) {
        machines::foreign(self, name);
    }

    /// What a command is told of where this is, and who it is here; its key is made of `secret`.
    pub fn command_env(&self, secret: &str) -> Vec<(&'static str, String)> {
        secret.clone_into(&mut lock(&self.0.state).secret);
        vec![
            ("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION.into()),
            ("AZURE_TENANT_ID", TENANT.into()),
            ("AZURE_CLIENT_ID", CLIENT.into()),
            ("AZURE_CLIENT_SECRET", secret.into()),
            ("AZURE_AUTHORITY_HOST", self.url()),
            ("AZURE_RESOURCE_MANAGER_ENDPOINT", self.url()),
            ("AZURE_RETAIL_PRICES_ENDPOINT", self.url()),
        ]
    }

    /// Ends it; its machines are the fleet's to end.
    pub async fn close(&self) {
        let task = lock(&self.0.task).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }
}
