//! One process of a job, and how it is ended.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::time::timeout;

use super::worker::{Orders, Tell};

/// What a step is left after SIGINT, and after SIGTERM. Source: `ProcessInvoker.cs`.
const INTERRUPT: Duration = Duration::from_millis(7500);
const TERMINATE: Duration = Duration::from_millis(2500);
/// The variable that scales both down: the first of them in milliseconds.
const SCALE: &str = "STANDIN_STEP_GRACE_MS";
/// The exit code of a shell that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Well,
    Badly,
    /// By an interruption that we did not send.
    Interrupted,
    /// By the listener's word.
    Told(Tell),
}

/// Waits for the end of a step, or ends it when the listener says so.
pub async fn run(child: &mut Child, orders: &mut Orders) -> Result<Ended> {
    let tell = tokio::select! {
        status = child.wait() => return Ok(judge(status?)),
        tell = orders.next() => tell,
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let interrupt = std::env::var(SCALE)
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(INTERRUPT, Duration::from_millis);
    let terminate = interrupt.mul_f64(TERMINATE.as_secs_f64() / INTERRUPT.as_secs_f64());
    for (signal, patience) in [(Signal::SIGINT, interrupt), (Signal::SIGTERM, terminate)] {
        if let Some(pid) = pid {
            let _ = kill(pid, signal);
        }
        if timeout(patience, child.wait()).await.is_ok() {
            return Ok(Ended::Told(tell));
        }
    }
    for pid in pid.map(tree).unwrap_or_default() {
        let _ = kill(pid, Signal::SIGKILL);
    }
    child.wait().await?;
    Ok(Ended::Told(tell))
}

fn judge(status: ExitStatus) -> Ended {
    match (status.success(), status.code(), status.signal()) {
        (true, ..) => Ended::Well,
        (_, Some(INTERRUPTED), _) | (.., Some(nix::libc::SIGINT)) => Ended::Interrupted,
        _ => Ended::Badly,
    }
}

/// A process and all that descend from it.
fn tree(root: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything: the state, then the parent.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        if let (Some(pid), Some(parent)) = (pid, parent) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root.as_raw()];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children.get(&pid).into_iter().flatten());
        at += 1;
    }
    found.into_iter().map(Pid::from_raw).collect()
}
