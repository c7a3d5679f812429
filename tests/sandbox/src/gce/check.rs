//! What Compute Engine would refuse.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::answers::{Refusal, invalid};
use super::{PROJECT, offers};

/// The longest value, and all of the items together, in bytes.
const METADATA: (usize, usize) = (256 << 10, 512 << 10);
/// What a machine may live at all, in seconds.
const LIFE: std::ops::RangeInclusive<u64> = 30..=120 * 24 * 3600;
/// The smallest disk, in GB.
const DISK: u64 = 10;

/// An instance to insert, as far as it is known here; nothing else is taken.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Insert {
    name: String,
    machine_type: String,
    disks: Vec<Disk>,
    network_interfaces: Vec<Interface>,
    scheduling: Scheduling,
    #[serde(default)]
    guest_accelerators: Vec<Accelerator>,
    #[serde(default)]
    service_accounts: Vec<Account>,
    metadata: Items,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Disk {
    boot: bool,
    #[serde(default)]
    auto_delete: bool,
    initialize_params: DiskParams,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DiskParams {
    disk_name: Option<String>,
    source_image: String,
    disk_size_gb: String,
    disk_type: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Interface {
    network: Option<String>,
    subnetwork: Option<String>,
    #[serde(default)]
    access_configs: Vec<Access>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Access {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "name")]
    _name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Scheduling {
    provisioning_model: String,
    instance_termination_action: Option<String>,
    max_run_duration: Option<Seconds>,
    on_host_maintenance: String,
    automatic_restart: bool,
    preemption_notice_duration: Option<Seconds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seconds {
    seconds: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Accelerator {
    accelerator_type: String,
    accelerator_count: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    email: String,
    scopes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Items {
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    key: String,
    value: String,
}

/// Refuses an id that is no UUID, or none at all: then a lost answer would mean two machines.
pub fn request_id(id: &str) -> Result<(), Refusal> {
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    let is_uuid = lengths == [8, 4, 4, 4, 12] && id.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    if is_uuid && id.contains(|c: char| c != '-' && c != '0') {
        return Ok(());
    }
    Err(invalid("requestId", id, "It must be a valid UUID, and not zero."))
}

/// Refuses an instance that Compute Engine would refuse.
pub fn insert(zone: &str, body: &Value, base: &str) -> Result<(), Refusal> {
    let insert: Insert =
        serde_json::from_value(body.clone()).map_err(|why| Refusal(400, "invalid", format!("Invalid JSON payload received. {why}")))?;
    if !is_name(&insert.name) {
        return Err(invalid(
            "name",
            &insert.name,
            "Must be a match of regex '[a-z]([-a-z0-9]{0,61}[a-z0-9])?'",
        ));
    }
    labels(&insert.labels)?;
    let machine = machine(zone, &insert)?;
    disk(zone, &insert, &machine, base)?;
    scheduling(&insert, &machine)?;
    interface(&insert)?;
    metadata(&insert.metadata)?;
    let is_account = |account: &Account| account.email.contains('@') && !account.scopes.is_empty();
    if insert.service_accounts.len() > 1 || !insert.service_accounts.iter().all(is_account) {
        return Err(invalid("serviceAccounts[0]", "", "One account, with scopes."));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain) && !name.ends_with('-')
}

fn labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let legal =
        |text: &str| text.chars().count() <= 63 && text.chars().all(|c| "-_".contains(c) || (c.is_alphanumeric() && !c.is_uppercase()));
    let is_legal = |(key, value): (&String, &String)| legal(key) && legal(value) && key.starts_with(char::is_alphabetic);
    if labels.len() > 64 || !labels.iter().all(is_legal) {
        return Err(invalid(
            "labels",
            &format!("{labels:?}"),
            "Label keys and values have lower-case letters, digits, dashes and underscores.",
        ));
    }
    Ok(())
}

/// The machine type's name.
fn machine(zone: &str, insert: &Insert) -> Result<String, Refusal> {
    let path = format!("zones/{zone}/machineTypes/");
    let name = insert.machine_type.strip_prefix(&path).unwrap_or_default();
    if !offers::has_machine(zone, name) {
        return Err(invalid(
            "machineType",
            &insert.machine_type,
            &format!("The referenced resource does not exist: Machine type with name '{name}' does not exist in zone '{zone}'."),
        ));
    }
    for accelerator in &insert.guest_accelerators {
        let kind = accelerator
            .accelerator_type
            .strip_prefix(&format!("zones/{zone}/acceleratorTypes/"))
            .unwrap_or_default();
        if !offers::has_accelerator(zone, kind) {
            let message = format!("The resource 'projects/{PROJECT}/zones/{zone}/acceleratorTypes/{kind}' was not found");
            return Err(Refusal(404, "notFound", message));
        }
        let takes_gpus = name.starts_with("n1-") || name.starts_with("custom-");
        if !takes_gpus || ![1, 2, 4, 8].contains(&accelerator.accelerator_count) {
            return Err(invalid(
                "guestAccelerators",
                kind,
                "GPUs can be attached to N1 machines only, in powers of two.",
            ));
        }
    }
    Ok(name.to_owned())
}

fn disk(zone: &str, insert: &Insert, machine: &str, base: &str) -> Result<(), Refusal> {
    let [disk] = insert.disks.as_slice() else {
        return Err(invalid("disks", "", "One boot disk is expected here."));
    };
    let params = &disk.initialize_params;
    if !disk.boot || !disk.auto_delete {
        return Err(invalid("disks[0]", "", "A disk that stays is never asked for here."));
    }
    if params.disk_name.as_deref().is_some_and(|name| !is_name(name)) {
        return Err(invalid("disks[0].initializeParams.diskName", "", "Not a name."));
    }
    labels(&params.labels)?;
    let Some(image) = offers::image_of(&params.source_image, base) else {
        return Err(invalid(
            "disks[0].initializeParams.sourceImage",
            &params.source_image,
            "The referenced image resource cannot be found.",
        ));
    };
    let arch = if machine.starts_with("t2a-") || machine.starts_with("c4a-") {
        "ARM64"
    } else {
        "X86_64"
    };
    if image.arch != arch {
        return Err(invalid(
            "disks[0]",
            image.arch,
            "The image's architecture is not the machine type's.",
        ));
    }
    let size = params.disk_size_gb.parse::<u64>().unwrap_or_default();
    if size < image.gigabytes.max(DISK) {
        let why = format!("Requested disk size cannot be smaller than the image size ({} GB)", image.gigabytes);
        return Err(invalid("disks[0].initializeParams.diskSizeGb", &params.disk_size_gb, &why));
    }
    let kinds = ["pd-balanced", "pd-ssd", "pd-standard", "hyperdisk-balanced"];
    let kind = params
        .disk_type
        .strip_prefix(&format!("zones/{zone}/diskTypes/"))
        .unwrap_or_default();
    if !kinds.contains(&kind) {
        return Err(invalid(
            "disks[0].initializeParams.diskType",
            &params.disk_type,
            "The referenced diskType resource cannot be found.",
        ));
    }
    Ok(())
}

fn scheduling(insert: &Insert, machine: &str) -> Result<(), Refusal> {
    let scheduling = &insert.scheduling;
    let is_spot = scheduling.provisioning_model == "SPOT";
    let refuse = |field: &str, why: &str| Err(invalid(&format!("scheduling.{field}"), "", why));
    if !is_spot && scheduling.provisioning_model != "STANDARD" {
        return refuse("provisioningModel", "SPOT or STANDARD");
    }
    let has_gpus = !insert.guest_accelerators.is_empty() || ["a2-", "g2-"].iter().any(|family| machine.starts_with(family));
    match scheduling.on_host_maintenance.as_str() {
        "MIGRATE" if is_spot || has_gpus => {
            return refuse(
                "onHostMaintenance",
                "Instances with guest accelerators or spot do not support live migration.",
            );
        }
        "TERMINATE" | "MIGRATE" => {}
        _ => return refuse("onHostMaintenance", "MIGRATE or TERMINATE"),
    }
    if is_spot && scheduling.automatic_restart {
        return refuse("automaticRestart", "Automatic restart cannot be set for spot instances.");
    }
    match (&scheduling.preemption_notice_duration, is_spot) {
        (Some(notice), true) if ["0", "120"].contains(&notice.seconds.as_str()) => {}
        (None, _) => {}
        _ => return refuse("preemptionNoticeDuration", "0 or 120 seconds, for spot instances."),
    }
    if let Some(life) = &scheduling.max_run_duration {
        if scheduling
            .instance_termination_action
            .as_deref()
            .is_none_or(|action| !["DELETE", "STOP"].contains(&action))
        {
            return refuse("instanceTerminationAction", "It is required with maxRunDuration.");
        }
        if !life.seconds.parse().is_ok_and(|life: u64| LIFE.contains(&life)) {
            return refuse("maxRunDuration", "Between 30 seconds and 120 days.");
        }
    }
    Ok(())
}

fn interface(insert: &Insert) -> Result<(), Refusal> {
    let [interface] = insert.network_interfaces.as_slice() else {
        return Err(invalid("networkInterfaces", "", "One interface is expected here."));
    };
    let has_network = match (&interface.network, &interface.subnetwork) {
        (Some(network), None) => network == "global/networks/default",
        (None, Some(subnetwork)) => subnetwork.ends_with("/subnetworks/ci"),
        _ => false,
    };
    if !has_network {
        let named = interface.network.as_deref().unwrap_or_default();
        return Err(invalid(
            "networkInterfaces[0].network",
            named,
            "The referenced network resource cannot be found.",
        ));
    }
    if !interface.access_configs.iter().all(|access| access.kind == "ONE_TO_ONE_NAT") {
        return Err(invalid("networkInterfaces[0].accessConfigs[0].type", "", "ONE_TO_ONE_NAT"));
    }
    Ok(())
}

fn metadata(metadata: &Items) -> Result<(), Refusal> {
    let is_key = |key: &str| !key.is_empty() && key.len() < 128 && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let is_wrong = |item: &Item| !is_key(&item.key) || item.value.len() > METADATA.0;
    let all: usize = metadata.items.iter().map(|item| item.key.len() + item.value.len()).sum();
    if metadata.items.iter().any(is_wrong) || all > METADATA.1 {
        return Err(invalid(
            "metadata",
            "",
            "Metadata keys or values are too long, or have other characters.",
        ));
    }
    Ok(())
}
