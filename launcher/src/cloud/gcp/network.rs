//! `--cloud-gcp-network`: where the machine is attached, `NETWORK[,no-external-ip]`.

use anyhow::Result;
use common::error::{Class, Failure};

use super::body::{AccessConfig, Interface};

/// The network that a new project has.
const DEFAULT: &str = "default";
/// What keeps a machine from having an external address.
const INTERNAL: &str = "no-external-ip";

/// The one interface of the machine.
///
/// # Errors
/// It names neither a network nor a subnetwork.
pub fn interface(wanted: Option<&str>) -> Result<Interface> {
    let text = wanted.unwrap_or(DEFAULT);
    let (name, more) = text.split_once(',').map_or((text, None), |(name, more)| (name, Some(more)));
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-./:".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) || more.is_some_and(|more| more != INTERNAL) {
        return Err(Failure::new(Class::Usage, format!("`--cloud-gcp-network={text}` is no network"))
            .hint(format!(
                "write the name of a network, or `projects/PROJECT/regions/REGION/subnetworks/NAME`; `,{INTERNAL}` behind it for a network with a Cloud NAT"
            ))
            .into());
    }
    let is_subnetwork = name.contains("subnetworks/");
    let path = if name.contains('/') {
        name.trim_start_matches('/').to_owned()
    } else {
        format!("global/networks/{name}")
    };
    let external = AccessConfig {
        kind: "ONE_TO_ONE_NAT",
        name: "External NAT",
    };
    Ok(Interface {
        network: (!is_subnetwork).then(|| path.clone()),
        subnetwork: is_subnetwork.then_some(path),
        access_configs: if more.is_some() { Vec::new() } else { vec![external] },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::interface;

    #[test]
    fn a_network_or_a_subnetwork() {
        let parts = |wanted| {
            let read = interface(wanted).unwrap();
            (read.network, read.subnetwork, read.access_configs.len())
        };
        assert_eq!(parts(None), (Some("global/networks/default".into()), None, 1));
        assert_eq!(parts(Some("ci,no-external-ip")), (Some("global/networks/ci".into()), None, 0));
        let shared = "projects/host/regions/us-west1/subnetworks/ci";
        assert_eq!(parts(Some(shared)), (None, Some(shared.into()), 1));
        for text in ["", "CI", "a b", "a,b", ",no-external-ip", "a?b"] {
            assert!(interface(Some(text)).is_err(), "{text}");
        }
    }
}
