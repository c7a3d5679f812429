//! The launcher's own network: its proxy is the environment's, unless this host is the machine; and whom it trusts.

use std::process::Command;

use anyhow::{Context as _, Result};
use common::network::Network;
use tempfile::TempPath;

use crate::request::Request;

/// A network that this process, and what it starts, lives in. When it is dropped, whom to trust is no longer known.
#[derive(Debug)]
pub struct Entered {
    trusted: Option<TempPath>,
    /// The variables that it changed, as they were.
    before: Vec<(&'static str, Option<String>)>,
}

/// Enters it. Before any thread is started.
pub fn enter(request: &Request) -> Result<Entered> {
    let write = || -> Result<Option<TempPath>> {
        let Some(certificates) = &request.certificates else {
            return Ok(None);
        };
        let file = tempfile::Builder::new()
            .prefix("cml-trusted-")
            .suffix(".pem")
            .tempfile()?
            .into_temp_path();
        std::fs::write(&file, certificates.with_system().to_pem())?;
        Ok(Some(file))
    };
    let trusted = write().context("writing down which certificates are trusted")?;
    let mut network = Network {
        trusted: trusted.as_deref().map(Into::into),
        ..Network::default()
    };
    let options = &request.options;
    if options.cloud.cloud.is_none() {
        network.proxy.clone_from(&options.runner.proxy);
        network.no_proxy.clone_from(&options.runner.no_proxy);
    }
    Ok(Entered {
        before: network.enter()?,
        trusted,
    })
}

impl Entered {
    /// Lets a program that this process becomes find its network by itself.
    pub fn leave(self, command: &mut Command) {
        for (name, value) in self.before {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Nobody drops anything in an exec.
        drop(self.trusted);
    }
}
