//! The metadata service of one machine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::SUBSCRIPTION;
use super::front::MACHINE;
use crate::ec2::Form;
use crate::events::{Events, Source};
use crate::instance::MAC;
use crate::shared::lock;

/// What the service knows; clones share it.
#[derive(Clone)]
pub struct Metadata(Arc<Mutex<Known>>);

struct Known {
    group: String,
    name: String,
    body: Value,
    announced: Option<(&'static str, SystemTime)>,
    silent: bool,
}

impl Metadata {
    /// Of a machine that was made with this body.
    pub fn new(group: &str, name: &str, body: &Value) -> Self {
        Self(Arc::new(Mutex::new(Known {
            group: group.into(),
            name: name.into(),
            body: body.clone(),
            announced: None,
            silent: false,
        })))
    }

    /// From now on it says that this happens at this time.
    pub fn announce(&self, kind: &'static str, at: SystemTime) {
        lock(&self.0).announced = Some((kind, at));
    }

    /// From now on it answers nothing.
    pub fn fall_silent(&self) {
        lock(&self.0).silent = true;
    }
}

/// A running service; it ends with this value.
pub struct Service {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Service {
    /// Its address: `AZURE_POD_IDENTITY_AUTHORITY_HOST`.
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

#[derive(Clone)]
struct Shared {
    metadata: Metadata,
    events: Events,
}

/// Starts a service on a free port.
pub async fn serve(metadata: Metadata, events: Events) -> Result<Service> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
    let address = listener.local_addr()?;
    let shared = Shared { metadata, events };
    let app = Router::new()
        .route("/metadata/instance", get(instance))
        .route("/metadata/instance/compute", get(compute))
        .route("/metadata/instance/compute/{leaf}", get(leaf))
        .route("/metadata/scheduledevents", get(scheduled).post(acknowledge))
        .route("/metadata/identity/oauth2/token", get(token))
        .layer(from_fn_with_state(shared.clone(), listen))
        // Another server on Azure, at an address of its own.
        .route("/machine", get(|| async { GOAL }).post(ready))
        .route("/machine/", get(|| async { GOAL }).post(ready))
        .with_state(shared);
    let task = tokio::spawn(async move {
        let _ = axum::serve(listener, app).await;
    });
    Ok(Service { address, task })
}

/// Whoever does not say that the metadata is meant, or was passed on, is refused.
async fn listen(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if lock(&shared.metadata.0).silent {
        return std::future::pending().await;
    }
    let headers = request.headers();
    let is_meant = headers.get("metadata").is_some_and(|value| value == "true") && !headers.contains_key("x-forwarded-for");
    let has_version = request.uri().query().is_some_and(|query| query.contains("api-version="));
    if !is_meant || !has_version {
        return (StatusCode::BAD_REQUEST, json!({ "error": "Bad request" }).to_string()).into_response();
    }
    next.run(request).await
}

/// What a machine is told to do: to run.
const GOAL: &str = "<?xml version='1.0'?><GoalState><Version>2012-11-30</Version><Incarnation>1</Incarnation><Container><ContainerId>c1</ContainerId>\
    <RoleInstanceList><RoleInstance><InstanceId>r1</InstanceId><Configuration></Configuration></RoleInstance></RoleInstanceList></Container></GoalState>";

/// A machine says that it has booted.
async fn ready(State(shared): State<Shared>) {
    let name = lock(&shared.metadata.0).name.clone();
    shared.events.push(Source::Cloud, "machine-provisioned", name, "");
}

/// All that there is to tell of a machine.
async fn instance(State(shared): State<Shared>) -> String {
    let mut compute = about(&shared);
    compute["osProfile"] = json!({ "adminUsername": "azureuser", "computerName": "runner", "disablePasswordAuthentication": "true" });
    compute["publicKeys"] = json!([]);
    let mac = MAC.replace(':', "").to_uppercase();
    let v4 = json!({ "ipAddress": [{ "privateIpAddress": "10.0.0.4", "publicIpAddress": "" }], "subnet": [{ "address": "10.0.0.0", "prefix": "24" }] });
    let network = json!({ "interface": [{ "macAddress": mac, "ipv4": v4, "ipv6": { "ipAddress": [] } }] });
    json!({ "compute": compute, "network": network }).to_string()
}

async fn compute(State(shared): State<Shared>) -> String {
    about(&shared).to_string()
}

/// One of its members, as text.
async fn leaf(State(shared): State<Shared>, Path(leaf): Path<String>, Query(query): Query<Form>) -> (StatusCode, String) {
    match about(&shared)[leaf].as_str() {
        Some(text) if query.get("format").is_some_and(|format| format == "text") => (StatusCode::OK, text.to_owned()),
        _ => (StatusCode::NOT_FOUND, json!({ "error": "Not found" }).to_string()),
    }
}

fn about(shared: &Shared) -> Value {
    let known = lock(&shared.metadata.0);
    let properties = &known.body["properties"];
    let tags = known.body["tags"].as_object().into_iter().flatten();
    let tags: Vec<Value> = tags.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    json!({
        "azEnvironment": "AzurePublicCloud",
        "evictionPolicy": text(&properties["evictionPolicy"]),
        "location": text(&known.body["location"]),
        "name": known.name,
        "osType": "Linux",
        "priority": properties["priority"].as_str().unwrap_or("Regular"),
        "provider": "Microsoft.Compute",
        "resourceGroupName": known.group,
        "subscriptionId": SUBSCRIPTION,
        "tagsList": tags,
        "vmSize": text(&properties["hardwareProfile"]["vmSize"]),
        "zone": text(&known.body["zones"][0]),
    })
}

async fn scheduled(State(shared): State<Shared>) -> String {
    let known = lock(&shared.metadata.0);
    let event = known.announced.map(|(kind, at)| {
        let at = Timestamp::try_from(at).unwrap_or_default().to_zoned(TimeZone::UTC);
        json!({
            "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": [known.name],
            "EventStatus": "Scheduled",
            "NotBefore": at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        })
    });
    json!({ "DocumentIncarnation": u8::from(event.is_some()), "Events": event.into_iter().collect::<Vec<_>>() }).to_string()
}

async fn acknowledge(State(shared): State<Shared>, body: String) -> StatusCode {
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let Some(event) = body["StartRequests"][0]["EventId"].as_str() else {
        return StatusCode::BAD_REQUEST;
    };
    let name = lock(&shared.metadata.0).name.clone();
    shared.events.push(Source::Cloud, "event-acknowledged", name, event);
    StatusCode::OK
}

/// A token of the machine's identity that is named, or of the only one.
async fn token(State(shared): State<Shared>, Query(query): Query<Form>) -> (StatusCode, String) {
    /// How long it is said to live.
    const LIFE: Duration = Duration::from_hours(24);
    let known = lock(&shared.metadata.0);
    let given: Vec<String> = known.body["identity"]["userAssignedIdentities"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(id, _)| id.clone())
        .collect();
    let found = match query.get("msi_res_id") {
        Some(wanted) => given.into_iter().find(|id| id.eq_ignore_ascii_case(wanted)),
        None => (given.len() == 1).then(|| given[0].clone()),
    };
    let resource = query.get("resource").map(|resource| resource.trim_end_matches('/'));
    match found {
        Some(identity) if resource == Some("https://management.azure.com") => {
            let token =
                json!({ "access_token": format!("{MACHINE}{identity}"), "expires_in": LIFE.as_secs().to_string(), "token_type": "Bearer" });
            (StatusCode::OK, token.to_string())
        }
        _ => (
            StatusCode::BAD_REQUEST,
            json!({ "error": "invalid_request", "error_description": "Identity not found" }).to_string(),
        ),
    }
}
