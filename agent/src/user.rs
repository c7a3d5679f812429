//! The unprivileged user that jobs run as. (Being built.)

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
