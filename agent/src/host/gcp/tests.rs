#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Gcp, maintained, preempted};
use crate::host::Host;

const PATIENCE: Duration = Duration::from_secs(30);
const SPOT: &str = "instance/scheduling/preemptible";
const PREEMPTED: &str = "instance/preempted";
const EVENT: &str = "instance/maintenance-event";

type Values = BTreeMap<&'static str, &'static str>;

/// A metadata service that answers what it is told to, and holds what it is asked to hold.
#[derive(Clone)]
struct Service {
    values: Arc<watch::Sender<Values>>,
    /// Whether it answers everything with an error.
    broken: Arc<watch::Sender<bool>>,
    /// All that it was asked, and whether it was to hold it.
    asked: Arc<watch::Sender<Vec<(String, bool)>>>,
    address: String,
}

impl Service {
    async fn start(values: &[(&'static str, &'static str)]) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), values)
    }

    fn serve(listener: TcpListener, values: &[(&'static str, &'static str)]) -> Self {
        let service = Self {
            values: Arc::new(watch::Sender::new(values.iter().copied().collect())),
            broken: Arc::default(),
            asked: Arc::default(),
            address: listener.local_addr().unwrap().to_string(),
        };
        let answer = |State(service): State<Self>,
                      Path(path): Path<String>,
                      Query(query): Query<BTreeMap<String, String>>,
                      headers: HeaderMap| async move { service.answer(path, &query, &headers).await };
        let app = axum::Router::new()
            .route("/computeMetadata/v1/{*path}", get(answer))
            .with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        service
    }

    async fn answer(&self, path: String, query: &BTreeMap<String, String>, headers: &HeaderMap) -> axum::response::Response {
        let holds = query.contains_key("wait_for_change");
        self.asked.send_modify(|asked| asked.push((path.clone(), holds)));
        if *self.broken.borrow() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        if headers.get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
            return StatusCode::FORBIDDEN.into_response();
        }
        // A value is its own tag here.
        let mut values = self.values.subscribe();
        let last = query.get("last_etag").filter(|_| holds);
        let is_news = |values: &Values| last.is_none_or(|last| values.get(path.as_str()) != Some(&last.as_str()));
        let value = values.wait_for(is_news).await.unwrap().get(path.as_str()).copied();
        match value {
            Some(value) => ([("etag", value)], value).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn set(&self, path: &'static str, value: &'static str) {
        self.values.send_modify(|values| {
            values.insert(path, value);
        });
    }

    fn host(&self) -> Arc<Gcp> {
        Arc::new(Gcp::at(&self.address, Duration::from_millis(5)).unwrap())
    }

    /// Waits until a path was asked for this often.
    async fn asked(&self, path: &str, times: usize) {
        let mut asked = self.asked.subscribe();
        let often = |asked: &Vec<(String, bool)>| asked.iter().filter(|(one, _)| one == path).count() >= times;
        timeout(PATIENCE, asked.wait_for(often)).await.expect("not asked").unwrap();
    }

    fn count(&self, path: &str) -> usize {
        self.asked.borrow().iter().filter(|(one, _)| one == path).count()
    }
}

#[tokio::test]
async fn a_preemption_is_told_by_a_question_that_was_held() {
    let service = Service::start(&[(SPOT, "TRUE"), (PREEMPTED, "FALSE"), (EVENT, "NONE")]).await;
    let host = service.host();
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    service.asked(PREEMPTED, 2).await;
    service.asked(EVENT, 2).await;
    assert_eq!((service.count(PREEMPTED), service.count(EVENT)), (2, 2), "nothing more is asked");
    service.set(PREEMPTED, "TRUE");
    let notice = timeout(PATIENCE, seen).await.unwrap().unwrap();
    assert_eq!(
        (notice.reason.as_str(), notice.left.as_secs(), notice.advice),
        ("preempted", 120, false)
    );
}

