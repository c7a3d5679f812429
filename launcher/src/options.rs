//! Every option of the launcher, once. `cli` parses them, `reference` documents them.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use common::error::{Class, Failure};
use common::log::Level;
use common::secret::Secret;
use common::spec::{CloudKind, ForgeKind, RunnerOptions};

/// Self-hosted CI runners on any cloud, launched by one command from a workflow step.
#[derive(Debug, Parser)]
#[command(name = "cml", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Launch a runner on a cloud, or run one on this host
    Runner(Box<RunnerCommand>),
}

/// `cml runner [launch] [options]`.
#[derive(Debug, Args)]
pub struct RunnerCommand {
    /// The options of a launch.
    #[command(flatten)]
    pub launch: LaunchOptions,
}

/// Every option of `cml runner`.
#[derive(Debug, Clone, Args)]
pub struct LaunchOptions {
    /// What the agent is told.
    #[command(flatten, next_help_heading = "Runner options")]
    pub runner: RunnerOptions,
    /// What the launcher decides.
    #[command(flatten)]
    pub decision: DecisionOptions,
    /// What the instance is made of.
    #[command(flatten)]
    pub cloud: CloudOptions,
    /// Where the repository is and how to speak to it.
    #[command(flatten)]
    pub generic: GenericOptions,
    /// Accepted for the old tool's sake.
    #[command(flatten, next_help_heading = "Options without effect")]
    pub ignored: IgnoredOptions,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generic options")]
pub struct GenericOptions {
    /// Personal access token [default: `REPO_TOKEN`, else the forge's own `GITHUB_TOKEN`, `GITLAB_TOKEN` or `BITBUCKET_TOKEN`]
    #[arg(long, alias = "driver-token", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,

    /// File that the token is read from; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// GitHub App in place of a token: its client id or its number. Machines get a configuration for one job only: with `--cloud`, `--single` is required
    #[arg(long, value_name = "ID", conflicts_with_all = ["token", "token_file"])]
    pub app_id: Option<String>,

    /// File of that App's private key (PEM); `-` for standard input. The environment may hold the key itself
    #[arg(long, value_name = "FILE", hide_env_values = true, conflicts_with_all = ["token", "token_file"])]
    pub app_private_key: Option<Secret>,

    /// Repository, organisation or group: a URL or a slug `owner/repo` [default: the git remote, else the CI's own variables]
    #[arg(long, value_name = "REPO")]
    pub repo: Option<String>,

    /// Forge of the repository [default: from the repository's host, else the CI's own variables]
    #[arg(long, value_enum, value_name = "FORGE")]
    pub driver: Option<ForgeKind>,

    /// Least important level that is logged
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub log: Level,
}

/// How the launcher decides and reports.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Launch options")]
pub struct DecisionOptions {
    /// Runner name displayed in the CI [default: cml-{ID}]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Don't launch a new runner if an existing one has the same name or all the labels
    #[arg(long, conflicts_with_all = ["reuse_idle", "single"])]
    pub reuse: bool,

    /// Don't launch a new runner if one with all the labels is online and idle
    #[arg(long, conflicts_with_all = ["reuse", "single"])]
    pub reuse_idle: bool,

    /// Print what would be done, secrets masked, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Only check the options and the token, and write them to this file (mode 0600): `cml-agent install` has a service of this host made of it
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,

    /// Directory of the runner's state on this host [default: ~/.cml/NAME]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Form of the result on standard output
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,

    /// Where an instance downloads the agent from (several addresses: separated by spaces); `{version}` and `{arch}` are replaced
    #[arg(long, value_name = "URL")]
    pub agent_url: Option<String>,

    /// SHA-256 of that download, in hex
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub agent_sha256: Option<String>,
}

/// The form of the result on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines for a person.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What the instance is made of. None of it crosses to the machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cloud options")]
pub struct CloudOptions {
    /// Cloud to deploy the runner on [default: none, it runs on this host]
    #[arg(long, value_enum, value_name = "CLOUD")]
    pub cloud: Option<CloudKind>,

    /// Instance type: a generic size (s, m, l, xl, m+t4, …) or a native type such as `t2.micro`
    #[arg(long, default_value = "m", value_name = "TYPE")]
    pub cloud_type: String,

    /// GPU type: nogpu, t4, l4, a10, v100, a100, h100, k80, tesla, …
    #[arg(long, value_name = "GPU")]
    pub cloud_gpu: Option<String>,

    /// Disk storage in GB; never less than the image needs
    #[arg(long, default_value_t = 35, value_name = "GB")]
    pub cloud_hdd_size: u32,

    /// Request a preemptible spot instance
    #[arg(long)]
    pub cloud_spot: bool,

