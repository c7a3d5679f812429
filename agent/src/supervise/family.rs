//! All that a supervised program started, in whatever group, session or environment it hides now.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpgrp, getpid};
use tokio::time::Instant;

use super::process::Process;
use super::signal_one;

/// How often the processes are looked through while they are being ended.
pub const POLL: Duration = Duration::from_millis(20);
/// What is left has this long to end by itself after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// SIGKILL is repeated for this long: new processes may appear while it is sent.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How often at most a family is looked for to be killed at once; a look takes about a millisecond.
const LOOKS: u32 = 100;

/// The programs that are supervised now: their ends are read by who started them, not by [`reap_orphans`].
static LEADERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn leaders() -> MutexGuard<'static, BTreeSet<i32>> {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program and enters it as supervised before anybody could take it for an orphan.
pub fn lead<T>(start: impl FnOnce() -> io::Result<(T, i32)>) -> io::Result<(T, i32)> {
    let mut leaders = leaders();
    let started = start()?;
    leaders.insert(started.1);
    Ok(started)
}

/// Its end has been read.
pub fn follow(leader: i32) {
    leaders().remove(&leader);
}

/// What tells the processes of a program from all others.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its process id, which is its group's too.
    pub leader: i32,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// Its mark in the environment of its descendants.
    pub marker: Option<String>,
    /// The user who has no other processes than its: never root, never our own user.
    pub user: Option<u32>,
}

impl Family {
    /// Those that live now.
    fn members(&self) -> Vec<Process> {
        let all = Process::all();
        let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
        for process in &all {
            children.entry(process.parent).or_default().push(process);
        }
        let mut found = BTreeMap::new();
        let mut next: Vec<&Process> = all.iter().filter(|process| self.is_root(process)).collect();
        let me = getpid().as_raw();
        while let Some(process) = next.pop() {
            if process.pid != me && found.insert(process.pid, *process).is_none() {
                next.extend(children.get(&process.pid).into_iter().flatten());
            }
        }
        found.into_values().filter(|process| !process.dead).collect()
    }

    /// Whether it belongs to the family by itself, not only by its parents.
    fn is_root(&self, process: &Process) -> bool {
        if (process.pid == self.leader || process.group == self.leader) && process.start >= self.start {
            return true;
        }
        if self.user.is_some() && process.user() == self.user {
            return true;
        }
        match process.marker() {
            Some(marker) => self.marker.as_ref() == Some(&marker),
            None => is_adopted(process),
        }
    }

    /// Kills all of it at once, without waiting for anything: what was started while the others were looked for is found by the next look.
    pub fn kill(&self) {
        Self::kill_all(|| self.members());
    }

    /// Kills what the program's children left behind when they ended: whatever is not below the program itself. Returns how many there were.
    pub fn kill_strays(&self) -> usize {
        Self::kill_all(|| {
            let members = self.members();
            let own: BTreeSet<i32> = members.iter().map(|process| process.pid).collect();
            let parents: BTreeMap<i32, i32> = Process::all().iter().map(|process| (process.pid, process.parent)).collect();
            let is_below = |pid: i32| {
                let above = std::iter::successors(Some(pid), |pid| parents.get(pid).copied().filter(|parent| own.contains(parent)));
                // A circle cannot be; one that is read while it changes ends.
                above.take(parents.len()).any(|pid| pid == self.leader)
            };
            // What was there before the program did not come from it, though it may be of the same user.
            let strays = members
                .iter()
                .filter(|process| process.start >= self.start && !is_below(process.pid));
            strays.copied().collect()
        })
    }

    fn kill_all(find: impl Fn() -> Vec<Process>) -> usize {
        let mut killed = BTreeSet::new();
        for _ in 0..LOOKS {
            let found = find();
            if found.is_empty() {
                break;
            }
            for process in found {
                signal_one(process.pid, Signal::SIGKILL);
                killed.insert((process.pid, process.start));
            }
            std::thread::yield_now();
        }
        killed.len()
    }

    /// Ends all of it: SIGTERM once, then SIGKILL until there is nothing left.
    pub async fn sweep(&self) {
        for (signal, limit) in [(Signal::SIGTERM, TERM_GRACE), (Signal::SIGKILL, KILL_LIMIT)] {
            let deadline = Instant::now() + limit;
            let mut told = BTreeSet::new();
            loop {
                let members = self.members();
                if members.is_empty() {
                    return;
                }
                for process in members {
                    if told.insert((process.pid, process.start)) {
                        signal_one(process.pid, signal);
                    }
                }
                if Instant::now() >= deadline {
                    break;
                }
                tokio::time::sleep(POLL).await;
            }
        }
        let left: Vec<i32> = self.members().iter().map(|process| process.pid).collect();
        if !left.is_empty() {
            tracing::warn!("processes {left:?} cannot be killed");
        }
    }
}

/// Whether it is an orphan that became ours (see [`super::Child::start`]): what we start ourselves is in our own group, or a leader.
fn is_adopted(process: &Process) -> bool {
    process.parent == getpid().as_raw() && process.group != getpgrp().as_raw() && !leaders().contains(&process.pid)
}

/// Reaps the adopted orphans that have ended; nobody else would.
pub fn reap_orphans() {
    for process in Process::all() {
        if process.dead && is_adopted(&process) {
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}
