//! What happened in the world, in order: the timeline of the demo, and what tests wait for.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The forge: registrations, runs, jobs.
    Forge,
    /// The EC2 API.
    Cloud,
    /// The metadata service of an instance.
    Metadata,
    /// An instance: its console and its life.
    Instance,
    /// A command that runs in the world: a launcher.
    Command,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Since the world began.
    pub at: Duration,
    /// Who did it.
    pub source: Source,
    /// A fixed kebab-case word: `runner-registered`, `job-started`, `instance-terminated`.
    pub what: &'static str,
    /// To whom: the runner's, job's or instance's name.
    pub subject: String,
    /// Anything else worth reading.
    pub detail: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.what, self.subject, self.detail)
    }
}

/// The log of a world; clones share it.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    began: Instant,
    log: Mutex<Vec<Event>>,
    more: Notify,
}

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(Shared {
            began: Instant::now(),
            log: Mutex::new(Vec::new()),
            more: Notify::new(),
        }))
    }
}

impl Events {
    /// Adds an event and wakes whoever waits.
    pub fn push(&self, source: Source, what: &'static str, subject: impl Into<String>, detail: impl Into<String>) {
        let event = Event {
            at: self.0.began.elapsed(),
            source,
            what,
            subject: subject.into(),
            detail: detail.into(),
        };
        self.log().push(event);
        self.0.more.notify_waiters();
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Event> {
        self.log().clone()
    }

    /// How many events of this kind there were, of any subject.
    pub fn count(&self, what: &str) -> usize {
        self.log().iter().filter(|event| event.what == what).count()
    }

    /// Waits until an event satisfies `wanted`, past ones included; none when `patience` ends first.
    pub async fn wait(&self, patience: Duration, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        tokio::time::timeout(patience, async {
            loop {
                let more = self.0.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                // The log is not locked meanwhile: `wanted` may look at it too.
                if let Some(event) = self.all().into_iter().find(|event| wanted(event)) {
                    return event;
                }
                more.await;
            }
        })
        .await
        .ok()
    }

    /// Returns the events from index `from` on, as soon as there is one.
    pub async fn after(&self, from: usize) -> Vec<Event> {
        loop {
            let more = self.0.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            let new: Vec<Event> = self.log().iter().skip(from).cloned().collect();
            if !new.is_empty() {
                return new;
            }
            more.await;
        }
    }

    fn log(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
