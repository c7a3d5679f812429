//! What EC2 would refuse.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Form;
use super::answers::Refusal;
use super::offers::{self, Image};
use super::refusal;
use super::run::{filters, is_spot, list, tags};
use crate::faults::matches;

/// What EC2 takes at most, before base64, in bytes.
const USER_DATA: usize = 16 << 10;
/// The longest client token, in characters.
const TOKEN: usize = 64;
/// The most tags that a resource may have, and the longest key and value, in characters.
const TAGS: (usize, usize, usize) = (50, 128, 256);

/// A request that cannot be served as it is.
pub fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(400, code, message.into()))
}

pub fn no_action<T>(action: &str) -> Result<T, Refusal> {
    refuse("InvalidAction", format!("The action {action} is not valid for this web service."))
}

/// The parameters of each action, and the filters that this EC2 knows for it. The names are those of the service's model (2016-11-15).
const ACTIONS: &[(&str, &[&str], &[&str])] = &[
    ("RunInstances", LAUNCH, &[]),
    (
        "DescribeInstances",
        &["InstanceId.*"],
        &["tag:*", "instance-state-name", "client-token"],
    ),
    ("TerminateInstances", &["InstanceId.*"], &[]),
    ("GetConsoleOutput", &["InstanceId", "Latest"], &[]),
    (
        "DescribeImages",
        &["ImageId.*", "Owner.*", "IncludeDeprecated", "IncludeDisabled"],
        &[
            "name",
            "architecture",
            "state",
            "owner-id",
            "root-device-type",
            "virtualization-type",
        ],
    ),
    (
        "DescribeSubnets",
        &["SubnetId.*"],
        &["availability-zone", "default-for-az", "vpc-id", "state", "subnet-id"],
    ),
    (
        "DescribeSpotPriceHistory",
        &["InstanceType.*", "ProductDescription.*", "AvailabilityZone", "StartTime"],
        &[],
    ),
    ("DescribeVpcs", &["VpcId.*"], &["is-default", "isDefault"]),
    (
        "DescribeSecurityGroups",
        &["GroupId.*", "GroupName.*"],
        &["group-name", "vpc-id", "group-id"],
    ),
    ("DescribeInstanceTypeOfferings", &["LocationType"], &["instance-type"]),
    ("DescribeInstanceTypes", &["InstanceType.*"], &[]),
];

/// Of every action.
const COMMON: &[&str] = &["Action", "Version", "DryRun", "MaxResults", "NextToken"];

const LAUNCH: &[&str] = &[
    "BlockDeviceMapping.*.DeviceName",
    "BlockDeviceMapping.*.Ebs.DeleteOnTermination",
    "BlockDeviceMapping.*.Ebs.Encrypted",
    "BlockDeviceMapping.*.Ebs.Iops",
    "BlockDeviceMapping.*.Ebs.KmsKeyId",
    "BlockDeviceMapping.*.Ebs.Throughput",
    "BlockDeviceMapping.*.Ebs.VolumeSize",
    "BlockDeviceMapping.*.Ebs.VolumeType",
    "ClientToken",
    "EbsOptimized",
    "IamInstanceProfile.Arn",
    "IamInstanceProfile.Name",
    "ImageId",
    "InstanceInitiatedShutdownBehavior",
    "InstanceMarketOptions.MarketType",
    "InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior",
    "InstanceMarketOptions.SpotOptions.MaxPrice",
    "InstanceMarketOptions.SpotOptions.SpotInstanceType",
    "InstanceMarketOptions.SpotOptions.ValidUntil",
    "InstanceType",
    "KeyName",
    "MaxCount",
    "MetadataOptions.HttpEndpoint",
    "MetadataOptions.HttpProtocolIpv6",
    "MetadataOptions.HttpPutResponseHopLimit",
    "MetadataOptions.HttpTokens",
    "MetadataOptions.InstanceMetadataTags",
    "MinCount",
    "NetworkInterface.*.AssociatePublicIpAddress",
    "NetworkInterface.*.DeleteOnTermination",
    "NetworkInterface.*.DeviceIndex",
    "NetworkInterface.*.SecurityGroupId.*",
    "NetworkInterface.*.SubnetId",
    "Placement.AvailabilityZone",
    "SecurityGroupId.*",
    "SubnetId",
    "TagSpecification.*.ResourceType",
    "TagSpecification.*.Tag.*.Key",
    "TagSpecification.*.Tag.*.Value",
    "UserData",
];

