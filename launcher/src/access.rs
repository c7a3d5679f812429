//! What the launcher speaks to the forge with: a token, or a GitHub App, which has tokens made.

mod app;
mod installed;

use anyhow::Result;
use common::error::{Class, Failure};
use common::forge::{self, Forge};
use common::secret::Secret;
use common::spec::ForgeKind;
use url::Url;

pub use app::{App, PEM};
use installed::Installed;

/// The credential of a command.
#[derive(Debug, Clone)]
pub enum Access {
    /// A token, which a machine may be given too.
    Token(Secret),
    /// A GitHub App, whose key stays here.
    App(App),
}

impl Access {
    /// The client of the forge at `repo`.
    pub fn open(&self, kind: ForgeKind, repo: &Url) -> Result<Box<dyn Forge>> {
        match self {
            Self::Token(token) => forge::open(kind, repo, token),
            Self::App(app) => Ok(Box::new(Installed::new(app.clone(), repo)?)),
        }
    }

    /// The token for an agent that speaks to the forge itself, perhaps days from now; `what` needs it.
    pub fn token(&self, what: &str) -> Result<&Secret> {
        match self {
            Self::Token(token) => Ok(token),
            Self::App(_) => Err(Failure::new(
                Class::Usage,
                format!("{what} cannot be launched with a GitHub App: its tokens end after an hour, and its key never leaves the launcher"),
            )
            .hint("with `--cloud` and `--single`, a machine needs neither; else give a token by REPO_TOKEN, without `--app-id`")
            .into()),
        }
    }

    /// Whether an agent can be given nothing but a configuration for one job.
    pub const fn is_app(&self) -> bool {
        matches!(self, Self::App(_))
    }
}
