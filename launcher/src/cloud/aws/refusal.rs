//! What EC2's refusals mean to a user: the class, and what to do.

use common::error::{Class, Failure};
use ec2::{Error, Kind, Launch, Market};

/// The failure that an error of a call means. What EC2 may have acted on is unexpected: then the caller sweeps.
pub fn of(call: &str, error: Error) -> anyhow::Error {
    let code = error.code().unwrap_or_default();
    let failure = match error.kind() {
        Kind::Access => access(call, &error),
        Kind::Quota => quota(code, None),
        Kind::Throttle => Failure::new(
            Class::Capacity,
            format!("AWS still answers that there were too many requests ({code})"),
        )
        .hint("try again later"),
        Kind::Capacity => Failure::new(Class::Capacity, format!("AWS has no capacity ({code})")),
        Kind::NotFound | Kind::Invalid => Failure::new(Class::Usage, format!("EC2 refused {call} ({code})")),
        Kind::Other if code.is_empty() => Failure::new(Class::Unexpected, format!("EC2 did not answer {call}"))
            .hint("check the network, the proxy, `--ca-certificates`, `--cloud-region` and AWS_ENDPOINT_URL"),
        Kind::Other => Failure::new(Class::Unexpected, format!("EC2 did not answer {call} as expected ({code})")),
    };
    anyhow::Error::new(error).context(failure)
}

/// As [`of`], and names the quota that the type of a launch counts against.
pub fn of_launch(launch: &Launch, error: Error) -> anyhow::Error {
    match error.kind() {
        Kind::Quota => {
            let failure = quota(error.code().unwrap_or_default(), quota_name(launch));
            anyhow::Error::new(error).context(failure)
        }
        _ => of("RunInstances", error),
    }
}

/// None of the attempts had capacity; `last` was the last of them.
pub fn no_capacity(error: Error, last: &Launch) -> anyhow::Error {
    let code = error.code().unwrap_or_default();
    let hint = match last.market {
        Market::Spot(_) => "try without `--cloud-spot`, another `--cloud-type`, or another `--cloud-region`",
        Market::OnDemand => "try another `--cloud-type` or `--cloud-region`, or later",
    };
    let message = format!(
        "no zone has capacity for {}, nor for any type that was tried before it ({code})",
        last.kind
    );
    let failure = Failure::new(Class::Capacity, message).hint(hint);
    anyhow::Error::new(error).context(failure)
}

fn access(call: &str, error: &Error) -> Failure {
    let Some(code) = error.code() else {
        return Failure::new(Class::Access, "no usable AWS credentials")
            .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role");
    };
    if code.starts_with("AuthFailure.ServiceLinkedRole") {
        return Failure::new(Class::Access, format!("the account has never used spot instances ({code})"))
            .hint("create the role once: `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`");
    }
    if code != "UnauthorizedOperation" {
        return Failure::new(Class::Access, format!("AWS refused the credentials ({code})"))
            .hint("check that they are current and of the right account, and that the account may use the region");
    }
    let call = format!("ec2:{call}");
    match error.denied_action() {
        Some(action) if action != call => Failure::new(Class::Access, format!("AWS does not allow {action}, which {call} needs ({code})"))
            .hint(format!("grant {action}; docs/security.md lists all permissions")),
        Some(_) => {
            Failure::new(Class::Access, format!("AWS does not allow {call} ({code})")).hint(format!("grant {call}; docs/security.md lists all permissions"))
        }
        // Then only an administrator can decode the message.
        None => Failure::new(Class::Access, format!("AWS does not allow {call} ({code})")).hint(format!(
            "grant {call} (RunInstances also needs ec2:CreateTags, and iam:PassRole with `--cloud-permission-set`; docs/security.md lists all permissions), or read the reason with `aws sts decode-authorization-message`"
        )),
    }
}

fn quota(code: &str, name: Option<&str>) -> Failure {
    if code == "SpotMaxPriceTooLow" {
        return Failure::new(Class::Capacity, format!("the spot price is higher than the maximum price ({code})"))
            .hint("raise `--cloud-spot-price`, or leave it out: then it is the list price");
    }
    let failure = Failure::new(Class::Capacity, format!("the account's quota is used up ({code})"));
    match name {
        Some(name) => failure.hint(format!(
            "ask for more of \"{name}\" in Service Quotas, for the region (for GPU types it is 0 in a new account), or try another `--cloud-type`"
        )),
        None => failure.hint(
            "ask for more in Service Quotas, for the region: each family of types has a quota of its own, and another for spot; those of GPU types are 0 in a new account",
        ),
    }
}

/// What Service Quotas calls the processors of a type: by the letters of its family, apart for spot. None for rarer families.
///
/// Source: <https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html>
fn quota_name(launch: &Launch) -> Option<&'static str> {
    let series: String = launch.kind.chars().take_while(char::is_ascii_alphabetic).collect();
    let is_spot = launch.market != Market::OnDemand;
    let name = match (series.as_str(), is_spot) {
        ("g" | "gr" | "vt", false) => "Running On-Demand G and VT instances",
        ("g" | "gr" | "vt", true) => "All G and VT Spot Instance Requests",
        ("p", false) => "Running On-Demand P instances",
        ("p", true) if launch.kind.starts_with("p5") => "All P5 Spot Instance Requests",
        ("p", true) if launch.kind.starts_with("p4") => "All P4, P3 and P2 Spot Instance Requests",
        ("a" | "c" | "d" | "i" | "im" | "is" | "m" | "r" | "t" | "z", false) => {
            "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"
        }
        ("a" | "c" | "d" | "i" | "im" | "is" | "m" | "r" | "t" | "z", true) => {
            "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"
        }
        _ => return None,
    };
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Launch, Market, quota_name};

    fn launch(kind: &str, market: Market) -> Launch {
        Launch {
            client_token: String::new(),
            image: String::new(),
            kind: kind.into(),
            subnet: String::new(),
            groups: Vec::new(),
            profile: None,
            user_data: String::new(),
            root_device: String::new(),
            root_gib: 0,
            market,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn the_quota_of_a_type_is_named() {
        for (kind, on_demand, spot) in [
            ("m7i.2xlarge", Some("Running On-Demand Standard"), Some("All Standard")),
            ("t3.micro", Some("Running On-Demand Standard"), Some("All Standard")),
            ("g6e.12xlarge", Some("Running On-Demand G and VT"), Some("All G and VT")),
            ("p4d.24xlarge", Some("Running On-Demand P "), Some("All P4, P3 and P2")),
            ("p5.48xlarge", Some("Running On-Demand P "), Some("All P5 ")),
            ("trn1.2xlarge", None, None),
        ] {
            for (market, expected) in [(Market::OnDemand, on_demand), (Market::Spot(None), spot)] {
                let name = quota_name(&launch(kind, market.clone()));
                assert_eq!(name.is_some(), expected.is_some(), "{kind} {market:?}");
                assert!(
                    name.unwrap_or_default().starts_with(expected.unwrap_or_default()),
                    "{kind} {market:?}: {name:?}"
                );
            }
        }
    }
}
