//! What went wrong with a request, in Google's own words, and what kind of thing that is.

use std::fmt;

use common::http::Answer;

use super::body::{Operation, Refusal};

/// Why a request failed.
#[derive(Debug)]
pub enum Error {
    /// Google said no, at once or when an operation had ended.
    Refused(Refused),
    /// There is no answer, or none that can be read: what was asked for may have been done.
    Unanswered(anyhow::Error),
}

/// Google's words.
#[derive(Debug)]
pub struct Refused {
    /// HTTP status; none of an operation that had been accepted.
    pub status: Option<u16>,
    /// `quotaExceeded`, `ZONE_RESOURCE_POOL_EXHAUSTED`
    pub code: String,
    /// For people.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status} {}: {}", self.code, self.message),
            None => write!(f, "{}: {}", self.code, self.message),
        }
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Unanswered(error) => write!(f, "{error:#}"),
        }
    }
}

/// What a caller does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The credentials or a permission.
    Access,
    /// The project's quota.
    Quota,
    /// No room there now.
    Capacity,
    /// That type is not there at all.
    Unoffered,
    /// What was asked about does not exist.
    NotFound,
    /// The name is taken.
    Exists,
    /// Something else is being done to it just now.
    Busy,
    /// The request.
    Invalid,
    /// Nobody knows: it may have been done.
    Other,
}

impl Error {
    pub fn unanswered(error: anyhow::Error) -> Self {
        Self::Unanswered(error)
    }

    /// A refusal by HTTP status. The first reason counts, as in Google's own tools.
    pub fn of_answer(answer: &Answer) -> Self {
        let status = Some(answer.status.as_u16());
        let Ok(Refusal { error }) = answer.json::<Refusal>() else {
            return Self::Refused(Refused {
                status,
                code: String::new(),
                message: "the answer is not one of Compute Engine's".into(),
            });
        };
        let reason = error
            .errors
            .into_iter()
            .map(|reason| reason.reason)
            .find(|reason| !reason.is_empty());
        Self::Refused(Refused {
            status,
            code: reason.unwrap_or(error.status),
            message: error.message,
        })
    }

    /// What an operation that has ended failed with: of several errors, the one that says most about what to do.
    pub fn of_operation(operation: &Operation) -> Option<Self> {
        let errors = operation.error.as_ref()?.errors.iter();
        let refused = errors.map(|error| Refused {
            status: None,
            code: error.code.clone(),
            message: error.message.clone(),
        });
        let known = |error: &Refused| matches!(error.kind(), Kind::Other | Kind::Invalid);
        let first = refused.min_by_key(known);
        // An error without a word is an error too.
        Some(Self::Refused(first.unwrap_or_else(|| Refused {
            status: operation.http_error_status_code,
            code: String::new(),
            message: format!("the operation {} failed", operation.name),
        })))
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(refused) => refused.kind(),
            Self::Unanswered(_) => Kind::Other,
        }
    }
}

impl Refused {
    /// Sources: [reasons][reasons], [operations][operations].
    ///
    /// [reasons]: https://docs.cloud.google.com/compute/docs/api/how-tos/api-requests-responses#handling_api_responses
    /// [operations]: https://docs.cloud.google.com/compute/docs/troubleshooting/troubleshooting-resource-availability
    fn kind(&self) -> Kind {
        match self.code.as_str() {
            code if code.contains("RESOURCE_POOL_EXHAUSTED") || code == "STOCKOUT" => Kind::Capacity,
            "resourcesUnavailable" | "stockout" => Kind::Capacity,
            "QUOTA_EXCEEDED" | "quotaExceeded" => Kind::Quota,
            "alreadyExists" | "RESOURCE_ALREADY_EXISTS" => Kind::Exists,
            "resourceNotReady" | "RESOURCE_NOT_READY" | "resourceInUseByAnotherResource" => Kind::Busy,
            _ if self.is_of_type() => Kind::Unoffered,
            "notFound" | "RESOURCE_NOT_FOUND" => Kind::NotFound,
            "forbidden" | "accessNotConfigured" | "required" if matches!(self.status, Some(401 | 403)) => Kind::Access,
            "PERMISSIONS_ERROR" | "FORBIDDEN" => Kind::Access,
            _ => match self.status {
                Some(401 | 403) => Kind::Access,
                Some(404) => Kind::NotFound,
                Some(409) => Kind::Exists,
                Some(400 | 412 | 413) => Kind::Invalid,
                // An operation that failed for a reason of its own was not done.
                None if !self.code.is_empty() && !self.code.starts_with("INTERNAL") => Kind::Invalid,
                _ => Kind::Other,
            },
        }
    }

    /// Whether it is a machine or accelerator type that the zone has not: `Invalid value for field 'resource.machineType': … does not exist`.
    fn is_of_type(&self) -> bool {
        let names_type = ["machineType", "acceleratorType", "Machine type", "Accelerator type"];
        let is_missing = ["not exist", "not found", "not available", "not supported in"];
        let says = |texts: &[&str]| texts.iter().any(|text| self.message.contains(text));
        !matches!(self.status, Some(401 | 403)) && says(&names_type) && says(&is_missing)
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Refused};

    #[test]
    fn what_google_says_is_what_it_means() {
        for (status, code, message, kind) in [
            (None, "ZONE_RESOURCE_POOL_EXHAUSTED", "", Kind::Capacity),
            (None, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "", Kind::Capacity),
            (None, "QUOTA_EXCEEDED", "Quota 'GPUS_ALL_REGIONS' exceeded.", Kind::Quota),
            (Some(403), "quotaExceeded", "", Kind::Quota),
            (
                Some(403),
                "forbidden",
                "Required 'compute.instances.create' permission",
                Kind::Access,
            ),
            (Some(403), "accessNotConfigured", "", Kind::Access),
            (Some(401), "authError", "", Kind::Access),
            (
                Some(404),
                "notFound",
                "The resource 'projects/p/regions/r' was not found",
                Kind::NotFound,
            ),
            (
                Some(404),
                "notFound",
                "The resource 'projects/p/zones/z/acceleratorTypes/x' was not found",
                Kind::Unoffered,
            ),
            (
                Some(400),
                "invalid",
                "Invalid value for field 'resource.machineType': 'x'. The referenced resource does not exist.",
                Kind::Unoffered,
            ),
            (Some(400), "invalid", "Invalid value for field 'resource.name': 'X'.", Kind::Invalid),
            (Some(409), "alreadyExists", "", Kind::Exists),
            (Some(400), "resourceNotReady", "", Kind::Busy),
            (Some(412), "conditionNotMet", "", Kind::Invalid),
            (None, "INTERNAL_ERROR", "", Kind::Other),
            (None, "CONDITION_NOT_MET", "", Kind::Invalid),
            (None, "", "", Kind::Other),
        ] {
            let refused = Refused {
                status,
                code: code.into(),
                message: message.into(),
            };
            assert_eq!(refused.kind(), kind, "{refused}");
        }
    }
}
