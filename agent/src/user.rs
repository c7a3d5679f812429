//! The unprivileged user that jobs run as.

use std::ffi::CString;

use nix::unistd::{Gid, getgrouplist};

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

impl User {
    /// The ids of all its groups, as the group database has them now.
    pub fn groups(&self) -> Vec<u32> {
        let own = Gid::from_raw(self.gid);
        let all = CString::new(self.name.as_str()).ok().and_then(|name| getgrouplist(&name, own).ok());
        all.map_or_else(|| vec![self.gid], |all| all.into_iter().map(Gid::as_raw).collect())
    }
}

/// Says that a test cannot run here, and why.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub fn skip(test: &str, reason: &str) {
    use std::io::Write as _;
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("CML_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
}
