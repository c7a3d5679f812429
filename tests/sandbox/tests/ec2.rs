//! The EC2 API of the sandbox, by raw forms.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod wire;

use sandbox::faults::{Effect, Fault};
use wire::{Cloud, IMAGE, element, launch, request};

/// A launch in which some parameters are other ones.
fn launch_but(changes: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut form = launch();
    form.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    form.extend(changes);
    form
}

#[tokio::test]
async fn only_our_key_is_accepted() {
    let cloud = Cloud::new().await;
    let other = "AWS4-HMAC-SHA256 Credential=AKIAOTHER/20261124/us-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0";
    for headers in [&[][..], &[("authorization", other)]] {
        let (status, body) = request("POST", &cloud.ec2.url(), headers, "Action=DescribeVpcs").await.unwrap();
        assert_eq!((status, element(&body, "Code")), (401, "AuthFailure".into()));
    }
    cloud.ask(&[("Action", "DescribeVpcs")]).await;
}

#[tokio::test]
async fn the_same_token_is_the_same_instance() {
    let cloud = Cloud::new().await;
    let first = cloud.launch("", &[("ClientToken", "one")]).await;
    assert_eq!(cloud.launch("", &[("ClientToken", "one")]).await, first);
    assert_eq!(
        cloud
            .refused(&launch_but(&[("ClientToken", "one"), ("InstanceType", "m7i.large")]))
            .await,
        (400, "IdempotentParameterMismatch".into())
    );
    let second = cloud.launch("", &[("ClientToken", "two")]).await;
    assert_ne!(second, first);
    assert_eq!(cloud.events.count("instance-launched"), 2);
}

#[tokio::test]
async fn what_ec2_would_refuse_is_refused() {
    let cloud = Cloud::new().await;
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("ImageId", "ami-0")], "InvalidAMIID.NotFound"),
        (&[("InstanceType", "m")], "InvalidParameterValue"),
        (&[("InstanceType", "m7g.xlarge")], "InvalidParameterValue"),
        (&[("SubnetId", "subnet-0")], "InvalidSubnetID.NotFound"),
        (&[("SecurityGroupId.1", "sg-0")], "InvalidGroup.NotFound"),
        (&[("UserData", "%%")], "InvalidUserData.Malformed"),
        (&[("InstanceIntiatedShutdownBehavior", "terminate")], "UnknownParameter"),
        (&[("InstanceInitiatedShutdownBehavior", "vanish")], "InvalidParameterValue"),
        (&[("MetadataOptions.HttpTokens", "yes")], "InvalidParameterValue"),
        (&[("MetadataOptions.HttpPutResponseHopLimit", "0")], "InvalidParameterValue"),
        (
            &[("InstanceMarketOptions.SpotOptions.MaxPrice", "1")],
            "InvalidParameterCombination",
        ),
        (
            &[
                ("InstanceMarketOptions.MarketType", "spot"),
                ("InstanceMarketOptions.SpotOptions.MaxPrice", "-1"),
            ],
            "InvalidParameterValue",
        ),
        (
            &[
                ("BlockDeviceMapping.1.DeviceName", "/dev/sda1"),
                ("BlockDeviceMapping.1.Ebs.VolumeSize", "7"),
            ],
            "InvalidBlockDeviceMapping",
        ),
        (
            &[("TagSpecification.1.ResourceType", "spot-instances-request")],
            "InvalidParameterValue",
        ),
        (
            &[
                ("TagSpecification.1.ResourceType", "instance"),
                ("TagSpecification.1.Tag.1.Key", "aws:x"),
                ("TagSpecification.1.Tag.1.Value", ""),
            ],
            "InvalidParameterValue",
        ),
        (
            &[("SubnetId", "subnet-0"), ("NetworkInterface.1.DeviceIndex", "0")],
            "InvalidParameterCombination",
        ),
    ];
    for (changes, code) in cases {
        assert_eq!(cloud.refused(&launch_but(changes)).await, (400, (*code).to_owned()), "{changes:?}");
    }
    assert_eq!(cloud.refused(&[("Action", "RebootInstances")]).await.1, "InvalidAction");
    assert_eq!(
        cloud.refused(&[("Action", "DescribeInstances"), ("InstanceId.1", "i-0")]).await.1,
        "InvalidInstanceID.NotFound"
    );
    assert_eq!(
        cloud
            .refused(&[
                ("Action", "DescribeSubnets"),
                ("Filter.1.Name", "colour"),
                ("Filter.1.Value.1", "x")
            ])
            .await
            .1,
        "InvalidParameterValue"
    );
    assert!(cloud.fleet.instances().is_empty());
}

#[tokio::test]
async fn an_instance_is_found_by_its_tags_and_ends_when_it_is_told_to() {
    let cloud = Cloud::new().await;
    let tags = [
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "Name"),
        ("TagSpecification.1.Tag.1.Value", "a <b> & c"),
        ("InstanceMarketOptions.MarketType", "spot"),
    ];
    let id = cloud.launch("", &tags).await;
    let find = |value: &'static str| {
        [
            ("Action", "DescribeInstances"),
            ("Filter.1.Name", "tag:Name"),
            ("Filter.1.Value.1", value),
        ]
    };
    assert!(!cloud.ask(&find("other")).await.contains("<instanceId>"));
    let found = cloud.ask(&find("a*")).await;
    assert_eq!(element(&found, "instanceId"), id);
    assert_eq!(element(&found, "value"), "a &lt;b&gt; &amp; c");
    assert_eq!(element(&found, "instanceLifecycle"), "spot");
    let view = cloud.fleet.instances().remove(0);
    assert_eq!(
        (view.name.as_str(), view.spot, view.zone.as_str()),
        ("a <b> & c", true, "us-west-1a")
    );

    let ended = cloud.ask(&[("Action", "TerminateInstances"), ("InstanceId.1", &id)]).await;
    assert_eq!(element(&element(&ended, "currentState"), "name"), "shutting-down");
    assert_eq!(cloud.ended(&id).await, "Client.UserInitiatedShutdown");
    assert_eq!(cloud.state(&id).await, "terminated");
    let again = cloud.ask(&[("Action", "TerminateInstances"), ("InstanceId.1", &id)]).await;
    assert_eq!(element(&element(&again, "currentState"), "name"), "terminated");
}

