//! GitHub on loopback: its REST API under `/api/v3` (as on GitHub Enterprise Server), the service that runners speak to, and hosted jobs
//! as real processes.

mod again;
mod answers;
mod front;
mod hosted;
mod protocol;
mod registry;
mod rest;
mod run;
mod runners;
mod runs;
mod state;

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::events::{Events, Source};
use crate::faults::Faults;
use crate::standin;
pub use hosted::environment;
pub use run::{JobSpec, JobView, Message, Order, RunId, RunView, RunnerView, Work, Workflow};
use state::State;

/// How often the service looks for runners that have gone and locks that have ended.
const TICK: Duration = Duration::from_millis(50);

/// How a GitHub is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The organisation.
    pub owner: String,
    /// The repository.
    pub repo: String,
    /// The one token that is accepted.
    pub token: String,
    /// After this time without a word of its runner, a job fails (ten minutes on GitHub).
    pub lock_expiry: Duration,
    /// The runner's archive ends in the middle.
    pub truncate_archive: bool,
    /// What the API says of the runner's archive.
    pub checksum: Checksum,
    /// Where every exchange is written down, one JSON object a line.
    pub record: Option<PathBuf>,
}

/// The SHA-256 that the API tells for the runner's archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// That of the whole archive.
    Right,
    /// Another one.
    Wrong,
    /// None: GitHub's description calls it optional.
    Missing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            owner: "octo".into(),
            repo: "train".into(),
            token: "ghp_sandbox0canary0000000000000000000000".into(),
            lock_expiry: Duration::from_secs(3),
            truncate_archive: false,
            checksum: Checksum::Right,
            record: std::env::var_os("CML_SANDBOX_RECORD").map(PathBuf::from),
        }
    }
}

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, …
    pub method: String,
    /// Without the prefix `/api/v3`.
    pub path: String,
    /// Who sent it.
    pub user_agent: String,
    /// What it was answered.
    pub status: u16,
    /// When it was answered.
    pub at: Instant,
}

impl Request {
    /// Whether an agent sent it, not a launcher.
    pub fn from_agent(&self) -> bool {
        self.user_agent.starts_with("cml-agent/")
    }
}

/// A GitHub; clones share it.
#[derive(Clone)]
pub struct GitHub(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    options: Options,
    events: Events,
    faults: Faults,
    state: Mutex<State>,
    changed: Notify,
    log: Mutex<Vec<Request>>,
    record: Option<Mutex<std::fs::File>>,
    archives: Mutex<Vec<Bytes>>,
    /// Of the whole archive of the runner.
    sha256: String,
    hosted_env: Mutex<Vec<(String, String)>>,
    tasks: Mutex<JoinSet<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GitHub {
    /// Starts one on a free port.
    pub async fn start(events: Events, options: Options) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let open = |path: &PathBuf| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("opening {}", path.display()))
        };
        let record = options.record.as_ref().map(open).transpose()?.map(Mutex::new);
        let (mut archive, sha256) = standin::archive()?;
        if options.truncate_archive {
            archive.truncate(archive.len() / 2);
        }
        let github = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            state: Mutex::new(State::new(options.lock_expiry)),
            options,
            events,
            faults: Faults::default(),
            changed: Notify::new(),
            log: Mutex::default(),
            record,
            archives: Mutex::new(vec![archive]),
            sha256,
            hosted_env: Mutex::default(),
            tasks: Mutex::new(JoinSet::new()),
        }));
        let app = front::app(&github);
        let mut tasks = lock(&github.0.tasks);
        tasks.spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        let ticking = github.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.change(State::tick);
            }
        });
        drop(tasks);
        Ok(github)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// The page of its repository.
    pub fn repo_url(&self) -> String {
        format!("{}/{}/{}", self.url(), self.0.options.owner, self.0.options.repo)
    }

    /// The token that is accepted.
    pub fn token(&self) -> &str {
        &self.0.options.token
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The environment that hosted jobs get on top of GitHub's own.
    pub fn set_hosted_env(&self, env: Vec<(String, String)>) {
        *lock(&self.0.hosted_env) = env;
    }

    /// Where the runner's archive is.
    pub fn archive_url(&self) -> String {
        self.asset_url(0)
    }

    /// The runner's archive.
    pub fn archive(&self) -> Bytes {
        lock(&self.0.archives)[0].clone()
    }

    /// Serves another archive; returns its address and SHA-256.
    pub fn serve_archive(&self, bytes: Vec<u8>) -> (String, String) {
        let sha256 = standin::sha256(&bytes);
        let mut archives = lock(&self.0.archives);
        archives.push(bytes.into());
        (self.asset_url(archives.len() - 1), sha256)
    }

    fn asset_url(&self, number: usize) -> String {
        format!("{}/_assets/{number}/{}", self.url(), standin::archive_name("x64"))
    }

    /// Starts a workflow run.
    pub fn start_run(&self, workflow: Workflow) -> RunId {
        self.change(|state| state.start_run(workflow))
    }

    /// A run as it is now.
    pub fn run(&self, id: RunId) -> Option<RunView> {
        lock(&self.0.state).run_view(id)
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
        lock(&self.0.state).runner_views()
    }

    /// Tells a registered runner to do something when it next asks for work: whether there is such a runner.
    pub fn order(&self, runner: &str, order: Order) -> bool {
        let given = self.change(|state| {
            let found = state.runners.iter_mut().find(|one| one.name == runner);
            found.map(|runner| runner.orders.push_back(order)).is_some()
        });
        self.0.changed.notify_waiters();
        given
    }

    /// Forgets a registered runner without a word to it: it listens on. Source: <https://github.com/actions/runner/issues/4617>
    pub fn make_ghost(&self, runner: &str) {
        self.change(|state| {
            let ids = state.runners.iter().filter(|one| one.name == runner).map(|one| one.id);
            for id in ids.collect::<Vec<_>>() {
                state.remove_runner(id);
                state.ghosts.push(id);
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

    /// Changes the state, tells everybody who waits, publishes what happened, and starts hosted jobs that became ready.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, happened, hosted) = {
            let mut state = lock(&self.0.state);
            let result = change(&mut state);
            state.schedule();
            (result, std::mem::take(&mut state.happened), state.start_hosted())
        };
        if !happened.is_empty() {
            self.0.changed.notify_waiters();
        }
        for (what, subject, detail) in happened {
            self.0.events.push(Source::Forge, what, subject, detail);
        }
        for message in hosted {
            let github = self.clone();
            lock(&self.0.tasks).spawn(hosted::run(github, message));
        }
        result
    }
}
