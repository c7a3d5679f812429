//! The unprivileged user that jobs run as.

use std::ffi::CString;
use std::fs::{OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use common::error::{Class, Failure};
use common::spec::RunnerSpec;
use nix::unistd::{Gid, Group, Uid, getgrouplist};

/// Who jobs run as on our instances.
const NAME: &str = "cml";
/// Where users that are made here have their homes.
const HOMES: &str = "/home";
/// For its owner alone.
const PRIVATE: u32 = 0o700;
/// The longest name of a user. Source: useradd(8).
const LONGEST: usize = 32;
/// Who may not have programs started later, and whether the file is to be made: where it is missing, everybody may use cron on Debian, and nobody at.
/// Sources: crontab(1), at.allow(5).
const TIMERS: [(&str, bool); 2] = [("/etc/cron.deny", true), ("/etc/at.deny", false)];
/// Whose members may start containers.
const DOCKER: &str = "docker";

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// Its group's id.
    pub gid: u32,
    /// Its home directory.
    pub home: std::path::PathBuf,
}

/// A path of an instance: below `$CML_ROOT`, which a rehearsal without root sets.
pub fn instance_path(path: &str) -> PathBuf {
    let root = std::env::var("CML_ROOT").unwrap_or_default();
    PathBuf::from(format!("{}{path}", root.trim_end_matches('/')))
}

/// Whether there is such a root: nothing of the host itself is touched then, its users and its systemd among it.
pub fn is_rehearsal() -> bool {
    std::env::var_os("CML_ROOT").is_some_and(|root| !root.is_empty())
}

/// The user that jobs run as, made when it is missing: that of `--job-user`, `cml` on an instance where we are root, none (who we are) elsewhere.
///
/// # Errors
/// It cannot be made, or is root itself.
pub fn job_user(spec: &RunnerSpec) -> Result<Option<User>> {
    let is_root = Uid::effective().is_root();
    let name = match &spec.options.job_user {
        Some(name) if !is_root => {
            return Err(
                Failure::new(Class::Usage, format!("jobs cannot run as the user {name} (--job-user)"))
                    .hint("only root can have them run as somebody else")
                    .into(),
            );
        }
        Some(name) => name,
        None if spec.cloud.is_some() && is_root => NAME,
        None => return Ok(None),
    };
    if User::named(name)?.is_none() {
        make(name, &instance_path(HOMES).join(name))?;
        tracing::info!("made the user {name} for jobs");
        deny_timers(name);
    }
    made(name).map(Some)
}

/// A job that has ended starts nothing any more: cron and at would do it for its user, while the next job runs.
fn deny_timers(name: &str) {
    for (path, is_made) in TIMERS {
        let file = OpenOptions::new().create(is_made).append(true).open(instance_path(path));
        // The last line of a file that is there may have no end.
        match file.and_then(|mut file| writeln!(file, "\n{name}")) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("jobs may leave timers: writing {path}: {error}"),
        }
    }
}

/// A user of the system's own for the jobs of one runner, made when it is missing.
///
/// # Errors
/// It cannot be made, or is root itself.
pub fn make_system(name: &str, home: &Path) -> Result<User> {
    check(name)?;
    if User::named(name)?.is_none() {
        let home = home.display().to_string();
        let own = [
            "--system",
            "--user-group",
            "--create-home",
            "--shell",
            "/bin/bash",
            "--home-dir",
            &home,
            name,
        ];
        first_that_works(&[
            &[&["useradd"], &own[..]].concat(),
            &["adduser", "-S", "-D", "-s", "/bin/sh", "-h", &home, name],
        ])
        .with_context(|| format!("making the user {name}, whom jobs run as"))?;
        // Other users of this host are nothing to jobs, nor they to them.
        std::fs::set_permissions(&home, Permissions::from_mode(PRIVATE)).with_context(|| format!("closing {home}"))?;
    }
    made(name)
}

/// Removes the user that [`make_system`] made with this home, who may be gone already; one of this name with another home is somebody else's.
pub fn remove(name: &str, home: &Path) -> Result<()> {
    if User::named(name)?.is_none_or(|user| user.home != home) {
        return Ok(());
    }
    // A process that hangs in the kernel keeps its user from being removed otherwise.
    first_that_works(&[&["userdel", name], &["userdel", "--force", name], &["deluser", name]])
        .with_context(|| format!("removing the user {name}, whom jobs ran as"))
}

