//! What generic sizes, GPUs, regions and images mean on each cloud. Data: a TOML file for each cloud, beside its grammar, which says what its
//! native names look like. Pure: native names pass through, nothing is asked.

mod aws;
mod azure;
mod gcp;
pub mod kubernetes;
mod wish;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::Platform;
use common::spec::CloudKind;
use serde::Deserialize;

use wish::Wish;

/// Other names of GPUs: `tesla` is the old tool's name for the V100.
const ALIASES: [(&str, &str); 2] = [("a10g", "a10"), ("tesla", "v100")];

/// How a cloud writes the names of its machine types and places, and what they tell.
trait Grammar: Sync {
    /// Its names: TOML of an [`Entry`].
    fn data(&self) -> &'static str;

    /// A native type, as the user wrote it, with the GPU that was asked for beside it; none where this is not how types are written.
    fn native(&self, text: &str, gpu: Option<&str>, families: &BTreeMap<String, String>) -> Option<Candidate>;

    /// A native region or zone; none where this is not how they are written.
    fn place(&self, name: &str) -> Option<Place>;
}

/// The grammar of a cloud.
fn grammar(cloud: CloudKind) -> &'static dyn Grammar {
    match cloud {
        CloudKind::Aws => &aws::Names,
        CloudKind::Azure => &azure::Names,
        CloudKind::Gcp => &gcp::Names,
        CloudKind::Kubernetes => &kubernetes::Names,
    }
}

/// A native machine type to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The cloud's name for it: `m7i.2xlarge`.
    pub native: String,
    /// Its processor.
    pub arch: Platform,
    /// Its GPU, if it has any: decides on the image.
    pub gpu: Option<String>,
}

/// Where to make the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The native region.
    pub region: String,
    /// The native zone, where the user named one.
    pub zone: Option<String>,
}

/// The image to take where the user names none: the newest of this owner that matches.
///
/// The owner is part of every query: anybody may publish an image under any name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageQuery {
    /// The account that published it.
    pub owner: String,
    /// Pattern of its name for x86-64.
    x64: String,
    /// Pattern of its name for arm64.
    arm64: String,
    /// The user that people log in as.
    pub user: String,
}

impl ImageQuery {
    /// Pattern of the image's name, with `*`.
    pub fn pattern(&self, arch: Platform) -> &str {
        match arch {
            Platform::X64 => &self.x64,
            Platform::Arm64 => &self.arm64,
        }
    }
}

/// One cloud's names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// GPUs whose machines are gone: accepted, warned of, and replaced by the rows under their names.
    #[serde(default)]
    retired: BTreeMap<String, String>,
    /// Native types by size, or by size and GPU (`m+t4`); tried in order.
    types: BTreeMap<String, Vec<String>>,
    /// The GPU of native types, by family.
    #[serde(default)]
    families: BTreeMap<String, String>,
    /// Native regions, or zones, by generic region.
    regions: BTreeMap<String, String>,
    images: Images,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Images {
    plain: ImageQuery,
    gpu: ImageQuery,
}

/// The types to try, the best first: the rows of a generic size, or the one native type.
pub fn resolve(cloud: CloudKind, cloud_type: &str, gpu: Option<&str>) -> Result<Vec<Candidate>> {
    let names = Names::of(cloud)?;
    match Wish::read(&names, cloud_type, gpu)? {
        Wish::Native { candidate, .. } => Ok(vec![candidate]),
        Wish::Generic { size, gpu } => {
            let key = wish::key(&size, gpu.as_ref());
            let natives = names.entry.types.get(&key).ok_or_else(|| names.refuse(&size, gpu.as_ref()))?;
            natives.iter().map(|native| names.candidate(native, gpu.as_ref())).collect()
        }
    }
}

