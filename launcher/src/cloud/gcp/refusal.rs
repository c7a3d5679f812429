//! What Google's refusals mean to a user: the class, and what to do.

use common::error::{Class, Failure};

use super::error::{Error, Kind, Refused};
use super::machine::Machine;

/// Where a project's quotas are seen and asked for.
const QUOTAS: &str = "https://console.cloud.google.com/iam-admin/quotas";

/// The failure that an error of a call means. What Google may have acted on is unexpected: then the caller sweeps.
pub fn of(call: &str, error: Error) -> anyhow::Error {
    let kind = error.kind();
    let refused = match error {
        // It knows best what it is: no token, or a rate limit.
        Error::Unanswered(error) => return error.context(format!("Compute Engine did not answer {call}")),
        Error::Refused(refused) => refused,
    };
    let code = &refused.code;
    let failure = match kind {
        Kind::Access => access(call, &refused),
        Kind::Quota => quota(&refused),
        Kind::Capacity => Failure::new(Class::Capacity, format!("Google has no capacity ({code})")),
        Kind::Busy => Failure::new(Class::Unexpected, format!("Compute Engine cannot do {call} yet ({code})")),
        Kind::Exists => Failure::new(
            Class::Unexpected,
            format!("Compute Engine refused {call}: the name is taken ({code})"),
        ),
        Kind::NotFound if refused.message.contains("project") && !refused.message.contains("/zones/") => {
            Failure::new(Class::Usage, format!("Compute Engine refused {call} ({code})"))
                .hint("check the project (GOOGLE_CLOUD_PROJECT), `--cloud-region` and `--cloud-gcp-network`")
        }
        Kind::NotFound | Kind::Invalid | Kind::Unoffered => invalid(call, &refused),
        Kind::Other => Failure::new(Class::Unexpected, format!("Compute Engine did not do {call} ({code})")),
    };
    anyhow::Error::new(refused).context(failure)
}

/// A refusal whose meaning the caller knows.
pub fn usage(error: Error, message: String, hint: &str) -> anyhow::Error {
    let failure = Failure::new(Class::Usage, message).hint(hint);
    match error {
        Error::Refused(refused) => anyhow::Error::new(refused).context(failure),
        Error::Unanswered(error) => error.context(failure),
    }
}

/// None of the attempts had capacity; `last` was the last of them.
pub fn no_capacity(error: Error, last: &Machine, is_spot: bool) -> anyhow::Error {
    let Error::Refused(refused) = error else {
        return of("instances.insert", error);
    };
    let hint = if is_spot {
        "try without `--cloud-spot`, another `--cloud-type`, or another `--cloud-region`"
    } else {
        "try another `--cloud-type` or `--cloud-region`, or later"
    };
    let message = format!(
        "no zone has capacity for {}, nor for any type that was tried before it ({})",
        last, refused.code
    );
    anyhow::Error::new(refused).context(Failure::new(Class::Capacity, message).hint(hint))
}

fn access(call: &str, refused: &Refused) -> Failure {
    let (code, message) = (&refused.code, &refused.message);
    if refused.status == Some(401) {
        return Failure::new(Class::Access, format!("Google refused the credentials ({code})"))
            .hint("check that they are current, and of the right project");
    }
    if code == "accessNotConfigured" || message.contains("has not been used in project") || message.contains("SERVICE_DISABLED") {
        return Failure::new(Class::Access, format!("the project does not use Compute Engine ({code})"))
            .hint("turn it on once: `gcloud services enable compute.googleapis.com`");
    }
    if message.to_ascii_lowercase().contains("billing") {
        return Failure::new(Class::Access, format!("the project's billing does not allow {call} ({code})"))
            .hint("link the project with an active billing account");
    }
    if message.contains("serviceAccountUser") || message.contains("actAs") || message.contains("service account") {
        return Failure::new(
            Class::Access,
            format!("Google does not allow a machine with this service account ({code})"),
        )
        .hint("grant iam.serviceAccounts.actAs (the role Service Account User) on the account of `--cloud-permission-set`");
    }
    let needed = quoted(message).filter(|name| name.starts_with("compute.") || name.starts_with("iam."));
    match needed {
        Some(permission) => Failure::new(
            Class::Access,
            format!("Google does not allow {permission}, which {call} needs ({code})"),
        )
        .hint(format!("grant {permission}; docs/clouds/gcp.md lists all permissions")),
        None => Failure::new(Class::Access, format!("Google does not allow {call} ({code})"))
            .hint(format!("grant compute.{call}; docs/clouds/gcp.md lists all permissions")),
    }
}

fn quota(refused: &Refused) -> Failure {
    let failure = Failure::new(Class::Capacity, format!("the project's quota is used up ({})", refused.code));
    match quoted(&refused.message) {
        Some(name) => failure.hint(format!(
            "ask for more of {name} at {QUOTAS} (that of GPUs is 0 in a new project, and there is another one for spot machines), or try another `--cloud-type` or `--cloud-region`"
        )),
        None => failure.hint(format!("ask for more at {QUOTAS}, or try another `--cloud-type` or `--cloud-region`")),
    }
}

fn invalid(call: &str, refused: &Refused) -> Failure {
    let failure = Failure::new(Class::Usage, format!("Compute Engine refused {call} ({})", refused.code));
    let message = &refused.message;
    if message.contains("vmExternalIpAccess") {
        failure.hint("your organisation allows no external addresses: give a network that has a Cloud NAT, and `--cloud-gcp-network=…,no-external-ip`")
    } else if message.contains("networks/default") || message.contains("networkInterface") || message.contains("subnetwork") {
        failure.hint("name a network or a subnetwork of the region with `--cloud-gcp-network`")
    } else if message.contains("serviceAccount") {
        failure.hint("check the account of `--cloud-permission-set`")
    } else {
        failure
    }
}

/// What stands first in single quotes: a permission or a quota.
fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once('\'')?;
    let (name, _) = rest.split_once('\'')?;
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    (is_plain && !name.is_empty()).then_some(name)
}
