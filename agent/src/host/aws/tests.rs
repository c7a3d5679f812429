#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Aws, read_notice};
use crate::host::Host;

const PATIENCE: Duration = Duration::from_secs(30);
const LIFE: &str = "meta-data/instance-life-cycle";
const ACTION: &str = "meta-data/spot/instance-action";
const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
const TERMINATE: &str = r#"{"action":"terminate","time":"2036-01-01T00:00:00Z"}"#;

/// A metadata service that answers what it is told to.
#[derive(Clone)]
struct Service {
    values: Arc<Mutex<BTreeMap<&'static str, &'static str>>>,
    /// The number of the session token that it takes; others are refused.
    token: Arc<Mutex<u32>>,
    /// What its clock says, if not the time.
    date: Arc<Mutex<Option<&'static str>>>,
    /// All paths that were asked for with a good token.
    asked: watch::Sender<Vec<String>>,
    address: String,
}

impl Service {
    async fn start(values: &[(&'static str, &'static str)]) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), values)
    }

    fn serve(listener: TcpListener, values: &[(&'static str, &'static str)]) -> Self {
        let service = Self {
            values: Arc::new(Mutex::new(values.iter().copied().collect())),
            token: Arc::default(),
            date: Arc::default(),
            asked: watch::Sender::default(),
            address: format!("http://{}", listener.local_addr().unwrap()),
        };
        let app = axum::Router::new()
            .route(
                "/latest/api/token",
                put(|State(service): State<Self>, headers: HeaderMap| async move { service.give(&headers) }),
            )
            .route(
                "/latest/{*path}",
                get(
                    |State(service): State<Self>, Path(path): Path<String>, headers: HeaderMap| async move {
                        let date = *service.date.lock().unwrap();
                        (date.map(|date| [("date", date)]), service.answer(path, &headers))
                    },
                ),
            )
            .with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        service
    }

    fn give(&self, headers: &HeaderMap) -> (StatusCode, String) {
        if headers.contains_key("x-aws-ec2-metadata-token-ttl-seconds") {
            (StatusCode::OK, self.token.lock().unwrap().to_string())
        } else {
            (StatusCode::BAD_REQUEST, String::new())
        }
    }

    fn answer(&self, path: String, headers: &HeaderMap) -> (StatusCode, &'static str) {
        let held = headers.get("x-aws-ec2-metadata-token").and_then(|token| token.to_str().ok());
        if held != Some(self.token.lock().unwrap().to_string().as_str()) {
            return (StatusCode::UNAUTHORIZED, "");
        }
        let value = self.values.lock().unwrap().get(path.as_str()).copied();
        self.asked.send_modify(|asked| asked.push(path));
        value.map_or((StatusCode::NOT_FOUND, ""), |value| (StatusCode::OK, value))
    }

    fn set(&self, path: &'static str, value: &'static str) {
        self.values.lock().unwrap().insert(path, value);
    }

    fn set_date(&self, date: &'static str) {
        *self.date.lock().unwrap() = Some(date);
    }

    fn host(&self) -> Aws {
        Aws::at(&self.address, Duration::from_millis(5)).unwrap()
    }

    /// Waits until a path was asked for this often.
    async fn asked(&self, path: &str, times: usize) {
        let mut asked = self.asked.subscribe();
        let often = |asked: &Vec<String>| asked.iter().filter(|one| *one == path).count() >= times;
        timeout(PATIENCE, asked.wait_for(often)).await.expect("not asked").unwrap();
    }
}

#[tokio::test]
async fn a_spot_notice_is_seen_even_if_the_token_was_forgotten() {
    let service = Service::start(&[(LIFE, "spot")]).await;
    let host = service.host();
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    service.asked(ACTION, 3).await;
    *service.token.lock().unwrap() += 1;
    service.set(ACTION, TERMINATE);
    let notice = timeout(PATIENCE, seen).await.unwrap().unwrap();
    assert_eq!((notice.reason.as_str(), notice.advice), ("spot instance-action terminate", false));
}

