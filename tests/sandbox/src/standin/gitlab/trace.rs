//! The log of a job, on its way to the server. Source: `network/trace.go`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::network::{Credentials, Network, Pace, Remote};

/// How often the log is sent, until the server says otherwise.
const UPDATE: Duration = Duration::from_secs(3);
/// After this time without news the server is told that the job still runs.
const FORCE: Duration = Duration::from_secs(30);
/// The same, as a multiple of a wish for more speed.
const FORCE_FACTOR: u32 = 5;
/// How often the end is told, when it cannot be.
const TRIES: usize = 5;

/// A log; clones share it.
#[derive(Clone)]
pub struct Trace {
    network: Network,
    job: Credentials,
    pace: Pace,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    text: String,
    sent: usize,
}

impl Trace {
    pub fn new(network: &Network, job: Credentials, pace: Pace) -> Self {
        Self {
            network: network.clone(),
            job,
            pace,
            log: Arc::default(),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_sent(&self) -> bool {
        let log = self.log();
        log.sent == log.text.len()
    }

    /// Adds what a job writes.
    pub fn write(&self, text: &str) {
        self.log().text.push_str(text);
    }

    /// Adds a line of our own.
    pub fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Sends what is not sent yet: what the server says of the job, if there was anything to send.
    async fn send(&self) -> Option<Remote> {
        let (from, piece) = {
            let log = self.log();
            (log.sent, log.text.get(log.sent..).unwrap_or_default().to_owned())
        };
        if piece.is_empty() {
            return None;
        }
        let (sent, remote) = self.network.append(&self.job, from, &piece).await;
        self.log().sent = sent;
        Some(remote)
    }

    /// Sends it every so often, and tells what the server says of the job.
    pub fn watch(&self) -> (JoinHandle<()>, watch::Receiver<Remote>) {
        let (tell, told) = watch::channel(Remote::Fine);
        let trace = self.clone();
        let (every, force) = (self.pace.or(UPDATE), self.pace.0.map_or(FORCE, |pace| pace * FORCE_FACTOR));
        let task = tokio::spawn(async move {
            let mut heard = Instant::now();
            loop {
                tokio::time::sleep(every).await;
                let remote = match trace.send().await {
                    Some(remote) => remote,
                    None if heard.elapsed() < force => continue,
                    None => {
                        let text = trace.log().text.clone();
                        trace.network.update(&trace.job, json!({ "state": "running" }), &text).await
                    }
                };
                if remote != Remote::Failed {
                    heard = Instant::now();
                    let _ = tell.send(remote);
                }
            }
        });
        (task, told)
    }

    /// Sends the rest, and tells how the job ended.
    pub async fn finish(&self, end: Value) {
        for _ in 0..TRIES {
            let sent = self.send().await;
            if sent == Some(Remote::Abort) {
                return;
            }
            if self.is_sent() {
                break;
            }
            tokio::time::sleep(self.pace.or(UPDATE)).await;
        }
        let text = self.log().text.clone();
        for _ in 0..TRIES {
            if self.network.update(&self.job, end.clone(), &text).await != Remote::Failed {
                return;
            }
            tokio::time::sleep(self.pace.or(UPDATE)).await;
        }
    }
}
