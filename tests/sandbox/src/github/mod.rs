//! GitHub on loopback: its REST API under `/api/v3` (as on GitHub Enterprise Server), the service that runners speak to, and hosted jobs
//! as real processes.

mod again;
mod answers;
pub mod app;
mod front;
mod hosted;
mod order;
mod protocol;
mod registry;
mod rest;
mod runners;
mod runs;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use axum::body::Bytes;

use crate::ci::{Checksum, Forge as _, Server, Setup, State};
use crate::events::Events;
use crate::shared::lock;
use crate::standin;
use front::PREFIX;
pub use hosted::environment;
pub use order::{Order, Work};

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
    /// What the API says of the runner's archive; GitHub's description calls it optional.
    pub checksum: Checksum,
    /// The App that may have tokens made.
    pub app: app::Options,
    /// Where every exchange is written down, one JSON object a line.
    pub record: Option<PathBuf>,
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
            app: app::Options::default(),
            record: std::env::var_os("CML_SANDBOX_RECORD").map(PathBuf::from),
        }
    }
}

/// What only a GitHub has.
pub struct Own {
    options: Options,
    archives: Mutex<Vec<Bytes>>,
    /// Of the whole archive of the runner.
    sha256: String,
    /// The tokens that its App had made.
    minted: Mutex<Vec<app::Minted>>,
}

/// A GitHub; clones share it.
pub type GitHub = Server<Own>;

/// Everything that it remembers.
type GitHubState = State<Own>;

impl GitHub {
    /// Starts one on a free port.
    pub async fn start(events: Events, options: Options) -> Result<Self> {
        let (mut archive, sha256) = standin::archive()?;
        if options.truncate_archive {
            archive.truncate(archive.len() / 2);
        }
        let setup = Setup {
            events,
            lock_expiry: options.lock_expiry,
            record: options.record.clone(),
            root: String::new(),
        };
        let own = Own {
            options,
            archives: Mutex::new(vec![archive]),
            sha256,
            minted: Mutex::default(),
        };
        Self::open(own, setup, front::app()).await
    }

    /// The page of its repository.
    pub fn repo_url(&self) -> String {
        format!("{}/{}", self.url(), self.own().repository())
    }

    /// The token that is accepted.
    pub fn token(&self) -> &str {
        &self.own().options.token
    }

    /// The tokens that its App had made so far.
    pub fn minted(&self) -> Vec<app::Minted> {
        lock(&self.own().minted).clone()
    }

    /// Where the runner's archive is.
    pub fn archive_url(&self) -> String {
        self.asset_url(0)
    }

    /// The runner's archive.
    pub fn archive(&self) -> Bytes {
        lock(&self.own().archives)[0].clone()
    }

    /// Serves another archive; returns its address and SHA-256.
    pub fn serve_archive(&self, bytes: Vec<u8>) -> (String, String) {
        let sha256 = standin::sha256(&bytes);
        let mut archives = lock(&self.own().archives);
        archives.push(bytes.into());
        (self.asset_url(archives.len() - 1), sha256)
    }

    fn asset_url(&self, number: usize) -> String {
        format!("{}/_assets/{number}/{}", self.url(), standin::archive_name("x64"))
    }

    /// Tells a registered runner to do something when it next asks for work: whether there is such a runner.
    pub fn order(&self, runner: &str, order: Order) -> bool {
        let given = self.change(|state| {
            let found = state.runners.iter_mut().find(|one| one.name == runner);
            found.map(|runner| runner.own.push_back(order)).is_some()
        });
        self.changed().notify_waiters();
        given
    }

    /// Forgets a registered runner without a word to it: it listens on. Source: <https://github.com/actions/runner/issues/4617>
    pub fn make_ghost(&self, runner: &str) {
        self.change(|state| {
            let ids = state.runners.iter().filter(|one| one.name == runner).map(|one| one.id);
            for id in ids.collect::<Vec<_>>() {
                state.remove_runner(id);
                state.book.ghosts.push(id);
            }
        });
    }
}
