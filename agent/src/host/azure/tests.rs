#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Azure;
use crate::host::{Host, Will};

const PATIENCE: Duration = Duration::from_secs(30);
const COMPUTE: &str = r#"{"name":"cml-abc","resourceGroupName":"cml-abc","subscriptionId":"s","vmSize":"Standard_B2ts_v2","location":"westus2","priority":"Spot","azEnvironment":"AzurePublicCloud","tagsList":[{"name":"cml-launch-id","value":"cml-ABC"}]}"#;
const NOTHING: &str = r#"{"DocumentIncarnation":1,"Events":[]}"#;
const PREEMPT: &str = r#"{"DocumentIncarnation":2,"Events":[{"EventId":"E1","EventType":"Preempt","Resources":["cml-abc"],"EventStatus":"Scheduled","NotBefore":"Tue, 01 Jan 2036 00:00:00 GMT"}]}"#;
const GROUP: &str = "DELETE /subscriptions/s/resourceGroups/cml-abc";
const MACHINE: &str = "DELETE /subscriptions/s/resourceGroups/cml-abc/providers/Microsoft.Compute/virtualMachines/cml-abc";

const TAGS: &str = "PATCH /subscriptions/s/resourceGroups/cml-abc/providers/Microsoft.Resources/tags/default";