/// The values that some parameters are limited to.
const VALUES: &[(&str, &[&str])] = &[
    ("InstanceInitiatedShutdownBehavior", &["stop", "terminate"]),
    ("InstanceMarketOptions.MarketType", &["spot"]),
    ("InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior", &["terminate"]),
    ("InstanceMarketOptions.SpotOptions.SpotInstanceType", &["one-time"]),
    ("MetadataOptions.HttpEndpoint", &["enabled", "disabled"]),
    ("MetadataOptions.HttpTokens", &["optional", "required"]),
    ("MetadataOptions.InstanceMetadataTags", &["enabled", "disabled"]),
    (
        "BlockDeviceMapping.*.Ebs.VolumeType",
        &["standard", "io1", "io2", "gp2", "sc1", "st1", "gp3"],
    ),
    ("*.DeleteOnTermination", &["true", "false"]),
    ("*.Encrypted", &["true", "false"]),
];

/// Refuses what the action does not know: a misspelt parameter or filter.
pub fn parameters(action: &str, form: &Form) -> Result<(), Refusal> {
    let Some((_, own, filters_of)) = ACTIONS.iter().find(|(name, _, _)| *name == action) else {
        return no_action(action);
    };
    let filter: &[&str] = if action.starts_with("Describe") {
        &["Filter.*.Name", "Filter.*.Value.*"]
    } else {
        &[]
    };
    let known = |key: &str| own.iter().chain(COMMON).chain(filter).any(|pattern| matches(pattern, key));
    if let Some(unknown) = form.keys().find(|key| !known(key)) {
        return refuse("UnknownParameter", format!("The parameter {unknown} is not recognized"));
    }
    let is_filter = |name: &str| filters_of.iter().any(|pattern| matches(pattern, name));
    if let Some(unknown) = filters(form).keys().find(|name| !is_filter(name)) {
        return refuse("InvalidParameterValue", format!("The filter '{unknown}' is invalid"));
    }
    for (key, value) in form {
        let allowed = VALUES.iter().find(|(pattern, _)| matches(pattern, key));
        if allowed.is_some_and(|(_, values)| !values.contains(&value.as_str())) {
            return refuse("InvalidParameterValue", format!("Value ({value}) for parameter {key} is invalid."));
        }
    }
    Ok(())
}

/// Refuses what is not a native type.
pub fn kind(kind: &str) -> Result<(), Refusal> {
    let is_type = kind
        .split_once('.')
        .is_some_and(|(family, size)| family.contains(|c: char| c.is_ascii_digit()) && !size.is_empty());
    if is_type {
        return Ok(());
    }
    refuse("InvalidParameterValue", format!("Invalid value '{kind}' for InstanceType."))
}

/// Refuses a launch that EC2 would refuse. Returns the zone that it is for.
pub fn launch(form: &Form, region: &str) -> Result<String, Refusal> {
    let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if get("MinCount") != "1" || get("MaxCount") != "1" {
        return refuse("InvalidParameterValue", "this world launches one instance at a time");
    }
    let Some(image) = offers::image_of(get("ImageId")) else {
        return refuse(
            "InvalidAMIID.NotFound",
            format!("The image id '[{}]' does not exist", get("ImageId")),
        );
    };
    kind(get("InstanceType"))?;
    let arch = offers::arch_of(get("InstanceType"));
    if arch != image.arch {
        let message = format!(
            "The architecture '{arch}' of the specified instance type does not match the architecture '{}' of the specified AMI.",
            image.arch
        );
        return refuse("InvalidParameterValue", message);
    }
    if get("ClientToken").len() > TOKEN || !get("ClientToken").is_ascii() {
        return refuse("InvalidParameterValue", "Client token may not be longer than 64 ASCII characters");
    }
    data(get("UserData"))?;
    volumes(form, image)?;
    market(form)?;
    metadata(form)?;
    labels(form)?;
    place(form, region)
}

fn data(encoded: &str) -> Result<(), Refusal> {
    match STANDARD.decode(encoded) {
        Err(_) => refuse("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data."),
        Ok(data) if data.len() > USER_DATA => refuse("InvalidParameterValue", "User data is limited to 16384 bytes"),
        Ok(_) => Ok(()),
    }
}

