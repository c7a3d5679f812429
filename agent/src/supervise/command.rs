//! What is supervised.

use std::path::PathBuf;

use crate::user::User;

/// A program to supervise. Its environment is built from nothing: the allow-list plus `env`.
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; never a secret.
    pub args: Vec<String>,
    /// Its working directory.
    pub dir: PathBuf,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// The unprivileged user that it runs as; none: as the agent itself.
    pub user: Option<User>,
    /// Whether other programs of that user are none of its own.
    pub shares_user: bool,
}

impl CommandLine {
    /// Whether it runs as root.
    pub fn is_root(&self) -> bool {
        let uid = self
            .user
            .as_ref()
            .map_or_else(|| nix::unistd::Uid::effective().as_raw(), |user| user.uid);
        uid == 0
    }
}
