//! A program under supervision: in its own process group, its output as whole lines, stopped with grace; nothing of it survives a stop.

mod command;
mod family;
mod lines;
mod oom;
mod process;
mod run;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout, timeout_at};

use crate::user::User;
pub use command::CommandLine;
use family::Family;
use lines::Lines;
pub use oom::protect;
use process::Process;
pub use run::run;

/// How long output that was written before the end is waited for after it: a survivor may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(250);
/// How long a killed program may take to be gone (it may hang in a system call); then it is given up.
const GONE: Duration = Duration::from_secs(2);
/// How much output is kept while a program is being stopped and nobody reads it.
const KEPT: usize = 1 << 20;
/// The grace of [`kill_leftovers`]: enough for the runner to tell its forge that the job failed.
const LEFTOVER_GRACE: Duration = Duration::from_secs(20);

/// What a supervised program does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// It wrote this line, on either stream; without its end, with U+FFFD for what is not UTF-8, cut (with a `…`) at 128 KiB.
    Line(String),
    /// It ended. Always after its last line; said again whenever asked again.
    Exited(ExitStatus),
}

/// A supervised program. Dropping it lets it run; [`Child::stop`] ends it with all that it started.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    family: Family,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
    deaths: tokio::signal::unix::Signal,
    ready: VecDeque<String>,
    exited: Option<(ExitStatus, Instant)>,
}

impl Child {
    /// Starts a program whose descendants are all ours: what it orphans becomes a child of this process, so that a stop finds it
    /// even if it has changed its session, group and environment.
    pub fn start(command: &CommandLine) -> Result<Self> {
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!("orphans of the runner cannot be adopted: {error}");
        }
        Self::spawn(command)
    }

    /// Starts a program that may leave daemons behind: its orphans are the system's.
    pub fn spawn(command: &CommandLine) -> Result<Self> {
        let marker = marker(command);
        let mut program = invocation(command);
        program
            .env_clear()
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .env(process::MARKER, &marker)
            .current_dir(&command.dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let deaths = signal(SignalKind::child()).context("listening for the ends of processes")?;
        let what = || format!("starting {} in {}", command.program.display(), command.dir.display());
        let (mut process, leader) = family::lead(|| {
            let process = oom::start(|| tokio::process::Command::from(program).spawn())?;
            let id = process.id().and_then(|id| i32::try_from(id).ok());
            Ok((process, id.ok_or_else(|| std::io::Error::other("it has no process id"))?))
        })
        .with_context(what)?;
        let family = Family {
            leader,
            start: Process::read(leader).map_or(0, |process| process.start),
            marker: Some(marker),
            user: command
                .user
                .as_ref()
                .map(|user| user.uid)
                .filter(|uid| *uid != 0 && !command.shares_user),
        };
        Ok(Self {
            stdout: Lines::new(process.stdout.take()),
            stderr: Lines::new(process.stderr.take()),
            process,
            family,
            deaths,
            ready: VecDeque::new(),
            exited: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.family.leader
    }

    /// When it was started, in clock ticks since boot: with the id it names one process for ever (until the next boot).
    pub fn start_time(&self) -> u64 {
        self.family.start
    }

    /// The next line, or the end. Cancel-safe.
    pub async fn next(&mut self) -> Output {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Output::Line(line);
            }
            let Some((status, at)) = self.exited else {
                self.step().await;
                continue;
            };
            let silent = !self.stdout.is_open() && !self.stderr.is_open();
            if silent || timeout_at(at + DRAIN, self.step()).await.is_err() {
                if let Some(line) = self.stdout.rest().or_else(|| self.stderr.rest()) {
                    return Output::Line(line);
                }
                return Output::Exited(status);
            }
        }
    }

    /// One thing happens: output, the end, or the death of an orphan. Cancel-safe.
    async fn step(&mut self) {
        tokio::select! {
            lines = self.stdout.read(), if self.stdout.is_open() => self.ready.extend(lines),
            lines = self.stderr.read(), if self.stderr.is_open() => self.ready.extend(lines),
            status = self.process.wait(), if self.exited.is_none() => {
                family::follow(self.family.leader);
                let status = status.unwrap_or_else(|error| {
                    tracing::warn!("the end of process {} cannot be read: {error}", self.family.leader);
                    ExitStatus::from_raw(Signal::SIGKILL as i32)
                });
                self.exited = Some((status, Instant::now()));
            }
            _ = self.deaths.recv() => family::reap_orphans(),
        }
    }

    /// Ends it and everything that it started: SIGINT to the program itself (as a service manager of the runner does), after `grace`
    /// SIGTERM and then SIGKILL to all of it that is left, in whatever session. Its last lines can be read with [`Child::next`]
    /// afterwards. For a program that has ended already, this ends what it left behind.
    pub async fn stop(&mut self, grace: Duration) -> ExitStatus {
        if self.exited.is_none() {
            signal_one(self.family.leader, Signal::SIGINT);
            let ended = async {
                while self.exited.is_none() {
                    self.step().await;
                    self.forget_old_lines();
                }
            };
            if timeout(grace, ended).await.is_err() {
                tracing::warn!("process {} does not stop: killing it", self.family.leader);
            }
        }
        let family = self.family.clone();
        let mut sweep = std::pin::pin!(family.sweep());
        loop {
            tokio::select! {
                () = &mut sweep => break,
                () = self.step() => self.forget_old_lines(),
            }
        }
        let ended = async {
            while self.exited.is_none() {
                self.step().await;
            }
        };
        // A process that hangs in the kernel must not keep the machine alive.
        let _ = timeout(GONE, ended).await;
        self.exited
            .map_or_else(|| ExitStatus::from_raw(Signal::SIGKILL as i32), |(status, _)| status)
    }

    /// Kills what a job of it left behind, whatever that has done to hide: all that is not below the program itself. What it starts meanwhile is.
    pub fn clear(&self) {
        let left = self.family.kill_strays();
        if left > 0 {
            tracing::info!("ended {left} processes that the job left behind");
        }
    }

    /// Lets the daemons that it left behind live, and goes on reading what they write: a closed pipe would kill them.
    pub fn leave(mut self) {
        tokio::spawn(async move {
            while self.stdout.is_open() || self.stderr.is_open() {
                self.step().await;
                for line in self.ready.drain(..) {
                    tracing::debug!("{line}");
                }
            }
        });
    }

    fn forget_old_lines(&mut self) {
        let mut kept: usize = self.ready.iter().map(String::len).sum();
        while kept > KEPT {
            kept -= self.ready.pop_front().map_or(kept, |line| line.len());
        }
    }
}

