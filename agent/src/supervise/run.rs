//! A program that is run to its end.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use super::family::Family;
use super::{Child, CommandLine, Output};

/// Runs a program to its end and passes on each line; returns how it ended, or none if the budget ended it. Daemons that it started
/// survive its success; after a failure, past the budget, and if this is given up, nothing of it survives.
pub async fn run(command: &CommandLine, budget: Duration, mut each: impl FnMut(String)) -> Result<Option<ExitStatus>> {
    let mut child = Child::spawn(command)?;
    let mut given_up = GivenUp(Some(child.family.clone()));
    let ended = async {
        loop {
            match child.next().await {
                Output::Line(line) => each(line),
                Output::Exited(status) => return status,
            }
        }
    };
    let status = timeout(budget, ended).await.ok();
    if status.is_some_and(|status| status.success()) {
        child.leave();
    } else {
        child.stop(Duration::ZERO).await;
        while let Output::Line(line) = child.next().await {
            each(line);
        }
    }
    given_up.0 = None;
    Ok(status)
}

/// Kills a program whose end nobody waits for any more.
struct GivenUp(Option<Family>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(family) = &self.0 {
            family.kill();
        }
    }
}
