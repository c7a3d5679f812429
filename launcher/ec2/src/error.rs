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

fn kind(code: &str) -> Kind {
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
        // Before anything was sent: no credentials, a wrong region or endpoint.
        let is_ours = matches!(error, SdkError::ConstructionFailure(_));
        let message = DisplayErrorContext(&error).to_string();
        let no_credentials = is_ours || message.contains("credential");
        Self {
            code: None,
            kind: if no_credentials { Kind::Access } else { Kind::Other },
            message: message.split(" (").next().unwrap_or_default().to_owned() + &cause(&error),
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

    /// EC2's code, where it answered.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

/// The innermost cause, which is what people need: `connection refused`.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    format!(": {last}")
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
    use super::{Kind, kind};

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
