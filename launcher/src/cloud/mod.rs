//! A cloud seen from outside: makes an instance, finds it, destroys it.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcp")]
mod gcp;
#[cfg(feature = "kubernetes")]
mod kubernetes;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use common::error::{Class, Failure};
use common::spec::CloudKind;
use serde::Serialize;

use crate::options::CloudOptions;

/// What machines cost, where a cloud says so to whoever asks.
#[async_trait]
pub trait Prices {
    /// USD an hour of the machine itself, as it is sold now: without disk, address and traffic, and without anybody's discounts. None where that is not known.
    async fn hourly(&self, offer: &Offer) -> Result<Option<f64>>;
}

/// What has one price.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offer {
    /// Native type.
    pub kind: String,
    /// Native region.
    pub region: String,
    /// Native zone, where there are zones.
    pub zone: Option<String>,
    /// Whether it may be taken back.
    pub spot: bool,
}

/// One per cloud. Every method may be called again after a failure.
#[async_trait]
pub trait Cloud: Prices + Send + Sync {
    /// Refuses what this cloud does not support, before anything is asked or created.
    fn supports(&self, options: &CloudOptions) -> Result<()>;

    /// The calls that [`Cloud::create`] would make, for `--dry-run`; only reads.
    async fn plan(&self, order: &Order) -> Result<Vec<String>>;

    /// Makes one instance; walks zones and candidate types on capacity errors. Returns as soon as the cloud has accepted it.
    async fn create(&self, order: &Order) -> Result<Instance>;

    /// Every instance that this means, as long as the cloud lists it, whatever became of the answer to [`Cloud::create`].
    async fn find(&self, search: &Search<'_>) -> Result<Vec<Instance>>;

    /// Destroys an instance and all that was made with it; gone already is success.
    async fn destroy(&self, instance_id: &str) -> Result<()>;

    /// The console output, as much as the cloud keeps.
    async fn console(&self, instance_id: &str) -> Result<String>;
}

/// Which instances to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search<'a> {
    /// That of the launch with this id.
    Launch(&'a str),
    /// Every one that this tool made.
    All,
    /// Every one that this tool did not make and whose name begins like those of the tool that it replaces; whether that made it is for who asks to tell.
    Legacy,
}

/// How the names begin that the old tool gave: its runners, and its tasks.
pub const LEGACY: [&str; 2] = ["cml-", "tpi-"];

/// An instance to make.
#[derive(Debug, Clone)]
pub struct Order {
    /// Unique per launch: idempotency tokens and the tag that [`Cloud::find`] looks for are made from it.
    pub launch_id: String,
    /// The runner's name.
    pub name: String,
    /// What the user asked for.
    pub options: CloudOptions,
    /// The rendered start-up data, not yet compressed or encoded.
    pub startup_data: String,
    /// Tags on everything that is made; the user's own are among them.
    pub tags: BTreeMap<String, String>,
    /// How long the machine may live at all, where the user said so; the agent ends it earlier by itself.
    pub lifetime: Option<Duration>,
}

/// How long a machine lives at most on a cloud that ends machines by itself, where the user set no limit: no workflow run of GitHub takes [longer][limits].
///
/// [limits]: https://docs.github.com/en/actions/reference/limits
pub const LONGEST_LIFE: Duration = Duration::from_hours(35 * 24);

/// An instance that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// The cloud's id.
    pub id: String,
    /// Public address, else private; none while the cloud has not said.
    pub ip: Option<String>,
    /// Native type.
    pub kind: String,
    /// Native region.
    pub region: String,
    /// Native zone, where there are zones.
    pub zone: Option<String>,
    /// Native image id.
    pub image: String,
    /// Whether it is a spot instance.
    pub spot: bool,
    /// When it was launched, RFC 3339.
    pub launched_at: String,
    /// The cloud's word for its state, and the reason where it died.
    pub state: String,
    /// What that word means.
    #[serde(skip)]
    pub life: Life,
    /// What it was tagged with.
    #[serde(skip)]
    pub tags: BTreeMap<String, String>,
}

/// How far an instance's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs, or will run.
    Live,
    /// It neither runs nor will run, but something of it is left that may cost a little.
    Stopped,
    /// It does not run, and costs what it costs when it runs: Azure's machines that are only powered off.
    Off,
    /// Nothing is left of it but the cloud's memory.
    Gone,
}

impl Instance {
    /// Whether it neither runs nor will run.
    pub fn is_gone(&self) -> bool {
        self.life != Life::Live
    }

    /// As what it is sold.
    pub fn offer(&self) -> Offer {
        Offer {
            kind: self.kind.clone(),
            region: self.region.clone(),
            zone: self.zone.clone(),
            spot: self.spot,
        }
    }

    /// How a person removes it.
    pub fn removal(&self, cloud: CloudKind) -> String {
        let (id, region) = (&self.id, &self.region);
        match cloud {
            CloudKind::Aws => format!("aws ec2 terminate-instances --region {region} --instance-ids {id}"),
            CloudKind::Azure => format!("az group delete --yes --name {id}"),
            CloudKind::Gcp => format!(
                "gcloud compute instances delete {} --zone {}",
                id.rsplit('/').next().unwrap_or(id),
                self.zone.as_deref().unwrap_or(region)
            ),
            CloudKind::Kubernetes => format!("kubectl delete job {id} --namespace {region}"),
        }
    }
}

/// Opens the client of a cloud.
pub async fn open(kind: CloudKind, options: &CloudOptions) -> Result<Box<dyn Cloud>> {
    let unsupported = || Failure::new(Class::Usage, format!("this build of `cml` does not know `--cloud={kind}`"));
    match kind {
        #[cfg(feature = "aws")]
        CloudKind::Aws => Ok(Box::new(Box::pin(aws::Aws::open(options)).await?)),
        #[cfg(feature = "kubernetes")]
        CloudKind::Kubernetes => Ok(Box::new(Box::pin(kubernetes::Kubernetes::open(options)).await?)),
        #[cfg(feature = "azure")]
        CloudKind::Azure => Ok(Box::new(azure::Azure::open()?)),
        #[cfg(feature = "gcp")]
        CloudKind::Gcp => Ok(Box::new(Box::pin(gcp::Gcp::open(options)).await?)),
        #[allow(unreachable_patterns, reason = "a build with all clouds knows all of them")]
        _ => {
            let _ = options;
            Err(unsupported().hint(format!("it knows: {}", known().join(", "))).into())
        }
    }
}

/// The clouds of this build: each is a cargo feature.
fn known() -> Vec<&'static str> {
    let all = [
        ("aws", cfg!(feature = "aws")),
        ("azure", cfg!(feature = "azure")),
        ("gcp", cfg!(feature = "gcp")),
        ("kubernetes", cfg!(feature = "kubernetes")),
    ];
    all.iter().filter(|(_, known)| *known).map(|(name, _)| *name).collect()
}
