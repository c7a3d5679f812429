//! What an agent leaves for the one that starts after it has been killed: the crash rule.
//!
//! An agent that finds such a file never resumes. It ends what is left, runs the job again, takes its leave, and ends the machine.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::forge::{Job, RunnerId};
use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::lifecycle::Running;

/// What is kept of a machine's disk for the files here, which are far smaller.
const RESERVE: usize = 256 << 10;
/// What tells one boot of a machine from another. Source: random(4).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

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
    /// The boot of the machine in which the start-up script ended well, having restarted the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<String>,
}

impl Remains {
    /// Whether all that was done before this boot is the start-up script.
    pub fn is_provisioned(&self) -> bool {
        self.provisioned.is_some() && self.provisioned != boot()
    }
}

/// What this boot of the machine is called, which no other is.
pub fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
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
    pub at: Moment,
}

/// A point in time, by two clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// By the one that somebody sets.
    date: Timestamp,
    /// By the one that nobody sets: since the machine's boot…
    up: Duration,
    /// … which the kernel calls so.
    boot: String,
}

impl Moment {
    fn now() -> Self {
        let up = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        Self {
            date: Timestamp::now(),
            up: up.unwrap_or_default(),
            boot: fs::read_to_string(BOOT).unwrap_or_default(),
        }
    }

    /// How long ago it was at that time. Somebody may have set the clock meanwhile, which does not matter unless the machine was started anew too.
    fn age(&self, now: &Self) -> Duration {
        if self.boot == now.boot {
            return now.up.saturating_sub(self.up);
        }
        now.date.duration_since(self.date).try_into().unwrap_or_default()
    }
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
            at: before.map_or_else(Moment::now, |before| before.at.clone()),
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

    /// How long ago it was first heard of.
    pub fn age(&self) -> Duration {
        self.at.age(&Moment::now())
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

    /// Keeps some of the disk for what is written here, before a job can fill it.
    pub fn keep_reserve(&self) {
        // One that an agent left which was killed is not written anew: the disk may be full by now.
        let is_there = fs::metadata(self.reserve()).is_ok_and(|file| file.len() == RESERVE as u64);
        if is_there {
            return;
        }
        if let Err(error) = fs::write(self.reserve(), vec![0; RESERVE]) {
            tracing::warn!("no reserve is kept on the disk: {error}");
        }
    }

    /// Replaces the file at once, whatever happens in between.
    pub fn write(&self, remains: &Remains) -> Result<()> {
        let written = self.on_a_full_disk_too(|| {
            let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
            file.write_all(&serde_json::to_vec(remains)?)?;
            file.as_file().sync_all()?;
            file.persist(self.file())?;
            Ok(())
        });
        written.with_context(|| format!("writing {}", self.file().display()))
    }

    /// Does it once more where the disk is full and there still is a reserve.
    fn on_a_full_disk_too(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let written = write();
        let is_full = |error: &io::Error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        if written.as_ref().is_err_and(is_full) && fs::remove_file(self.reserve()).is_ok() {
            tracing::error!("{}: what is kept for the agent is used up from now on", fullness(&self.0));
            return write();
        }
        written
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
        self.on_a_full_disk_too(|| fs::write(&marker, ""))
            .with_context(|| format!("writing {}", marker.display()))
    }

    fn file(&self) -> PathBuf {
        self.0.join("state.json")
    }

    fn reserve(&self) -> PathBuf {
        self.0.join("reserve")
    }
}

/// How full the file system of a directory is, for whoever asks why.
fn fullness(dir: &Path) -> String {
    let sizes = statvfs(dir).map(|disk| {
        let mib = |blocks: u64| disk.fragment_size().saturating_mul(blocks) >> 20;
        format!(" ({} of {} MiB left)", mib(disk.blocks_available()), mib(disk.blocks()))
    });
    format!("the disk of {} is full{}", dir.display(), sizes.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use common::forge::{Job, RunnerId};

    use super::{Begun, Moment, Remains, StateDir};

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
                at: Moment::now(),
            }),
            provisioned: None,
        };
        state.write(&remains).unwrap();
        assert_eq!(state.remains(), Some(remains));
        let mode = std::fs::metadata(dir.path().join("state.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        state.clear();
        assert_eq!(state.remains(), None);
    }

    #[test]
    fn a_clock_that_is_set_changes_no_age() {
        let at = |date: &str, up: u64, boot: &str| Moment {
            date: date.parse().unwrap(),
            up: Duration::from_secs(up),
            boot: boot.into(),
        };
        let begun = at("2026-01-02T00:00:00Z", 100, "one");
        for (now, age) in [
            (at("2026-01-02T00:00:07Z", 107, "one"), 7),
            (at("2026-01-03T00:00:07Z", 107, "one"), 7),
            (at("2026-01-01T00:00:07Z", 107, "one"), 7),
            // Another boot: only the date can tell.
            (at("2026-01-02T00:05:00Z", 20, "two"), 300),
            (at("2026-01-01T00:00:00Z", 20, "two"), 0),
        ] {
            assert_eq!(begun.age(&now).as_secs(), age, "{now:?}");
        }
    }

    #[test]
    fn the_reserve_is_given_up_once_for_what_must_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::of(&dir.path().join("spec.json"));
        let tries = Cell::new(0);
        let full_until = |free: fn(&StateDir) -> bool| {
            tries.set(0);
            let written = state.on_a_full_disk_too(|| {
                tries.set(tries.get() + 1);
                if free(&state) { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
            });
            (written.is_ok(), tries.get())
        };
        assert_eq!(full_until(|_| false), (false, 1), "there is no reserve");
        state.keep_reserve();
        assert_eq!(full_until(|state| !state.reserve().exists()), (true, 2));
        assert_eq!(full_until(|_| false), (false, 1), "it is used up");
    }

    #[test]
    fn a_damaged_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state.json"), "{").unwrap();
        assert_eq!(StateDir::of(&dir.path().join("spec.json")).remains(), Some(Remains::default()));
    }
}
