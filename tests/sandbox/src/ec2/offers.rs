//! What an account finds in a region: images, subnets, groups, types.

use super::Form;
use super::answers::{Refusal, group, items, text};
use super::check::{self, refuse};
use super::run::{filters, list};
use crate::faults::matches;

/// An image.
pub struct Image {
    id: &'static str,
    owner: &'static str,
    name: &'static str,
    /// `x86_64` or `arm64`
    pub arch: &'static str,
    created: &'static str,
    /// The size of its root volume, in GiB.
    pub gigabytes: u32,
}

const fn image(
    id: &'static str,
    owner: &'static str,
    name: &'static str,
    arch: &'static str,
    created: &'static str,
    gigabytes: u32,
) -> Image {
    Image {
        id,
        owner,
        name,
        arch,
        created,
        gigabytes,
    }
}

const CANONICAL: &str = "099720109477";
const AMAZON: &str = "898082745236";
/// The account of the user, whose VPC this is.
const ACCOUNT: &str = "123456789012";

/// Two of each kind, so that "the newest" means something.
const IMAGES: &[Image] = &[
    image(
        "ami-0a11a11a11a11a110",
        CANONICAL,
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260101",
        "x86_64",
        "2026-01-01T00:00:00.000Z",
        8,
    ),
    image(
        "ami-0a11a11a11a11a111",
        CANONICAL,
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261001",
        "x86_64",
        "2026-10-01T00:00:00.000Z",
        8,
    ),
    image(
        "ami-0a11a11a11a11a112",
        CANONICAL,
        "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20261001",
        "arm64",
        "2026-10-01T00:00:00.000Z",
        8,
    ),
    image(
        "ami-0b22b22b22b22b220",
        AMAZON,
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20260901",
        "x86_64",
        "2026-09-01T00:00:00.000Z",
        75,
    ),
    image(
        "ami-0b22b22b22b22b221",
        AMAZON,
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261015",
        "x86_64",
        "2026-10-15T00:00:00.000Z",
        75,
    ),
    image(
        "ami-0b22b22b22b22b222",
        AMAZON,
        "Deep Learning ARM64 Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261015",
        "arm64",
        "2026-10-15T00:00:00.000Z",
        75,
    ),
];

/// The zones of every region.
pub const ZONES: [&str; 2] = ["a", "b"];
const VPC: &str = "vpc-0c33c33c33c33c330";
const GROUP: &str = "sg-0d44d44d44d44d440";

/// Whether a value passes a request's filter of this name.
fn passes(form: &Form, name: &str, value: &str) -> bool {
    filters(form)
        .get(name)
        .is_none_or(|allowed| allowed.iter().any(|pattern| matches(pattern, value)))
}

/// The root device of every image.
pub const ROOT_DEVICE: &str = "/dev/sda1";

/// An image that can be launched.
pub fn image_of(id: &str) -> Option<&'static Image> {
    IMAGES.iter().find(|image| image.id == id)
}

pub fn images(form: &Form) -> Result<String, Refusal> {
    let (ids, owners) = (list(form, "ImageId"), list(form, "Owner"));
    if let Some(unknown) = ids.iter().find(|id| image_of(id).is_none()) {
        return refuse("InvalidAMIID.NotFound", format!("The image id '[{unknown}]' does not exist"));
    }
    let wanted = |image: &&Image| {
        (ids.is_empty() || ids.iter().any(|id| id == image.id))
            && (owners.is_empty() || owners.iter().any(|owner| owner == image.owner))
            && [
                ("name", image.name),
                ("architecture", image.arch),
                ("state", "available"),
                ("owner-id", image.owner),
            ]
            .iter()
            .all(|(name, value)| passes(form, name, value))
    };
    Ok(items("imagesSet", IMAGES.iter().filter(wanted).map(describe)))
}

fn describe(image: &Image) -> String {
    let ebs = text("deleteOnTermination", "true") + &text("volumeSize", &image.gigabytes.to_string()) + &text("volumeType", "gp3");
    [
        text("imageId", image.id),
        text("imageState", "available"),
        text("imageOwnerId", image.owner),
        text("architecture", image.arch),
        text("imageType", "machine"),
        text("name", image.name),
        text("rootDeviceType", "ebs"),
        text("rootDeviceName", ROOT_DEVICE),
        text("creationDate", image.created),
        items("blockDeviceMapping", [text("deviceName", ROOT_DEVICE) + &group("ebs", &ebs)]),
    ]
    .concat()
}

/// The id of a region's default subnet in a zone.
pub fn subnet(region: &str, zone: &str) -> String {
    let number = region.bytes().map(u32::from).sum::<u32>();
    format!("subnet-0{number:08x}{}", zone.repeat(8))
}

