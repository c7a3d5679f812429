//! One `RunInstances`.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, HttpTokensState, IamInstanceProfileSpecification, InstanceInterruptionBehavior,
    InstanceMarketOptionsRequest, InstanceMetadataEndpointState, InstanceMetadataOptionsRequest, InstanceMetadataTagsState, InstanceType,
    MarketType, ResourceType, ShutdownBehavior, SpotInstanceType, SpotMarketOptions, Tag, TagSpecification, VolumeType,
};

/// A container behind a bridge is one hop further: it does not reach the metadata service.
const HOP_LIMIT: i32 = 1;

/// How an instance is paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Market {
    /// At the list price.
    OnDemand,
    /// While there is room, at no more than this price in USD an hour, else than the list price.
    Spot(Option<String>),
}

/// An instance to ask for.
#[derive(Clone)]
pub struct Launch {
    /// The same for every try of one attempt, another for each attempt: at most 64 ASCII characters.
    pub client_token: String,
    /// `ami-…`
    pub image: String,
    /// Native type.
    pub kind: String,
    /// `subnet-…`
    pub subnet: String,
    /// `sg-…`; none: the VPC's default group.
    pub groups: Vec<String>,
    /// ARN or name of an instance profile.
    pub profile: Option<String>,
    /// Base64.
    pub user_data: String,
    /// The device of the image's root volume.
    pub root_device: String,
    /// The size of the root volume, in GiB.
    pub root_gib: i32,
    /// On demand or spot.
    pub market: Market,
    /// On everything that is made.
    pub tags: BTreeMap<String, String>,
}

impl fmt::Debug for Launch {
    /// The user data holds a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Launch({} {} in {} {:?})", self.kind, self.image, self.subnet, self.market)
    }
}

impl Launch {
    pub(crate) fn request(&self, sdk: &aws_sdk_ec2::Client) -> RunInstancesFluentBuilder {
        let groups = (!self.groups.is_empty()).then(|| self.groups.clone());
        sdk.run_instances()
            .client_token(&self.client_token)
            .min_count(1)
            .max_count(1)
            .image_id(&self.image)
            .instance_type(InstanceType::from(self.kind.as_str()))
            .subnet_id(&self.subnet)
            .set_security_group_ids(groups)
            .set_iam_instance_profile(self.profile.as_deref().map(profile))
            .user_data(&self.user_data)
            // Powering off is termination: the machine needs no key to end itself.
            .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
            .set_instance_market_options(self.market_options())
            .metadata_options(
                InstanceMetadataOptionsRequest::builder()
                    // An account's default may be off; the agent learns there that its machine is about to be taken away.
                    .http_endpoint(InstanceMetadataEndpointState::Enabled)
                    .http_tokens(HttpTokensState::Required)
                    .http_put_response_hop_limit(HOP_LIMIT)
                    .instance_metadata_tags(InstanceMetadataTagsState::Disabled)
                    .build(),
            )
            .block_device_mappings(self.root_volume())
            .set_tag_specifications(Some(self.tag_specifications()))
    }

    fn market_options(&self) -> Option<InstanceMarketOptionsRequest> {
        let Market::Spot(price) = &self.market else {
            return None;
        };
        let spot = SpotMarketOptions::builder()
            // A persistent request would launch another one after this has ended.
            .spot_instance_type(SpotInstanceType::OneTime)
            .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
            .set_max_price(price.clone());
        let options = InstanceMarketOptionsRequest::builder()
            .market_type(MarketType::Spot)
            .spot_options(spot.build());
        Some(options.build())
    }

    fn root_volume(&self) -> BlockDeviceMapping {
        let volume = EbsBlockDevice::builder()
            .volume_size(self.root_gib)
            .volume_type(VolumeType::Gp3)
            .encrypted(true)
            .delete_on_termination(true);
        BlockDeviceMapping::builder()
            .device_name(&self.root_device)
            .ebs(volume.build())
            .build()
    }

    fn tag_specifications(&self) -> Vec<TagSpecification> {
        let tags: Vec<Tag> = self
            .tags
            .iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect();
        let mut kinds = vec![ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface];
        if self.market != Market::OnDemand {
            kinds.push(ResourceType::SpotInstancesRequest);
        }
        let specification = |kind| TagSpecification::builder().resource_type(kind).set_tags(Some(tags.clone())).build();
        kinds.into_iter().map(specification).collect()
    }
}

fn profile(arn_or_name: &str) -> IamInstanceProfileSpecification {
    let builder = IamInstanceProfileSpecification::builder();
    if arn_or_name.starts_with("arn:") {
        builder.arn(arn_or_name).build()
    } else {
        builder.name(arn_or_name).build()
    }
}
