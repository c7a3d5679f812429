//! The forge of a world, whichever it is: what scenarios ask of it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::bitbucket::{self, Bitbucket};
use crate::ci::{Request, RunId, RunView, RunnerView, Workflow};
use crate::events::Events;
use crate::faults::Faults;
use crate::github::{self, GitHub};
use crate::gitlab::{self, GitLab};

/// Which forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// GitHub.
    GitHub,
    /// GitLab.
    GitLab,
    /// Bitbucket.
    Bitbucket,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::GitHub, Self::GitLab, Self::Bitbucket];

    /// What people call it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::GitHub => "GitHub",
            Self::GitLab => "GitLab",
            Self::Bitbucket => "Bitbucket",
        }
    }

    /// What `--driver` calls it.
    pub const fn driver(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Bitbucket => "bitbucket",
        }
    }
}

/// Which forge a world has, and how it is set up.
#[derive(Debug, Clone)]
pub enum Options {
    /// A GitHub.
    GitHub(github::Options),
    /// A GitLab.
    GitLab(gitlab::Options),
    /// A Bitbucket.
    Bitbucket(bitbucket::Options),
}

impl Default for Options {
    fn default() -> Self {
        Self::GitHub(github::Options::default())
    }
}

impl From<github::Options> for Options {
    fn from(options: github::Options) -> Self {
        Self::GitHub(options)
    }
}

impl From<gitlab::Options> for Options {
    fn from(options: gitlab::Options) -> Self {
        Self::GitLab(options)
    }
}

impl From<bitbucket::Options> for Options {
    fn from(options: bitbucket::Options) -> Self {
        Self::Bitbucket(options)
    }
}

impl From<Kind> for Options {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::GitHub => github::Options::default().into(),
            Kind::GitLab => gitlab::Options::default().into(),
            // What the scenarios of all forges run waits for its runner.
            Kind::Bitbucket => bitbucket::Options {
                waits: true,
                ..bitbucket::Options::default()
            }
            .into(),
        }
    }
}

/// A forge; clones share it.
#[derive(Clone)]
pub enum Forge {
    /// A GitHub.
    GitHub(GitHub),
    /// A GitLab.
    GitLab(GitLab),
    /// A Bitbucket.
    Bitbucket(Bitbucket),
}

/// Asks the forge, whichever it is.
macro_rules! ask {
    ($forge:expr, $server:ident => $question:expr) => {
        match $forge {
            Forge::GitHub($server) => $question,
            Forge::GitLab($server) => $question,
            Forge::Bitbucket($server) => $question,
        }
    };
}

impl Forge {
    /// Starts one on a free port.
    pub async fn start(events: Events, options: Options) -> Result<Self> {
        match options {
            Options::GitHub(options) => GitHub::start(events, options).await.map(Self::GitHub),
            Options::GitLab(options) => GitLab::start(events, options).await.map(Self::GitLab),
            Options::Bitbucket(options) => Bitbucket::start(events, options).await.map(Self::Bitbucket),
        }
    }

    /// Which it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::GitHub(_) => Kind::GitHub,
            Self::GitLab(_) => Kind::GitLab,
            Self::Bitbucket(_) => Kind::Bitbucket,
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        ask!(self, server => server.url())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        ask!(self, server => server.address())
    }

    /// From now on its host is called by a name, which whoever speaks to it must find out the address of.
    pub fn go_by_name(&self, name: &str) {
        ask!(self, server => server.go_by_name(name));
    }

    /// The page of its repository.
    pub fn repo_url(&self) -> String {
        ask!(self, server => server.repo_url())
    }

    /// The token that is accepted.
    pub fn token(&self) -> &str {
        ask!(self, server => server.token())
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        ask!(self, server => server.faults())
    }

    /// The environment that hosted jobs get on top of the forge's own.
    pub fn set_hosted_env(&self, env: Vec<(String, String)>) {
        ask!(self, server => server.set_hosted_env(env));
    }

    /// What a command in a world with this forge must be told, besides where its repository is.
    pub fn command_env(&self) -> Vec<(String, String)> {
        match self {
            Self::GitHub(_) => Vec::new(),
            // GitLab's runners come from elsewhere; in this world they come from it.
            Self::GitLab(gitlab) => vec![("CML_RUNNER_RUNNER_URL".into(), gitlab.download_template())],
            Self::Bitbucket(bitbucket) => vec![("CML_RUNNER_RUNNER_URL".into(), bitbucket.download_url())],
        }
    }

    /// Starts a run.
    pub fn start_run(&self, workflow: Workflow) -> RunId {
        ask!(self, server => server.start_run(workflow))
    }

    /// A run as it is now.
    pub fn run(&self, id: RunId) -> Option<RunView> {
        match self {
            // What runs again is another pipeline there.
            Self::Bitbucket(bitbucket) => bitbucket.latest(id),
            _ => ask!(self, server => server.run(id)),
        }
    }

    /// Waits for the end of a run: of its latest attempt.
    pub async fn wait_run(&self, id: RunId, patience: Duration) -> Option<RunView> {
        match self {
            Self::Bitbucket(bitbucket) => bitbucket.wait_latest(id, patience).await,
            _ => ask!(self, server => server.wait_run(id, patience).await),
        }
    }

    /// The registered runners.
    pub fn runners(&self) -> Vec<RunnerView> {
        ask!(self, server => server.runners())
    }

    /// Deletes a registration, as its owner does in the settings.
    pub fn forget(&self, runner: &str) {
        ask!(self, server => server.forget(runner));
    }

    /// Every request to the REST API so far.
    pub fn requests(&self) -> Vec<Request> {
        ask!(self, server => server.requests())
    }

    /// Ends it, and every process of its hosted jobs.
    pub async fn close(&self) {
        ask!(self, server => server.close().await);
    }
}
