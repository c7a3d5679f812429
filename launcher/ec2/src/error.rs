//! What EC2's errors mean for a launch.

use std::fmt;

use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// What to do about an error. Source: <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not here or not now: another zone or type may have it.
    Capacity,
    /// The account may not have more, or not at this price.
    Quota,
    /// Too many requests, also after the SDK's own waits.
    Throttle,
    /// Credentials or permissions.
    Access,
    /// There is no such thing (yet, or any more).
    NotFound,
    /// The request is wrong.
    Invalid,
    /// Anything else; the request may have been acted on.
    Other,
}

/// Each code that is not told by its beginning.
const CODES: &[(&str, Kind)] = &[
    ("InsufficientInstanceCapacity", Kind::Capacity),
    ("InsufficientHostCapacity", Kind::Capacity),
    ("InsufficientCapacityOnHost", Kind::Capacity),
    ("InsufficientCapacity", Kind::Capacity),
    ("InsufficientFreeAddressesInSubnet", Kind::Capacity),
    ("ReservationCapacityExceeded", Kind::Capacity),
    ("UnfulfillableCapacity", Kind::Capacity),
    // "Your requested instance type is not supported in your requested Availability Zone."
    ("Unsupported", Kind::Capacity),
    ("VcpuLimitExceeded", Kind::Quota),
    ("InstanceLimitExceeded", Kind::Quota),
    ("MaxSpotInstanceCountExceeded", Kind::Quota),
    ("ResourceLimitExceeded", Kind::Quota),
    ("VolumeLimitExceeded", Kind::Quota),
    ("SpotMaxPriceTooLow", Kind::Quota),
    ("RequestLimitExceeded", Kind::Throttle),
    ("EC2ThrottledException", Kind::Throttle),
    ("Throttling", Kind::Throttle),
    ("ThrottlingException", Kind::Throttle),
    ("UnauthorizedOperation", Kind::Access),
    ("AccessDenied", Kind::Access),
    ("Blocked", Kind::Access),
    ("PendingVerification", Kind::Access),
    ("OptInRequired", Kind::Access),
    ("ExpiredToken", Kind::Access),
    ("RequestExpired", Kind::Access),
    ("UnsupportedOperation", Kind::Invalid),
    ("IdempotentParameterMismatch", Kind::Invalid),
    ("MissingParameter", Kind::Invalid),
    ("UnknownParameter", Kind::Invalid),
];

/// Codes of these beginnings, after the table.
const BEGINNINGS: &[(&str, Kind)] = &[
    ("AuthFailure", Kind::Access),
    ("UnrecognizedClient", Kind::Access),
    ("InvalidClientTokenId", Kind::Access),
    ("SignatureDoesNotMatch", Kind::Access),
    ("Invalid", Kind::Invalid),
];

/// What to do about a code.
pub fn kind(code: &str) -> Kind {
    if let Some((_, kind)) = CODES.iter().find(|(known, _)| *known == code) {
        return *kind;
    }
    if code.ends_with(".NotFound") {
        return Kind::NotFound;
    }
    BEGINNINGS
        .iter()
        .find(|(start, _)| code.starts_with(start))
        .map_or(Kind::Other, |(_, kind)| *kind)
}

/// An error of EC2, or of the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// EC2's code, where it answered.
    code: Option<String>,
    message: String,
    kind: Kind,
}

impl Error {
    #[allow(clippy::needless_pass_by_value)] // `map_err(Error::of)`
    pub(crate) fn of<E, R>(error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: fmt::Debug + Send + Sync + 'static,
    {
        if let Some(code) = error.code() {
            return Self {
                kind: kind(code),
                code: Some(code.to_owned()),
                message: error.message().unwrap_or_default().to_owned(),
            };
        }
        // No answer: no credentials, a wrong region or endpoint, a broken connection.
        let is_ours = matches!(error, SdkError::ConstructionFailure(_));
        let no_credentials = is_ours || DisplayErrorContext(&error).to_string().contains("credential");
        Self {
            code: None,
            kind: if no_credentials { Kind::Access } else { Kind::Other },
            message: cause(&error),
        }
    }

    pub(crate) fn unreadable(message: &str) -> Self {
        Self {
            code: None,
            message: message.to_owned(),
            kind: Kind::Other,
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The permission that is missing, where EC2 says so: `iam:PassRole`. It need not be the one for the call itself.
    pub fn denied_action(&self) -> Option<&str> {
        let (_, rest) = self.message.split_once("not authorized to perform: ")?;
        let action = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != ':' && c != '-').next()?;
        action.contains(':').then_some(action)
    }

    /// Whether the region has no such instance type, or nowhere: another type may do.
    pub fn is_unknown_type(&self) -> bool {
        let code = self.code.as_deref().unwrap_or_default();
        code.starts_with("InvalidInstanceType") || (code == "InvalidParameterValue" && self.message.contains("InstanceType"))
    }

    /// EC2's code, where it answered.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

/// The innermost cause in one line, which is what people need: `Connection refused (os error 111)`.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::{Error, Kind, kind};

    fn error(code: &str, message: &str) -> Error {
        Error {
            code: Some(code.to_owned()),
            message: message.to_owned(),
            kind: kind(code),
        }
    }

    #[test]
    fn the_missing_permission_is_read_from_the_message() {
        for (message, expected) in [
            (
                "You are not authorized to perform this operation. User: arn:aws:iam::1:user/ci is not authorized to perform: iam:PassRole on \
                 resource: arn:aws:iam::1:role/r because no identity-based policy allows the iam:PassRole action. Encoded authorization \
                 failure message: Abc",
                Some("iam:PassRole"),
            ),
            ("User: u is not authorized to perform: ec2:RunInstances", Some("ec2:RunInstances")),
            (
                "You are not authorized to perform this operation. Encoded authorization failure message: Abc",
                None,
            ),
            ("not authorized to perform: ", None),
            ("not authorized to perform: ünïcode", None),
        ] {
            assert_eq!(error("UnauthorizedOperation", message).denied_action(), expected, "{message}");
        }
    }

    #[test]
    fn a_type_that_the_region_does_not_have_is_told_from_other_invalid_values() {
        assert!(error("InvalidParameterValue", "Invalid value 't2.micro' for InstanceType.").is_unknown_type());
        assert!(error("InvalidInstanceType", "The following supplied instance types do not exist: [t9.x]").is_unknown_type());
        assert!(!error("InvalidParameterValue", "Invalid value 'x' for iamInstanceProfile.name").is_unknown_type());
        assert!(!error("Unsupported", "Your requested instance type is not supported").is_unknown_type());
    }

    #[test]
    fn what_codes_mean() {
        for (code, expected) in [
            ("InsufficientInstanceCapacity", Kind::Capacity),
            ("Unsupported", Kind::Capacity),
            ("VcpuLimitExceeded", Kind::Quota),
            ("SpotMaxPriceTooLow", Kind::Quota),
            ("RequestLimitExceeded", Kind::Throttle),
            ("UnauthorizedOperation", Kind::Access),
            ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", Kind::Access),
            ("InvalidInstanceID.NotFound", Kind::NotFound),
            ("InvalidAMIID.NotFound", Kind::NotFound),
            ("InvalidParameterValue", Kind::Invalid),
            ("InvalidClientTokenId", Kind::Access),
            ("InternalError", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(kind(code), expected, "{code}");
        }
    }
}
