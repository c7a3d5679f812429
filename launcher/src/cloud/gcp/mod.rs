//! Google Compute Engine: one `instances.insert` an attempt, nothing else is made, nothing else is left.

mod body;
mod compute;
mod credentials;
mod error;
mod machine;
mod names;
mod network;
mod place;
mod refusal;
mod request;
mod service_account;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use common::error::{Class, Failure};
use common::spec::CloudKind;
use jiff::Timestamp;

use super::{Cloud, Instance, LEGACY, Life, Offer, Order, Prices, Search};
use crate::catalog;
use crate::options::CloudOptions;
use body::{Found, last};
use compute::Compute;
use error::{Error, Kind};
use place::Target;

/// Compute Engine in one region of one project.
pub struct Gcp {
    compute: Compute,
    region: String,
}

impl Gcp {
    /// Finds the credentials and the project; nothing is asked of Compute Engine yet.
    pub async fn open(options: &CloudOptions) -> Result<Self> {
        let region = catalog::region(CloudKind::Gcp, &options.cloud_region)?.region;
        Ok(Self {
            compute: Compute::open().await?,
            region,
        })
    }

    /// One attempt. A name that another machine has, which may be stopped or still on its way out, is no reason to give up.
    async fn attempt(&self, order: &Order, target: &Target, number: usize) -> Result<Result<Instance, Error>> {
        let derived = names::derived(&order.name, &order.launch_id);
        let name = if names::is_legal(&order.name) { &order.name } else { &derived };
        let made = self.insert(order, target, name, number).await?;
        match made {
            Err(error) if error.kind() == Kind::Exists && *name != derived => {
                if let Some(ours) = self.taken_by_us(order, target, name).await {
                    return Ok(Ok(ours));
                }
                tracing::info!(
                    "{name} is the name of another machine in {}; this one is called {derived}",
                    target.zone
                );
                self.insert(order, target, &derived, number).await
            }
            made => Ok(made),
        }
    }

    async fn insert(&self, order: &Order, target: &Target, name: &str, number: usize) -> Result<Result<Instance, Error>> {
        let body = request::insert(order, target, name, number)?;
        let made = self.compute.insert(&target.zone, &body, &request::id()).await;
        Ok(made.map(|operation| Instance {
            id: id(&target.zone, name),
            ip: None,
            kind: target.machine.to_string(),
            region: self.region.clone(),
            zone: Some(target.zone.clone()),
            image: last(&target.image).to_owned(),
            spot: order.options.cloud_spot,
            launched_at: utc(&operation.insert_time.unwrap_or_default()),
            state: "RUNNING".into(),
            life: Life::Live,
            tags: order.tags.clone(),
        }))
    }

    /// The machine that has the name, if it is this very launch's.
    async fn taken_by_us(&self, order: &Order, target: &Target, name: &str) -> Option<Instance> {
        let found = self.compute.instance(&target.zone, name).await.ok()?;
        let instance = self.instance(found);
        (instance.tags.get(request::LAUNCH_ID) == Some(&order.launch_id) && !instance.is_gone()).then_some(instance)
    }

    fn instance(&self, found: Found) -> Instance {
        let zone = last(&found.zone);
        let attached = found.guest_accelerators.first();
        // Machines that bring their GPUs tell of them as of attached ones; their name says it all.
        let attached = attached.filter(|_| found.machine_type.contains("/n1-") || found.machine_type.contains("custom-"));
        let kind = last(&found.machine_type).to_owned();
        let interface = found.network_interfaces.into_iter().next().unwrap_or_default();
        let external = interface.access_configs.into_iter().find_map(|access| access.nat_ip);
        let labels = found.labels.into_iter().filter(|(key, _)| !request::is_own(key));
        let items = found.metadata.items.into_iter().map(|item| (item.key, item.value));
        let tags: BTreeMap<String, String> = labels.chain(items.filter(|(key, _)| request::is_own(key))).collect();
        Instance {
            id: id(zone, &found.name),
            ip: external.or(interface.network_ip),
            kind: match attached {
                Some(attached) => format!("{kind}+{}*{}", last(&attached.accelerator_type), attached.accelerator_count),
                None => kind,
            },
            region: self.region.clone(),
            zone: Some(zone.to_owned()),
            image: tags.get(request::IMAGE).map(|image| last(image).to_owned()).unwrap_or_default(),
            spot: found.scheduling.provisioning_model == "SPOT",
            launched_at: utc(&found.creation_timestamp),
            life: life(&found.status),
            state: match found.status_message.as_str() {
                "" => found.status,
                reason => format!("{} ({reason})", found.status),
            },
            tags,
        }
    }
}

/// What its states mean ([states]). A machine that has stopped has a disk, and nobody starts it again.
///
/// [states]: https://docs.cloud.google.com/compute/docs/instances/instance-lifecycle
fn life(status: &str) -> Life {
    match status {
        "STOPPING" | "STOPPED" | "TERMINATED" | "SUSPENDING" | "SUSPENDED" | "PENDING_STOP" => Life::Stopped,
        "DEPROVISIONING" => Life::Gone,
        _ => Life::Live,
    }
}

