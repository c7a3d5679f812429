//! EC2's refusals on demand.

/// The HTTP status and the message that belong to a code of EC2's.
pub fn known(code: &str) -> (u16, &'static str) {
    match code {
        "InsufficientInstanceCapacity" => (500, NO_CAPACITY),
        "InternalError" => (500, "An internal error has occurred"),
        "RequestLimitExceeded" => (503, "Request limit exceeded."),
        "Unavailable" => (503, "The server is overloaded and can't handle the request."),
        "AuthFailure" => (401, NO_AUTH),
        "UnauthorizedOperation" => (403, "You are not authorized to perform this operation."),
        "VcpuLimitExceeded" => (
            400,
            "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance bucket that the specified instance type belongs to.",
        ),
        "MaxSpotInstanceCountExceeded" => (400, "Max spot instance count exceeded"),
        "SpotMaxPriceTooLow" => (
            400,
            "Your Spot request price is lower than the minimum required Spot request fulfillment price.",
        ),
        "Unsupported" => (
            400,
            "Your requested instance type is not supported in your requested Availability Zone.",
        ),
        _ => (400, "The request was refused on purpose."),
    }
}

/// Of `InsufficientInstanceCapacity`.
pub const NO_CAPACITY: &str = "We currently do not have sufficient capacity in the Availability Zone you requested.";
/// Of `AuthFailure`.
pub const NO_AUTH: &str = "AWS was not able to validate the provided access credentials";
