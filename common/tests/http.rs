//! The HTTP client against servers that misbehave: what is asked again, what never is, and what the error says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::error::{Class, Failure, Report};
use common::http::{self, Answer, Lost, Retry};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use scripted::{QUICK, Reply, Server, answer, empty, refused};
use serde_json::json;

const PATH: &str = "POST /things";

/// Asks for `/things`, with a query that no error may show.
async fn ask(server: &Server, retry: &Retry) -> anyhow::Result<Answer> {
    let client = http::client().unwrap();
    http::fetch(client.post(format!("{}/things?sig=canary", server.url)), retry).await
}

async fn scripted(replies: impl IntoIterator<Item = Reply>) -> Server {
    let server = Server::start().await;
    server.on(PATH, replies);
    server
}

fn fine() -> Reply {
    answer(200, &json!({ "fine": true }))
}

/// Long enough to be refused rather than waited for: it is more than any budget here.
const HOUR: i64 = 3600;

#[tokio::test]
async fn a_server_that_recovers_is_asked_again() {
    for fault in [empty(500), empty(502), empty(503), Reply::Reset, Reply::CutShort, empty(429)] {
        let server = scripted([fault.clone(), fault.clone(), fine()]).await;
        let answer = ask(&server, &QUICK).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.tries), (200, 3), "{fault:?}");
        assert_eq!(answer.json::<serde_json::Value>().unwrap(), json!({ "fine": true }));
    }
}

#[tokio::test]
async fn an_answer_that_would_stay_the_same_is_returned_at_once() {
    for status in [400, 401, 403, 404, 409, 422, 501] {
        let server = scripted([refused(status, "no"), fine()]).await;
        let answer = ask(&server, &QUICK).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.tries, server.count(PATH)), (status, 1, 1));
    }
}

#[tokio::test]
async fn what_must_not_be_taken_twice_is_sent_once_and_called_lost() {
    for fault in [empty(500), empty(504), Reply::Reset, Reply::CutShort] {
        let server = scripted([fault.clone(), fine()]).await;
        let error = ask(&server, &QUICK.once()).await.unwrap_err();
        assert!(error.downcast_ref::<Lost>().is_some(), "{fault:?}: {error:#}");
        assert_eq!(server.count(PATH), 1, "{fault:?}");
    }
}

/// Knows no name at first, as on a machine whose network is just coming up.
struct LateResolver {
    address: SocketAddr,
    failures: AtomicUsize,
}

impl Resolve for LateResolver {
    fn resolve(&self, _: Name) -> Resolving {
        let fails = self.failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        let address = self.address;
        Box::pin(async move {
            if fails {
                return Err("no such name".into());
            }
            Ok(Box::new(std::iter::once(address)) as Addrs)
        })
    }
}

#[tokio::test]
async fn what_did_not_reach_the_server_is_sent_again_even_where_nothing_may_be_taken_twice() {
    let server = scripted([fine()]).await;
    let resolver = LateResolver {
        address: server.url.replace("http://", "").parse().unwrap(),
        failures: AtomicUsize::new(2),
    };
    // Ours first: it installs the TLS provider that every client of the process takes.
    drop(http::client().unwrap());
    let client = reqwest::Client::builder().dns_resolver(resolver).build().unwrap();
    let answer = http::fetch(client.post("http://forge.test/things"), &QUICK.once()).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.tries, server.count(PATH)), (200, 3, 1));
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_even_where_nothing_may_be_taken_twice() {
    let past = "Mon, 01 Jan 2001 00:00:00 GMT";
    let limits = [
        empty(429).with("retry-after", 0),
        refused(403, "slow down").with("retry-after", 0),
        // GitHub's secondary limit without a header waits for the time that is meant for it.
        refused(403, "You have exceeded a secondary rate limit. Please wait."),
        refused(403, "API rate limit exceeded")
            .with("x-ratelimit-remaining", 0)
            .with("x-ratelimit-reset", 978_307_200)
            .with("date", past),
        refused(429, "API rate limit exceeded").with("x-ratelimit-remaining", 0),
    ];
    for limit in limits {
        let server = scripted([limit.clone(), fine()]).await;
        let answer = ask(&server, &QUICK.once()).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.tries), (200, 2), "{limit:?}");
    }
}

