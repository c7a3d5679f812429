//! What a machine type asks for beside its name: `n1-standard-4+nvidia-tesla-t4*1`, as the catalog writes it.

use std::fmt;

use anyhow::Result;
use common::error::{Class, Failure};

/// A native type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// `n1-standard-4`
    pub name: String,
    /// What is attached to it; machines that are made with GPUs bring their own.
    pub accelerator: Option<Accelerator>,
}

/// GPUs to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accelerator {
    /// `nvidia-tesla-t4`
    pub name: String,
    /// How many.
    pub count: u32,
}

/// Families whose machines [bring their GPUs][gpus] with them, or [are never moved][moved] while they run.
///
/// [gpus]: https://docs.cloud.google.com/compute/docs/gpus/about-gpus
/// [moved]: https://docs.cloud.google.com/compute/docs/instances/host-maintenance-overview
const STAYING: [&str; 16] = [
    "a2", "a3", "a4", "a4x", "g2", "g4", "h3", "h4d", "x4", "z3", "ct3", "ct3p", "ct5l", "ct5lp", "ct5p", "ct6e",
];

/// Families that only take [Hyperdisk][disks].
///
/// [disks]: https://docs.cloud.google.com/compute/docs/disks/hyperdisks#machine-type-support
const HYPERDISK: [&str; 12] = ["a4", "a4x", "c4", "c4a", "c4d", "g4", "h4d", "m4", "m4n", "n4", "n4a", "n4d"];

impl Machine {
    /// Reads what the catalog gives.
    ///
    /// # Errors
    /// Accelerators are asked for that cannot be attached to this type.
    pub fn read(native: &str) -> Result<Self> {
        let (name, rest) = native.split_once('+').map_or((native, None), |(name, rest)| (name, Some(rest)));
        let accelerator = rest.map(|rest| {
            let (name, count) = rest.split_once('*').unwrap_or((rest, "1"));
            Accelerator {
                name: name.to_owned(),
                count: count.parse().unwrap_or(1),
            }
        });
        let machine = Self {
            name: name.to_owned(),
            accelerator,
        };
        if machine.accelerator.is_some() && !matches!(machine.family(), "n1" | "custom") {
            return Err(
                Failure::new(Class::Usage, format!("no GPUs can be attached to a machine of the type {name}"))
                    .hint("only to N1 (`n1-standard-8+nvidia-tesla-t4*1`); A2, A3, A4, G2 and G4 machines have theirs: name them without")
                    .into(),
            );
        }
        Ok(machine)
    }

    /// `n1` of `n1-standard-4`
    fn family(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }

    /// Its names in lists of what zones have.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let accelerator = self.accelerator.as_ref().map(|accelerator| accelerator.name.as_str());
        std::iter::once(self.name.as_str()).chain(accelerator)
    }

    /// Whether its processors and memory are the user's own measure.
    pub fn is_custom(&self) -> bool {
        self.name.split('-').any(|part| part == "custom")
    }

    /// Whether it runs on while its host is maintained.
    pub fn is_moved(&self) -> bool {
        self.accelerator.is_none() && !STAYING.contains(&self.family()) && !self.name.ends_with("-metal")
    }

    /// The disk that it takes; none of them spins.
    pub fn disk(&self) -> &'static str {
        // Of the A3 machines, only the newest take nothing else.
        if HYPERDISK.contains(&self.family()) || self.name.starts_with("a3-ultragpu") {
            "hyperdisk-balanced"
        } else {
            "pd-balanced"
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.accelerator {
            Some(Accelerator { name, count }) => write!(f, "+{name}*{count}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Machine;

    #[test]
    fn gpus_are_attached_to_n1_and_to_nothing_else() {
        for native in [
            "n1-standard-4+nvidia-tesla-t4*1",
            "custom-8-53248+nvidia-tesla-t4*4",
            "g2-standard-8",
            "e2-small",
        ] {
            assert_eq!(Machine::read(native).unwrap().to_string(), native);
        }
        for native in ["e2-standard-8+nvidia-tesla-t4*1", "g2-standard-8+nvidia-l4*1"] {
            assert!(Machine::read(native).is_err(), "{native}");
        }
    }

    #[test]
    fn the_family_says_what_else_a_machine_needs() {
        for (native, moved, disk) in [
            ("e2-standard-8", true, "pd-balanced"),
            ("n1-standard-8+nvidia-tesla-t4*1", false, "pd-balanced"),
            ("g2-standard-8", false, "pd-balanced"),
            ("a2-highgpu-1g", false, "pd-balanced"),
            ("a3-highgpu-8g", false, "pd-balanced"),
            ("a3-ultragpu-8g", false, "hyperdisk-balanced"),
            ("c4a-standard-8", true, "hyperdisk-balanced"),
            ("c3-standard-192-metal", false, "pd-balanced"),
            ("h3-standard-88", false, "pd-balanced"),
        ] {
            let machine = Machine::read(native).unwrap();
            assert_eq!((machine.is_moved(), machine.disk()), (moved, disk), "{native}");
        }
    }
}
