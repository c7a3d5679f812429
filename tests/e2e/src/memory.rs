//! Memory that runs out for some processes only: a control group of their own, of either version.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the groups of both versions are.
const PLACES: [(&str, &[Setting]); 2] = [
    (
        "/sys/fs/cgroup/memory",
        &[("memory.limit_in_bytes", true), ("memory.memsw.limit_in_bytes", false)],
    ),
    ("/sys/fs/cgroup", &[("memory.max", true), ("memory.swap.max", false)]),
];
/// Of which version's files one tells how many processes were killed.
const KILLS: [&str; 2] = ["memory.oom_control", "memory.events"];

/// How often it is tried to remove a group, and the pause in between.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A file that takes the limit, and whether it must be there.
type Setting = (&'static str, bool);

/// A group; it goes with this value, if nobody is left in it.
pub struct Group(PathBuf);

impl Group {
    /// One that may have this many bytes; none where nobody here may make such a group.
    pub fn of(bytes: u64) -> Option<Self> {
        PLACES
            .iter()
            .find_map(|(place, settings)| Self::at(Path::new(place), settings, bytes))
    }

    fn at(place: &Path, settings: &[Setting], bytes: u64) -> Option<Self> {
        let dir = place.join(format!("cml-test-{}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        let group = Self(dir);
        // A folder somewhere else is none.
        group.0.join("cgroup.procs").exists().then_some(())?;
        let limits = settings
            .iter()
            .all(|(file, needed)| fs::write(group.0.join(file), bytes.to_string()).is_ok() || !needed);
        limits.then_some(group)
    }

    /// Takes a process in; what it has already counts for where it was.
    pub fn take(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// How many of its processes the kernel has killed for their memory.
    pub fn kills(&self) -> u32 {
        let told = KILLS.iter().find_map(|file| fs::read_to_string(self.0.join(file)).ok());
        let told = told.unwrap_or_default();
        let count = told.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.map_or(0, |count| count.trim().parse().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who has just been killed is in it for some moments more.
        for _ in 0..LOOKS {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
