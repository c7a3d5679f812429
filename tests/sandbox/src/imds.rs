//! The metadata service of one instance, version 2.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, put};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ec2::Form;

/// What the service knows; clones share it.
#[derive(Clone)]
pub struct Metadata(Arc<Mutex<Known>>);

struct Known {
    id: String,
    kind: String,
    zone: String,
    image: String,
    user_data: Vec<u8>,
    spot: bool,
    taken: Option<SystemTime>,
    advised: Option<SystemTime>,
    silent: bool,
}

impl Metadata {
    /// Of an instance that was launched with this form.
    pub fn new(id: &str, zone: &str, form: &Form) -> Self {
        let get = |name: &str| form.get(name).cloned().unwrap_or_default();
        Self(Arc::new(Mutex::new(Known {
            id: id.into(),
            kind: get("InstanceType"),
            zone: zone.into(),
            image: get("ImageId"),
            user_data: STANDARD.decode(get("UserData")).unwrap_or_default(),
            spot: get("InstanceMarketOptions.MarketType") == "spot",
            taken: None,
            advised: None,
            silent: false,
        })))
    }

    /// From now on it says that the instance is taken at this time.
    pub fn take_back(&self, at: SystemTime) {
        self.known(|known| known.taken = Some(at));
    }

    /// From now on it answers nothing.
    pub fn fall_silent(&self) {
        self.known(|known| known.silent = true);
    }

    /// From now on it recommends to leave.
    pub fn advise(&self, at: SystemTime) {
        self.known(|known| known.advised = Some(at));
    }

    fn known<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running service; it ends with this value.
pub struct Service {
    url: String,
    task: JoinHandle<()>,
}

impl Service {
    /// Its address: `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a service on a free port.
pub async fn serve(metadata: Metadata) -> Result<Service> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    let url = format!("http://{}", listener.local_addr()?);
    let app = Router::new()
        .route("/latest/api/token", put(token))
        .route("/latest/meta-data/{*path}", get(value))
        .route("/latest/dynamic/instance-identity/document", get(identity))
        .route("/latest/user-data", get(user_data))
        .layer(from_fn_with_state(metadata.clone(), listen))
        .with_state(metadata);
    let task = tokio::spawn(async move {
        let _ = axum::serve(listener, app).await;
    });
    Ok(Service { url, task })
}

async fn listen(State(metadata): State<Metadata>, request: Request, next: Next) -> Response {
    if metadata.known(|known| known.silent) {
        return std::future::pending().await;
    }
    next.run(request).await
}

/// The address of every instance: they share this machine's network.
const PRIVATE_IP: &str = "172.31.0.10";
/// One token is as good as another here; that there must be one is what matters.
const TOKEN: &str = "sandbox-session-token";
/// The longest life that may be asked for, in seconds.
const LONGEST: u32 = 21_600;

async fn token(headers: HeaderMap) -> (StatusCode, &'static str) {
    let life = headers
        .get("x-aws-ec2-metadata-token-ttl-seconds")
        .and_then(|life| life.to_str().ok()?.parse::<u32>().ok());
    match life {
        Some(1..=LONGEST) => (StatusCode::OK, TOKEN),
        _ => (StatusCode::BAD_REQUEST, ""),
    }
}

fn is_allowed(headers: &HeaderMap) -> bool {
    headers.get("x-aws-ec2-metadata-token").is_some_and(|token| token == TOKEN)
}

async fn value(State(metadata): State<Metadata>, Path(path): Path<String>, headers: HeaderMap) -> (StatusCode, String) {
    if !is_allowed(&headers) {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    match metadata.known(|known| known.value(&path)) {
        Some(value) => (StatusCode::OK, value),
        None => (StatusCode::NOT_FOUND, String::new()),
    }
}

async fn user_data(State(metadata): State<Metadata>, headers: HeaderMap) -> (StatusCode, Vec<u8>) {
    if !is_allowed(&headers) {
        return (StatusCode::UNAUTHORIZED, Vec::new());
    }
    (StatusCode::OK, metadata.known(|known| known.user_data.clone()))
}

async fn identity(State(metadata): State<Metadata>, headers: HeaderMap) -> (StatusCode, String) {
    if !is_allowed(&headers) {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    (StatusCode::OK, metadata.known(|known| known.identity().to_string()))
}

impl Known {
    fn identity(&self) -> serde_json::Value {
        json!({
            "accountId": "123456789012",
            "availabilityZone": self.zone,
            "imageId": self.image,
            "instanceId": self.id,
            "instanceType": self.kind,
            "privateIp": PRIVATE_IP,
            "region": self.value("placement/region"),
            "version": "2017-09-30",
        })
    }

    fn value(&self, path: &str) -> Option<String> {
        let time = |at: SystemTime| Timestamp::try_from(at).map(|at| format!("{at:.0}")).unwrap_or_default();
        match path {
            "instance-id" => Some(self.id.clone()),
            "instance-type" => Some(self.kind.clone()),
            "ami-id" => Some(self.image.clone()),
            "placement/availability-zone" => Some(self.zone.clone()),
            "placement/region" => Some(self.zone.trim_end_matches(|c: char| c.is_ascii_lowercase()).into()),
            "local-ipv4" => Some(PRIVATE_IP.into()),
            "public-ipv4" => Some("192.0.2.10".into()),
            "instance-life-cycle" => Some(if self.spot { "spot" } else { "on-demand" }.into()),
            "spot/instance-action" => self.taken.map(|at| json!({ "action": "terminate", "time": time(at) }).to_string()),
            "spot/termination-time" => self.taken.map(time),
            "events/recommendations/rebalance" => self.advised.map(|at| json!({ "noticeTime": time(at) }).to_string()),
            _ => None,
        }
    }
}
