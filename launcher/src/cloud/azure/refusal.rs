//! What Azure's refusals mean to a user: the class, and what to do.

use common::error::{Class, Failure};

use super::arm::{Error, Refusal};

/// What a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The credentials, or a right.
    Access,
    /// There is no machine of this type now.
    Capacity,
    /// The subscription has used up what it may have.
    Quota,
    /// The spot price is too high, or the maximum price too low.
    Price,
    /// The region does not have this type.
    UnknownType,
    /// The order is wrong.
    Invalid,
    /// Anything else.
    Other,
}

/// [Allocation][a], [spot][b], [quota][c] and [general][d] codes.
///
/// [a]: https://learn.microsoft.com/en-us/troubleshoot/azure/virtual-machines/windows/allocation-failure
/// [b]: https://learn.microsoft.com/en-us/azure/virtual-machines/error-codes-spot
/// [c]: https://learn.microsoft.com/en-us/azure/azure-resource-manager/troubleshooting/error-resource-quota
/// [d]: https://learn.microsoft.com/en-us/azure/azure-resource-manager/troubleshooting/common-deployment-errors
const CODES: [(Kind, &[&str]); 5] = [
    (
        Kind::Capacity,
        &[
            "SkuNotAvailable",
            "AllocationFailed",
            "ZonalAllocationFailed",
            "OverconstrainedAllocationRequest",
            "OverconstrainedZonalAllocationRequest",
        ],
    ),
    (
        Kind::Quota,
        &["QuotaExceeded", "ResourceQuotaExceeded", "PublicIPCountLimitReached"],
    ),
    (Kind::Price, &["SpotPriceGreaterThanProvidedMaxPrice", "MaxPriceValueInvalid"]),
    (
        Kind::Access,
        &[
            "AuthorizationFailed",
            "LinkedAuthorizationFailed",
            "InvalidAuthenticationToken",
            "InvalidAuthenticationTokenTenant",
            "ExpiredAuthenticationToken",
            "AuthenticationFailed",
            "SubscriptionNotFound",
            "ReadOnlyDisabledSubscription",
            "MissingSubscriptionRegistration",
            "RequestDisallowedByPolicy",
        ],
    ),
    (
        Kind::Invalid,
        &[
            "LocationNotAvailableForResourceGroup",
            "LocationNotAvailableForResourceType",
            "InvalidSubscriptionId",
            "ImageNotFound",
            "PlatformImageNotFound",
            "AzureSpotIsNotSupportedForThisVMSize",
            "AzureSpotFeatureNotEnabledForSubscription",
        ],
    ),
];

/// What a refusal is about.
pub fn kind(refusal: &Refusal) -> Kind {
    let known = CODES.iter().find(|(_, codes)| codes.iter().any(|code| refusal.is(code)));
    if let Some((kind, _)) = known {
        return *kind;
    }
    let words = refusal.message.to_ascii_lowercase();
    // Quotas of processors have this general code.
    if refusal.is("OperationNotAllowed") && (words.contains("quota") || words.contains("cores")) {
        return Kind::Quota;
    }
    if refusal.is("InvalidParameter") && words.contains("vm size") && (words.contains("not available") || words.contains("not supported")) {
        return Kind::UnknownType;
    }
    match refusal.status {
        401 | 403 => Kind::Access,
        400 | 404 | 405 => Kind::Invalid,
        _ => Kind::Other,
    }
}

/// The failure that an error of an action means. What Azure may have acted on is unexpected: then the caller sweeps.
pub fn of(action: &str, error: Error) -> anyhow::Error {
    let refusal = match error {
        Error::Refused(refusal) => refusal,
        Error::Other(error) => return error.context(format!("Azure did not do as asked: {action}")),
    };
    let code = refusal.code.clone();
    let failure = match kind(&refusal) {
        Kind::Access => access(action, &refusal),
        Kind::Quota => Failure::new(Class::Capacity, format!("the subscription's quota is used up ({code})")).hint(
            "ask for more under Quotas in the portal, for the region: each family of types has one, spot machines share another, and new subscriptions have none for GPUs; or try another `--cloud-type`",
        ),
        Kind::Capacity => Failure::new(Class::Capacity, format!("Azure has no capacity ({code})")),
        Kind::Price => Failure::new(Class::Capacity, format!("the spot price is higher than the maximum price ({code})"))
            .hint("raise `--cloud-spot-price`, or leave it out: then there is no cap"),
        Kind::UnknownType => Failure::new(Class::Usage, format!("the region does not have this machine type ({code})"))
            .hint("list what there is with `az vm list-skus --location REGION`, or give a generic `--cloud-type`"),
        Kind::Invalid => Failure::new(Class::Usage, format!("Azure refused {action} ({code})"))
            .hint("check `--cloud-type`, `--cloud-region` and `--cloud-image`: default images are of generation 2, which old types do not boot"),
        Kind::Other => Failure::new(Class::Unexpected, format!("Azure refused {action} ({code})")),
    };
    anyhow::Error::new(refusal).context(failure)
}

