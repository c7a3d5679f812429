//! The processes of this machine, as /proc shows them.

use std::fs;

/// The variable that every descendant of a supervised program inherits unless it clears its environment.
pub const MARKER: &str = "SUPERVISED_BY";

/// A process at one moment. See proc(5), `/proc/pid/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    /// It has ended, and waits to be reaped.
    pub dead: bool,
    /// Clock ticks from boot to its start.
    pub start: u64,
}

impl Process {
    /// Reads one; none if there is none of that id.
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses, which may itself hold parentheses and spaces.
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            dead: matches!(*fields.first()?, "Z" | "X" | "x"),
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// All of them.
    pub fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(Self::read)
            .collect()
    }

    /// What [`MARKER`] is in its environment, if that can be read and has it.
    pub fn marker(&self) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let value = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(MARKER.as_bytes())?.strip_prefix(b"="))?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// The id of the user that it really runs as.
    pub fn user(&self) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn a_hostile_program_name_does_not_shift_the_fields() {
        let stat = "42 (a) R 1 (b)) S 7 8 9 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 2 3";
        let process = Process::parse(42, stat).unwrap();
        assert_eq!((process.parent, process.group, process.dead, process.start), (7, 8, false, 12345));
    }

    #[test]
    fn this_process_is_among_all() {
        let me = i32::try_from(std::process::id()).unwrap();
        let own = Process::all().into_iter().find(|process| process.pid == me).unwrap();
        assert_eq!(own.group, nix::unistd::getpgrp().as_raw());
        assert_eq!(own.user(), Some(nix::unistd::Uid::current().as_raw()));
        assert!(own.start > 0 && !own.dead);
    }
}