/// Ends what an earlier life of the agent left running: the process of that id and start time, gracefully, and all that it started.
pub async fn kill_leftovers(pid: i32, start_time: u64) {
    let now = Process::read(pid);
    if now.is_some_and(|process| process.start != start_time) {
        return;
    }
    let leader = now.filter(|process| !process.dead);
    // An id is not given away while it is a group's: members of the group are descendants even if the leader has gone.
    let known = leader.or_else(|| Process::all().into_iter().find(|process| process.group == pid && !process.dead));
    let Some(known) = known else {
        return;
    };
    let family = Family {
        leader: pid,
        start: start_time,
        marker: known.marker(),
        user: known
            .user()
            .filter(|uid| *uid != 0 && !nix::unistd::Uid::effective().as_raw().eq(uid)),
    };
    tracing::warn!("process {pid} of an earlier life, or what it started, still runs: stopping it");
    if leader.is_some() {
        signal_one(pid, Signal::SIGINT);
        let deadline = Instant::now() + LEFTOVER_GRACE;
        while Instant::now() < deadline && Process::read(pid).is_some_and(|now| now.start == start_time && !now.dead) {
            tokio::time::sleep(family::POLL).await;
        }
    }
    family.sweep().await;
}

/// Sends a signal; a process that has gone needs none.
fn signal_one(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::Error::ESRCH) => {}
        Err(error) => tracing::debug!("{signal} to process {pid}: {error}"),
    }
}

/// What marks the environment of every descendant that keeps it: the same for each life of a program in that directory.
fn marker(command: &CommandLine) -> String {
    let what = command.args.last().map(String::as_str).unwrap_or_default();
    format!("cml-agent:{}:{what}", command.dir.display())
}

/// The program, as its user. The standard library drops all supplementary groups with the user id, so that a user who has some
/// (docker) is entered through setpriv(1), which execs in place.
fn invocation(command: &CommandLine) -> std::process::Command {
    let Some(user) = &command.user else {
        let mut program = std::process::Command::new(&command.program);
        program.args(&command.args);
        return program;
    };
    let groups = user.groups();
    if groups.iter().any(|gid| *gid != user.gid) {
        if let Some(setpriv) = find_program("setpriv") {
            let mut program = std::process::Command::new(setpriv);
            program.args(setpriv_args(user, &groups)).arg(&command.program).args(&command.args);
            return program;
        }
        tracing::warn!("setpriv is not installed: jobs are not in the other groups of user {}", user.name);
    }
    let mut program = std::process::Command::new(&command.program);
    program.args(&command.args).uid(user.uid).gid(user.gid);
    program
}

fn setpriv_args(user: &User, groups: &[u32]) -> [String; 4] {
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    [
        format!("--reuid={}", user.uid),
        format!("--regid={}", user.gid),
        format!("--groups={}", groups.join(",")),
        "--".into(),
    ]
}

/// Finds a program on the agent's own PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
