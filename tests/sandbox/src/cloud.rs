//! The cloud of a world, whichever it is: what scenarios ask of it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::azure::Azure;
use crate::ec2::Ec2;
use crate::events::Events;
use crate::faults::Faults;
use crate::fleet::Fleet;
use crate::gce::{self, Gce};
use crate::kubernetes::Cluster;

/// Which cloud.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Amazon EC2.
    #[default]
    Aws,
    /// A Kubernetes cluster.
    Kubernetes,
    /// Microsoft Azure.
    Azure,
    /// Google Compute Engine.
    Gcp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Aws, Self::Azure, Self::Gcp, Self::Kubernetes];

    /// What `--cloud` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Kubernetes => "kubernetes",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
        }
    }

    /// What people call it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Aws => "EC2",
            Self::Gcp => "Google Cloud",
            Self::Azure => "Azure",
            Self::Kubernetes => "Kubernetes",
        }
    }

    /// The options of a machine that the cloud may take back; of Kubernetes any pod.
    pub const fn spot(self) -> &'static [&'static str] {
        match self {
            Self::Aws | Self::Azure | Self::Gcp => &["--cloud-spot"],
            Self::Kubernetes => &[],
        }
    }

    /// The variable that names the file in which requests are kept, for who holds them against the vendor's own description.
    pub const fn record(self) -> &'static str {
        match self {
            Self::Aws => "CML_SANDBOX_RECORD_EC2",
            Self::Azure => "CML_SANDBOX_RECORD_AZURE",
            Self::Gcp => "CML_SANDBOX_RECORD_GCP",
            Self::Kubernetes => "CML_SANDBOX_RECORD_KUBERNETES",
        }
    }

    /// What a launch needs so that its machine goes away by itself, without a trace.
    pub const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Aws | Self::Azure | Self::Kubernetes => &[],
            // One that has no account may only power off, which leaves its disk.
            Self::Gcp => &[gce::OPTION],
        }
    }

    /// Whether a notice says how long is left.
    pub const fn tells_when(self) -> bool {
        matches!(self, Self::Aws | Self::Azure)
    }

    /// The call that makes an instance, as [`Faults`] and [`Cloud::calls`] name it.
    pub const fn creation(self) -> &'static str {
        match self {
            Self::Aws => "RunInstances",
            Self::Kubernetes => "create jobs",
            Self::Azure => "PUT machine",
            Self::Gcp => "instances.insert",
        }
    }
}

/// A cloud; clones share it.
#[derive(Clone)]
pub enum Cloud {
    /// Amazon EC2.
    Aws(Ec2),
    /// A Kubernetes cluster.
    Kubernetes(Cluster),
    /// Microsoft Azure.
    Azure(Azure),
    /// Google Compute Engine.
    Gcp(Gce),
}

/// Asks the cloud, whichever it is.
macro_rules! ask {
    ($cloud:expr, $server:ident => $question:expr) => {
        match $cloud {
            Cloud::Aws($server) => $question,
            Cloud::Kubernetes($server) => $question,
            Cloud::Azure($server) => $question,
            Cloud::Gcp($server) => $question,
        }
    };
}

impl Cloud {
    /// Starts one on a free port, whose instances are these. Every request is written down in `record`, if that is given.
    pub async fn start(kind: Kind, events: Events, fleet: Fleet, record: Option<PathBuf>) -> Result<Self> {
        match kind {
            Kind::Aws => Ec2::start(events, fleet, record).await.map(Self::Aws),
            Kind::Kubernetes => Cluster::start(events, fleet, record).await.map(Self::Kubernetes),
            Kind::Azure => Azure::start(events, fleet, record).await.map(Self::Azure),
            Kind::Gcp => Gce::start(events, fleet, record).await.map(Self::Gcp),
        }
    }

    /// Which it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Aws(_) => Kind::Aws,
            Self::Kubernetes(_) => Kind::Kubernetes,
            Self::Azure(_) => Kind::Azure,
            Self::Gcp(_) => Kind::Gcp,
        }
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        ask!(self, server => server.faults())
    }

    /// The next `times` requests of this action are refused with this code of the cloud's, as the cloud does it.
    pub fn fail(&self, action: &str, code: &str, times: usize) {
        ask!(self, server => server.fail(action, code, times));
    }

    /// Every call so far, by its name.
    pub fn calls(&self) -> Vec<String> {
        ask!(self, server => server.calls())
    }

    /// The cloud takes a machine back: the notice now, the machine after `left`.
    pub fn take_back(&self, id: &str, left: Duration) {
        ask!(self, server => server.take_back(id, left));
    }

    /// The metadata service of an instance answers no more.
    pub fn silence_metadata(&self, id: &str) {
        ask!(self, server => server.silence_metadata(id));
    }

    /// Somebody else makes a machine of this name, which runs nothing.
    pub fn foreign(&self, name: &str) {
        ask!(self, server => server.foreign(name));
    }

    /// What a command is told of where the cloud is, and who it is there; its key is made of `secret`.
    pub fn command_env(&self, secret: &str) -> Vec<(&'static str, String)> {
        ask!(self, server => server.command_env(secret))
    }

    /// Ends it; its instances are the fleet's to end.
    pub async fn close(&self) {
        ask!(self, server => server.close().await);
    }
}
