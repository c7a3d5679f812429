//! Google's JSON of what went wrong.

use serde_json::{Value, json};

/// A refusal: HTTP status, reason, message.
#[derive(Debug)]
pub struct Refusal(pub u16, pub &'static str, pub String);

/// The document of a refusal.
pub fn error(status: u16, reason: &str, message: &str) -> Value {
    json!({
        "error": {
            "code": status,
            "message": message,
            "errors": [{"message": message, "domain": "global", "reason": reason}],
        }
    })
}

/// The HTTP status and the message that belong to a reason; none of a code that only operations end with.
pub fn known(reason: &str) -> Option<(u16, &'static str)> {
    Some(match reason {
        "forbidden" => (
            403,
            "Required 'compute.instances.create' permission for 'projects/sandbox-project/zones/us-west1-a/instances/x'",
        ),
        "accessNotConfigured" => (403, "Compute Engine API has not been used in project 1 before or it is disabled."),
        "authError" => (401, "Invalid Credentials"),
        "quotaExceeded" => (403, "Quota 'CPUS' exceeded. Limit: 8.0 in region us-west1."),
        "rateLimitExceeded" => (403, "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'"),
        "backendError" => (503, "Internal error. Please try again or contact Google Support."),
        "conditionNotMet" => (
            412,
            "Constraint constraints/compute.vmExternalIpAccess violated for project sandbox-project.",
        ),
        "resourceNotReady" => (400, "The resource is not ready"),
        _ => return None,
    })
}

/// The message of a code that operations end with.
pub fn of_operation(code: &str) -> &'static str {
    match code {
        "QUOTA_EXCEEDED" => "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally.",
        "INTERNAL_ERROR" => "Internal error. Please try again or contact Google Support.",
        code if code.starts_with("ZONE_RESOURCE_POOL_EXHAUSTED") => {
            "The zone does not have enough resources available to fulfill the request. Try a different zone, or try again later."
        }
        _ => "The operation failed on purpose.",
    }
}

/// What is not there.
pub fn missing(path: &str) -> Refusal {
    Refusal(
        404,
        "notFound",
        format!("The resource 'projects/sandbox-project/{path}' was not found"),
    )
}

/// A value that is not one.
pub fn invalid(field: &str, value: &str, why: &str) -> Refusal {
    Refusal(
        400,
        "invalid",
        format!("Invalid value for field 'resource.{field}': '{value}'. {why}"),
    )
}
