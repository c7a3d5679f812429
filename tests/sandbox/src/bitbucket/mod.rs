//! Bitbucket Cloud on loopback: its REST API under `/2.0`, the download of its runner, and what the stand-in for the runner says. What the
//! real runner says to its service is not published, so that this part of the protocol is of our own making.

mod answers;
mod front;
mod pipelines;
mod protocol;
mod rest;
mod rules;
mod runners;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ring::rand::SecureRandom as _;

use crate::ci::{RunId, RunView, Server, Setup, State};
use crate::events::Events;
use crate::standin;

/// The path of the API.
const PREFIX: &str = "/2.0";
/// How often it is looked for steps that no runner can take.
const LOOK: Duration = Duration::from_millis(20);

/// How a Bitbucket is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// `WORKSPACE/REPO`
    pub repository: String,
    /// The one token that is accepted: as it is, or with its owner, `EMAIL:TOKEN`.
    pub token: String,
    /// After this time without a word of its runner a step has failed.
    pub lock_expiry: Duration,
    /// How long a runner's question for steps is held.
    pub poll: Duration,
    /// Whether a step waits for a runner. On Bitbucket it fails at once; here it may, as if another step had kept it from starting.
    pub waits: bool,
    /// Where every exchange is written down, one JSON object a line.
    pub record: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            repository: "octo/train".into(),
            token: "ATCTT3sandbox0canary00".into(),
            lock_expiry: Duration::from_secs(3),
            poll: Duration::from_millis(500),
            waits: false,
            record: std::env::var_os("CML_SANDBOX_RECORD_BITBUCKET").map(PathBuf::from),
        }
    }
}

/// What only a Bitbucket has.
pub struct Own {
    options: Options,
    /// What its secrets are made from.
    salt: String,
}

/// A Bitbucket; clones share it.
pub type Bitbucket = Server<Own>;

/// Everything that it remembers.
type BitbucketState = State<Own>;

impl Own {
    /// A text that nobody can guess, for this purpose.
    fn secret(&self, purpose: &str) -> String {
        standin::sha256(format!("{} {purpose}", self.salt).as_bytes())
    }
}

impl Bitbucket {
    /// Starts one on a free port.
    pub async fn start(events: Events, options: Options) -> Result<Self> {
        let mut salt = [0; 16];
        let random = ring::rand::SystemRandom::new().fill(&mut salt);
        random.ok().context("making secrets")?;
        let setup = Setup {
            events,
            lock_expiry: options.lock_expiry,
            record: options.record.clone(),
            root: String::new(),
        };
        let waits = options.waits;
        let salt = standin::sha256(&salt);
        let server = Self::open(Own { options, salt }, setup, front::app()).await?;
        if !waits {
            let looking = server.clone();
            // It ends with the test's runtime.
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LOOK).await;
                    looking.change(State::fail_without_runner);
                }
            });
        }
        Ok(server)
    }

    /// The newest pipeline of the same commit, and how many there are: as other forges count attempts of a run.
    fn newest(&self, id: RunId) -> (RunId, u32) {
        let state = self.state();
        let first = state.first(id.0);
        let mut same = state.runs.iter().filter(|run| state.first(run.id.0) == first);
        let count = same.clone().count();
        let newest = same.next_back().map_or(id, |run| run.id);
        (newest, u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The newest pipeline of a commit as it is now.
    pub fn latest(&self, id: RunId) -> Option<RunView> {
        let (newest, attempt) = self.newest(id);
        Some(RunView {
            attempt,
            ..self.run(newest)?
        })
    }

    /// Waits for the end of the newest pipeline of a commit.
    pub async fn wait_latest(&self, id: RunId, patience: Duration) -> Option<RunView> {
        loop {
            let (newest, attempt) = self.newest(id);
            let view = self.wait_run(newest, patience).await?;
            if self.newest(id).0 == newest {
                return Some(RunView { attempt, ..view });
            }
        }
    }

    /// The page of its repository.
    pub fn repo_url(&self) -> String {
        format!("{}/{}", self.url(), self.own().options.repository)
    }

    /// The token that is accepted.
    pub fn token(&self) -> &str {
        &self.own().options.token
    }

    /// Where its runner is downloaded, as `--runner-url` takes it.
    pub fn download_url(&self) -> String {
        format!("{}/downloads/{}", self.url(), standin::bitbucket::archive_name())
    }
}