#[tokio::test]
async fn a_machine_that_is_no_spot_machine_is_not_asked_about_preemption() {
    let service = Service::start(&[(SPOT, "FALSE"), (PREEMPTED, "TRUE"), (EVENT, "NONE")]).await;
    let host = service.host();
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    service.asked(EVENT, 2).await;
    service.asked(SPOT, 1).await;
    service.set(EVENT, "MIGRATE_ON_HOST_MAINTENANCE");
    service.asked(EVENT, 3).await;
    assert!(!seen.is_finished(), "it loses nothing by that");
    service.set(EVENT, "TERMINATE_ON_HOST_MAINTENANCE");
    let notice = timeout(PATIENCE, seen).await.unwrap().unwrap();
    assert!(notice.advice);
    assert_eq!(service.count(PREEMPTED), 0);
}

#[tokio::test]
async fn advice_is_heard_once_and_the_notice_after_it() {
    let service = Service::start(&[(SPOT, "TRUE"), (PREEMPTED, "FALSE"), (EVENT, "TERMINATE_ON_HOST_MAINTENANCE")]).await;
    let host = service.host();
    assert!(timeout(PATIENCE, host.next_interruption(false)).await.unwrap().advice);
    let events = service.count(EVENT);
    let seen = tokio::spawn(async move { host.next_interruption(true).await });
    service.set(PREEMPTED, "TRUE");
    assert!(!timeout(PATIENCE, seen).await.unwrap().unwrap().advice);
    assert_eq!(service.count(EVENT), events, "the same advice is no news");
}

#[tokio::test]
async fn a_service_that_breaks_is_asked_again() {
    let service = Service::start(&[(SPOT, "TRUE"), (PREEMPTED, "FALSE")]).await;
    let host = service.host();
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    service.asked(PREEMPTED, 2).await;
    service.broken.send_replace(true);
    // The one that is held is let go by this.
    service.set(PREEMPTED, "garbage");
    service.asked(PREEMPTED, 5).await;
    service.set(PREEMPTED, "TRUE");
    service.broken.send_replace(false);
    assert!(!timeout(PATIENCE, seen).await.unwrap().unwrap().advice);
}

#[tokio::test]
async fn a_service_that_comes_late_is_waited_for() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = Arc::new(Gcp::at(&free.local_addr().unwrap().to_string(), Duration::from_millis(5)).unwrap());
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    // It hangs up on every connection at first.
    for _ in 0..4 {
        drop(timeout(PATIENCE, free.accept()).await.unwrap().unwrap());
    }
    Service::serve(free, &[(SPOT, "TRUE"), (PREEMPTED, "TRUE")]);
    assert!(!timeout(PATIENCE, seen).await.unwrap().unwrap().advice);
}

#[test]
fn what_is_no_notice_is_none() {
    for text in ["", "FALSE", "garbage", "0", "<html>"] {
        assert_eq!(preempted(text), None, "{text}");
    }
    for text in ["", "NONE", "MIGRATE_ON_HOST_MAINTENANCE", "<html>"] {
        assert_eq!(maintained(text), None, "{text}");
    }
}

#[tokio::test]
async fn a_machine_without_an_account_that_may_does_not_delete_itself() {
    let scopes = "instance/service-accounts/default/scopes";
    let service = Service::start(&[]).await;
    let error = service.host().delete_itself().await.unwrap_err();
    assert!(error.to_string().contains("--cloud-permission-set"), "{error:#}");
    service.set(scopes, "https://www.googleapis.com/auth/devstorage.read_only");
    let error = service.host().delete_itself().await.unwrap_err();
    assert!(error.to_string().contains("compute-rw"), "{error:#}");
    service.set(scopes, "https://www.googleapis.com/auth/cloud-platform");
    for (path, value) in [
        ("project/project-id", "p"),
        ("instance/zone", "projects/1/zones/us-west1-b"),
        ("instance/name", "vm"),
        ("instance/service-accounts/default/token", r#"{"access_token":["canary"]}"#),
    ] {
        service.set(path, value);
    }
    let error = service.host().delete_itself().await.unwrap_err();
    assert!(!format!("{error:#}").contains("canary"), "{error:#}");
}
