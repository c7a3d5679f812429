//! The start-up data of an instance: one POSIX script ([`SCRIPT`]) with the values of a launch in it.
//!
//! Pure. Values stand in single quotes, where a shell takes every character as it is: none of them can end the quotes, the line or the script.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::certificates::Certificates;
use common::error::{Class, Failure};
use common::network::Network;
use common::phase;
use common::spec::CloudKind;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The script; `@@name@@` stands for a value.
const SCRIPT: &str = include_str!("bootstrap.sh");

/// What its timer does on Azure before it powers off, as a part of that script.
const AZURE: &str = include_str!("bootstrap/azure.sh");

/// The unit that runs the agent where systemd does.
const UNIT: &str = include_str!("../../agent/systemd/cml-agent.service");

/// How many bytes of start-up data a cloud takes, before base64. Those with cloud-init, which unpacks it, take it as gzip.
///
/// [EC2], [Azure], [Google Cloud], [Kubernetes]
///
/// [EC2]: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html
/// [Azure]: https://learn.microsoft.com/en-us/azure/virtual-machines/custom-data
/// [Google Cloud]: https://docs.cloud.google.com/compute/docs/metadata/setting-custom-metadata#limitations
/// [Kubernetes]: https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size
const fn limit(cloud: CloudKind) -> usize {
    match cloud {
        CloudKind::Aws => 16 << 10,
        CloudKind::Azure => 64 << 10,
        CloudKind::Gcp => 256 << 10,
        // A little is left for the rest of the object.
        CloudKind::Kubernetes => 1000 << 10,
    }
}

/// The values of one launch. It holds the credential, and so has no `Debug`.
#[derive(Clone)]
pub struct Bootstrap {
    /// Whose machine it is: a pod has no power to switch off.
    pub cloud: CloudKind,
    /// The id of the launch, which Azure's group is called after.
    pub launch_id: String,
    /// The runner spec, as it is written on the machine.
    pub spec: String,
    /// The agent's version: a baked agent of another one is not taken.
    pub version: String,
    /// Where the agent is downloaded from, tried in order; without white space.
    pub agent_urls: Vec<String>,
    /// The agent's SHA-256 in lower-case hex.
    pub agent_sha256: String,
    /// How long after the boot the machine goes away, at most, unless its runner is online.
    pub boot_budget: Duration,
    /// The same as a time of day, in seconds since 1970: the earlier one counts.
    pub boot_deadline: i64,
    /// How long after the boot the machine goes away whatever becomes of it, if ever.
    pub lifetime: Option<Duration>,
    /// Whether jobs have a `/tmp` of their own.
    pub private_tmp: bool,
    /// Who may log in, for debugging.
    pub login: Option<Login>,
    /// The machine's network.
    pub network: Network,
    /// Whom the machine trusts besides its own.
    pub certificates: Option<Certificates>,
}

/// A user of the instance and the key to log in with.
#[derive(Debug, Clone)]
pub struct Login {
    /// The image's own user.
    pub user: String,
    /// In the format of `authorized_keys`, one line.
    pub public_key: String,
}

impl Bootstrap {
    /// The script.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(SCRIPT.len() + UNIT.len() + self.spec.len());
        let mut rest = SCRIPT;
        // One pass over our own text: what looks like a placeholder inside a value stays as it is.
        while let Some((before, name, after)) = placeholder(rest) {
            text.push_str(before);
            text.push_str(&self.value(name));
            rest = after;
        }
        text.push_str(rest);
        text
    }

    fn value(&self, name: &str) -> String {
        match name {
            "version" => quote(&self.version),
            "urls" => quote(&self.agent_urls.join(" ")),
            "sha256" => quote(&self.agent_sha256),
            "budget" => self.boot_budget.as_secs().max(1).to_string(),
            "deadline" => self.boot_deadline.to_string(),
            "lifetime" => self.lifetime.map(|time| time.as_secs().max(1).to_string()).unwrap_or_default(),
            "login" => quote(self.login.as_ref().map_or("", |login| &login.user)),
            "public_key" => quote(self.login.as_ref().map_or("", |login| &login.public_key)),
            "pod" => match self.cloud {
                CloudKind::Kubernetes => quote("yes"),
                CloudKind::Aws | CloudKind::Azure | CloudKind::Gcp => quote(""),
            },
            "linger" => match self.cloud {
                CloudKind::Azure => phase::readable(self.boot_budget).as_secs().max(1).to_string(),
                CloudKind::Aws | CloudKind::Gcp | CloudKind::Kubernetes => String::new(),
            },
            "farewell" => match self.cloud {
                CloudKind::Azure => AZURE.replace("@@group@@", &quote(&self.launch_id.to_ascii_lowercase())),
                CloudKind::Aws | CloudKind::Gcp | CloudKind::Kubernetes => String::new(),
            },
            "network" => self.network(),
            "certificates" => quote(&self.certificates.as_ref().map(Certificates::to_pem).unwrap_or_default()),
            "spec" => quote(&self.spec),
            "unit" => quote(&unit(self.private_tmp)),
            // A test sees that the script names nothing else.
            other => format!("@@{other}@@"),
        }
    }

    /// A command that makes the network's proxy known; none where there is no proxy.
    fn network(&self) -> String {
        let variables = self.network.variables(|_| None);
        let words = variables.iter().map(|(name, value)| format!(" {name}={}", quote(value)));
        let words: String = words.collect();
        if words.is_empty() { words } else { format!("export{words}") }
    }
}

/// The unit, as systemd reads it.
fn unit(private_tmp: bool) -> String {
    UNIT.replace("@@private_tmp@@", if private_tmp { "yes" } else { "no" })
}

/// Text before the first placeholder, its name, text after it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("@@")?;
    let (name, after) = rest.split_once("@@")?;
    Some((before, name, after))
}

/// One shell word that is exactly `value`.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Refuses start-up data that the cloud would. `own` are the options whose values are a part of it, and how long they are, to name them.
pub fn check(cloud: CloudKind, rendered: &str, own: &[(&str, usize)]) -> Result<()> {
    let packed = match cloud {
        CloudKind::Aws | CloudKind::Azure => gzip(rendered.as_bytes())?.len(),
        CloudKind::Gcp | CloudKind::Kubernetes => rendered.len(),
    };
    let limit = limit(cloud);
    if packed <= limit {
        return Ok(());
    }
    let message = format!("the start-up data has {packed} bytes as it is sent, of which {cloud} takes {limit}");
    let large: Vec<String> = own
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(option, bytes)| format!("`{option}` has {bytes} bytes"))
        .collect();
    let hint = if large.is_empty() {
        "shorten the labels, addresses and other values that you give".to_owned()
    } else {
        format!(
            "{}: let a short script download the rest, and give no certificates but those of your own authorities",
            large.join(", ")
        )
    };
    Err(Failure::new(Class::Usage, message).hint(hint).into())
}

/// Compresses as well as it can.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .context("compressing the start-up data")
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
pub mod tests;
