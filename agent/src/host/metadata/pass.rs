//! What of a metadata service is passed to jobs: the credentials of the role that they were given, and what kind of machine this is. All else is not,
//! above all what the launcher told the machine (user data, attributes) and what proves to others that somebody is this machine.
//!
//! A list of what is passed, by whole paths: a path that is written in any other way than it is meant is not on it.

use common::spec::CloudKind;
use reqwest::Method;
use reqwest::header::HeaderMap;

/// The longest path and question that any of them has.
const LONGEST: usize = 2048;

/// Headers of requests that are passed on: a session's token, and the words without which the services refuse what a browser was tricked into.
pub const HEADERS: [&str; 5] = [
    "x-aws-ec2-metadata-token",
    "x-aws-ec2-metadata-token-ttl-seconds",
    "metadata-flavor",
    "metadata",
    "accept",
];
/// Who has been forwarded by somebody else was not meant for us. The services [refuse it too].
///
/// [refuse it too]: https://docs.cloud.google.com/compute/docs/metadata/querying-metadata#limitations
const FORWARDED: [&str; 2] = ["x-forwarded-for", "forwarded"];

/// Source: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html>
const AWS: &[&str] = &[
    "latest/meta-data/ami-id",
    "latest/meta-data/iam/info",
    "latest/meta-data/iam/security-credentials/*",
    // Newer SDKs ask here first.
    "latest/meta-data/iam/security-credentials-extended/*",
    "latest/meta-data/instance-id",
    "latest/meta-data/instance-life-cycle",
    "latest/meta-data/instance-type",
    "latest/meta-data/local-hostname",
    "latest/meta-data/local-ipv4",
    "latest/meta-data/placement/*",
    "latest/meta-data/services/*",
    "latest/meta-data/spot/instance-action",
    "latest/meta-data/spot/termination-time",
    // Where SDKs find the region. Without its signatures it proves nothing.
    "latest/dynamic/instance-identity/document",
];
/// Source: <https://docs.cloud.google.com/compute/docs/metadata/predefined-metadata-keys>. A whole folder but that of the accounts would hold the attributes.
const GCP: &[&str] = &[
    "computeMetadata/v1/instance/id",
    "computeMetadata/v1/instance/machine-type",
    "computeMetadata/v1/instance/name",
    "computeMetadata/v1/instance/preempted",
    "computeMetadata/v1/instance/region",
    "computeMetadata/v1/instance/service-accounts/*",
    "computeMetadata/v1/instance/zone",
    "computeMetadata/v1/project/numeric-project-id",
    "computeMetadata/v1/project/project-id",
    "computeMetadata/v1/universe/universe-domain",
    "computeMetadata/v1/universe/universe_domain",
];
/// How clients find out that they are on Google Cloud. With a question, the answer could be the whole tree below.
const GCP_FOLDERS: [&str; 2] = ["", "computeMetadata/v1/"];
/// Source: <https://learn.microsoft.com/en-us/azure/virtual-machines/instance-metadata-service>. A whole category would hold the user data.
const AZURE: &[&str] = &[
    "metadata/identity/info",
    "metadata/identity/oauth2/token",
    "metadata/instance/compute/location",
    "metadata/instance/compute/name",
    "metadata/instance/compute/vmId",
    "metadata/instance/compute/vmSize",
    "metadata/instance/compute/zone",
    "metadata/versions",
];

/// Whether a request of a job's is passed on. `target` is the path and the question, as they came.
pub fn passes(cloud: CloudKind, method: &Method, target: &str, headers: &HeaderMap) -> bool {
    let (path, question) = target
        .split_once('?')
        .map_or((target, None), |(path, question)| (path, Some(question)));
    let Some(path) = path.strip_prefix('/') else {
        return false;
    };
    if target.len() > LONGEST || FORWARDED.iter().any(|name| headers.contains_key(*name)) || !is_plain(path) {
        return false;
    }
    match cloud {
        CloudKind::Aws if *method == Method::PUT => path == "latest/api/token" && question.is_none(),
        CloudKind::Aws => *method == Method::GET && question.is_none() && is_listed(AWS, path),
        CloudKind::Gcp if GCP_FOLDERS.contains(&path) => *method == Method::GET && question.is_none(),
        CloudKind::Gcp => *method == Method::GET && is_listed(GCP, path) && is_the_accounts(path, question),
        CloudKind::Azure => *method == Method::GET && is_listed(AZURE, path),
        CloudKind::Kubernetes => false,
    }
}

/// Of the account's identity only the account's: a [full] one says which machine it is too, and is signed.
///
/// [full]: https://docs.cloud.google.com/compute/docs/instances/verifying-instance-identity#token_format
fn is_the_accounts(path: &str, question: Option<&str>) -> bool {
    let is_identity = path.trim_end_matches('/').ends_with("/identity");
    let mut asked = url::form_urlencoded::parse(question.unwrap_or_default().as_bytes());
    !is_identity || asked.all(|(name, _)| name == "audience")
}

/// No other way to write a path is known to lead to the same: nothing encoded, no steps up, nothing empty but the end.
fn is_plain(path: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+' | '=' | ',');
    let path = path.strip_suffix('/').unwrap_or(path);
    path.is_empty()
        || path
            .split('/')
            .all(|part| !part.is_empty() && part.chars().all(is_plain) && part.chars().any(|c| c != '.'))
}

fn is_listed(list: &[&str], path: &str) -> bool {
    list.iter().any(|listed| match listed.strip_suffix('*') {
        Some(folder) => path.starts_with(folder) || Some(path) == folder.strip_suffix('/'),
        None => *listed == path,
    })
}