#[tokio::test]
async fn a_rate_limit_that_ends_too_late_is_told_and_not_waited_for() {
    // By the server's clock it is an hour away; by ours it was over long ago.
    let reset = 978_307_200 + HOUR;
    let by_the_servers_clock = refused(403, "API rate limit exceeded")
        .with("x-ratelimit-remaining", 0)
        .with("x-ratelimit-reset", reset)
        .with("date", "Mon, 01 Jan 2001 00:00:00 GMT");
    for limit in [by_the_servers_clock, empty(429).with("retry-after", HOUR)] {
        let server = scripted([limit, fine()]).await;
        let error = ask(&server, &QUICK).await.unwrap_err();
        let report = Report(&error);
        let text = report.to_string();
        assert!(
            text.contains("the rate limit of `127.0.0.1` is used up") && text.contains("in 3600 s"),
            "{text}"
        );
        assert!(report.hint().unwrap().contains("a token with a higher limit"), "{text}");
        assert_eq!((report.class(), server.count(PATH)), (Class::Unexpected, 1));
        assert!(error.downcast_ref::<Failure>().is_some());
    }
}

#[tokio::test]
async fn a_rate_limit_that_no_clock_can_reach_is_an_error_and_no_panic() {
    let server = scripted([empty(429).with("retry-after", i64::MAX), fine()]).await;
    let error = ask(&server, &QUICK).await.unwrap_err();
    assert!(Report(&error).to_string().contains("is used up"), "{error:#}");
}

#[tokio::test]
async fn an_answer_larger_than_8_mib_is_refused_without_asking_again() {
    let huge = |bytes: usize| Reply::Answer(200, Vec::new(), vec![b' '; bytes]);
    let server = scripted([huge(8 << 20)]).await;
    assert_eq!(ask(&server, &QUICK).await.unwrap().body.len(), 8 << 20);
    let server = scripted([huge((8 << 20) + 1), fine()]).await;
    let error = ask(&server, &QUICK).await.unwrap_err();
    assert!(format!("{error:#}").contains("larger than 8388608 bytes"), "{error:#}");
    assert_eq!(server.count(PATH), 1);
}

#[tokio::test]
async fn a_silent_server_costs_no_more_than_the_budget() {
    let server = scripted([Reply::Silence]).await;
    let error = ask(&server, &QUICK.within(Duration::from_millis(200))).await.unwrap_err();
    assert!(format!("{error:#}").contains("no answer in time"), "{error:#}");
}

#[tokio::test]
async fn errors_name_the_target_and_no_secret() {
    let short = QUICK.within(Duration::from_millis(100));
    for fault in [
        empty(500),
        Reply::Reset,
        Reply::CutShort,
        Reply::Silence,
        empty(429).with("retry-after", HOUR),
    ] {
        let server = scripted([fault.clone()]).await;
        let error = ask(&server, &short).await.unwrap_err();
        let text = format!("{error:#} {error:?}");
        assert!(text.contains(&format!("POST {}/things", server.url)), "{fault:?}: {text}");
        assert!(!text.contains("canary"), "{fault:?}: {text}");
    }
}

#[tokio::test]
async fn a_download_is_judged_before_its_body_is_read() {
    let server = Server::start().await;
    server.on("GET /archive", [empty(503), Reply::Answer(200, Vec::new(), b"bytes".to_vec())]);
    server.on("GET /gone", [empty(404)]);
    let client = http::client().unwrap();
    let response = http::send(client.get(format!("{}/archive", server.url)), &QUICK).await.unwrap();
    assert_eq!(response.bytes().await.unwrap(), "bytes");
    let response = http::send(client.get(format!("{}/gone", server.url)), &QUICK).await.unwrap();
    assert_eq!(response.status().as_u16(), 404);
}

#[tokio::test]
async fn the_program_names_itself() {
    let server = scripted([fine()]).await;
    ask(&server, &QUICK).await.unwrap();
    let agent = server.requests()[0].headers["user-agent"].clone();
    assert!(
        agent.starts_with("http-") && agent.ends_with(concat!("/", env!("CARGO_PKG_VERSION"))),
        "{agent}"
    );
}
