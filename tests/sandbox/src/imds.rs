//! The metadata service of one instance, version 2.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

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
use crate::instance::MAC;

/// What the service knows; clones share it.
#[derive(Clone)]
pub struct Metadata(Arc<Mutex<Known>>);

struct Known {
    id: String,
    kind: String,
    zone: String,
    image: String,
    user_data: Vec<u8>,
    has_role: bool,
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
            has_role: form.keys().any(|name| name.starts_with("IamInstanceProfile.")),
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
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Service {
    /// Its address: `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same as an address.
    pub const fn address(&self) -> SocketAddr {
        self.address
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
    let address = listener.local_addr()?;
    let app = Router::new()
        .route("/latest/api/token", put(token))
        .route("/{version}/meta-data/", get(everything))
        .route("/{version}/meta-data/{*path}", get(value))
        .route("/{version}/dynamic/instance-identity", get(|| async { "document" }))
        .route("/{version}/dynamic/instance-identity/", get(|| async { "document" }))
        .route("/{version}/dynamic/instance-identity/document", get(identity))
        .route("/{version}/user-data", get(user_data))
        .layer(from_fn_with_state(metadata.clone(), listen))
        .with_state(metadata);
    let task = tokio::spawn(async move {
        let _ = axum::serve(listener, app).await;
    });
    Ok(Service { address, task })
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
/// All that there is to ask for.
const VALUES: [&str; 21] = [
    "ami-id",
    "events/recommendations/rebalance",
    "hostname",
    "iam/security-credentials/sandbox-role",
    "instance-id",
    "instance-life-cycle",
    "instance-type",
    "local-hostname",
    "local-ipv4",
    "mac",
    "network/interfaces/macs/06:00:00:00:00:01/device-number",
    "network/interfaces/macs/06:00:00:00:00:01/interface-id",
    "network/interfaces/macs/06:00:00:00:00:01/local-ipv4s",
    "network/interfaces/macs/06:00:00:00:00:01/mac",
    "network/interfaces/macs/06:00:00:00:00:01/subnet-ipv4-cidr-block",
    "network/interfaces/macs/06:00:00:00:00:01/vpc-id",
    "placement/availability-zone",
    "placement/region",
    "public-ipv4",
    "spot/instance-action",
    "spot/termination-time",
];
/// How long the credentials of a role live.
const ROLE_LIFE: Duration = Duration::from_hours(6);
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

async fn everything(State(metadata): State<Metadata>, headers: HeaderMap) -> (StatusCode, String) {
    if !is_allowed(&headers) {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    (StatusCode::OK, metadata.known(|known| known.list("")))
}

async fn value(State(metadata): State<Metadata>, Path((_, path)): Path<(String, String)>, headers: HeaderMap) -> (StatusCode, String) {
    if !is_allowed(&headers) {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    match metadata.known(|known| {
        if path.ends_with('/') {
            Some(known.list(&path))
        } else {
            known.value(&path)
        }
    }) {
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

    /// The names in a folder, one a line; of folders with a `/`.
    fn list(&self, folder: &str) -> String {
        let known = VALUES.into_iter().filter(|path| self.value(path).is_some());
        let inside = known.filter_map(|path| path.strip_prefix(folder));
        let names: BTreeSet<&str> = inside.map(|rest| rest.split_inclusive('/').next().unwrap_or(rest)).collect();
        names.into_iter().collect::<Vec<_>>().join("\n")
    }

    fn value(&self, path: &str) -> Option<String> {
        let time = |at: SystemTime| Timestamp::try_from(at).map(|at| format!("{at:.0}")).unwrap_or_default();
        match path {
            "instance-id" => Some(self.id.clone()),
            "hostname" | "local-hostname" => Some("ip-172-31-0-10.ec2.internal".into()),
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
            "iam/security-credentials/sandbox-role" => self.has_role.then(|| {
                let end = time(SystemTime::now() + ROLE_LIFE);
                json!({ "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "ASIASANDBOX", "SecretAccessKey": "secret", "Token": "session", "Expiration": end })
                    .to_string()
            }),
            "mac" => Some(MAC.into()),
            _ => match path.strip_prefix("network/interfaces/macs/")?.strip_prefix(MAC)? {
                "/device-number" => Some("0".into()),
                "/interface-id" => Some("eni-0e00000000000001".into()),
                "/local-ipv4s" => Some(PRIVATE_IP.into()),
                "/mac" => Some(MAC.into()),
                "/subnet-ipv4-cidr-block" => Some("172.31.0.0/20".into()),
                "/vpc-id" => Some("vpc-0e000001".into()),
                _ => None,
            },
        }
    }
}
