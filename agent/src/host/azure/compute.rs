//! What the metadata service says this machine is.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The part of the [compute document][docs] that is needed to look for notices and to go.
///
/// [docs]: https://learn.microsoft.com/en-us/azure/virtual-machines/instance-metadata-service#instance-metadata
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Compute {
    /// The machine's name, as notices call it.
    pub name: String,
    /// The group that goes with it.
    pub resource_group_name: String,
    /// The subscription that the group is in.
    pub subscription_id: String,
    /// Native type.
    pub vm_size: String,
    /// The region.
    pub location: String,
    /// `Regular`, `Spot` or empty.
    pub priority: String,
    az_environment: String,
    tags_list: Vec<Tag>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Tag {
    name: String,
    value: String,
}

/// The tags that the launcher gives a machine and its group.
const LAUNCH_ID: &str = "cml-launch-id";
const IDENTITY: &str = "cml-identity";

impl Compute {
    /// Whether it may be evicted at any time, with the shortest notice. What is not known may be.
    pub fn is_spot(&self) -> bool {
        !self.priority.eq_ignore_ascii_case("Regular")
    }

    /// Whether the group is this launch's own: its name says the same as the launcher's tag. Any other has things of somebody else in it.
    pub fn owns_group(&self) -> bool {
        !self.resource_group_name.is_empty()
            && self
                .tags()
                .get(LAUNCH_ID)
                .is_some_and(|launch| launch.eq_ignore_ascii_case(&self.resource_group_name))
    }

    /// The identity to be, where it is not the machine's own.
    pub fn identity(&self) -> Option<&str> {
        self.tags().get(IDENTITY).copied()
    }

    fn tags(&self) -> BTreeMap<&str, &str> {
        self.tags_list.iter().map(|tag| (tag.name.as_str(), tag.value.as_str())).collect()
    }

    /// Resource Manager's address in this machine's cloud ([names]).
    ///
    /// [names]: https://learn.microsoft.com/en-us/azure/virtual-machines/instance-metadata-service#sample-3-get-azure-environment-where-the-vm-is-running
    pub fn manager(&self) -> &'static str {
        match self.az_environment.to_ascii_lowercase().as_str() {
            "azureusgovernmentcloud" => "https://management.usgovcloudapi.net",
            "azurechinacloud" => "https://management.chinacloudapi.cn",
            _ => "https://management.azure.com",
        }
    }

    /// `/subscriptions/…/resourceGroups/…`
    pub fn group(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/{}",
            self.subscription_id, self.resource_group_name
        )
    }

    /// The machine alone.
    pub fn machine(&self) -> String {
        format!("{}/providers/Microsoft.Compute/virtualMachines/{}", self.group(), self.name)
    }
}