/// The zone that a subnet of this region is in.
pub fn zone_of(region: &str, id: &str) -> Option<String> {
    ZONES
        .iter()
        .find(|zone| subnet(region, zone) == id)
        .map(|zone| format!("{region}{zone}"))
}

pub fn subnets(form: &Form, region: &str) -> Result<String, Refusal> {
    let ids = list(form, "SubnetId");
    if let Some(unknown) = ids.iter().find(|id| zone_of(region, id).is_none()) {
        return refuse("InvalidSubnetID.NotFound", format!("The subnet ID '{unknown}' does not exist"));
    }
    let wanted = |zone: &&&str| {
        let id = subnet(region, zone);
        (ids.is_empty() || ids.contains(&id))
            && passes(form, "availability-zone", &format!("{region}{zone}"))
            && passes(form, "default-for-az", "true")
            && passes(form, "vpc-id", VPC)
            && passes(form, "state", "available")
            && passes(form, "subnet-id", &id)
    };
    let describe = |zone: &&str| {
        [
            text("subnetId", &subnet(region, zone)),
            text("state", "available"),
            text("vpcId", VPC),
            text("availabilityZone", &format!("{region}{zone}")),
            text("availableIpAddressCount", "4000"),
            text("defaultForAz", "true"),
            text("mapPublicIpOnLaunch", "true"),
        ]
        .concat()
    };
    Ok(items("subnetSet", ZONES.iter().filter(wanted).map(describe)))
}

pub fn vpcs(form: &Form) -> String {
    if !passes(form, "is-default", "true") || !passes(form, "isDefault", "true") {
        return items("vpcSet", []);
    }
    let vpc = text("vpcId", VPC)
        + &text("ownerId", ACCOUNT)
        + &text("state", "available")
        + &text("cidrBlock", "172.31.0.0/16")
        + &text("isDefault", "true");
    items("vpcSet", [vpc])
}

/// Whether there is a group of this id.
pub fn is_group(id: &str) -> bool {
    id == GROUP
}

pub fn groups(form: &Form) -> Result<String, Refusal> {
    let (ids, names) = (list(form, "GroupId"), list(form, "GroupName"));
    if let Some(unknown) = ids.iter().find(|id| !is_group(id)) {
        return refuse("InvalidGroup.NotFound", format!("The security group '{unknown}' does not exist"));
    }
    if let Some(unknown) = names.iter().find(|name| *name != "default") {
        return refuse(
            "InvalidGroup.NotFound",
            format!("The security group '{unknown}' does not exist in default VPC '{VPC}'"),
        );
    }
    let found = passes(form, "group-name", "default") && passes(form, "vpc-id", VPC) && passes(form, "group-id", GROUP);
    let group = text("ownerId", ACCOUNT)
        + &text("groupId", GROUP)
        + &text("groupName", "default")
        + &text("groupDescription", "default VPC security group")
        + &text("vpcId", VPC);
    Ok(items("securityGroupInfo", found.then_some(group)))
}

pub fn type_offerings(form: &Form, region: &str) -> String {
    let kinds = filters(form).get("instance-type").cloned().unwrap_or_default();
    let by_zone = form.get("LocationType").is_some_and(|location| location == "availability-zone");
    let places: Vec<String> = if by_zone {
        ZONES.iter().map(|zone| format!("{region}{zone}")).collect()
    } else {
        vec![region.to_owned()]
    };
    let kind_of = if by_zone { "availability-zone" } else { "region" };
    let offers = kinds.iter().flat_map(|kind| {
        places
            .iter()
            .map(move |place| text("instanceType", kind) + &text("locationType", kind_of) + &text("location", place))
    });
    items("instanceTypeOfferingSet", offers)
}

/// The processor of a native type: Graviton families have a `g` after their generation (`t4g`, `c7gn`), or are `a1`.
pub fn arch_of(kind: &str) -> &'static str {
    let family = kind.split('.').next().unwrap_or_default();
    let after = family
        .trim_start_matches(|c: char| c.is_ascii_lowercase())
        .trim_start_matches(|c: char| c.is_ascii_digit());
    if after.starts_with('g') || family == "a1" {
        "arm64"
    } else {
        "x86_64"
    }
}

pub fn types(form: &Form) -> Result<String, Refusal> {
    let kinds = list(form, "InstanceType");
    for kind in &kinds {
        check::kind(kind)?;
    }
    let describe = |kind: &String| {
        let arch = items_of("supportedArchitectures", arch_of(kind));
        text("instanceType", kind)
            + "<supportedUsageClasses><item>on-demand</item><item>spot</item></supportedUsageClasses>"
            + &group("processorInfo", &arch)
    };
    Ok(items("instanceTypeSet", kinds.iter().map(describe)))
}

fn items_of(name: &str, value: &str) -> String {
    group(name, &text("item", value))
}