/// What the user should know about these names although they are accepted.
pub fn warnings(cloud: CloudKind, cloud_type: &str, gpu: Option<&str>) -> Result<Vec<String>> {
    let names = Names::of(cloud)?;
    let warning = match Wish::read(&names, cloud_type, gpu)? {
        Wish::Native {
            candidate,
            gpu: Some(wanted),
        } if candidate.gpu.as_ref() != Some(&wanted.name) => {
            let own = candidate.gpu.map_or_else(|| "no GPU".to_owned(), |own| format!("the GPU {own}"));
            Some(format!(
                "`--cloud-gpu={}` has no effect: `{}` has {own}",
                wanted.written, candidate.native
            ))
        }
        Wish::Generic { gpu: Some(wanted), .. } => names.entry.retired.get(&wanted.name).map(|instead| {
            let old = if wanted.written == wanted.name {
                String::new()
            } else {
                format!("`{}`, an old name of the ", wanted.written)
            };
            format!("the GPU {old}{}: {instead}", wanted.name)
        }),
        Wish::Native { .. } | Wish::Generic { .. } => None,
    };
    Ok(warning.into_iter().collect())
}

/// A generic region's native one; a native region or zone as it is.
pub fn region(cloud: CloudKind, name: &str) -> Result<Place> {
    let Names { entry, grammar, .. } = Names::of(cloud)?;
    let name = name.trim();
    let name = entry.regions.get(name).map_or(name, String::as_str);
    grammar.place(name).ok_or_else(|| {
        let generic: Vec<&str> = entry.regions.keys().map(String::as_str).collect();
        Failure::new(Class::Usage, format!("`{name}` is no region of {cloud}"))
            .hint(format!(
                "give `--cloud-region` a generic region ({}), or a native region or zone such as {}",
                generic.join(", "),
                entry.regions.values().next().map_or("", String::as_str)
            ))
            .into()
    })
}

/// The image that a machine gets where the user names none.
pub fn image(cloud: CloudKind, gpu: bool) -> Result<ImageQuery> {
    let Names { entry, .. } = Names::of(cloud)?;
    Ok(if gpu { entry.images.gpu } else { entry.images.plain })
}

/// The names of one cloud.
struct Names {
    cloud: CloudKind,
    grammar: &'static dyn Grammar,
    entry: Entry,
}

impl Names {
    fn of(cloud: CloudKind) -> Result<Self> {
        let grammar = grammar(cloud);
        let entry = toml::from_str(grammar.data()).with_context(|| format!("reading the names of {cloud}"))?;
        Ok(Self { cloud, grammar, entry })
    }

    /// Every GPU that a generic type may have.
    fn gpus(&self) -> Vec<String> {
        let keys = self.entry.types.keys();
        let mut gpus: Vec<String> = keys.filter_map(|key| Some(key.split_once('+')?.1.to_owned())).collect();
        gpus.sort();
        gpus.dedup();
        gpus
    }

    /// A native type of the data, in a row that was asked for with this GPU.
    fn candidate(&self, native: &str, gpu: Option<&wish::Gpu>) -> Result<Candidate> {
        let gpu = gpu.map(|gpu| gpu.name.as_str());
        let candidate = self.grammar.native(native, gpu, &self.entry.families);
        candidate.with_context(|| format!("`{native}` is in the data, but no machine type of {}", self.cloud))
    }

    fn refuse(&self, size: &str, gpu: Option<&wish::Gpu>) -> Failure {
        let keys = self.entry.types.keys();
        let split = keys.map(|key| key.split_once('+').map_or((key.as_str(), None), |(size, gpu)| (size, Some(gpu))));
        let rows: Vec<(&str, Option<&str>)> = split.collect();
        let sizes = |gpu: Option<&str>| -> String {
            let sizes: Vec<&str> = rows.iter().filter(|(_, other)| *other == gpu).map(|(size, _)| *size).collect();
            sizes.join(", ")
        };
        let cloud = self.cloud;
        match gpu {
            Some(gpu) if rows.iter().any(|(known, _)| *known == size) => Failure::new(
                Class::Usage,
                format!("{cloud} has no machine of size `{size}` with the GPU {}", gpu.name),
            )
            .hint(format!(
                "sizes with that GPU: {}; or give a native `--cloud-type`",
                sizes(Some(&gpu.name))
            )),
            _ => Failure::new(Class::Usage, format!("`{size}` is no machine type of {cloud}")).hint(format!(
                "give `--cloud-type` a generic size ({}, with a GPU as in m+t4), or a native type such as {}",
                sizes(None),
                self.entry.types.values().flatten().next().map_or("", String::as_str)
            )),
        }
    }
}

#[cfg(test)]
mod tests;
