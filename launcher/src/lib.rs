//! `cml`: launches one self-hosted CI runner on a cloud, or runs it on this host. Parses, calls, prints, exits.

// No panic on an instance, nor in what it shares: `unwrap` and `expect` are refused everywhere, these where they would be reachable.
#![cfg_attr(
    not(test),
    warn(clippy::panic, clippy::unreachable, clippy::indexing_slicing, clippy::string_slice)
)]
// A build for some clouds leaves alone what the others need.
#![cfg_attr(
    not(all(feature = "aws", feature = "azure", feature = "gcp", feature = "kubernetes")),
    allow(dead_code)
)]

mod access;
mod bootstrap;
mod catalog;
mod cli;
mod cloud;
mod export;
mod fleet;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod infer;
mod launch;
mod local;
mod network;
mod options;
mod output;
#[cfg(test)]
mod published;
#[cfg(test)]
mod reference;
mod request;
mod session;
mod signal;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use clap::builder::StyledStr;
use common::certificates::Certificates;
use common::error::Report;
use common::log::{self, Level};
use common::secret;
use common::spec::ForgeKind;

use access::{Access, App};
use cli::{Given, Invocation, Parsed};
use infer::Surroundings;
use launch::Ended;
use network::Entered;
use options::GenericOptions;
use request::Request;

/// The program: what its command line says, and its exit code.
pub fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let vars = std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    match run(&argv, vars.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let report = Report(&error);
            print_error(&report);
            u8::try_from(report.class().exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn run(argv: &[String], vars: BTreeMap<String, String>) -> Result<()> {
    let (parsed, command) = match cli::parse(argv, &vars)? {
        Invocation::Print(text) => return print(&text),
        Invocation::Launch(parsed) => (*parsed, None),
        Invocation::Fleet(command, parsed) => (*parsed, Some(command)),
    };
    log::init(parsed.options.generic.log);
    secret::seal();
    for warning in &parsed.warnings {
        tracing::warn!("{}", warning.0);
    }
    let (request, given) = request(parsed, vars)?;
    let network = network::enter(&request)?;
    if let Some(command) = command {
        return fleet::run(&request, &command);
    }
    if let Some(file) = &request.options.decision.export {
        return export::run(file, &request, &given);
    }
    if request.options.cloud.cloud.is_none() {
        return on_this_host(request, network);
    }
    match launch::run(&request)? {
        Ended::Plan(plan) => write_out(plan.as_bytes()),
        Ended::Launch(outcome) => output::report(&request, &outcome),
    }
}

/// Fills in what the options leave open.
fn request(parsed: Parsed, vars: BTreeMap<String, String>) -> Result<(Request, Given)> {
    let Parsed { mut options, given, .. } = parsed;
    let remote = if options.generic.repo.is_none() { git_remote() } else { None };
    let around = Surroundings { vars, remote };
    let target = infer::target(&options.generic, given.source("repo"), &around)?;
    cli::support::check_forge(target.forge, &given)?;
    common::forge::check_labels(target.forge, &options.runner.labels, options.runner.executor)?;
    let access = access(&mut options.generic, &given, target.forge, &around)?;
    let certificates = options.runner.ca_certificates.as_deref().map(Certificates::read).transpose()?;
    let named = options.decision.name.as_deref();
    let host = options.decision.export.as_ref().and_then(|_| infer::host_name());
    let request = Request {
        forge: target.forge,
        repo: target.repo,
        access,
        certificates,
        name: infer::name(named.or(host.as_deref()))?,
        named_by_user: named.is_some(),
        launch_job: target.launch_job,
        options,
    };
    Ok((request, given))
}

/// An App wins over the token of the surroundings, as a given token does.
fn access(options: &mut GenericOptions, given: &Given, forge: ForgeKind, around: &Surroundings) -> Result<Access> {
    // Neither is kept where it was read.
    if let (Some(id), Some(key)) = (&options.app_id, options.app_private_key.take()) {
        let source = given.source("app_private_key").unwrap_or("--app-private-key");
        return Ok(Access::App(App::new(id, &key, source)?));
    }
    let given = match &options.token_file {
        Some(file) => Some(infer::token_of(file)?),
        None => options.token.take(),
    };
    around.token(given.as_ref(), forge).map(Access::Token)
}

fn on_this_host(request: Request, network: Entered) -> Result<()> {
    let host = local::Host::here();
    if request.options.decision.dry_run {
        let plan = local::plan(request, &host)?;
        return write_out(plan.as_bytes());
    }
    let decision = &request.options.decision;
    // What an agent that was killed here left, its registration perhaps, is cleared up by the next one.
    if (decision.reuse || decision.reuse_idle)
        && !host.was_killed(&request)
        && let Some(reused) = launch::reusable(&request)?
    {
        return output::report(&request, &reused);
    }
    local::run(request, &host, network)
}

/// The checkout's remote; none where git, the checkout or the remote is missing.
fn git_remote() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["config", "--get", "remote.origin.url"])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = git.output().ok().filter(|output| output.status.success())?;
    let remote = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!remote.is_empty()).then_some(remote)
}

fn print(text: &StyledStr) -> Result<()> {
    let text = if io::stdout().is_terminal() {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    write_out(format!("{}\n", text.trim_end()).as_bytes())
}

/// Who reads only the start of it (`| head`) is content.
fn write_out(bytes: &[u8]) -> Result<()> {
    let written = io::stdout().lock().write_all(bytes);
    if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return Ok(());
    }
    written.context("writing to standard output")
}

/// Once: as text on a terminal, else as one JSON line.
fn print_error(report: &Report<'_>) {
    if io::stderr().is_terminal() {
        let mut stderr = io::stderr().lock();
        // There is nowhere left to report that this failed.
        let _ = writeln!(stderr, "{report}");
        return;
    }
    // A command line that was refused never set the log up.
    log::init(Level::default());
    let message = report.0.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    if let Some(hint) = report.hint() {
        tracing::error!(hint, "{message}");
    } else {
        tracing::error!("{message}");
    }
}
