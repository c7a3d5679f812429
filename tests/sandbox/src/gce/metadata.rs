//! The metadata service of one instance: values, and questions that are held until a value changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the service knows; clones share it.
#[derive(Clone)]
pub struct Metadata(Arc<watch::Sender<Known>>);

#[derive(Default)]
struct Known {
    values: BTreeMap<String, String>,
    silent: bool,
}

impl Metadata {
    /// With these values.
    pub fn new(values: BTreeMap<String, String>) -> Self {
        Self(Arc::new(watch::Sender::new(Known { values, silent: false })))
    }

    /// From now on a value is this.
    pub fn set(&self, path: &str, value: &str) {
        self.0.send_modify(|known| {
            known.values.insert(path.to_owned(), value.to_owned());
        });
    }

    /// From now on it answers nothing.
    pub fn fall_silent(&self) {
        self.0.send_modify(|known| known.silent = true);
    }

    /// The value, as soon as it is another one than the tag says.
    async fn read(&self, path: &str, last: Option<&str>) -> Option<String> {
        let mut known = self.0.subscribe();
        let is_news = |known: &Known| {
            !known.silent && last.is_none_or(|last| known.values.get(path).map(|value| tag(value)).as_deref() != Some(last))
        };
        let found = known.wait_for(is_news).await.ok()?;
        found.values.get(path).cloned()
    }

    /// What is in a folder that has no others in it.
    fn folder(&self, folder: &str) -> Value {
        let known = self.0.borrow();
        let inside = known
            .values
            .iter()
            .filter_map(|(path, value)| Some((path.strip_prefix(folder)?.to_owned(), json!(value))));
        Value::Object(inside.collect())
    }

    fn value(&self, path: &str) -> Option<String> {
        self.0.borrow().values.get(path).cloned()
    }
}

/// Sixteen digits that a value alone has.
fn tag(value: &str) -> String {
    crate::standin::sha256(value.as_bytes()).chars().take(16).collect()
}

/// A running service; it ends with this value.
pub struct Service {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Service {
    /// Its address: `GCE_METADATA_HOST`.
    pub fn host(&self) -> String {
        self.address.to_string()
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
    let app = Router::new().route("/computeMetadata/v1/{*path}", get(answer)).with_state(metadata);
    let task = tokio::spawn(async move {
        let _ = axum::serve(listener, app).await;
    });
    Ok(Service { address, task })
}

async fn answer(
    State(metadata): State<Metadata>,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if headers.get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
        return (StatusCode::FORBIDDEN, "Missing Metadata-Flavor:Google header.").into_response();
    }
    let flavor = [("metadata-flavor", "Google")];
    let holds = query.get("wait_for_change").is_some_and(|word| word == "true");
    let known = ["wait_for_change", "last_etag", "timeout_sec", "alt", "recursive"];
    if query.keys().any(|name| !known.contains(&name.as_str())) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    if query.get("recursive").is_some_and(|word| word.eq_ignore_ascii_case("true")) {
        let folder = format!("{}/", path.trim_end_matches('/'));
        return (flavor, metadata.folder(&folder).to_string()).into_response();
    }
    // Without a tag, what is new is what is not as it is now.
    let now = metadata.value(&path).map(|value| tag(&value)).unwrap_or_default();
    let last = holds.then(|| query.get("last_etag").cloned().unwrap_or(now));
    let patience = query
        .get("timeout_sec")
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    let read = metadata.read(&path, last.as_deref());
    let value = match patience.filter(|_| holds) {
        Some(patience) => match tokio::time::timeout(patience, read).await {
            Ok(value) => value,
            Err(_) if metadata.0.borrow().silent => std::future::pending().await,
            Err(_) => metadata.value(&path),
        },
        None => read.await,
    };
    match value {
        Some(value) => ([("etag", tag(&value)), ("metadata-flavor", "Google".into())], value).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
