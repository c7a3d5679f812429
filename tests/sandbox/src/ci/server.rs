//! A forge as a server on loopback: what happens in it, by itself and by request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::forge::{Forge, Rules};
use super::front::{self, Request};
use super::hosted;
use super::run::{Message, RunId, RunView, RunnerView, Workflow};
use super::state::State;
use crate::events::{Events, Source};
use crate::faults::Faults;
use crate::shared::{appending, lock};

/// How often the service looks for runners that have gone and locks that have ended.
const TICK: Duration = Duration::from_millis(50);

/// A forge; clones share it.
pub struct Server<F: Rules>(Arc<Inner<F>>);

/// How a forge is set up, whichever it is.
pub(crate) struct Setup {
    /// Where it tells what happens.
    pub events: Events,
    /// A job fails after this time without a word of its runner.
    pub lock_expiry: Duration,
    /// Where every exchange with its REST API is written down, one JSON object a line.
    pub record: Option<PathBuf>,
    /// The path below its address that all of it is under.
    pub root: String,
}

/// A runner that waits for work.
pub(crate) struct Poll<F: Rules>(Server<F>, u64);

impl<F: Rules> Drop for Poll<F> {
    fn drop(&mut self) {
        if let Some(runner) = lock(&self.0.0.state).runner(self.1) {
            runner.polls = runner.polls.saturating_sub(1);
        }
    }
}

impl<F: Rules> Clone for Server<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<F: Rules> {
    address: SocketAddr,
    url: String,
    /// What is said for its address, if not that.
    name: OnceLock<String>,
    own: F,
    events: Events,
    faults: Faults,
    state: Mutex<State<F>>,
    changed: Notify,
    log: Mutex<Vec<Request>>,
    record: Option<Mutex<std::fs::File>>,
    hosted_env: Mutex<Vec<(String, String)>>,
    tasks: Mutex<JoinSet<()>>,
}

impl<F: Forge> Server<F> {
    /// Starts one on a free port.
    pub(crate) async fn open(own: F, setup: Setup, app: Router<Self>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let address = listener.local_addr()?;
        let server = Self(Arc::new(Inner {
            address,
            url: format!("http://{address}{}", setup.root),
            name: OnceLock::new(),
            state: Mutex::new(State::new(setup.lock_expiry)),
            own,
            events: setup.events,
            faults: Faults::default(),
            changed: Notify::new(),
            log: Mutex::default(),
            record: setup.record.as_deref().map(appending).transpose()?,
            hosted_env: Mutex::default(),
            tasks: Mutex::new(JoinSet::new()),
        }));
        let app = front::guarded(&server, app);
        let mut tasks = lock(&server.0.tasks);
        tasks.spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        let ticking = server.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.change(State::tick);
            }
        });
        drop(tasks);
        Ok(server)
    }

    /// Its address.
    pub fn url(&self) -> String {
        match self.0.name.get() {
            Some(name) => self.0.url.replacen(&self.0.address.ip().to_string(), name, 1),
            None => self.0.url.clone(),
        }
    }

    /// From now on its host is called by a name, which whoever speaks to it must find out the address of.
    pub fn go_by_name(&self, name: &str) {
        // It has one name at most: the first.
        let _ = self.0.name.set(name.into());
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The environment that hosted jobs get on top of the forge's own.
    pub fn set_hosted_env(&self, env: Vec<(String, String)>) {
        *lock(&self.0.hosted_env) = env;
    }

    /// Starts a run.
    pub fn start_run(&self, workflow: Workflow) -> RunId {
        self.change(|state| state.start_run(workflow))
    }

    /// A run as it is now.
    pub fn run(&self, id: RunId) -> Option<RunView> {
        self.state().run_view(id)
    }

    /// Waits for the end of a run: of its latest attempt.
    pub async fn wait_run(&self, id: RunId, patience: Duration) -> Option<RunView> {
        let ended = || self.run(id).filter(|run| run.status == "completed");
        // What happened before does not matter: the run may have been started again since.
        self.0.events.wait(patience, |_| ended().is_some()).await?;
        ended()
    }

    /// The registered runners.
    pub fn runners(&self) -> Vec<RunnerView> {
        self.state().runner_views()
    }

    /// Deletes a registration, as its owner does in the settings.
    pub fn forget(&self, runner: &str) {
        self.change(|state| {
            let ids: Vec<u64> = state.runners.iter().filter(|one| one.name == runner).map(|one| one.id).collect();
            for id in ids {
                state.remove_runner(id);
            }
        });
    }

    /// Every request to the REST API so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.0.log).clone()
    }

    /// Ends it, and every process of its hosted jobs.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
    }

    /// What only this forge has.
    pub(crate) fn own(&self) -> &F {
        &self.0.own
    }

    /// Its state, to look at: [`Self::change`] changes it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State<F>> {
        lock(&self.0.state)
    }

    /// Wakes whoever waits for a change.
    pub(crate) fn changed(&self) -> &Notify {
        &self.0.changed
    }

    /// Tells a line that a job wrote.
    pub(crate) fn tell_output(&self, job: &str, line: &str) {
        self.0.events.push(Source::Forge, "job-output", job, line);
    }

    /// What hosted jobs get on top of the forge's own variables.
    pub(super) fn hosted_env(&self) -> Vec<(String, String)> {
        lock(&self.0.hosted_env).clone()
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Vec<Request>> {
        lock(&self.0.log)
    }

    pub(super) fn record(&self) -> Option<MutexGuard<'_, std::fs::File>> {
        self.0.record.as_ref().map(lock)
    }

    /// Notes that a runner waits for work, until this is dropped: it may be killed while it waits.
    pub(crate) fn poll(&self, runner: u64) -> Poll<F> {
        self.change(|state| state.hear(runner, 1));
        Poll(self.clone(), runner)
    }

    /// Looks at the state now and after each change, until something is found or `patience` ends.
    pub(crate) async fn hold<T>(&self, patience: Duration, mut look: impl FnMut(&mut State<F>) -> Option<T>) -> Option<T> {
        let ends = tokio::time::Instant::now() + patience;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = self.change(&mut look);
            if found.is_some() || tokio::time::timeout_at(ends, changed).await.is_err() {
                return found;
            }
        }
    }

    /// Adds what the state does not know.
    pub(crate) fn complete(&self, message: Message) -> Message {
        Message {
            repository: self.own().repository(),
            server: self.url(),
            ..message
        }
    }

    /// Changes the state, tells everybody who waits, publishes what happened, and starts hosted jobs that became ready.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State<F>) -> T) -> T {
        let (result, happened, hosted) = {
            let mut state = self.state();
            let result = change(&mut state);
            state.schedule();
            let hosted = state.start_hosted();
            (result, std::mem::take(&mut state.happened), hosted)
        };
        if !happened.is_empty() {
            self.0.changed.notify_waiters();
        }
        for (what, subject, detail) in happened {
            self.0.events.push(Source::Forge, what, subject, detail);
        }
        for message in hosted {
            let server = self.clone();
            lock(&self.0.tasks).spawn(hosted::run(server, message));
        }
        result
    }
}
