//! What a runner of a user's own host is installed from: `cml runner --export` writes it, `cml-agent install` reads it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::secret::{self, Secret};

/// A command line of `cml runner` that has been checked, in a form that can be said again: not a spec, which only programs of one release understand.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installation {
    /// The runner's name.
    pub name: String,
    /// Repository, organisation or group page.
    pub repo: String,
    /// Every option that is not as it is by default, as the variable of the environment that it can be given by.
    pub options: BTreeMap<String, String>,
    /// The forge token.
    #[serde(with = "secret::exposed")]
    pub token: Secret,
}

impl std::fmt::Debug for Installation {
    /// An option's value may hold a proxy's password: only their names are shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options: Vec<&String> = self.options.keys().collect();
        f.debug_struct("Installation")
            .field("name", &self.name)
            .field("repo", &self.repo)
            .field("options", &options)
            .finish_non_exhaustive()
    }
}

impl Installation {
    /// The JSON that crosses from one program to the other, the token included.
    pub fn to_json(&self) -> anyhow::Result<String> {
        serde_json::to_string_pretty(self).context("writing what is to be installed")
    }

    /// Reads it.
    pub fn from_json(text: &str) -> anyhow::Result<Self> {
        serde_json::from_str(text).context("reading what is to be installed: `cml` and `cml-agent` must be of the same release")
    }

    /// An option's value, by its variable.
    pub fn option(&self, variable: &str) -> Option<&str> {
        self.options.get(variable).map(String::as_str)
    }
}