/// A name is one machine's only within its zone.
fn id(zone: &str, name: &str) -> String {
    format!("{zone}/{name}")
}

/// Zone and name.
fn parts(id: &str) -> Result<(&str, &str)> {
    id.split_once('/')
        .with_context(|| Failure::new(Class::Usage, format!("`{id}` is no machine of Google Cloud's")).hint("write `ZONE/NAME`"))
}

/// A time of Compute Engine's, which has the offset of California.
fn utc(text: &str) -> String {
    text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), |at| format!("{at:.0}"))
}

/// One attempt in words.
fn planned(order: &Order, target: &Target) -> Result<String> {
    let body = request::insert(order, target, &order.name, 0)?;
    let labels: Vec<String> = body.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let interface = body.network_interfaces.first().context("no interface")?;
    let network = interface.subnetwork.as_ref().or(interface.network.as_ref()).context("no network")?;
    let address = if interface.access_configs.is_empty() {
        "no external address"
    } else {
        "an external address"
    };
    let account = body.service_accounts.first().map_or("no service account".to_owned(), |account| {
        format!("{} ({})", account.email, account.scopes.join(" "))
    });
    let scheduling = &body.scheduling;
    Ok([
        format!(
            "instances.insert {} {} in {}",
            target.machine, scheduling.provisioning_model, target.zone
        ),
        last(&target.image).to_owned(),
        format!(
            "{} of {} GB, deleted with it",
            target.machine.disk(),
            request::disk_gb(order, target)
        ),
        format!("{network} with {address}"),
        account,
        format!("deleted after {} s at the latest", scheduling.max_run_duration.seconds),
        format!("labels {}", labels.join(" ")),
    ]
    .join(", "))
}

#[async_trait]
impl Prices for Gcp {
    /// Google's price list is by parts of machines, not by types.
    async fn hourly(&self, _: &Offer) -> Result<Option<f64>> {
        Ok(None)
    }
}

#[async_trait]
impl Cloud for Gcp {
    fn supports(&self, options: &CloudOptions) -> Result<()> {
        options.cloud_permission_set.as_deref().map(service_account::read).transpose()?;
        network::interface(options.cloud_gcp_network.as_deref())?;
        names::labels(&options.cloud_metadata)?;
        Ok(())
    }

    async fn plan(&self, order: &Order) -> Result<Vec<String>> {
        let title = format!(
            "# {} in {} of the project {}: the first attempt that finds capacity is the last",
            order.name,
            self.region,
            self.compute.project()
        );
        let targets = place::targets(&self.compute, order).await?;
        let attempts = targets.iter().map(|target| planned(order, target));
        std::iter::once(Ok(title)).chain(attempts).collect()
    }

    async fn create(&self, order: &Order) -> Result<Instance> {
        let targets = place::targets(&self.compute, order).await?;
        let mut last = None;
        for (number, target) in targets.iter().enumerate() {
            let error = match self.attempt(order, target, number).await? {
                Ok(instance) => return Ok(instance),
                Err(error) => error,
            };
            if !matches!(error.kind(), Kind::Capacity | Kind::Unoffered) {
                return Err(refusal::of("instances.insert", error));
            }
            tracing::warn!("no {} in {}: {error}; trying the next", target.machine, target.zone);
            last = Some((error, target));
        }
        let (error, target) = last.context("there was nothing to try")?;
        Err(match error.kind() {
            Kind::Capacity => refusal::no_capacity(error, &target.machine, order.options.cloud_spot),
            _ => refusal::of("instances.insert", error),
        })
    }

    async fn find(&self, search: &Search<'_>) -> Result<Vec<Instance>> {
        let filter = match *search {
            Search::Launch(id) => format!("labels.{} = \"{}\"", request::LAUNCH_ID, names::slug(id)),
            Search::All => format!("labels.{}:*", request::OURS),
            Search::Legacy => format!("name eq \"({}).*\"", LEGACY.join("|")),
        };
        let found = self.compute.instances(&filter, &self.region).await;
        let found = found.map_err(|error| refusal::of("instances.aggregatedList", error))?;
        let found = found.into_iter().map(|found| self.instance(found));
        // A label has no capitals: the whole id is among the metadata.
        let is_meant = |instance: &Instance| match *search {
            Search::Launch(id) => instance.tags.get(request::LAUNCH_ID).is_some_and(|own| own == id),
            Search::All => true,
            Search::Legacy => !instance.tags.contains_key(request::OURS),
        };
        Ok(found.filter(is_meant).collect())
    }

    async fn destroy(&self, instance_id: &str) -> Result<()> {
        let (zone, name) = parts(instance_id)?;
        match self.compute.delete(zone, name).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            done => done.map(drop).map_err(|error| refusal::of("instances.delete", error)),
        }
    }

    async fn console(&self, instance_id: &str) -> Result<String> {
        let (zone, name) = parts(instance_id)?;
        let output = self.compute.console(zone, name).await;
        output.map_err(|error| refusal::of("instances.getSerialPortOutput", error))
    }
}

#[cfg(test)]
mod tests;
