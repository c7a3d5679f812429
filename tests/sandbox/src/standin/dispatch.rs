//! One job as the listener sees it: the worker that runs it, the lock that is renewed meanwhile, and the signals that end it.

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep_until, timeout};

use super::listener::Signals;
use super::session::{Settings, environment};
use super::worker::{self, Tell};
use super::{say, stamp};
use crate::ci::Message;

/// How often the lock is renewed (a minute on GitHub).
const RENEW: Duration = Duration::from_millis(200);
/// After SIGTERM the program does not live longer. Source: `Constants.cs`.
const TERMINATE: Duration = Duration::from_secs(30);
/// What a cancelled worker may take. Source: `JobDispatcher.cs`.
const CANCEL: Duration = Duration::from_secs(45);
/// How often the result of a job is told, when it cannot be.
const TRIES: usize = 10;

/// How a job ended, as far as the listener's own life goes.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The listener goes on.
    Done,
    /// The listener was told to stop.
    Interrupted,
}

/// What became of the lock.
enum Lock {
    Held,
    Cancelled,
    /// The server does not know the job, or the lock, any more.
    Lost,
}

struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Worker {
    /// In our own process group, as the real one is: what is sent to the group reaches it and its steps.
    async fn start(settings: &Settings, message: &Message) -> Result<Self> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg0("Runner.Worker").arg(worker::COMMAND);
        command.env_clear().envs(environment(&settings.root));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = Command::from(command).spawn().context("starting the worker")?;
        let orders = child.stdin.take();
        let mut worker = Self { child, orders };
        worker.tell(&serde_json::to_string(message)?).await;
        Ok(worker)
    }

    async fn tell(&mut self, line: &str) {
        if let Some(orders) = &mut self.orders {
            // A worker that is gone is seen by its end.
            let _ = orders.write_all(format!("{line}\n").as_bytes()).await;
        }
    }
}

/// Runs a job to its end.
pub async fn run(settings: &Settings, message: &Message, signals: &mut Signals) -> Result<End> {
    say(&format!("{}: Running job: {}", stamp(), message.name));
    let job = json!({ "job": message.job });
    // Of a job that ends before its worker starts nothing is said, as with the real one.
    tokio::select! {
        renewed = settings.tell("renew", &job) => {
            if let Ok((404 | 410, _)) = renewed {
                return Ok(End::Done);
            }
        }
        _ = signals.next() => {
            say("Exiting...");
            report(settings, &job, json!({ "cancelled": true })).await;
            return Ok(End::Interrupted);
        }
    }
    let mut worker = Worker::start(settings, message).await?;
    let (mut interrupted, mut lost, mut cancelled) = (false, false, false);
    let mut deadline: Option<Instant> = None;
    let code = loop {
        tokio::select! {
            status = worker.child.wait() => break status?.code(),
            is_term = signals.next(), if !interrupted => {
                interrupted = true;
                say("Exiting...");
                worker.tell(Tell::SHUTDOWN).await;
                deadline = is_term.then(|| Instant::now() + TERMINATE);
            }
            lock = renew(settings, &job) => {
                let stop = match lock {
                    Lock::Held => false,
                    Lock::Cancelled => true,
                    Lock::Lost => { lost = true; true }
                };
                if stop && !std::mem::replace(&mut cancelled, true) {
                    worker.tell(Tell::CANCEL).await;
                    deadline = deadline.or(Some(Instant::now() + CANCEL));
                }
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                worker.child.start_kill().context("ending the worker")?;
                break None;
            }
        }
    };
    let (words, said) = match code {
        // The server is told otherwise than the console.
        _ if interrupted => ("Canceled", json!({ "success": false })),
        _ if lost => ("Abandoned", Value::Null),
        Some(worker::SUCCEEDED) => ("Succeeded", json!({ "success": true })),
        Some(worker::CANCELED) => ("Canceled", json!({ "cancelled": true })),
        _ => ("Failed", json!({ "success": false })),
    };
    say(&format!("{}: Job {} completed with result: {words}", stamp(), message.name));
    report(settings, &job, said).await;
    Ok(if interrupted { End::Interrupted } else { End::Done })
}

async fn renew(settings: &Settings, job: &Value) -> Lock {
    tokio::time::sleep(RENEW).await;
    match settings.tell("renew", job).await {
        Ok((200, body)) if body.contains("true") => Lock::Cancelled,
        Ok((404 | 410, _)) => Lock::Lost,
        _ => Lock::Held,
    }
}

async fn report(settings: &Settings, job: &Value, mut said: Value) {
    if said.is_null() {
        return;
    }
    said["job"] = job["job"].clone();
    for _ in 0..TRIES {
        if let Ok(Ok((200..=499, _))) = timeout(TERMINATE, settings.tell("done", &said)).await {
            return;
        }
        tokio::time::sleep(RENEW).await;
    }
}
