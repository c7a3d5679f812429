//! Azure: a resource group for each runner, in it a network, one machine and what the machine deletes with itself. Whoever deletes the group deletes all of it.

mod arm;
mod body;
mod credential;
mod ending;
mod endpoint;
mod place;
mod price;
mod refusal;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use jiff::Timestamp;

use super::{Cloud, Instance, Life, Offer, Order, Prices, Search};
use crate::options::CloudOptions;
use arm::{Arm, Error, Refusal};
use body::Identity;
use place::Parts;
use refusal::Kind;
use view::{Address, Diagnostics, Group, Machine, Page};

/// The tag that finds what a launch made.
const LAUNCH_ID: &str = "cml-launch-id";
/// The tag that everything has.
const OURS: &str = "cml";
/// The tag of a machine that names the identity it ends itself as.
const IDENTITY: &str = "cml-identity";

/// The versions of Azure's APIs.
const GROUPS: &str = "2021-04-01";
const NETWORKS: &str = "2024-05-01";
const MACHINES: &str = "2024-07-01";

/// How long a link to the console's log is good, in minutes: the least that there is.
const LINK_MINUTES: &str = "1";
/// Without it, a group is deleted only when its machine has shut down in its own time.
const FORCED: (&str, &str) = ("forceDeletionTypes", "Microsoft.Compute/virtualMachines");

/// One subscription.
pub struct Azure {
    arm: Arm,
}

impl Azure {
    /// Finds the credentials; nothing is asked of Azure yet.
    pub fn open() -> Result<Self> {
        Ok(Self { arm: Arm::open()? })
    }

    fn group(&self, name: &str) -> String {
        self.arm.path(&format!("/resourceGroups/{name}"))
    }

    fn machine(&self, name: &str) -> String {
        format!("{}/providers/Microsoft.Compute/virtualMachines/{name}", self.group(name))
    }

    fn network(&self, name: &str) -> String {
        format!("{}/providers/Microsoft.Network/virtualNetworks/{}", self.group(name), body::ONE)
    }

    fn own_identity(&self, name: &str) -> String {
        format!(
            "{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{}",
            self.group(name),
            body::ONE
        )
    }

    /// The resource ids of those that the machine is to be, first the one that ends it.
    fn identities(&self, identity: Identity, name: &str) -> Vec<String> {
        match identity {
            Identity::Own => vec![self.own_identity(name)],
            Identity::Given(ids) => ids,
        }
    }

    /// All that the machine needs, its right to end itself too: it is made last. Nothing of this costs anything.
    async fn prepare(&self, order: &Order, parts: &Parts, identity: &Identity) -> Result<()> {
        let location = parts.place.region.as_str();
        let group = body::Group {
            location,
            tags: &order.tags,
        };
        let made = self.arm.put(&self.group(&parts.name), GROUPS, &group).await;
        made.map_err(|error| refusal::of("making the resource group", error))?;
        let principal = match identity {
            Identity::Own => {
                ending::check(&self.arm, &self.group(&parts.name)).await?;
                Some(ending::introduce(&self.arm, &self.own_identity(&parts.name), &group).await?)
            }
            Identity::Given(_) => None,
        };
        let network = body::Network::new(location, &order.tags);
        let made = async {
            self.arm
                .settle(self.arm.put(&self.network(&parts.name), NETWORKS, &network).await?)
                .await
        };
        made.await.map_err(|error| refusal::of("making the network", error))?;
        // The network took its time: meanwhile the identity has become known.
        match principal {
            Some(principal) => ending::allow(&self.arm, &self.group(&parts.name), &principal).await,
            None => Ok(()),
        }
    }

    /// One try; a refusal of this type is an answer, anything else an error. The machine that could not be made is not left behind.
    async fn attempt(&self, body: &serde_json::Value, name: &str) -> Result<std::result::Result<(), Refusal>> {
        let begun = match self.arm.put(&self.machine(name), MACHINES, body).await {
            Ok(begun) => begun,
            Err(Error::Refused(refusal)) if is_of_type(&refusal) => return Ok(Err(refusal)),
            Err(error) => return Err(refusal::of("making the machine", error)),
        };
        match self.arm.settle(begun).await {
            Ok(()) => Ok(Ok(())),
            Err(Error::Refused(refusal)) if is_of_type(&refusal) => {
                let query = [("api-version", MACHINES), ("forceDeletion", "true")];
                let removed = async {
                    match self.arm.delete(&self.machine(name), &query).await? {
                        Some(begun) => self.arm.settle(begun).await,
                        None => Ok(()),
                    }
                };
                removed
                    .await
                    .map_err(|error| refusal::of("removing what could not be made", error))?;
                Ok(Err(refusal))
            }
            Err(error) => Err(refusal::of("making the machine", error)),
        }
    }