#[tokio::test]
async fn advice_is_heard_once_and_the_notice_after_it() {
    let service = Service::start(&[(LIFE, "spot"), (REBALANCE, r#"{"noticeTime":"2036-01-01T00:00:00Z"}"#)]).await;
    let host = Arc::new(service.host());
    let advice = timeout(PATIENCE, host.next_interruption(false)).await.unwrap();
    assert!(advice.advice);
    let again = Arc::clone(&host);
    let seen = tokio::spawn(async move { again.next_interruption(true).await });
    service.asked(ACTION, 10).await;
    assert!(!seen.is_finished(), "the same advice is no news");
    service.set(ACTION, TERMINATE);
    assert!(!timeout(PATIENCE, seen).await.unwrap().unwrap().advice);
}

#[tokio::test]
async fn a_job_that_begins_is_a_reason_to_look_at_once_and_more_often() {
    let service = Service::start(&[(LIFE, "spot")]).await;
    // So seldom that without the job it would never be seen.
    let host = Arc::new(Aws::at(&service.address, Duration::from_hours(1)).unwrap());
    let watching = Arc::clone(&host);
    let seen = tokio::spawn(async move { watching.next_interruption(false).await });
    service.asked(ACTION, 1).await;
    host.attend(true);
    host.attend(true);
    service.asked(ACTION, 2).await;
    service.set(ACTION, TERMINATE);
    assert!(!timeout(PATIENCE, seen).await.unwrap().unwrap().advice);
    assert!(service.asked.borrow().iter().filter(|path| *path == ACTION).count() <= 3);
}

#[tokio::test]
async fn a_machine_that_is_no_spot_machine_is_not_asked_for_notices() {
    let service = Service::start(&[(LIFE, "on-demand"), (ACTION, TERMINATE)]).await;
    let host = service.host();
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    service.asked(LIFE, 1).await;
    // Were it asked again, that would be on the same connection and soon: another request is a turn of this loop later.
    for _ in 0..20 {
        let _ = service.host().get("meta-data/ami-id").await;
    }
    assert!(!seen.is_finished());
    assert_eq!(service.asked.borrow().iter().filter(|path| *path == ACTION).count(), 0);
}

#[tokio::test]
async fn a_service_that_comes_late_is_waited_for() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    let host = Aws::at(&format!("http://{address}/"), Duration::from_millis(5)).unwrap();
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    // It hangs up on every connection at first.
    for _ in 0..4 {
        drop(timeout(PATIENCE, free.accept()).await.unwrap().unwrap());
    }
    Service::serve(free, &[(LIFE, "spot"), (ACTION, TERMINATE)]);
    assert!(!timeout(PATIENCE, seen).await.unwrap().unwrap().advice);
}

#[tokio::test]
async fn what_is_left_is_told_by_the_clock_of_the_service() {
    let service = Service::start(&[(LIFE, "spot"), (ACTION, TERMINATE)]).await;
    // Half a minute before, years from what the clock here says.
    service.set_date("Mon, 31 Dec 2035 23:59:30 GMT");
    let notice = timeout(PATIENCE, service.host().next_interruption(false)).await.unwrap();
    assert_eq!(notice.left, Duration::from_secs(30));
}

#[test]
fn a_notice_that_cannot_be_read_is_a_notice() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let read = |text| {
        let notice = read_notice(text, now);
        (notice.reason, notice.left.as_secs())
    };
    let escape = read(r#"{"action":"stop\u001b[2J","time":"2026-01-01T00:01:30Z"}"#);
    assert_eq!(escape, ("spot instance-action stop2J".into(), 90));
    assert_eq!(read("garbage"), ("spot instance-action terminate".into(), 120));
    let past = read(r#"{"action":"hibernate","time":"2025-01-01T00:00:00Z"}"#);
    assert_eq!(past, ("spot instance-action hibernate".into(), 0));
    let far = read(r#"{"action":"terminate","time":"2026-01-02T00:00:00Z"}"#);
    assert_eq!(far, ("spot instance-action terminate".into(), 120), "it is two minutes at most");
}
