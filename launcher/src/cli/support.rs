//! Options that only some clouds or forges support: refused by name before anything is asked or created.

use std::fmt::Display;

use anyhow::Result;
use common::error::{Class, Failure};
use common::spec::{CloudKind, ForgeKind};

use super::{Given, Warning};
use crate::access::PEM;
use crate::options::GenericOptions;

/// The clouds that support an option; one that is not here is every cloud's.
const CLOUDS: [(&str, &[CloudKind]); 7] = [
    // Clusters have no common name for such nodes: a label of theirs selects them.
    ("cloud_spot", &[CloudKind::Aws, CloudKind::Azure, CloudKind::Gcp]),
    // Spot machines of Google's have a fixed price.
    ("cloud_spot_price", &[CloudKind::Aws, CloudKind::Azure]),
    ("cloud_aws_security_group", &[CloudKind::Aws]),
    ("cloud_aws_subnet", &[CloudKind::Aws]),
    ("cloud_gcp_network", &[CloudKind::Gcp]),
    ("cloud_ssh_private", &[CloudKind::Aws, CloudKind::Azure, CloudKind::Gcp]),
    ("cloud_kubernetes_node_selector", &[CloudKind::Kubernetes]),
];

/// The forges that support an option; one that is not here is every forge's.
const FORGES: [(&str, &[ForgeKind]); 6] = [
    ("app_id", &[ForgeKind::GitHub]),
    ("app_private_key", &[ForgeKind::GitHub]),
    ("executor", &[ForgeKind::GitLab, ForgeKind::Bitbucket]),
    ("docker_image", &[ForgeKind::GitLab]),
    ("docker_volumes", &[ForgeKind::GitLab]),
    ("reuse_idle", &[ForgeKind::GitHub, ForgeKind::GitLab]),
];

/// Refuses the options that the chosen cloud does not support. Without a cloud they have no effect, as in the old tool.
pub fn check_cloud(cloud: Option<CloudKind>, given: &Given) -> Result<Vec<Warning>> {
    let Some(cloud) = cloud else {
        let idle = given.sources().filter(|(id, _)| id.starts_with("cloud_"));
        return Ok(idle
            .map(|(_, source)| Warning(format!("`{source}` has no effect without `--cloud`: the runner runs on this host")))
            .collect());
    };
    check(&CLOUDS, "cloud", &cloud, given)?;
    let price = given.source("cloud_spot_price").filter(|_| given.source("cloud_spot").is_none());
    Ok(price
        .map(|source| Warning(format!("`{source}` has no effect without `--cloud-spot`")))
        .into_iter()
        .collect())
}

/// Refuses half of a GitHub App, and its key on a command line, which every user of a machine can read.
pub fn check_app(options: &GenericOptions, given: &Given) -> Result<()> {
    let failure = match (given.source("app_id"), given.source("app_private_key")) {
        (Some(id), None) => Failure::new(Class::Usage, format!("`{id}` is given without `--app-private-key`"))
            .hint("`--app-private-key` names the file of the App's private key, or CML_RUNNER_APP_PRIVATE_KEY holds the key itself"),
        (None, Some(key)) => Failure::new(Class::Usage, format!("`{key}` is given without `--app-id`"))
            .hint("`--app-id` is the client id, or the number, that the App's settings show"),
        (_, Some(key)) if key.starts_with('-') && options.app_private_key.as_ref().is_some_and(|key| key.expose().starts_with(PEM)) => {
            Failure::new(
                Class::Usage,
                format!("`{key}` holds the key itself, and every user of a machine can read its command lines"),
            )
            .hint("set CML_RUNNER_APP_PRIVATE_KEY to it, or name a file that holds it")
        }
        _ => return Ok(()),
    };
    Err(failure.into())
}

/// Whether it is for the runner to say what jobs run in.
pub fn takes_executor(forge: ForgeKind) -> bool {
    FORGES.iter().any(|(id, forges)| *id == "executor" && forges.contains(&forge))
}

/// Refuses the options that the forge does not support.
pub fn check_forge(forge: ForgeKind, given: &Given) -> Result<()> {
    check(&FORGES, "driver", &forge, given)
}

fn check<K: Display + PartialEq>(table: &[(&str, &[K])], flag: &str, chosen: &K, given: &Given) -> Result<()> {
    for (id, supporting) in table {
        let Some(source) = given.source(id) else { continue };
        if !supporting.contains(chosen) {
            let names: Vec<String> = supporting.iter().map(|kind| format!("`--{flag}={kind}`")).collect();
            return Err(
                Failure::new(Class::Usage, format!("`{source}` is not supported with `--{flag}={chosen}`"))
                    .hint(format!("it is supported with {}", names.join(" and ")))
                    .into(),
            );
        }
    }
    Ok(())
}

/// Whether a cloud takes an option, for the table of clouds.
#[cfg(test)]
pub fn takes(cloud: CloudKind, id: &str) -> bool {
    let row = CLOUDS.iter().find(|(limited, _)| *limited == id);
    row.is_none_or(|(_, supporting)| supporting.contains(&cloud))
}

/// The clouds or forges that an option is limited to, for the reference.
#[cfg(test)]
pub fn limits(id: &str) -> Option<String> {
    fn join<K: Display>(table: &[(&str, &[K])], id: &str) -> Option<String> {
        let (_, kinds) = table.iter().find(|(limited, _)| *limited == id)?;
        Some(kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }
    join(&CLOUDS, id).or_else(|| join(&FORGES, id))
}
