//! The one HTTP client, and the one way to ask again: what is repeated, how long it waits, and what all of it may take.

mod client;

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use backon::{ExponentialBuilder, Retryable as _};
use jiff::Timestamp;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Request, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::certificates;
use crate::error::{Class, Failure};

pub use client::{client, local};

/// No answer that we read whole is larger: a hostile server cannot fill our memory.
const MAX_BODY: usize = 8 << 20;

/// The value of the header `Authorization`; it is never shown.
pub fn authorization(text: &str) -> Result<HeaderValue> {
    let refuse = |_| Failure::new(Class::Usage, "the token holds characters that no token has").hint("look for a line break in it");
    let mut value = HeaderValue::try_from(text).map_err(refuse)?;
    value.set_sensitive(true);
    Ok(value)
}

/// How patiently a request is repeated. Connection errors, 5xx, 429 and rate limits are; a request that may have reached the server
/// only if it is `repeatable`.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The first wait; each one after it is twice as long, and up to as much again is added at random.
    pub first: Duration,
    /// The longest of these waits.
    pub longest: Duration,
    /// The wait for a rate limit that does not say when it ends: [at least a minute][secondary] for GitHub.
    ///
    /// [secondary]: https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately
    pub unsaid_limit: Duration,
    /// All that requests and waits may take together; a wait that would exceed it is not begun.
    pub budget: Duration,
    /// Whether sending it twice does no harm.
    pub repeatable: bool,
}

impl Retry {
    /// For API calls.
    pub const API: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(20),
        unsaid_limit: Duration::from_mins(1),
        budget: Duration::from_mins(2),
        repeatable: true,
    };

    /// The same within another budget.
    #[must_use]
    pub const fn within(self, budget: Duration) -> Self {
        Self { budget, ..self }
    }

    /// The same for a request that must not be taken twice: an error that leaves open whether it was is a [`Lost`].
    #[must_use]
    pub const fn once(self) -> Self {
        Self { repeatable: false, ..self }
    }

    fn backoff(&self) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .without_max_times()
            .with_jitter()
    }
}

/// In the chain of an error: the request, which must not be repeated, may or may not have been taken.
#[derive(Debug, thiserror::Error)]
#[error("the answer was lost: the request may have been taken")]
pub struct Lost;

/// An answer that was read whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status: 4xx too, other than rate limits.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// How often the request was sent for it.
    pub tries: u32,
}

impl Answer {
    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("the answer ({}) is not what was expected", self.status))
    }

    /// When the server sent it, by its own clock.
    pub fn sent_at(&self) -> Timestamp {
        server_time(&self.headers)
    }

    /// A header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends a request and returns the first answer that is not worth asking again for, its body unread: for downloads.
pub async fn send(request: RequestBuilder, retry: &Retry) -> Result<Response> {
    repeat(request, retry, |response, _| async move {
        judge(&response, &[], retry)?;
        Ok(response)
    })
    .await
}

/// Sends a request and reads the answer whole, up to 8 MiB: for API calls.
pub async fn fetch(request: RequestBuilder, retry: &Retry) -> Result<Answer> {
    repeat(request, retry, |mut response, tries| async move {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Fault::broken)? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(Fault::new(
                    Again::Never,
                    anyhow::anyhow!("the answer is larger than {MAX_BODY} bytes"),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        judge(&response, &body, retry)?;
        Ok(Answer {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body,
            tries,
        })
    })
    .await
}

/// Why one try gave no answer to keep.
#[derive(Debug)]
struct Fault {
    again: Again,
    error: anyhow::Error,
}

/// Whether to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It would fail in the same way.
    Never,
    /// The request did not reach the server, or the server refused to look at it.
    Always,
    /// The server may have taken the request.
    IfRepeatable,
    /// A rate limit that ends after this time.
    After(Duration),
}

impl Fault {
    fn new(again: Again, error: impl Into<anyhow::Error>) -> Self {
        Self {
            again,
            error: error.into(),
        }
    }

    /// Reads reqwest's error; its URL is cut, since a signed download's query is a secret.
    fn broken(error: reqwest::Error) -> Self {
        let tls = tls(&error);
        let why = if tls.is_some_and(certificates::is_of_stranger) {
            Some(certificates::stranger())
        } else {
            is_refused_by_proxy(&error).then(unknown_to_proxy)
        };
        // The peer will not become another one.
        let again = if error.is_builder() || error.is_redirect() || tls.is_some() || why.is_some() {
            Again::Never
        } else if error.is_connect() {
            Again::Always
        } else {
            Again::IfRepeatable
        };
        let error = anyhow::Error::new(error.without_url());
        Self {
            again,
            error: match why {
                Some(why) => error.context(why),
                None => error,
            },
        }
    }
}

/// Whether a proxy refuses a tunnel to whom it does not know. That error has no type that could be asked for.
fn is_refused_by_proxy(error: &reqwest::Error) -> bool {
    let mut chain = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |link| link.source());
    error.is_connect() && chain.any(|link| link.to_string().ends_with("proxy authorization required"))
}

fn unknown_to_proxy() -> Failure {
    Failure::new(Class::Access, "the proxy refuses who does not give the right credentials")
        .hint("write them into its address, percent-encoded: `http://USER:PASSWORD@HOST:PORT`, in `--proxy` for a machine, in HTTPS_PROXY and HTTP_PROXY for the launcher")
}

/// What failed, if it is TLS itself.
fn tls(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(link) = source {
        let inner = link.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = link.downcast_ref().or_else(|| inner?.downcast_ref());
        if found.is_some() {
            return found;
        }
        source = link.source();
    }
    None
}

