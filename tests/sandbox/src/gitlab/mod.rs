//! GitLab on loopback: its REST API under `/api/v4`, the protocol that its runners speak, its runner's downloads, and hosted jobs as real
//! processes. All of it can lie under a path, as where an instance shares a host with other services.

mod again;
mod answers;
mod downloads;
mod front;
mod job;
mod pipelines;
mod protocol;
mod rest;
mod rules;
mod runners;
mod trace;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use ring::rand::SecureRandom as _;

use crate::ci::{Checksum, Forge as _, Server, Setup, State};
use crate::events::{Events, Source};
use crate::standin;
pub(crate) use protocol::PACE;

/// The path of the API, below the instance's own.
const PREFIX: &str = "/api/v4";

/// How long the real runner may say nothing: it tells that a job still runs every 30 s, if there is nothing else to tell.
const REAL_SILENCE: Duration = Duration::from_mins(2);

/// How a GitLab is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The path of the one project, with its groups.
    pub project: String,
    /// The path that the whole instance lies under, as `/gitlab`; else empty.
    pub root: String,
    /// The one token that is accepted.
    pub token: String,
    /// Whether it is an administrator's.
    pub admin: bool,
    /// The registration token, where runners may still be registered with one.
    pub registration_token: Option<String>,
    /// After this time without a word of its runner a job is stuck, and fails (an hour on GitLab).
    pub lock_expiry: Duration,
    /// How long a runner's question for work is held.
    pub poll: Duration,
    /// How soon the stand-in runner asks again and tells a job's log; the real one has times of its own.
    pub pace: Duration,
    /// The runner's program ends in the middle.
    pub truncate_program: bool,
    /// What the list of checksums says of the runner's program; without one there is no list.
    pub checksum: Checksum,
    /// Where every exchange is written down, one JSON object a line.
    pub record: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            project: "octo/team/train".into(),
            root: String::new(),
            token: "glpat-sandbox0canary000000".into(),
            admin: false,
            registration_token: None,
            lock_expiry: Duration::from_secs(3),
            poll: Duration::from_secs(1),
            pace: Duration::from_millis(100),
            truncate_program: false,
            checksum: Checksum::Right,
            record: std::env::var_os("CML_SANDBOX_RECORD_GITLAB").map(PathBuf::from),
        }
    }
}

/// What only a GitLab has.
pub struct Own {
    options: Options,
    /// What its tokens are made from.
    salt: String,
    program: Bytes,
    /// Of the whole program.
    sha256: String,
}

/// A GitLab; clones share it.
pub type GitLab = Server<Own>;

/// Everything that it remembers.
type GitLabState = State<Own>;

impl Own {
    /// A part of a token that nobody can guess, for this purpose.
    fn secret(&self, purpose: &str, length: usize) -> String {
        let mut text = standin::sha256(format!("{} {purpose}", self.salt).as_bytes());
        text.truncate(length);
        text
    }
}

impl GitLab {
    /// Starts one on a free port.
    pub async fn start(events: Events, options: Options) -> Result<Self> {
        let (path, is_real) = standin::gitlab::program()?;
        let (mut program, sha256) = standin::read_once(&path)?;
        if options.truncate_program {
            program.truncate(program.len() / 2);
        }
        let kind = if is_real { "the real one" } else { "a stand-in" };
        events.push(Source::Forge, "runner-program", path.display().to_string(), kind);
        let mut salt = [0; 16];
        let random = ring::rand::SystemRandom::new().fill(&mut salt);
        random.ok().context("making secrets")?;
        let setup = Setup {
            events,
            lock_expiry: if is_real {
                options.lock_expiry.max(REAL_SILENCE)
            } else {
                options.lock_expiry
            },
            record: options.record.clone(),
            root: options.root.clone(),
        };
        let app = front::app(&options);
        let own = Own {
            options,
            salt: standin::sha256(&salt),
            program,
            sha256,
        };
        Self::open(own, setup, app).await
    }

    /// The page of its project.
    pub fn repo_url(&self) -> String {
        format!("{}/{}", self.url(), self.own().repository())
    }

    /// The token that is accepted.
    pub fn token(&self) -> &str {
        &self.own().options.token
    }

    /// Where runners are downloaded, as `--runner-url` takes it.
    pub fn download_template(&self) -> String {
        format!("{}/downloads/{{version}}/binaries/gitlab-runner-{{os}}-{{arch}}", self.url())
    }
}
