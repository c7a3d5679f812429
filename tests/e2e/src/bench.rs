//! What a process has used, from `/proc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// What the threads of a process have used so far.
pub struct Usage(BTreeMap<PathBuf, (Duration, u64)>);

impl Usage {
    /// Reads it now. Source: [`/proc/PID/task/TID/schedstat`](https://docs.kernel.org/scheduler/sched-stats.html), in nanoseconds.
    pub fn of(pid: u32) -> Result<Self> {
        let dir = format!("/proc/{pid}/task");
        let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {dir}"))?;
        let mut threads = BTreeMap::new();
        for entry in entries {
            let task = entry?.path();
            let schedule = std::fs::read_to_string(task.join("schedstat"))?;
            let spent = schedule.split_whitespace().next().context("schedstat is empty")?.parse()?;
            let switches = field(&task.join("status"), "voluntary_ctxt_switches:")?;
            threads.insert(task, (Duration::from_nanos(spent), switches));
        }
        Ok(Self(threads))
    }

    /// Processor time.
    pub fn cpu(&self) -> Duration {
        self.0.values().map(|(cpu, _)| *cpu).sum()
    }

    /// Processor time and wake-ups since then; a thread that has ended meanwhile does not count.
    pub fn since(&self, then: &Self) -> (Duration, u64) {
        let mut used = (Duration::ZERO, 0);
        for (task, (cpu, switches)) in &self.0 {
            let (before, woken) = then.0.get(task).copied().unwrap_or_default();
            used.0 += cpu.saturating_sub(before);
            used.1 += switches.saturating_sub(woken);
        }
        used
    }
}

/// Resident memory now, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    Ok(field(Path::new(&format!("/proc/{pid}/status")), "VmRSS:")? * 1024)
}

fn field(path: &Path, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name}"))?;
    Ok(value.split_whitespace().next().context("no value")?.parse()?)
}
