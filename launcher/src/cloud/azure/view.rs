//! What Azure says of a launch's group and of the machine in it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use common::last_words;
use common::phase::{self, Phase};
use jiff::Timestamp;
use serde::Deserialize;

use crate::cloud::{Instance, LEGACY, Life};

/// A page of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: serde::de::DeserializeOwned")]
pub struct Page<T> {
    /// What is on it.
    pub value: Vec<T>,
    /// Where the next one is.
    pub next_link: Option<String>,
}

/// A resource group.
#[derive(Debug, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    location: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    properties: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct State {
    provisioning_state: String,
}

/// A virtual machine.
#[derive(Debug, Deserialize)]
pub struct Machine {
    #[serde(default)]
    zones: Vec<String>,
    #[serde(default)]
    properties: Properties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    provisioning_state: String,
    time_created: String,
    priority: String,
    hardware_profile: Hardware,
    storage_profile: Storage,
    instance_view: Option<Statuses>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Hardware {
    vm_size: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Storage {
    image_reference: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Statuses {
    statuses: Vec<Status>,
}

#[derive(Debug, Deserialize)]
struct Status {
    code: String,
}

/// A public address.
#[derive(Debug, Deserialize)]
pub struct Address {
    #[serde(default)]
    properties: AddressProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AddressProperties {
    ip_address: Option<String>,
}

/// Where the serial console's log is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostics {
    /// With a signature that lets whoever has it read: it is never shown.
    #[serde(default)]
    pub serial_console_log_blob_uri: Option<common::secret::Secret>,
}

impl Group {
    /// Whether a launch of ours made it: its name says the same as its tag. Somebody else's group that only has a tag of this name is not ours to delete.
    pub fn is_ours(&self) -> bool {
        let launch = self.tags.get(super::LAUNCH_ID);
        launch.is_some_and(|launch| super::place::name(launch) == self.name.to_ascii_lowercase())
    }

    /// Whether the old tool may have made it: by its name, and because no launch of ours did.
    pub fn may_be_legacy(&self) -> bool {
        !self.tags.contains_key(super::OURS) && LEGACY.iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// Whether it goes.
    pub fn is_going(&self) -> bool {
        self.properties.provisioning_state.eq_ignore_ascii_case("Deleting")
    }

    /// What its machine left to be done, as it would stand on the console that is gone with the machine.
    pub fn last_words(&self) -> Option<String> {
        let phase = Phase {
            name: phase::RERUN.to_owned(),
            state: phase::State::Fail,
            after: Duration::ZERO,
            detail: last_words::join(&self.tags)?,
        };
        Some(format!("{phase}\n"))
    }

    /// When its launcher gives it up.
    fn is_past_deadline(&self, now: Timestamp) -> bool {
        let deadline = self.tags.get("cml-deadline").and_then(|at| at.parse::<Timestamp>().ok());
        deadline.is_none_or(|deadline| now > deadline)
    }

    /// As an instance, with its machine if there is one.
    pub fn instance(self, machine: Option<&Machine>, ip: Option<String>, now: Timestamp) -> Instance {
        let (life, state) = self.life(machine, now);
        Instance {
            id: self.name,
            ip,
            kind: machine
                .map(|machine| machine.properties.hardware_profile.vm_size.clone())
                .unwrap_or_default(),
            zone: machine.and_then(|machine| Some(format!("{}-{}", self.location, machine.zones.first()?))),
            region: self.location,
            image: machine.map(Machine::image).unwrap_or_default(),
            spot: machine.is_some_and(|machine| machine.properties.priority.eq_ignore_ascii_case("Spot")),
            launched_at: machine.map(|machine| machine.properties.time_created.clone()).unwrap_or_default(),
            state,
            life,
            tags: self.tags,
        }
    }

    /// A machine that is only powered off costs all that it cost; what is left of one that is gone, next to nothing.
    fn life(&self, machine: Option<&Machine>, now: Timestamp) -> (Life, String) {
        if self.is_going() {
            return (Life::Gone, "deleting".to_owned());
        }
        let Some(machine) = machine else {
            return if self.last_words().is_some() {
                (Life::Stopped, "deleted".to_owned())
            } else if self.is_past_deadline(now) {
                (Life::Stopped, "evicted".to_owned())
            } else {
                (Life::Live, "no machine".to_owned())
            };
        };
        let state = machine.state();
        let life = match state.as_str() {
            "stopping" | "stopped" => Life::Off,
            "deallocating" | "deallocated" | "deleting" => Life::Stopped,
            _ => Life::Live,
        };
        (life, state)
    }
}

impl Machine {
    /// [Azure's word][states] for whether it has power, else how far its making is.
    ///
    /// [states]: https://learn.microsoft.com/en-us/azure/virtual-machines/states-billing
    fn state(&self) -> String {
        let made = self.properties.provisioning_state.to_ascii_lowercase();
        if made == "deleting" {
            return made;
        }
        let mut statuses = self.properties.instance_view.iter().flat_map(|view| &view.statuses);
        let power = statuses.find_map(|status| status.code.strip_prefix("PowerState/"));
        power.map_or(made, str::to_ascii_lowercase)
    }

    /// By the marketplace's four names, else by its id.
    fn image(&self) -> String {
        let image = &self.properties.storage_profile.image_reference;
        let text = |key: &str| image.get(key).and_then(|value| value.as_str());
        let urn: Vec<&str> = ["publisher", "offer", "sku", "version"]
            .iter()
            .filter_map(|key| text(key))
            .collect();
        if urn.is_empty() {
            let ids = ["id", "communityGalleryImageId", "sharedGalleryImageId"];
            return ids.iter().find_map(|key| text(key)).unwrap_or_default().to_owned();
        }
        urn.join(":")
    }
}

impl Address {
    /// None while it has none.
    pub fn ip(self) -> Option<String> {
        self.properties.ip_address
    }
}
