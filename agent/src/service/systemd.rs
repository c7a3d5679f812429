//! The service manager of this host.

use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};

use crate::supervise::find_program;
use crate::user;

/// Its program.
const SYSTEMCTL: &str = "systemctl";
/// It is there where systemd is what the machine was started by. Source: `sd_booted(3)`.
const BOOTED: &str = "/run/systemd/system";
/// How many lines of a journal tell what went wrong.
const LINES: &str = "--lines=20";

/// Whether it runs here. A private root is a rehearsal: the systemd that may run there is somebody else's.
pub fn runs() -> bool {
    !user::is_rehearsal() && std::path::Path::new(BOOTED).is_dir() && find_program(SYSTEMCTL).is_some()
}

/// Has it do something.
pub fn ctl(args: &[&str]) -> Result<()> {
    let what = || format!("`{SYSTEMCTL} {}`", args.join(" "));
    let output = run(SYSTEMCTL, args).with_context(what)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(Class::Unexpected, format!("{} failed: {}", what(), said.trim())).into())
}

/// Where a unit stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// `active`, `activating`, `inactive`, `failed`, …
    pub active: String,
    /// Whether it is started at boot: `enabled`, `disabled`, or nothing.
    pub enabled: String,
    /// Of its life now.
    pub invocation: String,
    /// How often it was started again.
    pub restarts: u32,
}

impl State {
    /// Asks for it.
    pub fn of(unit: &str) -> Result<Self> {
        let wanted = "--property=ActiveState,UnitFileState,InvocationID,NRestarts";
        let output = run(SYSTEMCTL, &["show", wanted, unit]).with_context(|| format!("asking systemd for {unit}"))?;
        Ok(Self::read(&String::from_utf8_lossy(&output.stdout)))
    }

    fn read(text: &str) -> Self {
        let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let get = |name: &str| values.get(name).copied().unwrap_or_default().to_owned();
        Self {
            active: get("ActiveState"),
            enabled: get("UnitFileState"),
            invocation: get("InvocationID"),
            restarts: get("NRestarts").parse().unwrap_or(0),
        }
    }
}

/// The last lines of a unit's journal since its begin of this invocation.
pub fn journal(unit: &str) -> String {
    match run("journalctl", &["--unit", unit, "--no-pager", "--output=cat", LINES]) {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("the journal cannot be read: {error:#}"),
    }
}

fn run(program: &str, args: &[&str]) -> Result<Output> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    output.with_context(|| format!("starting {program}"))
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn a_state_is_read_and_what_is_missing_is_empty() {
        let state = State::read("ActiveState=active\nUnitFileState=enabled\nInvocationID=ab12\nNRestarts=3\n");
        assert_eq!(
            state,
            State {
                active: "active".into(),
                enabled: "enabled".into(),
                invocation: "ab12".into(),
                restarts: 3,
            }
        );
        assert_eq!(State::read("Failed to connect to bus\n"), State::default());
    }
}