/// Statuses and codes, one after the other.
type Answers = Vec<(u16, &'static str)>;

/// A metadata service, and Resource Manager, which answer what they are told to.
#[derive(Clone)]
struct Azures {
    compute: Arc<Mutex<&'static str>>,
    events: Arc<Mutex<(u16, &'static str)>>,
    /// What deleting the group, and the machine, is answered; the last answer stays.
    deletions: Arc<Mutex<[Answers; 2]>>,
    tags: Arc<Mutex<(u16, &'static str)>>,
    asked: watch::Sender<Vec<String>>,
    address: String,
}

impl Azures {
    async fn start() -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn serve(listener: TcpListener) -> Self {
        let azures = Self {
            compute: Arc::new(Mutex::new(COMPUTE)),
            events: Arc::new(Mutex::new((200, NOTHING))),
            deletions: Arc::new(Mutex::new([vec![(202, "")], vec![(202, "")]])),
            tags: Arc::new(Mutex::new((200, ""))),
            asked: watch::Sender::default(),
            address: format!("http://{}", listener.local_addr().unwrap()),
        };
        let answer = |State(azures): State<Self>, request: Request| async move { azures.answer(&request) };
        let app = axum::Router::new().fallback(answer).with_state(azures.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        azures
    }

    fn answer(&self, request: &Request) -> (StatusCode, String) {
        let path = request.uri().path().to_owned();
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let line = format!("{} {path}", request.method());
        let query = request.uri().query().unwrap_or_default().to_owned();
        self.asked.send_modify(|asked| asked.push(format!("{line} {query}")));
        let (status, body) = match line.as_str() {
            _ if path.starts_with("/metadata/") && header("metadata") != "true" => (400, String::new()),
            "GET /metadata/instance/compute" => (200, (*self.compute.lock().unwrap()).to_owned()),
            "GET /metadata/scheduledevents" => {
                let (status, body) = *self.events.lock().unwrap();
                (status, body.to_owned())
            }
            "POST /metadata/scheduledevents" => (200, String::new()),
            "GET /metadata/identity/oauth2/token" => (200, r#"{"access_token":"t0k3n","token_type":"Bearer"}"#.to_owned()),
            TAGS if header("authorization") == "Bearer t0k3n" => {
                let (status, code) = *self.tags.lock().unwrap();
                (status, format!(r#"{{"error":{{"code":"{code}"}}}}"#))
            }
            GROUP | MACHINE if header("authorization") == "Bearer t0k3n" => {
                let answers = &mut self.deletions.lock().unwrap()[usize::from(line == MACHINE)];
                let (status, code) = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
                (status, format!(r#"{{"error":{{"code":"{code}"}}}}"#))
            }
            _ => (404, String::new()),
        };
        (StatusCode::from_u16(status).unwrap(), body)
    }

    fn host(&self) -> Azure {
        let manager = Some(self.address.clone());
        Azure::at(&self.address, manager, Some(Duration::from_millis(5))).unwrap()
    }

    /// Waits until a request was made so often.
    async fn asked(&self, line: &str, times: usize) {
        let mut asked = self.asked.subscribe();
        let often = |asked: &Vec<String>| asked.iter().filter(|one| one.starts_with(line)).count() >= times;
        timeout(PATIENCE, asked.wait_for(often)).await.expect("not asked").unwrap();
    }

    fn count(&self, line: &str) -> usize {
        self.asked
            .borrow()
            .iter()
            .filter(|one| one.split(' ').take(2).eq(line.split(' ')))
            .count()
    }
}

#[tokio::test]
async fn an_eviction_is_seen_whatever_the_service_says_before() {
    let azures = Azures::start().await;
    let host = azures.host();
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    for strange in [(200, NOTHING), (500, ""), (404, ""), (410, ""), (429, ""), (200, "garbage")] {
        *azures.events.lock().unwrap() = strange;
        let before = azures.count("GET /metadata/scheduledevents");
        azures.asked("GET /metadata/scheduledevents", before + 2).await;
    }
    assert!(!seen.is_finished());
    *azures.events.lock().unwrap() = (200, PREEMPT);
    let notice = timeout(PATIENCE, seen).await.unwrap().unwrap();
    assert_eq!((notice.reason.as_str(), notice.advice), ("scheduled event Preempt", false));
}

#[tokio::test]
async fn a_service_that_comes_late_is_waited_for() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = Azure::at(
        &format!("http://{}/", free.local_addr().unwrap()),
        None,
        Some(Duration::from_millis(5)),
    )
    .unwrap();
    let seen = tokio::spawn(async move { host.next_interruption(false).await });
    for _ in 0..4 {
        drop(timeout(PATIENCE, free.accept()).await.unwrap().unwrap());
    }
    let azures = Azures::serve(free);
    *azures.events.lock().unwrap() = (200, PREEMPT);
    timeout(PATIENCE, seen).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_group_is_deleted_and_the_notice_acknowledged() {
    let azures = Azures::start().await;
    *azures.events.lock().unwrap() = (200, PREEMPT);
    let host = azures.host();
    host.next_interruption(false).await;
    host.terminate(&Will::default()).await.unwrap();
    assert_eq!((azures.count(GROUP), azures.count(MACHINE)), (1, 0));
    let asked = azures.asked.borrow().clone();
    assert!(
        asked
            .iter()
            .any(|line| line.contains("forceDeletionTypes=Microsoft.Compute%2FvirtualMachines")),
        "{asked:?}"
    );
    assert!(
        !asked.iter().any(|line| line.contains("msi_res_id")),
        "its own identity needs no name"
    );
    assert_eq!(
        asked.last().unwrap().split(' ').take(2).collect::<Vec<_>>(),
        ["POST", "/metadata/scheduledevents"]
    );
}

#[tokio::test]
async fn a_right_that_is_not_known_yet_is_waited_for() {
    let azures = Azures::start().await;
    let no = (403, "AuthorizationFailed");
    *azures.deletions.lock().unwrap() = [vec![no, (202, "")], vec![no]];
    azures.host().terminate(&Will::default()).await.unwrap();
    assert_eq!((azures.count(GROUP), azures.count(MACHINE)), (2, 1));
}

#[tokio::test]
async fn a_machine_that_may_not_delete_its_group_deletes_itself() {
    let azures = Azures::start().await;
    *azures.deletions.lock().unwrap() = [vec![(403, "AuthorizationFailed")], vec![(202, "")]];
    azures.host().terminate(&Will::default()).await.unwrap();
    assert_eq!((azures.count(GROUP), azures.count(MACHINE)), (1, 1));
}

#[tokio::test]
async fn a_machine_with_something_left_to_be_done_leaves_its_group() {
    let azures = Azures::start().await;
    let will = Will {
        pending: Some(r#"{"job":1}"#.into()),
        ..Will::default()
    };
    azures.host().terminate(&will).await.unwrap();
    assert_eq!((azures.count(TAGS), azures.count(GROUP), azures.count(MACHINE)), (1, 0, 1));
    *azures.tags.lock().unwrap() = (403, "AuthorizationFailed");
    azures.host().terminate(&will).await.unwrap();
    assert_eq!(
        (azures.count(TAGS), azures.count(GROUP), azures.count(MACHINE)),
        (4, 1, 1),
        "a job that is lost keeps no machine"
    );
}

#[tokio::test]
async fn a_group_that_goes_already_is_gone_and_a_locked_one_is_not() {
    let azures = Azures::start().await;
    *azures.deletions.lock().unwrap() = [vec![(409, "ResourceGroupBeingDeleted")], vec![(500, "")]];
    azures.host().terminate(&Will::default()).await.unwrap();
    let locked = (409, "ScopeLocked");
    *azures.deletions.lock().unwrap() = [vec![locked], vec![locked]];
    let mut host = azures.host();
    host.patience = Duration::ZERO;
    let error = host.delete_self(None).await.unwrap_err();
    assert!(format!("{error:#}").contains("ScopeLocked"), "{error:#}");
}

#[tokio::test]
async fn a_group_of_somebody_else_is_never_deleted() {
    let azures = Azures::start().await;
    *azures.compute.lock().unwrap() = r#"{"name":"cml-abc","resourceGroupName":"cml-abc","subscriptionId":"s","tagsList":[{"name":"cml-launch-id","value":"cml-other"},{"name":"cml-identity","value":"/subscriptions/s/i"}]}"#;
    azures.host().terminate(&Will::default()).await.unwrap();
    assert_eq!((azures.count(GROUP), azures.count(MACHINE)), (0, 1));
    let named = |asked: &Vec<String>| asked.iter().any(|line| line.contains("msi_res_id=%2Fsubscriptions%2Fs%2Fi"));
    assert!(named(&azures.asked.borrow()), "the identity that was given is named");
}
