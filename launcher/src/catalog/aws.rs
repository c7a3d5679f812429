//! How EC2 writes its types (`m7i.2xlarge`) and places (`us-east-1`, `us-east-1a`).

use std::collections::BTreeMap;

use common::forge::Platform;

use super::{Candidate, Grammar, Place};

/// EC2's names.
pub struct Names;

impl Grammar for Names {
    fn data(&self) -> &'static str {
        include_str!("aws.toml")
    }

    /// A family and a size; the GPU is the type's own, whatever was asked for beside it.
    fn native(&self, text: &str, _: Option<&str>, families: &BTreeMap<String, String>) -> Option<Candidate> {
        let native = text.to_ascii_lowercase();
        let (family, _) = native.split_once('.')?;
        let family = Family::of(family);
        let known = families.get(family.name).cloned();
        Some(Candidate {
            arch: family.arch(),
            gpu: known.or_else(|| family.is_accelerated().then(|| family.name.to_owned())),
            native,
        })
    }

    fn place(&self, name: &str) -> Option<Place> {
        split_zone(name)
    }
}

/// The family of an EC2 type: letters, a generation, and the letters of its properties ([naming]).
///
/// [naming]: https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html
struct Family<'a> {
    name: &'a str,
    series: &'a str,
    properties: &'a str,
}

impl<'a> Family<'a> {
    fn of(name: &'a str) -> Self {
        let generation = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
        let (series, rest) = name.split_at(generation);
        Self {
            name,
            series,
            properties: rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        }
    }

    /// `g` among the properties stands for Graviton (and Grace), as in `m7g`, `c7gn`, `im4gn`, `g5g`; `a1` was the first of them.
    fn arch(&self) -> Platform {
        if self.properties.contains('g') || self.name == "a1" {
            Platform::Arm64
        } else {
            Platform::X64
        }
    }

    /// The series of machines with NVIDIA GPUs.
    fn is_accelerated(&self) -> bool {
        matches!(self.series, "g" | "gr" | "p")
    }
}

/// `us-east-1` is a region; `us-east-1a`, `us-west-2-lax-1a` and `us-east-1-wl1-bos-wlz-1` are zones of one.
fn split_zone(name: &str) -> Option<Place> {
    let is_plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let number = name.find(|c: char| c.is_ascii_digit()).filter(|at| *at > 0 && is_plain)?;
    let (words, rest) = name.split_at_checked(number)?;
    let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let region = name.strip_suffix(zone)?;
    let count = words.split('-').filter(|word| !word.is_empty()).count();
    let is_zone = zone.is_empty() || zone.starts_with('-') || (zone.len() == 1 && zone.starts_with(|c: char| c.is_ascii_lowercase()));
    (count >= 2 && words.ends_with('-') && is_zone).then(|| Place {
        region: region.to_owned(),
        zone: (!zone.is_empty()).then(|| name.to_owned()),
    })
}