/// What is sent, for people: no query, no credentials.
struct Target<'a>(&'a Request);

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.0.url();
        write!(f, "{} {}{}", self.0.method(), url.origin().ascii_serialization(), url.path())
    }
}

async fn repeat<T, F, Read>(request: RequestBuilder, retry: &Retry, read: F) -> Result<T>
where
    F: Fn(Response, u32) -> Read,
    Read: Future<Output = Result<T, Fault>>,
{
    let (client, request) = request.build_split();
    let request = request.context("building the request")?;
    let target = Target(&request);
    let deadline = Instant::now() + retry.budget;
    let tries = AtomicU32::new(0);
    let once = || async {
        let number = tries.fetch_add(1, Ordering::Relaxed) + 1;
        let began = Instant::now();
        let copy = request
            .try_clone()
            .ok_or_else(|| Fault::new(Again::Never, anyhow::anyhow!("a streamed body cannot be sent again")))?;
        let answered = timeout_at(deadline, async {
            let response = client.execute(copy).await.map_err(Fault::broken)?;
            tracing::debug!("{target}: {} in {} ms", response.status(), began.elapsed().as_millis());
            read(response, number).await
        });
        answered
            .await
            .unwrap_or_else(|_| Err(Fault::new(Again::IfRepeatable, anyhow::anyhow!("no answer in time"))))
    };
    let outcome = once
        .retry(retry.backoff())
        .sleep(tokio::time::sleep)
        .when(|fault| match fault.again {
            Again::Never => false,
            Again::Always | Again::After(_) => true,
            Again::IfRepeatable => retry.repeatable,
        })
        .adjust(|fault, backoff| {
            let wait = match (fault.again, backoff?) {
                (Again::After(limit), backoff) => limit.max(backoff),
                (_, backoff) => backoff,
            };
            // The server says how long: it may be longer than any clock goes.
            (wait < deadline.saturating_duration_since(Instant::now())).then_some(wait)
        })
        .notify(|fault, wait| {
            if matches!(fault.again, Again::After(_)) {
                tracing::warn!("waiting {} for the rate limit of `{}`", seconds(wait), host(&request));
            } else {
                tracing::info!("trying again in {}: {target}: {:#}", seconds(wait), fault.error);
            }
        })
        .await;
    outcome.map_err(|fault| give_up(fault, &target, retry, tries.into_inner()))
}

fn host(request: &Request) -> &str {
    request.url().host_str().unwrap_or_default()
}

fn seconds(wait: Duration) -> String {
    if wait < Duration::from_secs(10) {
        format!("{:.1} s", wait.as_secs_f64())
    } else {
        format!("{} s", wait.as_secs())
    }
}

fn give_up(fault: Fault, target: &Target<'_>, retry: &Retry, tries: u32) -> anyhow::Error {
    let error = match fault.again {
        Again::After(wait) => {
            let ends = SystemTime::now().checked_add(wait).and_then(|ends| Timestamp::try_from(ends).ok());
            let ends = ends.map_or_else(|| "later".into(), |ends| format!("at {ends:.0}"));
            let message = format!(
                "the rate limit of `{}` is used up and resets {ends}, in {}: longer than we may wait",
                host(target.0),
                seconds(wait)
            );
            let failure = Failure::new(Class::Unexpected, message).hint("try again after that time, or use a token with a higher limit");
            fault.error.context(failure)
        }
        Again::IfRepeatable if !retry.repeatable => fault.error.context(Lost),
        _ => fault.error,
    };
    match tries {
        1 => error.context(target.to_string()),
        tries => error.context(format!("{target}: gave up after {tries} tries within {}", seconds(retry.budget))),
    }
}

/// Whether an answer is one to keep.
fn judge(response: &Response, body: &[u8], retry: &Retry) -> Result<(), Fault> {
    let status = response.status();
    let answered = || anyhow::anyhow!("the server answered {status}");
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return Err(Fault::new(Again::Never, answered().context(unknown_to_proxy())));
    }
    if let Some(limit) = rate_limit(status, response.headers(), body, retry.unsaid_limit) {
        return Err(Fault::new(Again::After(limit), answered()));
    }
    if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        return Err(Fault::new(Again::IfRepeatable, answered()));
    }
    Ok(())
}

/// Whether an answer is a rate limit, and how long it lasts (`unsaid` where it does not say): [GitHub's two kinds][docs], [Google's][google], and 429.
///
/// [google]: https://docs.cloud.google.com/compute/api-quota#best_practices
/// [docs]: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit
pub(crate) fn rate_limit(status: StatusCode, headers: &HeaderMap, body: &[u8], unsaid: Duration) -> Option<Duration> {
    if !matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let length = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if let Some(after) = number(RETRY_AFTER.as_str()) {
        return Some(length(after));
    }
    if number("x-ratelimit-remaining") == Some(0) {
        let reset = number("x-ratelimit-reset");
        return Some(reset.map_or(unsaid, |reset| length(reset.saturating_sub(server_time(headers).as_second()))));
    }
    let body = String::from_utf8_lossy(body).to_ascii_lowercase();
    let said = ["secondary rate limit", "ratelimitexceeded"]
        .iter()
        .any(|words| body.contains(words));
    (said || status == StatusCode::TOO_MANY_REQUESTS).then_some(unsaid)
}

/// The server's own clock if it shows one: that of a machine that has just booted may be wrong.
pub fn server_time(headers: &HeaderMap) -> Timestamp {
    let shown = headers.get(DATE).and_then(|date| date.to_str().ok());
    let parsed = shown.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    parsed.map_or_else(Timestamp::now, |date| date.timestamp())
}
