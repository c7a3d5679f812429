//! `cml-sandbox`: rehearse any invocation in a whole world on loopback, or watch the demo.

mod demo;
mod rehearse;
mod show;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// A whole world on loopback: GitHub, EC2, instance metadata, and instances that are real processes.
#[derive(Parser)]
#[command(name = "cml-sandbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command, unchanged, in a world of its own; then wait until the machines that it launched are gone
    Run(Rehearsal),
    /// Two launches from beginning to end: one lives its whole life, one loses its spot machine in the middle of a job
    Demo,
}

/// What is rehearsed, and what goes wrong meanwhile.
#[derive(Args)]
struct Rehearsal {
    /// Queue a job: `LABELS: SCRIPT`, as in `gpu: nvidia-smi`
    #[arg(long, value_name = "LABELS: SCRIPT")]
    job: Vec<String>,

    /// Take every spot machine back this many seconds after its launch, with a notice of this long
    #[arg(long, value_name = "SECONDS")]
    spot_notice_after: Option<u64>,

    /// Refuse an EC2 action: `ACTION=CODE`, or `ACTION=CODE:TIMES`, as in `RunInstances=InsufficientInstanceCapacity:1`
    #[arg(long, value_name = "ACTION=CODE:TIMES")]
    fail: Vec<String>,

    /// How long to wait for the machines to go after the command has ended, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    linger: u64,

    /// The command, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Rehearsal {
    fn linger(&self) -> Duration {
        Duration::from_secs(self.linger)
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        let work = async {
            match command {
                Command::Run(rehearsal) => rehearse::run(&rehearsal).await,
                Command::Demo => demo::run().await,
            }
        };
        tokio::select! {
            ended = work => ended,
            // What runs in the world dies with this process.
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
