//! What an order can be made of: for each candidate type an image, in each zone a subnet.

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::Platform;
use common::spec::CloudKind;
use ec2::{Client, Group, Image, Subnet};

use super::refusal;
use crate::catalog::{self, Candidate};
use crate::cloud::Order;

/// One attempt: a type with its image, in a subnet.
#[derive(Debug, Clone)]
pub struct Target {
    /// Native type.
    pub kind: String,
    /// For its processor.
    pub image: Image,
    /// In one zone.
    pub subnet: Subnet,
    /// The ids of the user's security group; empty: the VPC's default.
    pub groups: Vec<String>,
}

/// All attempts, in order: the best type in every zone, then the next.
pub async fn targets(ec2: &Client, order: &Order) -> Result<Vec<Target>> {
    let options = &order.options;
    let candidates = catalog::resolve(CloudKind::Aws, &options.cloud_type, options.cloud_gpu.as_deref())?;
    let first = candidates.first().context("the machine type has no candidates")?;
    // A table row is of one processor, and either has GPUs or has none: one image fits all of it.
    let (image, subnets, groups) = tokio::try_join!(
        image(ec2, options.cloud_image.as_deref(), first),
        subnets(ec2, order),
        groups(ec2, options.cloud_aws_security_group.as_deref())
    )?;
    let groups = match (&options.cloud_aws_security_group, subnets.first()) {
        (Some(wanted), Some(subnet)) => vec![group_of(wanted, &groups, subnet)?],
        _ => Vec::new(),
    };
    let target = |candidate: &Candidate, subnet: &Subnet| Target {
        kind: candidate.native.clone(),
        image: image.clone(),
        subnet: subnet.clone(),
        groups: groups.clone(),
    };
    let all = candidates
        .iter()
        .flat_map(|candidate| subnets.iter().map(move |subnet| target(candidate, subnet)));
    Ok(all.collect())
}

/// EC2's word for a processor.
const fn arch(platform: Platform) -> &'static str {
    match platform {
        Platform::X64 => "x86_64",
        Platform::Arm64 => "arm64",
    }
}

/// The user's image by id or `OWNER/PATTERN`, else the catalog's: the newest of its owner. A pattern without an owner is never looked up:
/// anybody may publish an image under any name.
async fn image(ec2: &Client, wanted: Option<&str>, candidate: &Candidate) -> Result<Image> {
    let arch = arch(candidate.arch);
    let (owner, pattern) = match wanted {
        Some(id) if id.starts_with("ami-") => return image_by_id(ec2, id, arch, &candidate.native).await,
        Some(name) => {
            let parts = name.split_once('/').with_context(|| {
                Failure::new(Class::Usage, format!("`--cloud-image={name}` is neither an id nor `OWNER/PATTERN`"))
                    .hint("for example `ami-0123456789abcdef0`, `099720109477/ubuntu/images/*` or `self/my-image-*`")
            })?;
            (parts.0.to_owned(), parts.1.to_owned())
        }
        None => {
            let query = catalog::image(CloudKind::Aws, candidate.gpu.is_some())?;
            let pattern = query.pattern(candidate.arch).to_owned();
            (query.owner, pattern)
        }
    };
    let found = ec2
        .images(&owner, &pattern, arch)
        .await
        .map_err(|error| refusal::of("DescribeImages", error))?;
    let newest = found.into_iter().max_by(|a, b| a.created.cmp(&b.created));
    newest.with_context(|| {
        Failure::new(Class::Usage, format!("{owner} has no {arch} image `{pattern}` in this region"))
            .hint("name one with `--cloud-image`: an id, or `OWNER/PATTERN`")
    })
}

async fn image_by_id(ec2: &Client, id: &str, arch: &str, kind: &str) -> Result<Image> {
    let found = ec2.image(id).await.map_err(|error| refusal::of("DescribeImages", error))?;
    let image = found.with_context(|| {
        Failure::new(Class::Usage, format!("there is no image {id} in this region")).hint("images belong to one region")
    })?;
    if image.arch == arch {
        return Ok(image);
    }
    let message = format!("the image {id} is for {}, the machine type {kind} is {arch}", image.arch);
    Err(Failure::new(Class::Usage, message)
        .hint("choose another `--cloud-type` or `--cloud-image`")
        .into())
}

/// The user's subnet, else the default VPC's in the zone that was asked for, else in every zone.
async fn subnets(ec2: &Client, order: &Order) -> Result<Vec<Subnet>> {
    let zone = catalog::region(CloudKind::Aws, &order.options.cloud_region)?.zone;
    if let Some(id) = &order.options.cloud_aws_subnet {
        let found = ec2.subnet(id).await.map_err(|error| refusal::of("DescribeSubnets", error))?;
        let subnet = found.with_context(|| {
            Failure::new(Class::Usage, format!("there is no subnet {id}")).hint("check `--cloud-aws-subnet` and `--cloud-region`")
        })?;
        return Ok(vec![subnet]);
    }
    let mut found = ec2.default_subnets().await.map_err(|error| refusal::of("DescribeSubnets", error))?;
    found.retain(|subnet| zone.as_ref().is_none_or(|zone| subnet.zone == *zone));
    found.sort_by(|a, b| a.zone.cmp(&b.zone));
    if found.is_empty() {
        let place = zone.map_or_else(|| "in this region".to_owned(), |zone| format!("in {zone}"));
        return Err(Failure::new(Class::Usage, format!("the account has no default subnet {place}"))
            .hint("name one with `--cloud-aws-subnet`")
            .into());
    }
    Ok(found)
}

async fn groups(ec2: &Client, wanted: Option<&str>) -> Result<Vec<Group>> {
    let Some(wanted) = wanted else {
        return Ok(Vec::new());
    };
    let found = ec2.groups(wanted).await;
    found.map_err(|error| refusal::of("DescribeSecurityGroups", error))
}

/// The id of the security group that may be used in a subnet: one of its own VPC.
fn group_of(wanted: &str, found: &[Group], subnet: &Subnet) -> Result<String> {
    if let Some(group) = found.iter().find(|group| group.vpc == subnet.vpc) {
        return Ok(group.id.clone());
    }
    let failure = match found.first() {
        Some(group) => Failure::new(
            Class::Usage,
            format!(
                "the security group `{wanted}` belongs to {}, the subnet {} to {}",
                group.vpc, subnet.id, subnet.vpc
            ),
        )
        .hint(format!("name a subnet of {} with `--cloud-aws-subnet`", group.vpc)),
        None => Failure::new(Class::Usage, format!("there is no security group `{wanted}` in this region"))
            .hint("check `--cloud-aws-security-group`: an id or a name; it is never made for you"),
    };
    Err(failure.into())
}
