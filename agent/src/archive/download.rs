//! Bytes from a server into a queue, hashed on the way; a broken connection is taken up where it broke.

use std::time::Duration;

use anyhow::{Result, bail};
use common::error::{Class, Failure};
use common::http::{self, Retry};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode};
use ring::digest::{Context, Digest, SHA256};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, timeout_at};

use super::Source;

/// How often a connection may break.
const TRIES: u32 = 5;
/// The first wait after a broken connection; each one after it is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// How often the log says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);
const MEGABYTE: u64 = 1_000_000;

/// How a download ended.
#[derive(Debug)]
pub enum End {
    /// All of it went through; its SHA-256.
    Whole(Digest),
    /// Who unpacks it wants no more, and says why.
    Refused,
}

/// A download under way.
pub struct Download<'a> {
    client: &'a Client,
    source: &'a Source,
    deadline: Instant,
    digest: Context,
    /// Bytes that were taken.
    taken: u64,
    total: Option<u64>,
    /// What the server calls this very file.
    tag: Option<HeaderValue>,
    told: Instant,
}

impl<'a> Download<'a> {
    pub fn new(client: &'a Client, source: &'a Source, budget: Duration) -> Self {
        let now = Instant::now();
        Self {
            client,
            source,
            deadline: now + budget,
            digest: Context::new(&SHA256),
            taken: 0,
            total: None,
            tag: None,
            told: now,
        }
    }

    /// Downloads all of it, within the budget.
    pub async fn run(&mut self, queue: Sender<Vec<u8>>) -> Result<End> {
        let (mut tries, mut wait) = (1, FIRST_WAIT);
        loop {
            let response = self.open().await?;
            let already = self.check(&response)?;
            match timeout_at(self.deadline, self.pour(response, already, &queue)).await {
                Ok(Ok(true)) => return Ok(End::Whole(self.digest.clone().finish())),
                Ok(Ok(false)) => return Ok(End::Refused),
                Err(_) => return Err(self.broken(anyhow::anyhow!("it took too long"))),
                Ok(Err(error)) if tries == TRIES || wait >= self.deadline.saturating_duration_since(Instant::now()) => {
                    return Err(self.broken(error));
                }
                Ok(Err(error)) => tracing::warn!("the download broke off after {} bytes, resuming: {error:#}", self.taken),
            }
            tokio::time::sleep(wait).await;
            (tries, wait) = (tries + 1, wait * 2);
        }
    }

    fn broken(&self, error: anyhow::Error) -> anyhow::Error {
        let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let failure = Failure::new(Class::Unexpected, format!("the download broke off after {}{of} bytes", self.taken));
        error.context(failure.hint("the network is slow or blocked, or the server is: --runner-url takes a mirror nearby"))
    }

    /// Asks for what is missing; the answer has it, perhaps with what is already there before it.
    async fn open(&self) -> Result<Response> {
        // Not `gzip`: that would be decompressed for us, and the checksum is that of the file.
        let mut request = self.client.get(self.source.url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(token) = &self.source.token {
            request = request.bearer_auth(token.expose());
        }
        if self.taken > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.taken));
            if let Some(tag) = &self.tag {
                request = request.header(IF_RANGE, tag);
            }
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        let response = http::send(request, &Retry::API.within(left)).await?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            status => Err(refused(status).into()),
        }
    }

    /// Passes an answer on, but for its first bytes that are here already; false if nobody takes it any more.
    async fn pour(&mut self, mut response: Response, mut skip: u64, queue: &Sender<Vec<u8>>) -> Result<bool> {
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            let already = skip.min(chunk.len() as u64);
            skip -= already;
            let new = chunk.slice(usize::try_from(already)?..);
            self.digest.update(&new);
            self.taken += new.len() as u64;
            if queue.send(new.into()).await.is_err() {
                return Ok(false);
            }
            self.tell();
        }
        if let Some(total) = self.total.filter(|total| *total != self.taken) {
            bail!("{} bytes came of {total}", self.taken);
        }
        Ok(true)
    }

    /// Checks that an answer goes on with what came before; returns how many bytes of it are here already.
    fn check(&mut self, response: &Response) -> Result<u64> {
        let tag = response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if partial {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
            if start != Some(self.taken) {
                bail!("the server resumes at {range:?}, not at byte {}", self.taken);
            }
        }
        let before = if partial { self.taken } else { 0 };
        let total = response.content_length().map(|length| before + length);
        if self.taken > 0 && (total != self.total || (self.tag.is_some() && tag != self.tag.as_ref())) {
            bail!("the file has changed on the server while it was downloaded");
        }
        self.total = total;
        self.tag = tag.cloned();
        Ok(self.taken - before)
    }

    fn tell(&mut self) {
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            let of = self.total.map(|total| format!(" of {}", total / MEGABYTE)).unwrap_or_default();
            tracing::info!("downloaded {}{of} MB", self.taken / MEGABYTE);
        }
    }
}

fn refused(status: StatusCode) -> Failure {
    let hint = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => "is the version right (--runner-version), or the address (--runner-url)?",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "the address must be readable from the machine without a login",
        _ => "a proxy may stand between; --runner-url takes another address",
    };
    Failure::new(Class::Unexpected, format!("the server answered {status}")).hint(hint)
}
