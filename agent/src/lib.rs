//! `cml-agent`: installs, supervises and retires one CI runner on the machine it runs on.

// No panic on an instance, nor in what it shares: `unwrap` and `expect` are refused everywhere, these where they would be reachable.
#![cfg_attr(
    not(test),
    warn(clippy::panic, clippy::unreachable, clippy::indexing_slicing, clippy::string_slice)
)]

mod archive;
mod condition;
mod console;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod host;
mod interrupt;
mod lifecycle;
mod network;
mod pause;
mod provision;
mod run;
mod runner;
mod script;
mod service;
mod state;
mod supervise;
mod user;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use common::error::Report;
use common::log::{self, Level};
use common::secret;
use common::spec::RunnerSpec;
use zeroize::Zeroizing;

use console::Console;
use pause::Failures;
use state::StateDir;

/// Installs, supervises and retires one CI runner on this machine.
#[derive(Parser)]
#[command(name = "cml-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Live one runner's life, as the spec says
    Run {
        /// The runner spec, as the launcher wrote it; its directory becomes the state directory
        #[arg(long, value_name = "PATH")]
        spec: PathBuf,
    },
    /// Make a runner a service of this host, which stays up: it is started at every boot, until `uninstall`
    ///
    /// Takes the options of `cml runner` (`cml runner --help`) that are not of a cloud. The token is best given by `REPO_TOKEN` or `--token-file=FILE`
    /// (`-` for standard input). Several runners of one host have different names: `--name`, or else the host's own. One that is installed again gets
    /// its new options once its job is done. Without systemd, the runner runs in the foreground.
    Install {
        /// Options of `cml runner`, such as `--repo=https://github.com/OWNER/REPO --labels=gpu --token-file=token`
        #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Show the installed runners of this host, without asking the forge
    ///
    /// Exit code: 0 all are online, 3 some is not, 4 there is none.
    Status {
        /// Only this runner
        #[arg(long)]
        name: Option<String>,
    },
    /// Stop an installed runner, remove its registration, its service, its user and all of its files
    ///
    /// A job that it has is interrupted, and run again elsewhere. `systemctl reload cml-runner-NAME` lets it finish before.
    Uninstall {
        /// Which one, if there are several
        #[arg(long)]
        name: Option<String>,
    },
}

/// The program: what its command line says, and its exit code.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run { spec } => run(&spec),
        Command::Install { options } => service::install(&options),
        Command::Status { name } => service::status(name.as_deref()),
        Command::Uninstall { name } => service::uninstall(name.as_deref()),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say_why(&error);
            u8::try_from(Report(&error).class().exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

/// One life, and the pause after it.
fn run(spec: &Path) -> Result<u8> {
    let dir = StateDir::of(spec);
    // One that only ends what a killed agent left has not failed itself.
    let clears_up = dir.remains().is_some();
    let code = begin(spec).unwrap_or_else(|error| {
        say_why(&error);
        1
    });
    if clears_up { Ok(code) } else { Failures::of(dir.path()).add(code) }
}

fn say_why(error: &anyhow::Error) {
    // The spec's own level is not known if it cannot be read.
    log::init(Level::Info);
    report(error);
}

fn begin(path: &Path) -> Result<u8> {
    secret::seal();
    let spec = read(path)?;
    log::init(spec.log);
    let entered = network::enter(&spec, &StateDir::of(path));
    describe(&spec);
    if spec.cloud.is_some() {
        supervise::protect();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let lived = runtime.block_on(live(spec, StateDir::of(path), entered));
    // A thread that still asks a name server which never answers holds nothing up.
    runtime.shutdown_background();
    lived
}

/// The text holds the credential: it is wiped when this returns.
fn read(path: &Path) -> Result<RunnerSpec> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the runner spec {}", path.display()))?;
    RunnerSpec::from_json(&Zeroizing::new(text))
}

/// A life that cannot even begin ends the machine too.
async fn live(spec: RunnerSpec, dir: StateDir, entered: Result<()>) -> Result<u8> {
    let (console, host) = (Console::open(spec.cloud.is_some()), host::open(spec.cloud)?);
    let begun = entered.and_then(|()| run::Agent::new(spec, dir, console.clone(), host.clone()));
    let lived = match begun {
        Ok(agent) => agent.run().await,
        Err(error) => Err(error),
    };
    if let Err(error) = &lived {
        report(error);
        console.phase("agent", common::phase::State::Fail, &format!("{error:#}"));
        host.terminate(&host::Will::default()).await.inspect_err(|error| {
            console.phase("terminate", common::phase::State::Fail, &format!("{error:#}"));
        })?;
        return Ok(1);
    }
    lived
}

fn report(error: &anyhow::Error) {
    tracing::error!(hint = Report(error).hint(), "{error:#}");
}

/// What a person wants to know first about a machine that is gone.
fn describe(spec: &RunnerSpec) {
    let memory = sysinfo::System::new().map(|mut system| {
        system.refresh_memory();
        system.total_memory() >> 20
    });
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let root = disks
        .iter()
        .flat_map(|disks| disks.iter())
        .find(|disk| disk.mount_point() == Path::new("/"));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = spec.name,
        memory_mib = memory.unwrap_or_default(),
        free_disk_mib = root.map_or(0, |disk| disk.available_space() >> 20),
        "agent started"
    );
}
