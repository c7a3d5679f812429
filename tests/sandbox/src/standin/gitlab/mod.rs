//! A stand-in for GitLab's runner program, which behaves like the real one from outside: its options, its log, its signals, and what it
//! says to the server.
//!
//! What the real one does is told in <https://gitlab.com/gitlab-org/gitlab-runner>; the names of files below are those of its source.

mod build;
mod cli;
mod config;
mod log;
mod network;
mod single;
mod stop;
mod trace;
mod work;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::say;
use cli::Command;
use log::Level;

/// The version that it says it has.
pub const VERSION: &str = "18.6.0";

/// Go's name for this machine's processor.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
const REVISION: &str = "5a021a1c";

/// Names a real program to be served instead of the stand-in.
const REAL: &str = "GITLAB_RUNNER_BIN";

/// Finds the program that a GitLab serves: whether it is the real one.
pub fn program() -> Result<(PathBuf, bool)> {
    match std::env::var_os(REAL).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            let real = path
                .canonicalize()
                .with_context(|| format!("finding {} ({REAL})", path.display()))?;
            Ok((real, true))
        }
        None => Ok((super::program("gitlab-runner")?, false)),
    }
}

/// The whole program; returns its exit code.
pub fn main(arguments: &[String]) -> i32 {
    let command = match cli::read(arguments) {
        Ok(command) => command,
        Err(wrong) => {
            say(&format!("Incorrect Usage: {wrong}\n"));
            log::fatal(&wrong);
            return 1;
        }
    };
    let options = match command {
        Command::Version => {
            say(&format!(
                "Version:      {VERSION}\nGit revision: {REVISION}\nGit branch:   18-6-stable"
            ));
            say(&format!(
                "GO version:   go1.24.6\nBuilt:        2025-11-17T17:36:49Z\nOS/Arch:      linux/{ARCH}"
            ));
            return 0;
        }
        Command::Single(options) => *options,
    };
    log::entry("Runtime platform")
        .with("arch", ARCH)
        .with("os", "linux")
        .with("pid", std::process::id())
        .with("revision", REVISION)
        .with("version", VERSION)
        .write(Level::Info);
    match start(options) {
        Ok(()) => 0,
        Err(error) => {
            log::fatal(&format!("{error:#}"));
            1
        }
    }
}

fn start(options: cli::Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(single::run(options))
}