    /// A group of ours with what is in it.
    async fn look(&self, group: Group) -> Result<Instance, Error> {
        let name = group.name.clone();
        if group.is_going() {
            return Ok(group.instance(None, None, Timestamp::now()));
        }
        let query = [("api-version", MACHINES), ("$expand", "instanceView")];
        let machine = self.arm.get::<Machine>(&self.machine(&name), &query).await?;
        let ip = match machine {
            Some(_) => self.ip(&name).await?,
            None => None,
        };
        Ok(group.instance(machine.as_ref(), ip, Timestamp::now()))
    }

    async fn ip(&self, name: &str) -> Result<Option<String>, Error> {
        let path = format!("{}/providers/Microsoft.Network/publicIPAddresses", self.group(name));
        let found = self.arm.get::<Page<Address>>(&path, &[("api-version", NETWORKS)]).await?;
        Ok(found.and_then(|page| page.value.into_iter().find_map(Address::ip)))
    }

    /// What the machine's console has shown; nothing where there is no machine.
    async fn log(&self, name: &str) -> Result<String> {
        let path = format!("{}/retrieveBootDiagnosticsData", self.machine(name));
        let query = [("api-version", MACHINES), ("sasUriExpirationTimeInMinutes", LINK_MINUTES)];
        let answer = match self.arm.post(&path, &query).await {
            Ok(answer) => answer,
            // A machine that has not booted has no console.
            Err(Error::Refused(refusal)) if matches!(refusal.status, 404 | 409) => return Ok(String::new()),
            Err(error) => return Err(refusal::of("reading the console", error)),
        };
        let Some(link) = answer.json::<Diagnostics>()?.serial_console_log_blob_uri else {
            return Ok(String::new());
        };
        let log = self.arm.outside(link.expose()).await.context("reading the console's log")?;
        if !log.status.is_success() {
            return Ok(String::new());
        }
        let mut log = String::from_utf8_lossy(&log.body).into_owned();
        // It may end in the middle of a line.
        if !log.is_empty() && !log.ends_with('\n') {
            log.push('\n');
        }
        Ok(log)
    }

    /// The groups that a search means.
    async fn groups(&self, search: &Search<'_>) -> Result<Vec<Group>, Error> {
        // By its name, which every part of Azure knows at once; the list of tags comes after.
        if let Search::Launch(id) = search {
            let found = self
                .arm
                .get::<Group>(&self.group(&place::name(id)), &[("api-version", GROUPS)])
                .await?;
            return Ok(found.into_iter().filter(Group::is_ours).collect());
        }
        let filter = format!("tagName eq '{OURS}'");
        let mut query = vec![("api-version", GROUPS)];
        // Azure's filters know tags only.
        let is_meant = if let Search::Legacy = search {
            Group::may_be_legacy
        } else {
            query.push(("$filter", filter.as_str()));
            Group::is_ours
        };
        let mut found = Vec::new();
        let mut page = self.arm.get::<Page<Group>>(&self.arm.path("/resourcegroups"), &query).await?;
        while let Some(this) = page {
            found.extend(this.value.into_iter().filter(is_meant));
            page = match &this.next_link {
                Some(link) => Some(self.arm.next(link).await?),
                None => None,
            };
        }
        Ok(found)
    }
}

/// Whether another type may do better: each family has a quota of its own.
fn is_of_type(refusal: &Refusal) -> bool {
    matches!(refusal::kind(refusal), Kind::Capacity | Kind::Quota | Kind::UnknownType)
}

/// Who the machine is to be.
fn identity(order: &Order) -> Result<Identity> {
    Ok(place::identities(&order.options)?.unwrap_or(Identity::Own))
}

/// The tags of the machine, which tell it as whom it ends itself.
fn machine_tags(order: &Order, identities: &[String]) -> BTreeMap<String, String> {
    let mut tags = order.tags.clone();
    if let Some(first) = identities.first() {
        tags.insert(IDENTITY.to_owned(), first.clone());
    }
    tags
}

/// The bodies of every attempt, in order, each with its type.
fn attempts<'a>(order: &Order, parts: &'a Parts, identities: &[String], subnet: &str) -> Vec<(&'a str, serde_json::Value)> {
    let tags = machine_tags(order, identities);
    let options = &order.options;
    let body = |size: &'a str| {
        let machine = body::Machine {
            name: &parts.name,
            location: &parts.place.region,
            zone: parts.zone(),
            size,
            image: &parts.image,
            disk: parts.disk,
            // Any negative number is no cap, which Azure writes as -1.
            spot: options.cloud_spot.then(|| options.cloud_spot_price.max(-1.0)),
            user: &parts.user,
            public_key: &parts.public_key,
            custom_data: &parts.custom_data,
            subnet,
            identities,
            tags: &tags,
        };
        (size, machine.body())
    };
    parts.candidates.iter().map(|candidate| body(&candidate.native)).collect()
}

