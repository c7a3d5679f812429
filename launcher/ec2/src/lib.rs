//! The EC2 calls that the launcher makes, and the price list's one, in types of our own: the only crate that compiles the SDK.

// No panic on an instance, nor in what it shares: `unwrap` and `expect` are refused everywhere, these where they would be reachable.
#![cfg_attr(
    not(test),
    warn(clippy::panic, clippy::unreachable, clippy::indexing_slicing, clippy::string_slice)
)]

mod convert;
mod error;
mod launch;
mod price;
mod retry;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_ec2::types::Filter;
use aws_smithy_http_client::ConnectorBuilder;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use std::collections::BTreeMap;
use std::time::Duration;

use retry::CapacityIsAnAnswer;

pub use error::{Error, Kind};
pub use launch::{Launch, Market};

/// What a call gives.
pub type Result<T> = std::result::Result<T, Error>;

/// How often a throttled or broken call is tried; the SDK waits in between, longer each time.
const TRIES: u32 = 6;
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// One try.
const ATTEMPT: Duration = Duration::from_secs(30);
/// One connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client for one region.
pub struct Client {
    sdk: aws_sdk_ec2::Client,
    /// The price list is a service of its own.
    pricing: aws_sdk_pricing::Client,
}

/// A machine image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `ami-…`
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its processor, in EC2's words: `x86_64`, `arm64`.
    pub arch: String,
    /// The device of its root volume.
    pub root_device: String,
    /// The least size of its root volume, in GiB.
    pub root_gib: i32,
    /// RFC 3339 in UTC: the order of these texts is that of time.
    pub created: String,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// `subnet-…`
    pub id: String,
    /// Its availability zone.
    pub zone: String,
    /// `vpc-…`
    pub vpc: String,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `sg-…`
    pub id: String,
    /// `vpc-…`
    pub vpc: String,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `i-…`
    pub id: String,
    /// Public address, else private.
    pub ip: Option<String>,
    /// Native type.
    pub kind: String,
    /// Availability zone.
    pub zone: Option<String>,
    /// `ami-…`
    pub image: String,
    /// Whether it is a spot instance.
    pub spot: bool,
    /// RFC 3339.
    pub launched_at: String,
    /// `pending`, `running`, …
    pub state: String,
    /// Why it is in that state, where EC2 says so.
    pub reason: Option<String>,
    /// What it was tagged with.
    pub tags: BTreeMap<String, String>,
}

impl Client {
    /// Finds credentials as every AWS tool does: environment, profile, web identity, container, metadata service. Asks nothing of EC2 yet.
    pub async fn connect(region: &str) -> Self {
        // As the SDK's own default client, but with our one TLS provider: any other way to make it knows no proxy.
        let http = aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, parts| {
            let mut connector = ConnectorBuilder::default()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .proxy_config(ProxyConfig::from_env());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(parts.and_then(aws_smithy_runtime_api::client::runtime_components::RuntimeComponents::sleep_impl));
            connector.build()
        });
        let retry = RetryConfig::standard().with_max_attempts(TRIES).with_max_backoff(LONGEST_WAIT);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .operation_attempt_timeout(ATTEMPT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(region.to_owned()))
            .retry_config(retry)
            .timeout_config(timeouts);
        if let Ok(name) = AppName::new("cml") {
            loader = loader.app_name(name);
        }
        let shared = loader.load().await;
        let config = aws_sdk_ec2::config::Builder::from(&shared).retry_classifier(CapacityIsAnAnswer);
        Self {
            pricing: price::client(&shared),
            sdk: aws_sdk_ec2::Client::from_conf(config.build()),
        }
    }

    /// The image of this id.
    pub async fn image(&self, id: &str) -> Result<Option<Image>> {
        let answer = self.sdk.describe_images().image_ids(id).send().await.map_err(Error::of)?;
        Ok(answer.images().first().map(convert::image))
    }

    /// An owner's available images whose name has this form, for a processor.
    pub async fn images(&self, owner: &str, pattern: &str, arch: &str) -> Result<Vec<Image>> {
        let filters = [
            ("name", pattern),
            ("architecture", arch),
            ("state", "available"),
            ("root-device-type", "ebs"),
        ];
        let request = self
            .sdk
            .describe_images()
            .owners(owner)
            .set_filters(Some(filters.map(filter).into()));
        let answer = request.send().await.map_err(Error::of)?;
        Ok(answer.images().iter().map(convert::image).collect())
    }

    /// The subnet of this id.
    pub async fn subnet(&self, id: &str) -> Result<Option<Subnet>> {
        let answer = self.sdk.describe_subnets().subnet_ids(id).send().await.map_err(Error::of)?;
        Ok(answer.subnets().first().map(convert::subnet))
    }

    /// The default VPC's own subnets: one a zone.
    pub async fn default_subnets(&self) -> Result<Vec<Subnet>> {
        let filters = [("default-for-az", "true"), ("state", "available")];
        let request = self.sdk.describe_subnets().set_filters(Some(filters.map(filter).into()));
        let answer = request.send().await.map_err(Error::of)?;
        Ok(answer.subnets().iter().map(convert::subnet).collect())
    }

    /// The security group of this id, or those of this name: each VPC may have one.
    pub async fn groups(&self, id_or_name: &str) -> Result<Vec<Group>> {
        let request = self.sdk.describe_security_groups();
        let request = if id_or_name.starts_with("sg-") {
            request.group_ids(id_or_name)
        } else {
            request.filters(filter(("group-name", id_or_name)))
        };
        let answer = request.send().await.map_err(Error::of)?;
        Ok(answer.security_groups().iter().map(convert::group).collect())
    }

    /// Asks for one instance. A repeated try of the same call is the same launch to EC2, by its client token.
    pub async fn launch(&self, launch: &Launch) -> Result<Instance> {
        let answer = launch.request(&self.sdk).send().await.map_err(Error::of)?;
        let instance = answer.instances().first().map(convert::instance);
        instance.ok_or_else(|| Error::unreadable("RunInstances gave no instance"))
    }

    /// Every instance that has this tag with one of these values and is not long gone; a `*` in a value stands for any text.
    pub async fn tagged(&self, key: &str, values: &[&str]) -> Result<Vec<Instance>> {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let filter = Filter::builder().name(format!("tag:{key}")).set_values(Some(values)).build();
        let mut pages = self.sdk.describe_instances().filters(filter).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.try_next().await.map_err(Error::of)? {
            let instances = page.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances);
            found.extend(instances.map(convert::instance));
        }
        Ok(found)
    }

    /// Destroys an instance; one that is gone already is destroyed.
    pub async fn terminate(&self, id: &str) -> Result<()> {
        self.sdk
            .terminate_instances()
            .instance_ids(id)
            .send()
            .await
            .map(drop)
            .map_err(Error::of)
    }

    /// What the instance wrote on its console: the newest that EC2 has, where the type allows to ask for it.
    pub async fn console(&self, id: &str) -> Result<String> {
        let ask = |latest| self.sdk.get_console_output().instance_id(id).set_latest(latest).send();
        let answer = match ask(Some(true)).await.map_err(Error::of) {
            Err(error) if error.kind() == Kind::Invalid => ask(None).await.map_err(Error::of)?,
            answer => answer?,
        };
        Ok(convert::console(answer.output().unwrap_or_default()))
    }
}

fn filter((name, value): (&str, &str)) -> Filter {
    Filter::builder().name(name).values(value).build()
}
