//! The one request that makes a machine: everything of it is in its body.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::body::{Accelerator, Disk, DiskParams, Insert, Item, Metadata, Scheduling, Seconds};
use super::place::Target;
use super::{names, network, service_account};
use crate::cloud::{LONGEST_LIFE, Order};

/// The label that all of ours have, whatever its value.
pub const OURS: &str = "cml";
/// The label, and the metadata item, of a launch.
pub const LAUNCH_ID: &str = "cml-launch-id";
/// The metadata item that says what the machine was made from: Compute Engine itself forgets it.
pub const IMAGE: &str = "cml-image";

/// Where the guest looks for the script that it [runs as root][startup].
///
/// [startup]: https://docs.cloud.google.com/compute/docs/instances/startup-scripts/linux
const STARTUP: &str = "startup-script";

/// Ten seconds shy of the longest that [`maxRunDuration`][limit] may be, and the shortest.
///
/// [limit]: https://docs.cloud.google.com/compute/docs/instances/limit-vm-runtime#restrictions
const LIFE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_hours(120 * 24));

/// How long a spot machine is told before it is stopped: [nothing or this][notice], in seconds.
///
/// [notice]: https://docs.cloud.google.com/compute/docs/instances/create-use-spot#preemption-notice
const NOTICE: u64 = 120;

/// Whether the tag is one of ours, and so a metadata item: labels have no capitals, dots or slashes.
pub fn is_own(tag: &str) -> bool {
    tag == OURS || tag == "Name" || tag.starts_with("cml-")
}

/// The body of an attempt, for a machine of this name.
pub fn insert(order: &Order, target: &Target, name: &str, attempt: usize) -> Result<Insert> {
    let options = &order.options;
    let machine = &target.machine;
    let zone = &target.zone;
    let mut labels = names::labels(&options.cloud_metadata)?;
    labels.insert(OURS.into(), names::slug(order.tags.get(OURS).map_or("", String::as_str)));
    labels.insert(LAUNCH_ID.into(), names::slug(&order.launch_id));
    let account = options.cloud_permission_set.as_deref().map(service_account::read).transpose()?;
    let accelerator = machine.accelerator.as_ref().map(|accelerator| Accelerator {
        accelerator_type: format!("zones/{zone}/acceleratorTypes/{}", accelerator.name),
        accelerator_count: accelerator.count,
    });
    Ok(Insert {
        name: name.to_owned(),
        machine_type: format!("zones/{zone}/machineTypes/{}", machine.name),
        disks: vec![Disk {
            boot: true,
            auto_delete: true,
            initialize_params: DiskParams {
                // A disk that has the name already would be attached, with all that somebody left on it.
                disk_name: format!("{}-{attempt}", names::slug(&order.launch_id)),
                source_image: target.image.clone(),
                disk_size_gb: disk_gb(order, target).to_string(),
                disk_type: format!("zones/{zone}/diskTypes/{}", machine.disk()),
                labels: labels.clone(),
            },
        }],
        network_interfaces: vec![network::interface(options.cloud_gcp_network.as_deref())?],
        scheduling: scheduling(order, target),
        guest_accelerators: accelerator.into_iter().collect(),
        service_accounts: account.into_iter().collect(),
        metadata: metadata(order, target),
        labels,
    })
}

/// In GB: what the user wants, but never less than the image needs.
pub fn disk_gb(order: &Order, target: &Target) -> u32 {
    order.options.cloud_hdd_size.max(target.image_gb)
}

fn scheduling(order: &Order, target: &Target) -> Scheduling {
    let is_spot = order.options.cloud_spot;
    let stays = is_spot || !target.machine.is_moved();
    Scheduling {
        provisioning_model: if is_spot { "SPOT" } else { "STANDARD" },
        instance_termination_action: "DELETE",
        max_run_duration: seconds(life(order).as_secs()),
        on_host_maintenance: if stays { "TERMINATE" } else { "MIGRATE" },
        automatic_restart: false,
        preemption_notice_duration: is_spot.then(|| seconds(NOTICE)),
    }
}

/// How long the cloud lets the machine live, whatever becomes of the agent.
pub fn life(order: &Order) -> Duration {
    order.lifetime.unwrap_or(LONGEST_LIFE).clamp(LIFE.0, LIFE.1)
}

fn seconds(seconds: u64) -> Seconds {
    Seconds {
        seconds: seconds.to_string(),
    }
}

fn metadata(order: &Order, target: &Target) -> Metadata {
    let item = |key: &str, value: &str| Item {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let own: BTreeMap<&str, &str> = order
        .tags
        .iter()
        .filter(|(key, _)| is_own(key))
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .chain([(IMAGE, target.image.as_str())])
        .collect();
    let fixed = [
        // The keys of the project's people are no way into a machine that holds a credential.
        item("block-project-ssh-keys", "TRUE"),
        item(STARTUP, &order.startup_data),
    ];
    Metadata {
        items: own.into_iter().map(|(key, value)| item(key, value)).chain(fixed).collect(),
    }
}

/// A new id for a request: the same one twice is one request. A version 4 UUID, in which Google takes nothing else.
pub fn id() -> String {
    let random = fastrand::u128(..);
    let hex = format!("{random:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-4{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn an_id_is_a_uuid_and_new() {
        let (one, other) = (super::id(), super::id());
        assert_ne!(one, other);
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(one.chars().all(|c| c == '-' || c.is_ascii_hexdigit()), "{one}");
    }
}
