//! What an agent on a user's own host says of itself, for `cml-agent status`: a file beside its state.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lifecycle::Step;

/// Its file.
const FILE: &str = "status.json";

/// Of the agent that runs, or of the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Of the agent.
    pub version: String,
    /// Repository, organisation or group page.
    pub repo: String,
    /// Of the runner.
    pub labels: Vec<String>,
    /// The step of its life.
    pub step: Step,
    /// Since when.
    pub since: Timestamp,
    /// Whether the forge has a registration of it, or may have.
    pub registered: bool,
    /// Why it takes no more jobs, or stops, if it does.
    pub reason: Option<String>,
}

impl Condition {
    /// Replaces the last one's.
    pub fn write(&self, state: &Path) -> Result<()> {
        let path = path(state);
        let write = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(state)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    /// What the last agent said, if there was one, and it could.
    pub fn read(state: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path(state)).ok()?).ok()
    }

    /// Whether its runner waits for jobs or has one.
    pub fn is_online(&self) -> bool {
        matches!(
            self.step,
            Step::Idle | Step::Checking | Step::Busy | Step::Withdrawing | Step::Finishing
        )
    }
}

fn path(state: &Path) -> PathBuf {
    state.join(FILE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use jiff::Timestamp;

    use super::{Condition, Step};

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Condition::read(dir.path()), None);
        let condition = Condition {
            version: "1.2.3".into(),
            repo: "https://github.com/octo/train".into(),
            labels: vec!["gpu".into()],
            step: Step::Busy,
            since: Timestamp::UNIX_EPOCH,
            registered: true,
            reason: Some("drained".into()),
        };
        condition.write(dir.path()).unwrap();
        assert!(condition.is_online());
        assert_eq!(Condition::read(dir.path()), Some(condition));
        std::fs::write(dir.path().join("status.json"), "{").unwrap();
        assert_eq!(Condition::read(dir.path()), None);
    }
}