/// None of the candidates could be had; `last` was the last of them.
pub fn no_capacity(refusal: Refusal, last: &str, is_spot: bool) -> anyhow::Error {
    if kind(&refusal) == Kind::Quota {
        return of("making the machine", Error::Refused(refusal));
    }
    let hint = if is_spot {
        "try without `--cloud-spot`, another `--cloud-type`, or another `--cloud-region`"
    } else {
        "try another `--cloud-type` or `--cloud-region`, or later; a type that is never there may be closed to the subscription (`az vm list-skus`)"
    };
    let message = format!(
        "there is no capacity for {last}, nor for any type that was tried before it ({})",
        refusal.code
    );
    anyhow::Error::new(refusal).context(Failure::new(Class::Capacity, message).hint(hint))
}

fn access(action: &str, refusal: &Refusal) -> Failure {
    let code = &refusal.code;
    let (message, hint) = if refusal.is("MissingSubscriptionRegistration") {
        (
            format!("the subscription has never used this part of Azure ({code})"),
            "register it once: `az provider register --namespace Microsoft.Compute`, and the same for Microsoft.Network and Microsoft.ManagedIdentity",
        )
    } else if refusal.is("RequestDisallowedByPolicy") {
        (
            format!("a policy of the subscription forbids {action} ({code})"),
            "ask who governs the subscription; Azure's words name the policy",
        )
    } else if refusal.is("SubscriptionNotFound") {
        (
            format!("the subscription is not known to these credentials ({code})"),
            "check AZURE_SUBSCRIPTION_ID, and that the principal has a role in it",
        )
    } else if refusal.is("ReadOnlyDisabledSubscription") {
        (
            format!("the subscription is disabled ({code})"),
            "see the subscription's state in the portal",
        )
    } else if refusal.status == 401 {
        (
            format!("Azure refused the credentials ({code})"),
            "check that they are current, of the right tenant, and AZURE_ENVIRONMENT",
        )
    } else {
        (
            format!("Azure does not allow {action} ({code})"),
            "grant what Azure's words name; docs/clouds/azure.md lists all permissions",
        )
    };
    Failure::new(Class::Access, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Refusal, kind};

    fn refusal(status: u16, code: &str, message: &str) -> Refusal {
        Refusal {
            status,
            code: code.into(),
            codes: vec![code.into()],
            message: message.into(),
        }
    }

    #[test]
    fn refusals_are_about_something() {
        for (status, code, message, expected) in [
            (409, "SkuNotAvailable", "", Kind::Capacity),
            (200, "AllocationFailed", "", Kind::Capacity),
            (
                409,
                "OperationNotAllowed",
                "Operation could not be completed as it results in exceeding approved Total Regional Cores quota.",
                Kind::Quota,
            ),
            (409, "OperationNotAllowed", "The VM is being deleted", Kind::Other),
            (403, "AuthorizationFailed", "", Kind::Access),
            (403, "HTTP 403", "", Kind::Access),
            (
                400,
                "InvalidParameter",
                "The requested VM size Standard_X is not available in the current region.",
                Kind::UnknownType,
            ),
            (
                400,
                "InvalidParameter",
                "The value of parameter imageReference is invalid.",
                Kind::Invalid,
            ),
            (409, "Conflict", "", Kind::Other),
        ] {
            assert_eq!(kind(&refusal(status, code, message)), expected, "{code} {message}");
        }
    }
}
