//! Amazon EC2: one `RunInstances` an attempt, nothing else is made, nothing else is left.

mod place;
mod refusal;

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::error::{Class, Failure};
use common::spec::CloudKind;
use ec2::{Client, Kind, Launch, Market};

use super::{Cloud, Instance, LEGACY, Life, Offer, Order, Prices, Search};
use crate::bootstrap;
use crate::catalog;
use crate::options::CloudOptions;
use place::Target;

/// The tag that finds what a launch made.
const LAUNCH_ID: &str = "cml-launch-id";
/// The tag that everything has, whatever its value.
const OURS: (&str, &str) = ("cml", "*");

/// How long an instance may be unknown to some of EC2 after it was made.
const CONSISTENCY: Duration = Duration::from_secs(2);

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

    async fn tagged(&self, key: &str, values: &[&str]) -> Result<Vec<Instance>> {
        let found = self.ec2.tagged(key, values).await;
        let found = found.map_err(|error| refusal::of("DescribeInstances", error))?;
        Ok(found.into_iter().map(|instance| self.instance(instance)).collect())
    }

    /// A user of the old tool could give a runner another `Name`, but not another `Id`; its tasks have no `Id`.
    async fn legacy(&self) -> Result<Vec<Instance>> {
        let patterns = LEGACY.map(|prefix| format!("{prefix}*"));
        let patterns = patterns.each_ref().map(String::as_str);
        let mut found = self.tagged("Id", &patterns).await?;
        for instance in self.tagged("Name", &patterns).await? {
            if !found.iter().any(|known| known.id == instance.id) {
                found.push(instance);
            }
        }
        found.retain(|instance| !instance.tags.contains_key(OURS.0));
        Ok(found)
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
            life: life(&found.state),
            state: match found.reason {
                Some(reason) => format!("{} ({reason})", found.state),
                None => found.state,
            },
            tags: found.tags,
        }
    }
}

/// What EC2's states mean ([states]).
///
/// [states]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
fn life(state: &str) -> Life {
    match state {
        "shutting-down" | "terminated" => Life::Gone,
        "stopping" | "stopped" => Life::Stopped,
        _ => Life::Live,
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

/// One attempt in words.
fn planned(launch: &Launch) -> String {
    let market = match &launch.market {
        Market::OnDemand => "on demand".to_owned(),
        Market::Spot(None) => "one-time spot, at most the list price".to_owned(),
        Market::Spot(Some(price)) => format!("one-time spot, at most {price} USD an hour"),
    };
    let tags: Vec<String> = launch.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    [
        format!("RunInstances {} {} {} {market}", launch.kind, launch.image, launch.subnet),
        format!("encrypted root volume of {} GB on {}", launch.root_gib, launch.root_device),
        format!("groups [{}]", launch.groups.join(" ")),
        format!("profile {}", launch.profile.as_deref().unwrap_or("none")),
        "shutdown behaviour terminate, IMDSv2 with 1 hop".to_owned(),
        format!("token {}", launch.client_token),
        format!("tags {}", tags.join(" ")),
    ]
    .join(", ")
}

/// Where the price list has a machine: a local zone is a place of its own there, called as the zone is but for the last letter, like the zones of a region.
fn listed_in(offer: &Offer) -> &str {
    let zone = offer.zone.as_deref().unwrap_or(&offer.region);
    zone.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(zone)
}

#[async_trait]
impl Prices for Aws {
    async fn hourly(&self, offer: &Offer) -> Result<Option<f64>> {
        if !offer.spot {
            let price = self.ec2.list_price(&offer.kind, listed_in(offer)).await;
            return price.map_err(|error| refusal::of("GetProducts", error));
        }
        let Some(zone) = &offer.zone else {
            return Ok(None);
        };
        let price = self.ec2.spot_price(&offer.kind, zone).await;
        price.map_err(|error| refusal::of("DescribeSpotPriceHistory", error))
    }
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
        let title = format!(
            "# {} in {}: the first attempt that finds capacity is the last",
            order.name, self.region
        );
        let attempts = self.attempts(order).await?;
        Ok([title].into_iter().chain(attempts.iter().map(planned)).collect())
    }

    async fn create(&self, order: &Order) -> Result<Instance> {
        let attempts = self.attempts(order).await?;
        let is_choice = attempts
            .iter()
            .zip(attempts.iter().skip(1))
            .any(|(one, next)| one.kind != next.kind);
        let mut last = None;
        let mut unknown = None;
        for launch in &attempts {
            if unknown.as_ref() == Some(&launch.kind) {
                continue;
            }
            let error = match self.ec2.launch(launch).await {
                Ok(instance) => return Ok(self.instance(instance)),
                Err(error) => error,
            };
            if is_choice && error.is_unknown_type() {
                unknown = Some(launch.kind.clone());
            } else if error.kind() != Kind::Capacity {
                return Err(refusal::of_launch(launch, error));
            }
            tracing::warn!("no {} in {}: {error}; trying the next", launch.kind, launch.subnet);
            last = Some((error, launch));
        }
        let (error, launch) = last.context("there was nothing to try")?;
        Err(refusal::no_capacity(error, launch))
    }

    async fn find(&self, search: &Search<'_>) -> Result<Vec<Instance>> {
        match *search {
            Search::Launch(id) => self.tagged(LAUNCH_ID, &[id]).await,
            Search::All => self.tagged(OURS.0, &[OURS.1]).await,
            Search::Legacy => self.legacy().await,
        }
    }

    async fn destroy(&self, instance_id: &str) -> Result<()> {
        let is_unknown = |error: &ec2::Error| error.kind() == Kind::NotFound;
        let mut done = self.ec2.terminate(instance_id).await;
        if done.as_ref().is_err_and(is_unknown) {
            tokio::time::sleep(CONSISTENCY).await;
            done = self.ec2.terminate(instance_id).await;
        }
        match done {
            // EC2 forgets an instance an hour after its end.
            Err(error) if is_unknown(&error) => Ok(()),
            done => done.map_err(|error| refusal::of("TerminateInstances", error)),
        }
    }

    async fn console(&self, instance_id: &str) -> Result<String> {
        let output = self.ec2.console(instance_id).await;
        output.map_err(|error| refusal::of("GetConsoleOutput", error))
    }
}

#[cfg(test)]
mod tests {
    use super::listed_in;
    use crate::cloud::Offer;

    #[test]
    fn a_local_zone_has_prices_of_its_own() {
        for (zone, place) in [
            (None, "us-west-2"),
            (Some("us-west-2a"), "us-west-2"),
            (Some("us-west-2-lax-1a"), "us-west-2-lax-1"),
        ] {
            let offer = Offer {
                kind: "c5.large".into(),
                region: "us-west-2".into(),
                zone: zone.map(str::to_owned),
                spot: false,
            };
            assert_eq!(listed_in(&offer), place);
        }
    }
}
