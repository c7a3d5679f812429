//! What an agent leaves for the one that starts after it has been killed: the crash rule.
//!
//! An agent that finds such a file never resumes. It ends what is left, runs the job again, takes its leave, and ends the machine.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::forge::{Job, RunnerId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::lifecycle::Running;

/// What is on disk from the first moment on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remains {
    /// The forge's id of the registration, once it is known.
    pub registration: Option<RunnerId>,
    /// The runner program: its process id, and when it started, in clock ticks since boot.
    pub process: Option<(i32, u64)>,
    /// The job that runs.
    pub job: Option<Begun>,
}

/// A job that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// Its display name, if the runner told it: hostile input.
    pub name: Option<String>,
    /// Its ids, if its hook has told them.
    pub ids: Option<Job>,
    /// When it was first heard of.
    pub at: Timestamp,
}

impl Begun {
    /// One whose name is not known.
    pub fn known(ids: Job) -> Self {
        let running = Running {
            ids: Some(ids),
            ..Running::default()
        };
        Self::of(&running, None)
    }

    /// What is known of it now, if it may be the same as `before`.
    pub fn of(job: &Running, before: Option<&Self>) -> Self {
        let before = before.filter(|before| before.name.is_none() || before.name == job.name);
        Self {
            name: job.name.clone(),
            ids: job.ids.clone(),
            at: before.map_or_else(Timestamp::now, |before| before.at),
        }
    }

    /// The same, for an agent that finds it.
    pub fn running(&self) -> Running {
        Running {
            name: self.name.clone(),
            ids: self.ids.clone(),
            completing: None,
        }
    }

    /// How long ago it was first heard of, by the clock of this machine.
    pub fn age(&self) -> Duration {
        Timestamp::now().duration_since(self.at).try_into().unwrap_or_default()
    }
}

/// The files of an agent's life, beside its spec.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The directory that the spec lies in.
    pub fn of(spec: &Path) -> Self {
        let dir = spec.parent().filter(|dir| !dir.as_os_str().is_empty());
        Self(dir.unwrap_or_else(|| Path::new(".")).to_owned())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What an earlier agent left. A file that cannot be read was left by one too: it counts, without its contents.
    pub fn remains(&self) -> Option<Remains> {
        match fs::read(self.file()) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!("{} cannot be read: {error}", self.file().display());
                Some(Remains::default())
            }
            Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{} is damaged: {error}", self.file().display());
                Remains::default()
            })),
        }
    }

    /// Replaces the file at once, whatever happens in between.
    pub fn write(&self, remains: &Remains) -> Result<()> {
        let write = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&serde_json::to_vec(remains)?)?;
            file.as_file().sync_all()?;
            file.persist(self.file())?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", self.file().display()))
    }

    /// Another life may begin here. Not on an instance: one that comes back after its end ends again.
    pub fn clear(&self) {
        if let Err(error) = fs::remove_file(self.file())
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be removed: {error}", self.file().display());
        }
    }

    /// Tells the boot deadline's timer that the runner is online.
    pub fn mark_online(&self) -> Result<()> {
        let marker = self.0.join("online");
        fs::write(&marker, "").with_context(|| format!("writing {}", marker.display()))
    }

    fn file(&self) -> PathBuf {
        self.0.join("state.json")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use common::forge::{Job, RunnerId};
    use jiff::Timestamp;

    use super::{Begun, Remains, StateDir};

    #[test]
    fn what_is_written_is_found_and_only_root_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::of(&dir.path().join("spec.json"));
        assert_eq!(state.remains(), None);
        let remains = Remains {
            registration: Some(RunnerId::from(7)),
            process: Some((42, 1)),
            job: Some(Begun {
                name: Some("train \"1\"\u{1b}".into()),
                ids: Some(Job {
                    run: "1".into(),
                    attempt: 1,
                    repository: "octo/train".into(),
                    key: "train".into(),
                }),
                at: Timestamp::UNIX_EPOCH,
            }),
        };
        state.write(&remains).unwrap();
        assert_eq!(state.remains(), Some(remains));
        let mode = std::fs::metadata(dir.path().join("state.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        state.clear();
        assert_eq!(state.remains(), None);
    }

    #[test]
    fn a_damaged_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state.json"), "{").unwrap();
        assert_eq!(StateDir::of(&dir.path().join("spec.json")).remains(), Some(Remains::default()));
    }
}