fn made(name: &str) -> Result<User> {
    let user = User::named(name)?.with_context(|| format!("the user {name} was made, but is not there"))?;
    if user.uid == 0 {
        bail!("the user {name} is root: jobs must not be");
    }
    Ok(user)
}

/// It becomes an argument of other programs.
fn check(name: &str) -> Result<()> {
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if begins && name.len() <= LONGEST && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(
        Failure::new(Class::Usage, format!("`{name}` cannot be the name of a user (--job-user)"))
            .hint(format!(
                "at most {LONGEST} small letters, digits, `-` and `_`, the first one a letter"
            ))
            .into(),
    )
}

/// Lets the job user start containers where Docker is installed. To be called when the start-up script, which may install it, has run.
pub fn join_docker(user: &User) {
    let Ok(Some(group)) = Group::from_name(DOCKER) else {
        return;
    };
    if user.groups().contains(&group.gid.as_raw()) {
        return;
    }
    let joined = first_that_works(&[&["usermod", "-aG", DOCKER, &user.name], &["adduser", &user.name, DOCKER]]);
    match joined {
        Ok(()) => tracing::info!("jobs may use Docker"),
        Err(error) => tracing::warn!("jobs may not use Docker: {error:#}"),
    }
}

/// With shadow-utils, or with busybox.
fn make(name: &str, home: &Path) -> Result<()> {
    check(name)?;
    let home = home.display().to_string();
    first_that_works(&[
        &[
            "useradd",
            "--create-home",
            "--home-dir",
            &home,
            "--shell",
            "/bin/bash",
            "--user-group",
            name,
        ],
        &["adduser", "-D", "-h", &home, name],
    ])
    .with_context(|| format!("making the user {name}, whom jobs run as"))
}

fn first_that_works(commands: &[&[&str]]) -> Result<()> {
    let mut said = Vec::new();
    for command in commands {
        let [program, args @ ..] = command else { continue };
        match Command::new(program).args(args).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => said.push(format!(
                "{program}: {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => said.push(format!("{program}: {error}")),
        }
    }
    bail!("{}", said.join("; "))
}

impl User {
    /// Who we are, if the user database knows.
    pub fn current() -> Option<Self> {
        nix::unistd::User::from_uid(Uid::effective()).ok().flatten().map(Self::from)
    }

    /// The one of this name, if there is one.
    pub fn named(name: &str) -> Result<Option<Self>> {
        let found = nix::unistd::User::from_name(name).with_context(|| format!("looking for the user {name}"))?;
        Ok(found.map(Self::from))
    }

    /// The ids of all its groups, as the group database has them now.
    pub fn groups(&self) -> Vec<u32> {
        let own = Gid::from_raw(self.gid);
        let all = CString::new(self.name.as_str()).ok().and_then(|name| getgrouplist(&name, own).ok());
        all.map_or_else(|| vec![self.gid], |all| all.into_iter().map(Gid::as_raw).collect())
    }
}

impl From<nix::unistd::User> for User {
    fn from(found: nix::unistd::User) -> Self {
        Self {
            name: found.name,
            uid: found.uid.as_raw(),
            gid: found.gid.as_raw(),
            home: found.dir,
        }
    }
}

/// Says that a test cannot run here, and why.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("CML_TEST_SKIPS") {
        let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::{User, first_that_works};

    #[test]
    fn the_next_tool_is_tried_and_all_are_named_when_none_works() {
        first_that_works(&[&["no-such-program"], &["false"], &["true"]]).unwrap();
        let error = first_that_works(&[&["no-such-program", "x"], &["sh", "-c", "echo refused >&2; exit 9"]]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no-such-program: ") && text.contains("9: refused"), "{text}");
    }

    #[test]
    fn root_is_known_and_a_stranger_is_not() {
        let root = User::named("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups().contains(&0));
        assert_eq!(User::named("nobody-has-this-name").unwrap(), None);
    }
}
