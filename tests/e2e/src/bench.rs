//! What a process has used, from `/proc`.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Processor time of all threads so far. Source: [`/proc/PID/task/TID/schedstat`](https://docs.kernel.org/scheduler/sched-stats.html), in nanoseconds.
pub fn cpu(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in tasks(pid)? {
        let text = std::fs::read_to_string(task.join("schedstat"))?;
        let spent = text.split_whitespace().next().context("schedstat is empty")?;
        total += spent.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory now, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    Ok(field(&format!("/proc/{pid}/status").into(), "VmRSS:")? * 1024)
}

/// How often its threads have been scheduled: each wake-up is one.
pub fn switches(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in tasks(pid)? {
        total += field(&task.join("status"), "voluntary_ctxt_switches:")?;
    }
    Ok(total)
}

fn tasks(pid: u32) -> Result<Vec<std::path::PathBuf>> {
    let dir = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {dir}"))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn field(path: &std::path::PathBuf, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .with_context(|| format!("no {name}"))?;
    Ok(value.split_whitespace().next().context("no value")?.parse()?)
}
