//! `cml-agent uninstall`: the runner takes its leave, and nothing of it stays on this host.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::lock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use super::place::Place;
use super::{say, systemd};
use crate::condition::Condition;
use crate::lifecycle::Step;
use crate::user;

/// How often a runner that was told to stop is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Stops and removes the runner of this name, or the only one; returns the exit code.
pub fn uninstall(name: Option<&str>) -> Result<u8> {
    let place = Place::find(name)?;
    let is_service = systemd::runs();
    if is_service && !Uid::effective().is_root() {
        return Err(Failure::new(Class::Usage, "only root can remove a service").hint("use sudo").into());
    }
    if Condition::read(&place.state()).is_some_and(|condition| condition.step == Step::Busy) && lock::holder(&place.state()).is_some() {
        say(&format!(
            "the runner {} has a job: it is interrupted, and run again elsewhere",
            place.name
        ))?;
    }
    stop(&place, is_service)?;
    leave(&place)?;
    let is_left = Condition::read(&place.state()).is_some_and(|condition| condition.registered);
    remove(&place, is_service)?;
    say(&format!("the runner {} is removed from this host", place.name))?;
    if is_left {
        say("its registration may still be in the forge, which was not to be reached or refused the token: remove it there")?;
    }
    Ok(0)
}

/// Until it has taken its leave.
fn stop(place: &Place, is_service: bool) -> Result<()> {
    if is_service && place.unit_file().exists() {
        systemd::ctl(&["--quiet", "disable", "--now", &place.unit()])?;
    }
    let mut told = None;
    while let Some(pid) = lock::holder(&place.state()) {
        if told != Some(pid) {
            let pid = Pid::from_raw(pid);
            kill(pid, Signal::SIGTERM).with_context(|| format!("stopping process {pid}"))?;
            told = Some(pid.as_raw());
        }
        sleep(LOOK);
    }
    Ok(())
}

/// An agent that was killed could not: the next one does it, and ends.
fn leave(place: &Place) -> Result<()> {
    let state = place.state();
    if !state.join("state.json").exists() || !state.join("spec.json").exists() {
        return Ok(());
    }
    let own = std::env::current_exe().context("finding this program")?;
    let status = Command::new(own).args(["run", "--spec"]).arg(state.join("spec.json")).status();
    // It says by its exit code that it was a crash that it cleared up after.
    status.map(drop).context("starting an agent to take leave of the forge")
}

fn remove(place: &Place, is_service: bool) -> Result<()> {
    file(&place.unit_file())?;
    tree(&place.unit_edits())?;
    if is_service {
        systemd::ctl(&["daemon-reload"])?;
        // It may have failed, and is forgotten; or not, and is unknown already.
        let _ = systemd::ctl(&["reset-failed", &place.unit()]);
    }
    if Uid::effective().is_root() && !user::is_rehearsal() {
        user::remove(&place.user(), &place.home())?;
    }
    tree(&place.settings())?;
    tree(&place.state())?;
    for shared in Place::shared() {
        // Those of other runners stay.
        let _ = fs::remove_dir(shared);
    }
    Ok(())
}

fn file(path: &Path) -> Result<()> {
    gone(path, fs::remove_file(path))
}

fn tree(path: &Path) -> Result<()> {
    gone(path, fs::remove_dir_all(path))
}

/// It need not have been there.
fn gone(path: &Path, removed: io::Result<()>) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    }
}
