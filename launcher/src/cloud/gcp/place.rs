//! What an order can be made of: for each candidate type the zones that have it, and an image.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::Platform;
use common::spec::CloudKind;

use super::body::{self, Image, last};
use super::compute::Compute;
use super::error::{Error, Kind};
use super::machine::Machine;
use super::refusal;
use crate::catalog::{self, Candidate};
use crate::cloud::Order;

/// One attempt: a type with its image, in a zone.
#[derive(Debug, Clone)]
pub struct Target {
    /// The type.
    pub machine: Machine,
    /// In which zone.
    pub zone: String,
    /// The image's address.
    pub image: String,
    /// What it needs at least, in GB.
    pub image_gb: u32,
}

/// All attempts, in order: the best type in every zone that has it, then the next.
pub async fn targets(compute: &Compute, order: &Order) -> Result<Vec<Target>> {
    let options = &order.options;
    let candidates = catalog::resolve(CloudKind::Gcp, &options.cloud_type, options.cloud_gpu.as_deref())?;
    let first = candidates.first().context("the machine type has no candidates")?;
    let place = catalog::region(CloudKind::Gcp, &options.cloud_region)?;
    let machines = candidates.iter().map(|candidate| Machine::read(&candidate.native));
    let machines = machines.collect::<Result<Vec<_>>>()?;
    // A table row is of one processor, and either has GPUs or has none: one image fits all of it.
    let (image, zones, offers) = tokio::try_join!(
        image(compute, options.cloud_image.as_deref(), first),
        zones(compute, &place),
        offers(compute, &machines)
    )?;
    let mut targets = Vec::new();
    for machine in &machines {
        for zone in zones.iter().filter(|zone| offers.has(machine, zone)) {
            targets.push(Target {
                machine: machine.clone(),
                zone: zone.clone(),
                image: image.self_link.clone(),
                image_gb: image.disk_size_gb.parse().unwrap_or_default(),
            });
        }
    }
    if targets.is_empty() {
        return Err(unoffered(&machines, place.zone.as_deref().unwrap_or(&place.region), &offers).into());
    }
    Ok(targets)
}

/// The zone that was asked for, else every zone of the region.
async fn zones(compute: &Compute, place: &catalog::Place) -> Result<Vec<String>> {
    if let Some(zone) = &place.zone {
        return Ok(vec![zone.clone()]);
    }
    let found = compute.region(&place.region).await.map_err(|error| match error.kind() {
        Kind::NotFound => refusal::usage(
            error,
            format!("there is no region {} for the project {}", place.region, compute.project()),
            "check `--cloud-region`, and the project (GOOGLE_CLOUD_PROJECT)",
        ),
        _ => refusal::of("regions.get", error),
    })?;
    let mut zones: Vec<String> = found.zones.iter().map(|zone| body::last(zone).to_owned()).collect();
    zones.sort();
    Ok(zones)
}

/// Where types are offered: each name with its zones. A type that is not in it is offered anywhere, as far as is known.
struct Offers(BTreeMap<String, Vec<String>>);

impl Offers {
    fn has(&self, machine: &Machine, zone: &str) -> bool {
        self.zones(machine).all(|zones| zones.iter().any(|one| one == zone))
    }

    /// The zones of each of its parts.
    fn zones(&self, machine: &Machine) -> impl Iterator<Item = &Vec<String>> {
        machine.parts().filter_map(|part| self.0.get(part))
    }
}

/// Asks for every machine type, but those of the user's own measure, which no list has, and for every accelerator.
async fn offers(compute: &Compute, machines: &[Machine]) -> Result<Offers> {
    let mut known = BTreeMap::new();
    for machine in machines {
        if !machine.is_custom() && !known.contains_key(&machine.name) {
            let zones = compute.zones_of_machine(&machine.name).await;
            known.insert(
                machine.name.clone(),
                zones.map_err(|error| refusal::of("machineTypes.aggregatedList", error))?,
            );
        }
        if let Some(accelerator) = machine.accelerator.as_ref().filter(|one| !known.contains_key(&one.name)) {
            let zones = compute.zones_of_accelerator(&accelerator.name).await;
            let zones = zones.map_err(|error| refusal::of("acceleratorTypes.aggregatedList", error))?;
            known.insert(accelerator.name.clone(), zones);
        }
    }
    Ok(Offers(known))
}