fn volumes(form: &Form, image: &Image) -> Result<(), Refusal> {
    for number in 1.. {
        let get = |name: &str| form.get(&format!("BlockDeviceMapping.{number}.{name}"));
        let Some(device) = get("DeviceName") else { break };
        let size = get("Ebs.VolumeSize").map_or(Some(image.gigabytes), |size| size.parse().ok());
        if device == offers::ROOT_DEVICE && size.is_none_or(|size| size < image.gigabytes) {
            let message = format!(
                "Volume of size {}GB is smaller than snapshot 'snap-0e55e55e55e55e550', expect size >= {}GB",
                size.unwrap_or_default(),
                image.gigabytes
            );
            return refuse("InvalidBlockDeviceMapping", message);
        }
    }
    Ok(())
}

fn market(form: &Form) -> Result<(), Refusal> {
    if !is_spot(form) && form.keys().any(|key| key.starts_with("InstanceMarketOptions.SpotOptions.")) {
        return refuse("InvalidParameterCombination", "SpotOptions need the market type spot");
    }
    let price = form.get("InstanceMarketOptions.SpotOptions.MaxPrice");
    if price.is_some_and(|price| !price.parse::<f64>().is_ok_and(|price| price > 0.0)) {
        return refuse("InvalidParameterValue", "The spot price must be a decimal above zero");
    }
    Ok(())
}

fn metadata(form: &Form) -> Result<(), Refusal> {
    let limit = form.get("MetadataOptions.HttpPutResponseHopLimit");
    if limit.is_some_and(|limit| !limit.parse::<u32>().is_ok_and(|limit| (1..=64).contains(&limit))) {
        return refuse("InvalidParameterValue", "HttpPutResponseHopLimit must be between 1 and 64");
    }
    Ok(())
}

fn labels(form: &Form) -> Result<(), Refusal> {
    let mut kinds = vec!["instance", "volume", "network-interface"];
    if is_spot(form) {
        kinds.push("spot-instances-request");
    }
    for number in 1.. {
        let Some(kind) = form.get(&format!("TagSpecification.{number}.ResourceType")) else {
            break;
        };
        if !kinds.contains(&kind.as_str()) {
            return refuse(
                "InvalidParameterValue",
                format!("'{kind}' is not a valid taggable resource type here."),
            );
        }
        let tags = tags(form, kind);
        if tags.len() > TAGS.0 {
            return refuse("TagLimitExceeded", "More than 50 tags specified");
        }
        let is_wrong = |(key, value): (&String, &String)| {
            key.is_empty() || key.starts_with("aws:") || key.chars().count() > TAGS.1 || value.chars().count() > TAGS.2
        };
        if tags.iter().any(is_wrong) {
            return refuse(
                "InvalidParameterValue",
                "Tag keys starting with 'aws:' are reserved; keys have at most 128 characters, values 256",
            );
        }
    }
    Ok(())
}

fn place(form: &Form, region: &str) -> Result<String, Refusal> {
    if form.keys().any(|key| key.starts_with("NetworkInterface.")) && form.contains_key("SubnetId") {
        return refuse(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID may not be specified on the same request",
        );
    }
    let groups = [list(form, "SecurityGroupId"), list(form, "NetworkInterface.1.SecurityGroupId")].concat();
    if let Some(unknown) = groups.iter().find(|id| !offers::is_group(id)) {
        return refuse("InvalidGroup.NotFound", format!("The security group '{unknown}' does not exist"));
    }
    let subnet = form.get("SubnetId").or_else(|| form.get("NetworkInterface.1.SubnetId"));
    match (subnet, form.get("Placement.AvailabilityZone")) {
        (Some(id), _) => match offers::zone_of(region, id) {
            Some(zone) => Ok(zone),
            None => refuse("InvalidSubnetID.NotFound", format!("The subnet ID '{id}' does not exist")),
        },
        (None, Some(zone)) => Ok(zone.clone()),
        (None, None) => Ok(format!("{region}{}", offers::ZONES[0])),
    }
}

/// Refuses a launch for which there is no room.
pub fn capacity(full: &BTreeSet<String>, form: &Form, zone: &str) -> Result<(), Refusal> {
    if full.contains(zone) || full.contains(&form["InstanceType"]) {
        return Err(Refusal(500, "InsufficientInstanceCapacity", refusal::NO_CAPACITY.into()));
    }
    Ok(())
}