    /// Maximum spot instance bidding price in USD per hour; -1 for no cap
    #[arg(long, default_value = "-1", value_name = "USD", value_parser = price)]
    pub cloud_spot_price: f64,

    /// Region: generic (us-west, us-east, eu-west, eu-north) or native, or an availability zone
    #[arg(long, default_value = "us-west", value_name = "REGION")]
    pub cloud_region: String,

    /// AWS instance profile (ARN or name), Azure user-assigned identities (resource ids), GCP or Kubernetes service account
    #[arg(long, value_name = "PERMISSIONS")]
    pub cloud_permission_set: Option<String>,

    /// `key=value` pair to associate with the instance; repeatable
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    pub cloud_metadata: Vec<String>,

    /// Private SSH RSA key for debugging (its public half goes to the instance)
    #[arg(long, value_name = "KEY")]
    pub cloud_ssh_private: Option<Secret>,

    /// AWS security group: identifier or name [default: the VPC's default group]
    #[arg(long, value_name = "GROUP")]
    pub cloud_aws_security_group: Option<String>,

    /// AWS subnet identifier [default: the default VPC's subnets]
    #[arg(long, alias = "cloud-aws-subnet-id", value_name = "SUBNET")]
    pub cloud_aws_subnet: Option<String>,

    /// Google Cloud network, by name, or subnetwork, by path; `,no-external-ip` behind it for one with a Cloud NAT [default: `default`]
    #[arg(long, value_name = "NETWORK[,no-external-ip]")]
    pub cloud_gcp_network: Option<String>,

    /// Machine image: an id, or `OWNER/NAME-PATTERN` (newest wins) [default: Ubuntu 24.04; with a GPU, the cloud's NVIDIA image]
    #[arg(long, value_name = "IMAGE")]
    pub cloud_image: Option<String>,

    /// Kubernetes node selector `key=value`; repeatable
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., default_value = "accelerator=infer")]
    pub cloud_kubernetes_node_selector: Vec<String>,
}

/// Hidden options of the old tool: accepted with a warning, and without effect.
#[derive(Debug, Clone, Args)]
pub struct IgnoredOptions {
    /// Version constraint of the old tool's Terraform provider.
    #[arg(long, hide = true)]
    pub tpi_version: Option<String>,
    /// Version of the old tool on the instance.
    #[arg(long, hide = true)]
    pub cml_version: Option<String>,
    /// Marked the old tool's on-instance agent.
    #[arg(long, alias = "tf_resource", hide = true)]
    pub tf_resource: Option<Secret>,
    /// Seconds that the old tool waited before it destroyed the instance.
    #[arg(long, hide = true)]
    pub destroy_delay: Option<String>,
    /// OAuth token of the old tool's GCP driver.
    #[arg(long, hide = true)]
    pub gcp_access_token: Option<Secret>,
    /// The old tool accepted and ignored it.
    #[arg(long, hide = true)]
    pub runner_path: Option<String>,
}

/// A bid, or any negative number for no cap.
fn price(text: &str) -> Result<f64, String> {
    let refuse = || "a price is a number of USD above 0, or -1 for no cap".to_owned();
    let price: f64 = text.trim().parse().map_err(|_| refuse())?;
    if price.is_finite() && price != 0.0 {
        Ok(price)
    } else {
        Err(refuse())
    }
}

/// 64 hexadecimal digits, in lower case.
fn sha256(text: &str) -> Result<String, String> {
    /// Two digits for each of the hash's 32 bytes.
    const DIGITS: usize = 64;
    let digits = text.trim().to_ascii_lowercase();
    if digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        Ok(digits)
    } else {
        Err(format!("a SHA-256 is {DIGITS} hexadecimal digits, as `sha256sum` prints them"))
    }
}

/// One `--cloud-metadata`; our own tags are not the user's to change.
pub fn metadata(pair: &str) -> Result<(&str, &str)> {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let key = key.trim();
    let is_ours = key == "cml" || key.starts_with("cml-") || key.to_ascii_lowercase().starts_with("aws:");
    if key.is_empty() || is_ours {
        return Err(Failure::new(Class::Usage, format!("`--cloud-metadata={pair}` cannot be used"))
            .hint("write `key=value`; keys that begin with `cml-` or `aws:` are taken")
            .into());
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::metadata;

    #[test]
    fn metadata_is_pairs() {
        assert_eq!(metadata("team=ml=2").unwrap(), ("team", "ml=2"));
        assert_eq!(metadata("flag").unwrap(), ("flag", ""));
        for pair in ["", "=x", "cml=1", "cml-launch-id=x", "AWS:x=1"] {
            assert!(metadata(pair).is_err(), "{pair}");
        }
    }
}
