//! What EC2's refusals mean to a user: the class, and what to do.

use common::error::{Class, Failure};
use ec2::{Error, Kind};

/// The failure that an error of a call means. What EC2 may have acted on has no class: the caller sweeps.
pub fn of(call: &str, error: Error) -> anyhow::Error {
    let code = error.code().unwrap_or_default().to_owned();
    let failure = match error.kind() {
        Kind::Access if code.is_empty() => {
            Failure::new(Class::Access, "no usable AWS credentials").hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role")
        }
        Kind::Access if code.starts_with("AuthFailure.ServiceLinkedRole") => Failure::new(Class::Access, "the account has never used spot instances")
            .hint("create the role once: `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`"),
        Kind::Access if code == "UnauthorizedOperation" => Failure::new(Class::Access, format!("AWS does not allow ec2:{call} ({code})")).hint(format!(
            "grant ec2:{call}; RunInstances also needs ec2:CreateTags, and iam:PassRole with `--cloud-permission-set`; docs/security.md lists all"
        )),
        Kind::Access => Failure::new(Class::Access, format!("AWS refused the credentials ({code})")).hint("check that they are current and of the right account"),
        Kind::Quota if code == "SpotMaxPriceTooLow" => {
            Failure::new(Class::Capacity, format!("the spot price is higher than the maximum price ({code})")).hint("raise `--cloud-spot-price`, or leave it out: then it is the list price")
        }
        Kind::Quota => Failure::new(Class::Capacity, format!("the account's quota is used up ({code})"))
            .hint("ask for more in Service Quotas: there is one for each family of types, and others for spot; those of GPU types are 0 in a new account"),
        Kind::Throttle => Failure::new(Class::Capacity, format!("AWS still answers that there were too many requests ({code})")).hint("try again later"),
        Kind::Capacity => Failure::new(Class::Capacity, format!("AWS has no capacity ({code})")),
        Kind::NotFound | Kind::Invalid => Failure::new(Class::Usage, format!("EC2 refused {call} ({code})")),
        Kind::Other => return anyhow::Error::new(error).context(format!("EC2 did not answer {call} as expected")),
    };
    anyhow::Error::new(error).context(failure)
}

/// None of the attempts had capacity.
pub fn no_capacity(error: Error, kind: &str, spot: bool) -> anyhow::Error {
    let code = error.code().unwrap_or_default().to_owned();
    let hint = if spot {
        "try without `--cloud-spot`, another `--cloud-type`, or another `--cloud-region`"
    } else {
        "try another `--cloud-type` or `--cloud-region`, or later"
    };
    let message = format!("no zone has capacity for {kind}, nor for any type that was tried before it ({code})");
    anyhow::Error::new(error).context(Failure::new(Class::Capacity, message).hint(hint))
}
