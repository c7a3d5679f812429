//! `--export`: what a command line means, so that a service of this host can say it again: for `cml-agent install`.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge;
use common::installation::Installation;
use common::spec::Executor;
use common::timeout::Timeout;

use crate::cli::{Given, names};
use crate::request::Request;
use crate::session::runtime;

/// What a service waits for jobs.
const FOR_EVER: &str = "never";

/// What an installed runner cannot be told.
const OUT_OF_PLACE: [&str; 4] = ["cloud", "reuse", "reuse_idle", "dry_run"];

/// Checks the token, and writes the file whole or not at all.
pub fn run(file: &Path, request: &Request, given: &Given) -> Result<()> {
    let installation = installation(request, given)?;
    let forge = forge::open(request.forge, &request.repo, &request.token)?;
    runtime()?.block_on(forge.check_access())?;
    write(file, &installation).with_context(|| format!("writing {}", file.display()))
}

fn installation(request: &Request, given: &Given) -> Result<Installation> {
    if let Some(source) = OUT_OF_PLACE.iter().find_map(|id| given.source(id)) {
        return Err(Failure::new(
            Class::Usage,
            format!("`{source}` has no place here: the runner is a service of this host"),
        )
        .hint("leave it out")
        .into());
    }
    let mut options = given.variables().clone();
    // They say what the service has to do once and for all, wherever it is started.
    let mut set = |id: &str, value: String| options.insert(format!("{}{}", names::PREFIX, names::upper_snake(id)), value);
    set("name", request.name.clone());
    set("repo", request.repo.to_string());
    set("driver", request.forge.to_string());
    let runner = &request.options.runner;
    match given.source("idle_timeout") {
        Some(source) if runner.idle_timeout != Timeout::Never => {
            return Err(Failure::new(
                Class::Usage,
                format!("`{source}` has no place here: an installed runner waits for jobs for ever"),
            )
            .hint("leave it out, or use `cml runner` for a runner that ends by itself")
            .into());
        }
        _ => set("idle_timeout", FOR_EVER.into()),
    };
    if let Some(workdir) = &runner.workdir {
        let workdir = std::path::absolute(workdir).context("finding the working directory")?;
        set("workdir", workdir.display().to_string());
    }
    // Whoever may start containers can become root: here only if its owner says so.
    if runner.executor == Executor::Auto && crate::cli::support::takes_executor(request.forge) {
        set("executor", "shell".into());
    }
    Ok(Installation {
        name: request.name.clone(),
        repo: request.repo.to_string(),
        options,
        token: request.token.clone(),
    })
}

fn write(path: &Path, installation: &Installation) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Such a file is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(installation.to_json()?.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
