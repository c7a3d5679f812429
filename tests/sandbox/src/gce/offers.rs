//! What a project finds: regions, images, types.

use serde_json::{Value, json};

use super::answers::{Refusal, missing};

/// The regions, each with the zones a, b and c.
const REGIONS: [&str; 4] = ["europe-north1", "europe-west1", "us-east1", "us-west1"];
const ZONES: [&str; 3] = ["a", "b", "c"];

/// An image: its project, family, name, processor, and what it needs in GB.
pub struct Image {
    project: &'static str,
    family: &'static str,
    name: &'static str,
    /// `X86_64` or `ARM64`
    pub arch: &'static str,
    pub gigabytes: u64,
}

const IMAGES: [Image; 5] = [
    Image {
        project: "ubuntu-os-cloud",
        family: "ubuntu-2404-lts-amd64",
        name: "ubuntu-2404-noble-amd64-v20260901",
        arch: "X86_64",
        gigabytes: 10,
    },
    Image {
        project: "ubuntu-os-cloud",
        family: "ubuntu-2404-lts-amd64",
        name: "ubuntu-2404-noble-amd64-v20261001",
        arch: "X86_64",
        gigabytes: 10,
    },
    Image {
        project: "ubuntu-os-cloud",
        family: "ubuntu-2404-lts-arm64",
        name: "ubuntu-2404-noble-arm64-v20261001",
        arch: "ARM64",
        gigabytes: 10,
    },
    Image {
        project: "ubuntu-os-accelerator-images",
        family: "ubuntu-accelerator-2404-amd64-with-nvidia-580",
        name: "ubuntu-accelerator-2404-amd64-with-nvidia-580-v20261001",
        arch: "X86_64",
        gigabytes: 50,
    },
    Image {
        project: super::PROJECT,
        family: "mine",
        name: "mine-1",
        arch: "X86_64",
        gigabytes: 60,
    },
];

impl Image {
    fn link(&self, base: &str) -> String {
        format!("{base}projects/{}/global/images/{}", self.project, self.name)
    }

    fn json(&self, base: &str) -> Value {
        json!({
            "kind": "compute#image",
            "name": self.name,
            "family": self.family,
            "architecture": self.arch,
            "diskSizeGb": self.gigabytes.to_string(),
            "status": "READY",
            "selfLink": self.link(base),
        })
    }
}

/// The image that an address means.
pub fn image_of(link: &str, base: &str) -> Option<&'static Image> {
    IMAGES.iter().find(|image| {
        let own = image.link(base);
        link == own || own.ends_with(&format!("/{link}"))
    })
}

/// The last, which is the newest, of a family.
pub fn family(base: &str, project: &str, name: &str) -> Result<Value, Refusal> {
    let found = IMAGES.iter().rev().find(|image| image.project == project && image.family == name);
    let found = found.ok_or_else(|| missing(&format!("global/images/family/{name}")))?;
    Ok(found.json(base))
}

pub fn image(base: &str, project: &str, name: &str) -> Result<Value, Refusal> {
    let found = IMAGES.iter().find(|image| image.project == project && image.name == name);
    let found = found.ok_or_else(|| missing(&format!("global/images/{name}")))?;
    Ok(found.json(base))
}

fn zones(region: &str) -> impl Iterator<Item = String> {
    ZONES.into_iter().map(move |zone| format!("{region}-{zone}"))
}

/// Whether there is such a zone.
pub fn is_zone(zone: &str) -> bool {
    REGIONS.iter().any(|region| zones(region).any(|one| one == zone))
}

pub fn region(base: &str, project: &str, name: &str) -> Result<Value, Refusal> {
    if !REGIONS.contains(&name) {
        return Err(missing(&format!("regions/{name}")));
    }
    let links: Vec<String> = zones(name).map(|zone| format!("{base}projects/{project}/zones/{zone}")).collect();
    Ok(json!({"kind": "compute#region", "name": name, "status": "UP", "zones": links}))
}

/// A machine type, where it is not made to measure: the zones' letters that have it; none of one that there is not.
fn letters_of_machine(name: &str) -> Option<&'static str> {
    match name.split('-').next().unwrap_or_default() {
        "e2" | "n1" | "n2" => Some("abc"),
        "n2d" | "c4a" | "t2a" => Some("bc"),
        // GPUs are not everywhere.
        "g2" | "a2" => Some("b"),
        _ => None,
    }
}

fn letters_of_accelerator(name: &str) -> Option<&'static str> {
    match name {
        "nvidia-tesla-t4" => Some("ab"),
        "nvidia-tesla-v100" => Some("a"),
        "nvidia-l4" => Some("b"),
        _ => None,
    }
}

/// Whether a zone has a machine type.
pub fn has_machine(zone: &str, name: &str) -> bool {
    let is_custom = name.split('-').any(|part| part == "custom") && !name.ends_with('-');
    is_custom || letters_of_machine(name).is_some_and(|letters| zone.ends_with(|letter| letters.contains(letter)))
}

/// Whether a zone has an accelerator type.
pub fn has_accelerator(zone: &str, name: &str) -> bool {
    letters_of_accelerator(name).is_some_and(|letters| zone.ends_with(|letter| letters.contains(letter)))
}

/// `aggregated/machineTypes` or `aggregated/acceleratorTypes`, filtered by one name.
pub fn aggregated(kind: &str, filter: &str) -> Result<Value, Refusal> {
    let name = filter
        .strip_prefix("name = \"")
        .and_then(|rest| rest.strip_suffix('"'))
        .ok_or_else(|| {
            Refusal(
                400,
                "invalid",
                format!("Invalid value for field 'filter': '{filter}'. Invalid list filter expression."),
            )
        })?;
    let has: fn(&str, &str) -> bool = if kind == "machineTypes" { has_machine } else { has_accelerator };
    // What is made to measure is in no list.
    let is_listed = !name.contains("custom");
    let scopes = REGIONS.iter().flat_map(|region| zones(region)).map(|zone| {
        let scope = if is_listed && has(&zone, name) {
            json!({kind: [{"name": name}]})
        } else {
            empty(&zone)
        };
        (format!("zones/{zone}"), scope)
    });
    Ok(json!({"items": scopes.collect::<serde_json::Map<_, _>>()}))
}

/// What a list says of a zone that has none.
pub fn empty(zone: &str) -> Value {
    let message = format!("There are no results for scope 'zones/{zone}' on this page.");
    json!({"warning": {"code": "NO_RESULTS_ON_PAGE", "message": message}})
}

/// Every zone.
pub fn all_zones() -> Vec<String> {
    REGIONS.iter().flat_map(|region| zones(region)).collect()
}
