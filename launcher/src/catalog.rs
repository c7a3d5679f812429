//! What generic sizes, GPUs, regions and images mean on each cloud. Data: catalog.toml. Pure: native names pass through, nothing is asked.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::Platform;
use common::spec::CloudKind;
use serde::Deserialize;

/// The data, checked by a test.
const DATA: &str = include_str!("catalog.toml");

/// Says that no GPU is wanted.
const NO_GPU: &str = "nogpu";

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

#[derive(Debug, Deserialize)]
struct Catalog {
    aliases: BTreeMap<String, String>,
    #[serde(flatten)]
    clouds: BTreeMap<String, Entry>,
}

/// One cloud's names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    retired: BTreeMap<String, String>,
    types: BTreeMap<String, Vec<String>>,
    families: BTreeMap<String, String>,
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
    let (catalog, entry) = entry(cloud)?;
    let wish = Wish::read(&catalog, &entry, cloud_type, gpu)?;
    if wish.is_native() {
        return Ok(vec![entry.candidate(&wish.kind)]);
    }
    let key = wish.key();
    let natives = entry.types.get(&key).ok_or_else(|| entry.refuse(cloud, &wish))?;
    Ok(natives.iter().map(|native| entry.candidate(native)).collect())
}

/// What the user should know about these names although they are accepted.
pub fn warnings(cloud: CloudKind, cloud_type: &str, gpu: Option<&str>) -> Result<Vec<String>> {
    let (catalog, entry) = entry(cloud)?;
    let wish = Wish::read(&catalog, &entry, cloud_type, gpu)?;
    let mut warnings = Vec::new();
    let Some(wanted) = &wish.gpu else {
        return Ok(warnings);
    };
    if wish.is_native() {
        let own = entry.candidate(&wish.kind).gpu;
        if own.as_ref() != Some(wanted) {
            let own = own.map_or_else(|| "no GPU".to_owned(), |own| format!("the GPU {own}"));
            warnings.push(format!("`--cloud-gpu={}` has no effect: `{}` has {own}", wish.written, wish.kind));
        }
        return Ok(warnings);
    }
    if let Some(instead) = entry.retired.get(wanted) {
        let old = if wish.written == *wanted {
            String::new()
        } else {
            format!("`{}`, an old name of the ", wish.written)
        };
        warnings.push(format!("the GPU {old}{wanted}: {instead}"));
    }
    Ok(warnings)
}

/// A generic region's native one; a native region or zone as it is.
pub fn region(cloud: CloudKind, name: &str) -> Result<Place> {
    let (_, entry) = entry(cloud)?;
    let name = name.trim();
    let name = entry.regions.get(name).map_or(name, String::as_str);
    split_zone(name).ok_or_else(|| {
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
    let (_, entry) = entry(cloud)?;
    Ok(if gpu { entry.images.gpu } else { entry.images.plain })
}

fn entry(cloud: CloudKind) -> Result<(Catalog, Entry)> {
    let mut catalog: Catalog = toml::from_str(DATA).context("reading the catalog of sizes and regions")?;
    let entry = catalog.clouds.remove(&cloud.to_string());
    let entry =
        entry.ok_or_else(|| Failure::new(Class::Usage, format!("`--cloud={cloud}` is not supported yet")).hint("supported: aws"))?;
    Ok((catalog, entry))
}

/// What the user asked for.
struct Wish {
    /// A generic size, or a native type.
    kind: String,
    /// The GPU by its own name.
    gpu: Option<String>,
    /// The GPU as the user wrote it.
    written: String,
}

impl Wish {
    fn read(catalog: &Catalog, entry: &Entry, cloud_type: &str, gpu: Option<&str>) -> Result<Self> {
        let lower = cloud_type.trim().to_ascii_lowercase();
        let (kind, own) = lower
            .split_once('+')
            .map_or((lower.as_str(), None), |(kind, gpu)| (kind, Some(gpu)));
        let option = gpu.map(|gpu| gpu.trim().to_ascii_lowercase());
        let option = option.as_deref().filter(|gpu| !gpu.is_empty() && *gpu != NO_GPU);
        let named = |gpu: &str| catalog.aliases.get(gpu).map_or_else(|| gpu.to_owned(), String::clone);
        if let (Some(own), Some(option)) = (own, option)
            && named(own) != named(option)
        {
            return Err(Failure::new(
                Class::Usage,
                format!("`--cloud-type={cloud_type}` and `--cloud-gpu={option}` name two different GPUs"),
            )
            .hint("give the GPU once")
            .into());
        }
        let written = own.or(option).unwrap_or_default().to_owned();
        let gpu = (!written.is_empty()).then(|| named(&written));
        let known = entry.gpus();
        if let Some(gpu) = gpu.as_ref().filter(|gpu| !known.contains(gpu)) {
            return Err(Failure::new(Class::Usage, format!("the GPU `{gpu}` is not known"))
                .hint(format!(
                    "known: {NO_GPU}, {}, {}; or give a native `--cloud-type`",
                    known.join(", "),
                    catalog.aliases.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
                ))
                .into());
        }
        Ok(Self {
            kind: kind.to_owned(),
            gpu,
            written,
        })
    }

    /// Native types have a family and a size.
    fn is_native(&self) -> bool {
        self.kind.contains('.')
    }

    fn key(&self) -> String {
        self.gpu
            .as_ref()
            .map_or_else(|| self.kind.clone(), |gpu| format!("{}+{gpu}", self.kind))
    }
}

impl Entry {
    /// Every GPU that a generic type may have.
    fn gpus(&self) -> Vec<String> {
        let mut gpus: Vec<String> = self
            .types
            .keys()
            .filter_map(|key| key.split_once('+'))
            .map(|(_, gpu)| gpu.to_owned())
            .collect();
        gpus.sort();
        gpus.dedup();
        gpus
    }

    fn candidate(&self, native: &str) -> Candidate {
        let family = Family::of(native);
        let known = self.families.get(family.name).cloned();
        Candidate {
            native: native.to_owned(),
            arch: family.arch(),
            gpu: known.or_else(|| family.is_accelerated().then(|| family.name.to_owned())),
        }
    }

    fn refuse(&self, cloud: CloudKind, wish: &Wish) -> Failure {
        let is_size = self.types.contains_key(&wish.kind);
        let sizes = |gpu: Option<&str>| -> Vec<&str> {
            let keys = self
                .types
                .keys()
                .map(|key| key.split_once('+').map_or((key.as_str(), None), |(size, gpu)| (size, Some(gpu))));
            keys.filter(|(_, other)| *other == gpu).map(|(size, _)| size).collect()
        };
        match &wish.gpu {
            Some(gpu) if is_size => Failure::new(
                Class::Usage,
                format!("{cloud} has no machine of size `{}` with the GPU {gpu}", wish.kind),
            )
            .hint(format!(
                "sizes with that GPU: {}; or give a native `--cloud-type`",
                sizes(Some(gpu)).join(", ")
            )),
            _ => Failure::new(Class::Usage, format!("`{}` is no machine type of {cloud}", wish.kind)).hint(format!(
                "give `--cloud-type` a generic size ({}, with a GPU as in m+t4), or a native type such as {}",
                sizes(None).join(", "),
                self.types.values().flatten().next().map_or("", String::as_str)
            )),
        }
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
    fn of(native: &'a str) -> Self {
        let name = native.split_once('.').map_or(native, |(family, _)| family);
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

#[cfg(test)]
mod tests;