#[async_trait]
impl Prices for Azure {
    async fn hourly(&self, offer: &Offer) -> Result<Option<f64>> {
        let answer = self.arm.outside(&price::address(&self.arm.prices, offer)?).await?;
        if !answer.status.is_success() {
            bail!("the list of prices answers {}", answer.status);
        }
        Ok(answer.json::<price::List>()?.hourly(offer.spot))
    }
}

#[async_trait]
impl Cloud for Azure {
    fn supports(&self, options: &CloudOptions) -> Result<()> {
        place::check_tags(options)?;
        place::identities(options)?;
        if let Some(own) = &options.cloud_image {
            place::image(own)?;
        }
        Ok(())
    }

    async fn plan(&self, order: &Order) -> Result<Vec<String>> {
        let (parts, identity) = (Parts::of(order)?, identity(order)?);
        let (group, network) = (self.group(&parts.name), self.network(&parts.name));
        let subnet = format!("{network}/subnets/{}", body::ONE);
        let tags: Vec<String> = order.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut calls = vec![
            format!(
                "# {} in {}: the first type that there is capacity for is the last",
                order.name, parts.place.region
            ),
            format!("PUT {group}, tags {}", tags.join(" ")),
        ];
        if identity == Identity::Own {
            calls.push(format!(
                "GET {group}/providers/Microsoft.Authorization/permissions: it must allow roleAssignments/write"
            ));
            calls.push(format!("PUT {}", self.own_identity(&parts.name)));
        }
        calls.push(format!("PUT {network}"));
        if identity == Identity::Own {
            calls.push(format!(
                "PUT {group}/providers/Microsoft.Authorization/roleAssignments/…: Contributor of this group, for this identity"
            ));
        }
        for (_, mut body) in attempts(order, &parts, &self.identities(identity, &parts.name), &subnet) {
            // What the start-up data is, is shown below the calls.
            if let Some(data) = body.pointer_mut("/properties/osProfile/customData") {
                *data = "(the start-up data)".into();
            }
            calls.push(format!("PUT {} {body}", self.machine(&parts.name)));
        }
        Ok(calls)
    }

    async fn create(&self, order: &Order) -> Result<Instance> {
        let (parts, identity) = (Parts::of(order)?, identity(order)?);
        self.prepare(order, &parts, &identity).await?;
        let subnet = format!("{}/subnets/{}", self.network(&parts.name), body::ONE);
        let mut last = None;
        for (size, body) in attempts(order, &parts, &self.identities(identity, &parts.name), &subnet) {
            match self.attempt(&body, &parts.name).await? {
                Ok(()) => return Ok(made(order, &parts, size, &body)),
                Err(refusal) => {
                    tracing::warn!("no {size} in {}: {refusal}; trying the next", parts.place.region);
                    last = Some((refusal, size));
                }
            }
        }
        let (refusal, size) = last.context("there was nothing to try")?;
        if refusal::kind(&refusal) == Kind::UnknownType {
            return Err(refusal::of("making the machine", Error::Refused(refusal)));
        }
        Err(refusal::no_capacity(refusal, size, order.options.cloud_spot))
    }

    async fn find(&self, search: &Search<'_>) -> Result<Vec<Instance>> {
        let found = async {
            let mut found = Vec::new();
            for group in self.groups(search).await? {
                found.push(self.look(group).await?);
            }
            Ok(found)
        };
        found.await.map_err(|error| refusal::of("listing the machines", error))
    }

    async fn destroy(&self, instance_id: &str) -> Result<()> {
        let deleted = self.arm.delete(&self.group(instance_id), &[("api-version", GROUPS), FORCED]).await;
        deleted.map(drop).map_err(|error| refusal::of("deleting the resource group", error))
    }

    async fn console(&self, instance_id: &str) -> Result<String> {
        let log = self.log(instance_id).await?;
        let group = self.arm.get::<Group>(&self.group(instance_id), &[("api-version", GROUPS)]).await;
        let group = group.map_err(|error| refusal::of("reading the resource group", error))?;
        let words = group.as_ref().and_then(Group::last_words).unwrap_or_default();
        Ok(log + &words)
    }
}

/// The instance that was made, as far as it is known without asking.
fn made(order: &Order, parts: &Parts, size: &str, body: &serde_json::Value) -> Instance {
    let image = body.pointer("/properties/storageProfile/imageReference");
    let parts_of_image = image
        .and_then(|image| image.as_object())
        .into_iter()
        .flat_map(|image| image.values());
    let words: Vec<&str> = parts_of_image.filter_map(|value| value.as_str()).collect();
    Instance {
        id: parts.name.clone(),
        ip: None,
        kind: size.to_owned(),
        region: parts.place.region.clone(),
        zone: parts.place.zone.clone(),
        image: words.join(":"),
        spot: order.options.cloud_spot,
        launched_at: format!("{:.0}", Timestamp::now()),
        state: "creating".to_owned(),
        life: Life::Live,
        tags: order.tags.clone(),
    }
}
