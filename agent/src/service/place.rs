//! Where the parts of one installed runner are.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use common::error::{Class, Failure};
use common::spec::CA_CERTIFICATES;
use ring::digest::{SHA256, digest};

use crate::user::instance_path;

/// The options and the token of each.
const SETTINGS: &str = "/etc/cml";
/// The state of each, its jobs' home and work among it.
const STATE: &str = "/var/lib/cml";
/// Where an administrator's units are.
const UNITS: &str = "/etc/systemd/system";
/// The longest name of a user that is made of the runner's: what is longer ends in a checksum.
const LONGEST_USER: usize = 32;
/// How many bytes of it.
const CHECKSUM: usize = 4;

/// One runner of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The runner's name.
    pub name: String,
}

impl Place {
    /// Of a runner of this name.
    pub fn of(name: &str) -> Result<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain) {
            return Ok(Self { name: name.into() });
        }
        Err(Failure::new(Class::Usage, format!("`{name}` cannot be a runner's name"))
            .hint("`cml-agent status` shows the runners of this host")
            .into())
    }

    /// Every runner that is installed here, by name.
    pub fn all() -> Vec<Self> {
        let entries = std::fs::read_dir(instance_path(SETTINGS)).into_iter().flatten().flatten();
        let dirs = entries.filter(|entry| entry.path().is_dir());
        let mut all: Vec<Self> = dirs.filter_map(|entry| Self::of(entry.file_name().to_str()?).ok()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// The one of this name, or, without a name, the only one.
    pub fn find(name: Option<&str>) -> Result<Self> {
        let all = Self::all();
        let names = || all.iter().map(|place| place.name.as_str()).collect::<Vec<_>>().join(", ");
        let failure =
            match (name, all.as_slice()) {
                (Some(name), all) if all.iter().any(|place| place.name == name) => return Self::of(name),
                (None, [only]) => return Ok(only.clone()),
                (_, []) => Failure::new(Class::Usage, "no runner is installed on this host"),
                (Some(name), _) => Failure::new(Class::Usage, format!("no runner `{name}` is installed on this host"))
                    .hint(format!("there is {}", names())),
                (None, _) => Failure::new(Class::Usage, "several runners are installed on this host")
                    .hint(format!("give `--name` one of {}", names())),
            };
        Err(failure.into())
    }

    /// Its unit.
    pub fn unit(&self) -> String {
        format!("cml-runner-{}.service", self.name)
    }

    /// The unit's file.
    pub fn unit_file(&self) -> PathBuf {
        instance_path(UNITS).join(self.unit())
    }

    /// What its owner has changed of the unit.
    pub fn unit_edits(&self) -> PathBuf {
        instance_path(UNITS).join(format!("{}.d", self.unit()))
    }

    /// The directory of what it is told, for root alone.
    pub fn settings(&self) -> PathBuf {
        instance_path(SETTINGS).join(&self.name)
    }

    /// Its options, as variables.
    pub fn options(&self) -> PathBuf {
        self.settings().join("options")
    }

    /// The forge token.
    pub fn token(&self) -> PathBuf {
        self.settings().join("token")
    }

    /// The certificates that it was given.
    pub fn certificates(&self) -> PathBuf {
        self.settings().join(CA_CERTIFICATES)
    }

    /// Its state.
    pub fn state(&self) -> PathBuf {
        instance_path(STATE).join(&self.name)
    }

    /// The directories that hold those of all runners: removed with the last one.
    pub fn shared() -> [PathBuf; 2] {
        [SETTINGS, STATE].map(instance_path)
    }

    /// The home of its jobs' user.
    pub fn home(&self) -> PathBuf {
        self.state().join("home")
    }

    /// Its jobs' user: one for each runner, since jobs of one must not reach the files of another, and a stop ends all that its user runs.
    pub fn user(&self) -> String {
        let plain: String = self
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let user = format!("cml-{plain}");
        if plain == self.name && user.len() <= LONGEST_USER {
            return user;
        }
        let sum = digest(&SHA256, self.name.as_bytes());
        let begin: String = user.chars().take(LONGEST_USER - 2 * CHECKSUM - 1).collect();
        sum.as_ref().iter().take(CHECKSUM).fold(format!("{begin}-"), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Place;

    #[test]
    fn each_runner_has_a_user_of_its_own_whatever_its_name() {
        let user = |name: &str| Place::of(name).unwrap().user();
        assert_eq!(user("gpu-1"), "cml-gpu-1");
        let others = ["GPU-1", "gpu.1", "gpu_1", &"x".repeat(64), &format!("{}y", "x".repeat(63))].map(user);
        for (at, other) in others.iter().enumerate() {
            assert!(other.len() <= 32 && other.starts_with("cml-"), "{other}");
            assert!(!others[..at].contains(other) && other != "cml-gpu-1", "{others:?}");
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for name in ["", ".", "..", "../x", "a/b", "-x", "a b", "a%b"] {
            assert!(Place::of(name).is_err(), "{name}");
        }
    }
}
