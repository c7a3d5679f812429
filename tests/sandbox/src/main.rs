//! `cml-sandbox`: rehearse any invocation in a whole world on loopback, or watch the demo.

mod demo;
mod rehearse;
mod show;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use jiff::SignedDuration;
use sandbox::cloud;
use sandbox::forge::Kind;

/// A whole world on loopback: a forge, a cloud, instance metadata, and instances that are real processes.
#[derive(Parser)]
#[command(name = "cml-sandbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command, unchanged, in a world of its own; then wait until the machines that it launched are gone
    ///
    /// The exit code is the command's, or 70 when a machine, a registration or a process was left.
    Run(Rehearsal),
    /// Two launches from beginning to end: one lives its whole life, one loses its spot machine in the middle of a job
    Demo {
        /// The world's forge: github, gitlab or bitbucket
        #[arg(long, value_name = "FORGE", default_value = "github", value_parser = forge)]
        forge: Kind,

        /// The world's cloud: aws, azure, gcp or kubernetes
        #[arg(long, value_name = "CLOUD", default_value = "aws", value_parser = cloud)]
        cloud: cloud::Kind,
    },
}

/// What is rehearsed, and what goes wrong meanwhile.
#[derive(Args)]
struct Rehearsal {
    /// The world's forge: github, gitlab or bitbucket
    #[arg(long, value_name = "FORGE", default_value = "github", value_parser = forge)]
    forge: Kind,

    /// The world's cloud: aws, azure, gcp or kubernetes
    #[arg(long, value_name = "CLOUD", default_value = "aws", value_parser = cloud)]
    cloud: cloud::Kind,

    /// Queue a job: `LABELS: SCRIPT`, as in `self-hosted,gpu: nvidia-smi`
    #[arg(long, value_name = "LABELS: SCRIPT")]
    job: Vec<String>,

    /// Take the first spot machine back this long after its launch, as in `3s`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    spot_notice_after: Option<Duration>,

    /// Refuse an action of the cloud: `ACTION=CODE`, or `ACTION=CODE:TIMES`, as in `RunInstances=InsufficientInstanceCapacity:1`
    #[arg(long, value_name = "ACTION=CODE:TIMES")]
    fail: Vec<String>,

    /// How long to wait for the machines to go after the command has ended
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    linger: Duration,

    /// The command, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// As `--driver` calls it.
fn forge(name: &str) -> Result<Kind> {
    let found = Kind::ALL.into_iter().find(|kind| kind.driver() == name);
    let all = Kind::ALL.map(Kind::driver).join(", ");
    found.with_context(|| format!("no forge of the sandbox, which has {all}"))
}

/// As `--cloud` calls it.
fn cloud(name: &str) -> Result<cloud::Kind> {
    let found = cloud::Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let all = cloud::Kind::ALL.map(cloud::Kind::name).join(", ");
    found.with_context(|| format!("no cloud of the sandbox, which has {all}"))
}

/// `3s`, `500ms`, `1m30s`
fn duration(text: &str) -> Result<Duration> {
    let parsed: SignedDuration = text.parse().context("not a duration such as `3s`")?;
    Duration::try_from(parsed).context("a duration cannot be negative")
}

fn main() -> ExitCode {
    match work() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<ExitCode> {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(async {
        match command {
            Command::Run(rehearsal) => rehearse::run(&rehearsal).await,
            Command::Demo { forge, cloud } => demo::run(forge, cloud).await,
        }
    })
}
