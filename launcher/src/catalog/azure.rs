//! How Azure writes its types (`Standard_D8as_v5`) and places (`westus2`, `eastus-1`).

use std::collections::BTreeMap;

use common::forge::Platform;

use super::{Candidate, Grammar, Place};

/// Azure's names.
pub struct Names;

/// What every type of today begins with.
const TIER: &str = "standard_";
/// Accelerators that are not NVIDIA's: their types get the plain image.
const NOT_NVIDIA: [&str; 3] = ["mi300x", "v620", "v710"];
/// Families with accelerators of other kinds: FPGAs, and AMD's GPUs.
const NO_GPU: [&str; 3] = ["np", "ng", "nv_v4"];
/// The shortest name of a region: `uksouth` has seven letters, `brazilus` eight; leaves room for new ones.
const SHORTEST_REGION: usize = 5;

impl Grammar for Names {
    fn data(&self) -> &'static str {
        include_str!("azure.toml")
    }

    /// A tier, then as in [`Size::read`]; the GPU is the type's own, whatever was asked for beside it.
    fn native(&self, text: &str, _: Option<&str>, families: &BTreeMap<String, String>) -> Option<Candidate> {
        let lower = text.to_ascii_lowercase();
        let size = Size::read(lower.strip_prefix(TIER)?)?;
        Some(Candidate {
            // Upper and lower case are the same to Azure, but a reader expects its own spelling.
            native: format!("Standard_{}", text.get(TIER.len()..)?),
            arch: size.arch(),
            gpu: size.gpu(families),
        })
    }

    /// A region is one word, without the spaces that the portal shows; zones are numbered.
    fn place(&self, name: &str) -> Option<Place> {
        let (region, number) = name.split_once('-').map_or((name, None), |(region, number)| (region, Some(number)));
        let is_region = region.len() >= SHORTEST_REGION
            && region.starts_with(|c: char| c.is_ascii_lowercase())
            && region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let is_zone = number.is_none_or(|number| matches!(number, "1" | "2" | "3"));
        (is_region && is_zone).then(|| Place {
            region: region.to_owned(),
            zone: number.map(|_| name.to_owned()),
        })
    }
}

/// A type's name taken apart, in lower case ([naming]): `d8as_v5`, `nc4as_t4_v3`, `m8-2ms`.
///
/// [naming]: https://learn.microsoft.com/en-us/azure/virtual-machines/vm-naming-conventions
struct Size<'a> {
    /// `nc`
    family: &'a str,
    /// `as`
    features: &'a str,
    /// `t4`
    accelerator: Option<&'a str>,
    /// `v3`
    version: Option<&'a str>,
}

impl<'a> Size<'a> {
    fn read(name: &'a str) -> Option<Self> {
        let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let parts: Vec<&str> = name.split('_').collect();
        let (head, rest) = parts.split_first().filter(|_| parts.iter().all(|part| is_word(part)))?;
        let number = head.find(|c: char| c.is_ascii_digit()).filter(|at| *at > 0)?;
        let (family, tail) = head.split_at_checked(number)?;
        let is_version = |part: &&&str| {
            part.strip_prefix('v')
                .is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()))
        };
        Some(Self {
            family,
            features: tail.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-'),
            accelerator: rest.iter().rfind(|part| !is_version(part)).copied(),
            version: rest.iter().find(is_version).copied(),
        })
    }

    /// `p` among the features stands for Arm, as in `d8ps_v5`, `b2pts_v2`; so does the Grace of a Grace Blackwell.
    fn arch(&self) -> Platform {
        let is_grace = self.accelerator.is_some_and(|name| name.starts_with("gb"));
        if self.features.contains('p') || is_grace {
            Platform::Arm64
        } else {
            Platform::X64
        }
    }

    /// The types with NVIDIA's GPUs are in the families that begin with `n`.
    fn gpu(&self, families: &BTreeMap<String, String>) -> Option<String> {
        let series = self
            .version
            .map_or_else(|| self.family.to_owned(), |version| format!("{}_{version}", self.family));
        let is_other = NO_GPU.contains(&self.family) || NO_GPU.contains(&series.as_str());
        if !self.family.starts_with('n') || is_other || self.accelerator.is_some_and(|name| NOT_NVIDIA.contains(&name)) {
            return None;
        }
        let said = self.accelerator.map(str::to_owned);
        Some(said.or_else(|| families.get(&series).cloned()).unwrap_or(series))
    }
}
