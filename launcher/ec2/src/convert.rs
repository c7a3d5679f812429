//! From the SDK's types to ours.

use aws_sdk_ec2::types;
use aws_smithy_types::date_time::Format;

use crate::{Group, Image, Instance, Subnet};

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

pub fn image(image: &types::Image) -> Image {
    let root_device = text(image.root_device_name());
    let root = image
        .block_device_mappings()
        .iter()
        .find(|mapping| mapping.device_name() == Some(&root_device));
    Image {
        id: text(image.image_id()),
        name: text(image.name()),
        arch: image.architecture().map(|arch| arch.as_str().to_owned()).unwrap_or_default(),
        root_gib: root.and_then(|mapping| mapping.ebs()?.volume_size()).unwrap_or_default(),
        root_device,
        created: text(image.creation_date()),
    }
}

pub fn subnet(subnet: &types::Subnet) -> Subnet {
    Subnet {
        id: text(subnet.subnet_id()),
        zone: text(subnet.availability_zone()),
        vpc: text(subnet.vpc_id()),
    }
}

pub fn group(group: &types::SecurityGroup) -> Group {
    Group {
        id: text(group.group_id()),
        vpc: text(group.vpc_id()),
    }
}

pub fn instance(instance: &types::Instance) -> Instance {
    let ip = [instance.public_ip_address(), instance.private_ip_address()]
        .into_iter()
        .flatten()
        .find(|ip| !ip.is_empty());
    let reason = instance
        .state_reason()
        .and_then(|reason| reason.message().or_else(|| reason.code()));
    Instance {
        id: text(instance.instance_id()),
        ip: ip.map(str::to_owned),
        kind: instance.instance_type().map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        zone: instance
            .placement()
            .and_then(|placement| placement.availability_zone())
            .map(str::to_owned),
        image: text(instance.image_id()),
        spot: instance.instance_lifecycle().is_some_and(|life| life.as_str() == "spot"),
        launched_at: instance
            .launch_time()
            .and_then(|time| time.fmt(Format::DateTime).ok())
            .unwrap_or_default(),
        state: instance
            .state()
            .and_then(|state| state.name())
            .map(|name| name.as_str().to_owned())
            .unwrap_or_default(),
        reason: reason.filter(|reason| !reason.is_empty()).map(str::to_owned),
        tags: instance
            .tags()
            .iter()
            .filter_map(|tag| Some((tag.key()?.to_owned(), text(tag.value()))))
            .collect(),
    }
}

/// Consoles hold whatever a kernel wrote: what is no text is replaced.
pub fn console(encoded: &str) -> String {
    let packed: String = encoded.split_whitespace().collect();
    let bytes = aws_smithy_types::base64::decode(packed).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
