//! Kubernetes on loopback: the API server for what a launcher calls, the controllers of Jobs, and a node whose pods are real processes.

mod check;
mod controller;
mod front;
mod node;
mod objects;
mod refusal;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::events::{Events, Source};
use crate::faults::Faults;
use crate::fleet::Fleet;
use crate::shared::{appending, lock};
use objects::Job;

/// The one namespace.
pub const NAMESPACE: &str = "ci";

/// A cluster; clones share it.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    events: Events,
    fleet: Fleet,
    faults: Faults,
    jobs: Mutex<Vec<Job>>,
    /// Secrets by their names.
    secrets: Mutex<Vec<Value>>,
    /// What keeps pods from starting.
    obstacle: Mutex<Option<Obstacle>>,
    /// Whose requests are answered.
    token: Mutex<String>,
    log: Mutex<Vec<(String, Value)>>,
    record: Option<Mutex<std::fs::File>>,
    server: Mutex<Option<JoinHandle<()>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// What keeps a pod from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// No node takes it: the scheduler's words.
    Unschedulable(String),
    /// Its container is not started: a reason such as `ErrImagePull`, and the node's words.
    Waiting(String, String),
    /// The controller may not make it: the words of what refuses it, such as a quota.
    Refused(String),
}

impl Cluster {
    /// Starts one on a free port.
    pub async fn start(events: Events, fleet: Fleet, record: Option<PathBuf>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let record = record.as_deref().map(appending).transpose()?;
        let cluster = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            events,
            fleet,
            faults: Faults::default(),
            jobs: Mutex::default(),
            secrets: Mutex::default(),
            obstacle: Mutex::default(),
            token: Mutex::default(),
            log: Mutex::default(),
            record,
            server: Mutex::default(),
            tasks: Mutex::default(),
        }));
        let app = front::app(&cluster);
        *lock(&cluster.0.server) = Some(tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        }));
        Ok(cluster)
    }

    /// The address of its API server.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The next `times` requests of this kind (`create jobs`) are refused for this reason (`Forbidden`), with its status.
    pub fn fail(&self, action: &str, reason: &str, times: usize) {
        let (status, body) = refusal::known(reason);
        self.0.faults.answer(action, times, status, &body.to_string());
    }

    /// From now on something keeps pods from starting; or nothing.
    pub fn obstruct(&self, obstacle: Option<Obstacle>) {
        *lock(&self.0.obstacle) = obstacle;
    }

    /// Every request so far, by its verb and resource (`create jobs`), with its body.
    pub fn requests(&self) -> Vec<(String, Value)> {
        lock(&self.0.log).clone()
    }

    /// The same without bodies.
    pub fn calls(&self) -> Vec<String> {
        self.requests().into_iter().map(|(action, _)| action).collect()
    }

    /// The names of all Jobs and Secrets that there are.
    pub fn objects(&self) -> Vec<String> {
        controller::reconcile(self);
        let jobs = lock(&self.0.jobs)
            .iter()
            .map(|job| format!("jobs/{}", job.name()))
            .collect::<Vec<_>>();
        let secrets = lock(&self.0.secrets)
            .iter()
            .map(|secret| format!("secrets/{}", objects::name(secret)))
            .collect::<Vec<_>>();
        [jobs, secrets].concat()
    }

    /// A pod is evicted: SIGTERM now, SIGKILL after `left`.
    pub fn take_back(&self, id: &str, left: Duration) {
        let detail = format!("the pod is evicted, and killed in {} s", left.as_secs());
        self.0.events.push(Source::Cloud, "spot-notice", id, detail);
        node::end_pod(self, id, left, "Evicted");
    }

    /// A pod has no metadata service that could fall silent.
    pub fn silence_metadata(&self, id: &str) {
        self.0.events.push(Source::Cloud, "metadata-silent", id, "a pod has none");
    }

    /// Somebody else makes a Job of this name.
    pub fn foreign(&self, name: &str) {
        let container = json!({ "name": name, "command": ["sleep", "600"], "resources": { "limits": { "cpu": "1", "memory": "1000M" } } });
        let pod = json!({ "spec": { "containers": [container] } });
        controller::add(self, json!({ "metadata": { "name": name }, "spec": { "template": pod } }));
    }

    /// What a command is told; its token is `secret`.
    pub fn command_env(&self, secret: &str) -> Vec<(&'static str, String)> {
        secret.clone_into(&mut lock(&self.0.token));
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "sandbox", "cluster": { "server": self.url() } }],
            "users": [{ "name": "launcher", "user": { "token": secret } }],
            "contexts": [{ "name": "sandbox", "context": { "cluster": "sandbox", "user": "launcher", "namespace": NAMESPACE } }],
            "current-context": "sandbox",
        });
        vec![("KUBERNETES_CONFIGURATION", file.to_string())]
    }

    /// Ends it.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
        let server = lock(&self.0.server).take();
        if let Some(server) = server {
            server.abort();
            let _ = server.await;
        }
    }
}