/// No zone there has any of the types.
fn unoffered(machines: &[Machine], place: &str, offers: &Offers) -> Failure {
    /// Zones that are named, so that the line can be read.
    const NAMED: usize = 8;
    let types: Vec<String> = machines.iter().map(ToString::to_string).collect();
    let mut elsewhere: Vec<&String> = machines
        .iter()
        .filter_map(|machine| offers.zones(machine).min_by_key(|zones| zones.len()))
        .flatten()
        .collect();
    elsewhere.sort();
    elsewhere.dedup();
    let hint = match elsewhere.get(..NAMED.min(elsewhere.len())) {
        Some(named @ [_, ..]) => {
            let named: Vec<&str> = named.iter().map(|zone| zone.as_str()).collect();
            let more = if elsewhere.len() > named.len() { ", …" } else { "" };
            format!("zones that have it: {}{more}; choose one with `--cloud-region`", named.join(", "))
        }
        _ => "no zone of this project has it: check `--cloud-type` and `--cloud-gpu`".to_owned(),
    };
    Failure::new(Class::Usage, format!("{place} has no machines of the type {}", types.join(" or "))).hint(hint)
}

/// Compute Engine's word for a processor.
const fn arch(platform: Platform) -> &'static str {
    match platform {
        Platform::X64 => "X86_64",
        Platform::Arm64 => "ARM64",
    }
}

/// The user's image, else the catalog's: the newest of its family. A name belongs to a project, the user's own unless another one is named:
/// anybody may publish an image under any name.
async fn image(compute: &Compute, wanted: Option<&str>, candidate: &Candidate) -> Result<Image> {
    let (project, name, is_family) = if let Some(text) = wanted {
        read_image(text, compute.project())?
    } else {
        let query = catalog::image(CloudKind::Gcp, candidate.gpu.is_some())?;
        let family = query.pattern(candidate.arch).to_owned();
        (query.owner, family, Some(true))
    };
    let mut found = match is_family {
        Some(false) => compute.image(&project, &name).await,
        _ => compute.image_of_family(&project, &name).await,
    };
    if is_family.is_none() && found.as_ref().is_err_and(|error| error.kind() == Kind::NotFound) {
        found = compute.image(&project, &name).await;
    }
    let image = found.map_err(|error| not_found(error, &project, &name))?;
    let arch = arch(candidate.arch);
    match image.architecture.as_deref() {
        Some(own) if own != arch && own != "ARCHITECTURE_UNSPECIFIED" => {
            let name = last(&image.self_link);
            let message = format!("the image {name} is for {own}, the machine type {} is {arch}", candidate.native);
            let failure = Failure::new(Class::Usage, message);
            Err(failure.hint("choose another `--cloud-type` or `--cloud-image`").into())
        }
        _ => Ok(image),
    }
}

fn not_found(error: Error, project: &str, name: &str) -> anyhow::Error {
    match error.kind() {
        Kind::NotFound => refusal::usage(
            error,
            format!("the project {project} has no image and no image family `{name}`"),
            "`--cloud-image` is `PROJECT/FAMILY` or `PROJECT/IMAGE`, or one of your own project's by its name",
        ),
        _ => refusal::of("images.get", error),
    }
}

/// Project, name, and whether it is that of a family; none where it may be either.
fn read_image(text: &str, own: &str) -> Result<(String, String, Option<bool>)> {
    let path = text.split_once("/compute/v1/").map_or(text, |(_, path)| path);
    let parts: Vec<&str> = path.trim_start_matches("projects/").split('/').collect();
    let (project, name, is_family) = match parts.as_slice() {
        [name] => (own, *name, None),
        [project, name] => (*project, *name, None),
        [project, "global", "images", "family", name] => (*project, *name, Some(true)),
        [project, "global", "images", name] => (*project, *name, Some(false)),
        _ => ("", "", None),
    };
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_plain = |text: &str| text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || "-.:".contains(c));
    if is_plain(project) && is_plain(name) {
        return Ok((project.to_owned(), name.to_owned(), is_family));
    }
    Err(Failure::new(Class::Usage, format!("`--cloud-image={text}` is no image of Google Cloud's"))
        .hint("write `PROJECT/FAMILY` (its newest image) or `PROJECT/IMAGE`, as in `ubuntu-os-cloud/ubuntu-2404-lts-amd64`; there are no patterns")
        .into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::read_image;

    #[test]
    fn an_image_is_named_in_several_ways() {
        for (text, expected) in [
            ("mine", ("own", "mine", None)),
            (
                "ubuntu-os-cloud/ubuntu-2404-lts-amd64",
                ("ubuntu-os-cloud", "ubuntu-2404-lts-amd64", None),
            ),
            ("projects/p/global/images/i", ("p", "i", Some(false))),
            ("projects/p/global/images/family/f", ("p", "f", Some(true))),
            (
                "https://www.googleapis.com/compute/v1/projects/p/global/images/i",
                ("p", "i", Some(false)),
            ),
        ] {
            let (project, name, is_family) = read_image(text, "own").unwrap();
            assert_eq!((project.as_str(), name.as_str(), is_family), expected, "{text}");
        }
        for text in ["", "ubuntu-os-cloud/ubuntu-*", "a/b/c", "a//b", "../x", "ami-1/A"] {
            assert!(read_image(text, "own").is_err(), "{text}");
        }
    }
}
