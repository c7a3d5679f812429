//! What is sent and what comes back: the few fields of [Compute Engine's schemas][schemas] that matter here.
//!
//! [schemas]: https://docs.cloud.google.com/compute/docs/reference/rest/v1/instances

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An instance to insert.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Insert {
    pub name: String,
    pub machine_type: String,
    pub disks: Vec<Disk>,
    pub network_interfaces: Vec<Interface>,
    pub scheduling: Scheduling,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guest_accelerators: Vec<Accelerator>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccount>,
    pub metadata: Metadata,
    pub labels: BTreeMap<String, String>,
}

/// The boot disk, which goes with its instance.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    pub boot: bool,
    pub auto_delete: bool,
    pub initialize_params: DiskParams,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskParams {
    pub disk_name: String,
    pub source_image: String,
    /// A string: it is an int64.
    pub disk_size_gb: String,
    pub disk_type: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnetwork: Option<String>,
    pub access_configs: Vec<AccessConfig>,
}

/// An external address.
#[derive(Debug, Serialize)]
pub struct AccessConfig {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    pub provisioning_model: &'static str,
    pub instance_termination_action: &'static str,
    pub max_run_duration: Seconds,
    pub on_host_maintenance: &'static str,
    pub automatic_restart: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemption_notice_duration: Option<Seconds>,
}

/// A `Duration`; a string, since it is an int64.
#[derive(Debug, Serialize)]
pub struct Seconds {
    pub seconds: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accelerator {
    pub accelerator_type: String,
    pub accelerator_count: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceAccount {
    pub email: String,
    pub scopes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Metadata {
    pub items: Vec<Item>,
}

/// It may hold the start-up data, and with it a credential: its value is never shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct Item {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.key, self.value.len())
    }
}

/// An instance as it is told of.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Found {
    pub name: String,
    pub zone: String,
    pub machine_type: String,
    pub status: String,
    pub status_message: String,
    pub creation_timestamp: String,
    pub scheduling: FoundScheduling,
    pub guest_accelerators: Vec<FoundAccelerator>,
    pub network_interfaces: Vec<FoundInterface>,
    pub metadata: FoundMetadata,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FoundScheduling {
    pub provisioning_model: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FoundAccelerator {
    pub accelerator_type: String,
    pub accelerator_count: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FoundInterface {
    #[serde(rename = "networkIP")]
    pub network_ip: Option<String>,
    pub access_configs: Vec<FoundAccess>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct FoundAccess {
    #[serde(rename = "natIP")]
    pub nat_ip: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct FoundMetadata {
    pub items: Vec<Item>,
}

/// One page of a list over all zones: by `zones/NAME`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aggregated<T> {
    #[serde(default = "BTreeMap::new")]
    pub items: BTreeMap<String, T>,
    pub next_page_token: Option<String>,
}

/// The part of a zone.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scoped {
    pub instances: Vec<Found>,
    pub machine_types: Vec<Offer>,
    pub accelerator_types: Vec<Offer>,
    pub warning: Option<Warning>,
}

#[derive(Debug, Deserialize)]
pub struct Warning {
    #[serde(default)]
    pub code: String,
}

/// A machine type or an accelerator type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Offer {
    pub deprecated: Option<Deprecated>,
}

impl Offer {
    /// Whether it can still be had: what is only deprecated can.
    pub fn is_there(&self) -> bool {
        let state = self.deprecated.as_ref().map_or("", |deprecated| &deprecated.state);
        !matches!(state, "OBSOLETE" | "DELETED")
    }
}

#[derive(Debug, Deserialize)]
pub struct Deprecated {
    #[serde(default)]
    pub state: String,
}

#[derive(Debug, Deserialize)]
pub struct Region {
    /// Their addresses.
    #[serde(default)]
    pub zones: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    pub self_link: String,
    /// A number as a string.
    #[serde(default)]
    pub disk_size_gb: String,
    pub architecture: Option<String>,
}

/// An operation: what was asked for has been done only when it is, and without an error.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    pub name: String,
    pub status: String,
    pub insert_time: Option<String>,
    pub http_error_status_code: Option<u16>,
    pub error: Option<OperationErrors>,
}

#[derive(Debug, Deserialize)]
pub struct OperationErrors {
    #[serde(default)]
    pub errors: Vec<OperationError>,
}

#[derive(Debug, Deserialize)]
pub struct OperationError {
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub message: String,
}

/// The body of a refusal.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    pub error: RefusalError,
}

#[derive(Debug, Deserialize)]
pub struct RefusalError {
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub errors: Vec<RefusalReason>,
    #[serde(default)]
    pub status: String,
}

#[derive(Debug, Deserialize)]
pub struct RefusalReason {
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Deserialize)]
pub struct Console {
    #[serde(default)]
    pub contents: String,
}

/// The last part of an address, which is a name.
pub fn last(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