#[tokio::test]
async fn a_full_zone_is_full_and_the_next_is_not() {
    let cloud = Cloud::new().await;
    cloud.ec2.no_capacity("us-west-1a");
    let subnets = cloud
        .ask(&[
            ("Action", "DescribeSubnets"),
            ("Filter.1.Name", "default-for-az"),
            ("Filter.1.Value.1", "true"),
        ])
        .await;
    let ids: Vec<&str> = subnets
        .split("<subnetId>")
        .skip(1)
        .map(|rest| rest.split('<').next().unwrap())
        .collect();
    let launch = |subnet: &'static str| launch_but(&[("SubnetId", subnet)]);
    let ids: Vec<&'static str> = ids.into_iter().map(|id| &*id.to_owned().leak()).collect();
    assert_eq!(cloud.refused(&launch(ids[0])).await, (500, "InsufficientInstanceCapacity".into()));
    assert_eq!(element(&cloud.ask(&launch(ids[1])).await, "availabilityZone"), "us-west-1b");
}

#[tokio::test]
async fn faults_strike_as_often_as_they_should() {
    let cloud = Cloud::new().await;
    cloud.ec2.fail("RunInstances", "VcpuLimitExceeded", 1);
    assert_eq!(cloud.refused(&launch()).await, (400, "VcpuLimitExceeded".into()));
    cloud.ec2.fail("RunInstances", "RequestLimitExceeded", 1);
    assert_eq!(cloud.refused(&launch()).await, (503, "RequestLimitExceeded".into()));
    let effects = [(Effect::Reset, 0), (Effect::LoseAnswer, 1)];
    for (effect, launched) in effects {
        cloud.ec2.faults().add(Fault {
            request: "RunInstances".into(),
            skip: 0,
            times: 1,
            effect,
        });
        assert_eq!(cloud.post(&launch()).await, None);
        assert_eq!(cloud.fleet.instances().len(), launched);
    }
    cloud.launch("", &[]).await;
}

#[tokio::test]
async fn images_are_found_by_owner_pattern_and_processor() {
    let cloud = Cloud::new().await;
    let ask = |owner: &'static str, arch: &'static str| {
        [
            ("Action", "DescribeImages"),
            ("Owner.1", owner),
            ("Filter.1.Name", "name"),
            ("Filter.1.Value.1", "ubuntu/images/*"),
            ("Filter.2.Name", "architecture"),
            ("Filter.2.Value.1", arch),
        ]
    };
    let found = cloud.ask(&ask("099720109477", "x86_64")).await;
    assert_eq!(found.matches("<imageId>").count(), 2);
    assert_eq!(element(&found, "rootDeviceName"), "/dev/sda1");
    assert_eq!(element(&found, "volumeSize"), "8");
    assert_eq!(cloud.ask(&ask("099720109477", "arm64")).await.matches("<imageId>").count(), 1);
    assert_eq!(cloud.ask(&ask("123456789012", "x86_64")).await.matches("<imageId>").count(), 0);
    assert_eq!(
        element(&cloud.ask(&[("Action", "DescribeImages"), ("ImageId.1", IMAGE)]).await, "imageId"),
        IMAGE
    );
}

#[tokio::test]
async fn types_vpcs_and_groups_are_there() {
    let cloud = Cloud::new().await;
    let types = cloud
        .ask(&[
            ("Action", "DescribeInstanceTypes"),
            ("InstanceType.1", "c7gn.large"),
            ("InstanceType.2", "g6.xlarge"),
        ])
        .await;
    assert_eq!(types.matches("<item>arm64</item>").count(), 1, "{types}");
    assert_eq!(types.matches("<item>x86_64</item>").count(), 1, "{types}");
    let offered = cloud
        .ask(&[
            ("Action", "DescribeInstanceTypeOfferings"),
            ("LocationType", "availability-zone"),
            ("Filter.1.Name", "instance-type"),
            ("Filter.1.Value.1", "g6.xlarge"),
        ])
        .await;
    assert_eq!(offered.matches("<location>").count(), 2);
    let vpc = element(&cloud.ask(&[("Action", "DescribeVpcs")]).await, "vpcId");
    let groups = cloud
        .ask(&[
            ("Action", "DescribeSecurityGroups"),
            ("Filter.1.Name", "vpc-id"),
            ("Filter.1.Value.1", &vpc),
        ])
        .await;
    assert_eq!(element(&groups, "groupName"), "default");
}

#[tokio::test]
async fn requests_are_kept_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record");
    let cloud = Cloud::recording(Some(record.clone())).await;
    cloud
        .ask(&[
            ("Action", "DescribeVpcs"),
            ("Filter.1.Name", "is-default"),
            ("Filter.1.Value.1", "true"),
        ])
        .await;
    let (action, form) = cloud.ec2.requests().remove(0);
    assert_eq!((action.as_str(), form["Filter.1.Name"].as_str()), ("DescribeVpcs", "is-default"));
    assert_eq!(
        std::fs::read_to_string(record).unwrap(),
        "Action=DescribeVpcs&Filter.1.Name=is%2Ddefault&Filter.1.Value.1=true\n"
    );
}
