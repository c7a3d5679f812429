//! Amazon EC2: one `RunInstances` an attempt, nothing else is made, nothing else is left.

mod place;
mod refusal;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::error::{Class, Failure};
use common::spec::CloudKind;
use ec2::{Client, Kind, Launch, Market};

use super::{Cloud, Instance, Order};
use crate::bootstrap;
use crate::catalog;
use crate::options::CloudOptions;
use place::Target;

/// The tag that finds what a launch made.
const LAUNCH_ID: &str = "cml-launch-id";

/// EC2 in one region.
pub struct Aws {
    ec2: Client,
    region: String,
}

impl Aws {
    /// Finds the credentials; nothing is asked of EC2 yet.
    pub async fn open(options: &CloudOptions) -> Result<Self> {
        let region = catalog::region(CloudKind::Aws, &options.cloud_region)?.region;
        Ok(Self {
            ec2: Client::connect(&region).await,
            region,
        })
    }

    /// Every attempt of an order, in order: each candidate type in each zone.
    async fn attempts(&self, order: &Order) -> Result<Vec<Launch>> {
        let targets = place::targets(&self.ec2, order).await?;
        let user_data = STANDARD.encode(bootstrap::gzip(order.startup_data.as_bytes())?);
        let attempt = |(number, target): (usize, &Target)| attempt(order, target, number, &user_data);
        targets.iter().enumerate().map(attempt).collect()
    }

    fn instance(&self, found: ec2::Instance) -> Instance {
        Instance {
            id: found.id,
            ip: found.ip,
            kind: found.kind,
            region: self.region.clone(),
            zone: found.zone,
            image: found.image,
            spot: found.spot,
            launched_at: found.launched_at,
            state: match found.reason {
                Some(reason) => format!("{} ({reason})", found.state),
                None => found.state,
            },
        }
    }
}

fn attempt(order: &Order, target: &Target, number: usize, user_data: &str) -> Result<Launch> {
    let options = &order.options;
    let wanted = i32::try_from(options.cloud_hdd_size).context("--cloud-hdd-size is too large")?;
    let price = options.cloud_spot_price;
    Ok(Launch {
        client_token: format!("{}-{number}", order.launch_id),
        image: target.image.id.clone(),
        kind: target.kind.clone(),
        subnet: target.subnet.id.clone(),
        groups: target.groups.clone(),
        profile: options.cloud_permission_set.clone(),
        user_data: user_data.to_owned(),
        root_device: target.image.root_device.clone(),
        root_gib: wanted.max(target.image.root_gib),
        market: match (options.cloud_spot, price > 0.0) {
            (false, _) => Market::OnDemand,
            (true, true) => Market::Spot(Some(price.to_string())),
            (true, false) => Market::Spot(None),
        },
        tags: order.tags.clone(),
    })
}

#[async_trait]
impl Cloud for Aws {
    fn supports(&self, options: &CloudOptions) -> Result<()> {
        // The options of other clouds are refused by name where they are parsed; a profile is the one value with a form of its own here.
        let profile = options.cloud_permission_set.as_deref().unwrap_or_default();
        if profile.starts_with("arn:") && !profile.contains(":instance-profile/") {
            return Err(
                Failure::new(Class::Usage, format!("`--cloud-permission-set={profile}` is no instance profile"))
                    .hint("give the ARN `arn:aws:iam::ACCOUNT:instance-profile/NAME`, or the name alone; a role's ARN is not one")
                    .into(),
            );
        }
        Ok(())
    }

    async fn plan(&self, order: &Order) -> Result<Vec<String>> {
        let mut calls = vec![format!(
            "# {} in {}: the first attempt that finds capacity is the last",
            order.name, self.region
        )];
        for launch in self.attempts(order).await? {
            let market = match &launch.market {
                Market::OnDemand => "on demand".to_owned(),
                Market::Spot(None) => "spot, at most the list price".to_owned(),
                Market::Spot(Some(price)) => format!("spot, at most {price} USD an hour"),
            };
            calls.push(format!(
                "RunInstances {} {} {} {}, root volume {} GB on {}, groups [{}], shutdown behaviour terminate, IMDSv2 with 1 hop, token {}",
                launch.kind,
                launch.image,
                launch.subnet,
                market,
                launch.root_gib,
                launch.root_device,
                launch.groups.join(","),
                launch.client_token
            ));
        }
        Ok(calls)
    }

    async fn create(&self, order: &Order) -> Result<Instance> {
        let mut last = None;
        for launch in self.attempts(order).await? {
            match self.ec2.launch(&launch).await {
                Ok(instance) => return Ok(self.instance(instance)),
                Err(error) if error.kind() == Kind::Capacity => {
                    tracing::warn!("no {} in {}: {error}; trying the next", launch.kind, launch.subnet);
                    last = Some((error, launch.kind));
                }
                Err(error) => return Err(refusal::of("RunInstances", error)),
            }
        }
        let (error, kind) = last.context("there was nothing to try")?;
        Err(refusal::no_capacity(error, &kind, order.options.cloud_spot))
    }

    async fn find(&self, launch_id: &str) -> Result<Vec<Instance>> {
        let found = self.ec2.tagged(LAUNCH_ID, launch_id).await;
        let found = found.map_err(|error| refusal::of("DescribeInstances", error))?;
        Ok(found.into_iter().map(|instance| self.instance(instance)).collect())
    }

    async fn destroy(&self, instance_id: &str) -> Result<()> {
        match self.ec2.terminate(instance_id).await {
            Ok(()) => Ok(()),
            // EC2 forgets an instance an hour after its end. One that was made a moment ago may not be known everywhere yet: then it is
            // still in the list that the caller sweeps.
            Err(error) if error.kind() == Kind::NotFound && self.is_gone(instance_id).await => Ok(()),
            Err(error) => Err(refusal::of("TerminateInstances", error)),
        }
    }

    async fn console(&self, instance_id: &str) -> Result<String> {
        let output = self.ec2.console(instance_id).await;
        output.map_err(|error| refusal::of("GetConsoleOutput", error))
    }
}

impl Aws {
    /// Whether EC2, asked again, still does not know the instance.
    async fn is_gone(&self, id: &str) -> bool {
        tokio::time::sleep(CONSISTENCY).await;
        self.ec2.terminate(id).await.is_err_and(|error| error.kind() == Kind::NotFound)
    }
}

/// How long an instance may be unknown to some of EC2 after it was made.
const CONSISTENCY: std::time::Duration = std::time::Duration::from_secs(2);
