//! How Compute Engine writes its types (`e2-standard-8`, `custom-8-53248`, `n1-standard-4+nvidia-tesla-t4*1`) and places (`us-west1`, `us-west1-b`).

use std::collections::BTreeMap;

use common::forge::Platform;

use super::{Candidate, Grammar, Place};

/// Compute Engine's names.
pub struct Names;

/// Families with processors of [Arm's][arm].
///
/// [arm]: https://docs.cloud.google.com/compute/docs/instances/arm-on-compute
const ARM: [&str; 4] = ["a4x", "c4a", "n4a", "t2a"];

/// Names of families that have no digit: those are N1's too.
const CUSTOM: &str = "custom";

impl Grammar for Names {
    fn data(&self) -> &'static str {
        include_str!("gcp.toml")
    }

    /// A machine type, and what is attached to it: GPUs, by their own name or a short one, and how many. A GPU that was asked for beside it is
    /// attached where one can be.
    fn native(&self, text: &str, gpu: Option<&str>, families: &BTreeMap<String, String>) -> Option<Candidate> {
        let text = text.to_ascii_lowercase();
        let (machine, attached) = text
            .split_once('+')
            .map_or((text.as_str(), None), |(machine, rest)| (machine, Some(rest)));
        let family = machine.split('-').next().filter(|family| is_family(family) && *family != machine)?;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !machine.chars().all(is_plain) || machine.ends_with('-') {
            return None;
        }
        let takes_gpus = matches!(family, "n1" | CUSTOM);
        let attached = match attached {
            Some(rest) => Some(read_accelerator(rest, families)?),
            None => gpu.filter(|_| takes_gpus).map(|gpu| (accelerator(gpu, families), 1)),
        };
        let own = families
            .iter()
            .find(|(prefix, _)| machine.starts_with(&format!("{prefix}-")))
            .map(|(_, gpu)| gpu.clone());
        let arch = if ARM.contains(&family) { Platform::Arm64 } else { Platform::X64 };
        Some(match attached {
            Some((name, count)) => Candidate {
                native: format!("{machine}+{name}*{count}"),
                arch,
                gpu: Some(families.get(&name).cloned().unwrap_or(name)),
            },
            None => Candidate {
                native: machine.to_owned(),
                arch,
                gpu: own,
            },
        })
    }

    /// `us-west1` is a region; `us-west1-b` and `us-central1-ai1a` are zones of one.
    fn place(&self, name: &str) -> Option<Place> {
        let parts: Vec<&str> = name.split('-').collect();
        let (area, spot, zone) = match parts.as_slice() {
            [area, spot] => (area, spot, None),
            [area, spot, zone] => (area, spot, Some(zone)),
            _ => return None,
        };
        let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase());
        let word = spot.trim_end_matches(|c: char| c.is_ascii_digit());
        let is_zone = |zone: &str| {
            zone.ends_with(|c: char| c.is_ascii_lowercase()) && zone.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        let is_place = is_word(area) && is_word(word) && word.len() < spot.len() && zone.is_none_or(|zone| is_zone(zone));
        is_place.then(|| Place {
            region: format!("{area}-{spot}"),
            zone: zone.map(|_| name.to_owned()),
        })
    }
}

/// A letter or more and a digit: `e2`, `n1`, `ct5lp`; or `custom`.
fn is_family(text: &str) -> bool {
    let has_digit = text.contains(|c: char| c.is_ascii_digit());
    text == CUSTOM || (has_digit && text.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// `nvidia-tesla-t4*2`, `t4`
fn read_accelerator(text: &str, families: &BTreeMap<String, String>) -> Option<(String, u32)> {
    let (name, count) = text.split_once('*').unwrap_or((text, "1"));
    let count: u32 = count.parse().ok().filter(|count| *count > 0)?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (!name.is_empty() && name.chars().all(is_plain)).then(|| (accelerator(name, families), count))
}

/// Its name for a GPU: of those that can be attached, the one that has this short name.
fn accelerator(gpu: &str, families: &BTreeMap<String, String>) -> String {
    let own = families.iter().find(|(name, short)| name.starts_with("nvidia-") && *short == gpu);
    own.map_or_else(|| gpu.to_owned(), |(name, _)| name.clone())
}
