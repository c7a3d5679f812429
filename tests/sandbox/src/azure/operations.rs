//! What takes its time.

use serde_json::json;

use super::answers::{Answer, Refusal};
use super::front::Call;
use super::{Azure, Operation, SUBSCRIPTION, State, lock};

/// How often an operation is asked for before it has ended.
const QUESTIONS: usize = 2;

/// Begins one; returns what tells where it is.
pub fn begin(azure: &Azure, state: &mut State, failure: Option<&'static str>) -> Vec<(&'static str, String)> {
    state.next += 1;
    let id = state.next;
    state.operations.insert(id, Operation { left: QUESTIONS, failure });
    let link = format!(
        "{}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/westus2/operations/{id}?api-version=2024-07-01",
        azure.url()
    );
    // In earnest it is ten seconds.
    vec![("azure-asyncoperation", link), ("retry-after", "0".into())]
}

pub fn get(call: &Call) -> Result<Answer, Refusal> {
    let mut state = lock(&call.azure.0.state);
    let id = call.parts.last().and_then(|id| id.parse().ok()).unwrap_or(0);
    let Some(operation) = state.operations.get_mut(&id) else {
        return Err(Refusal(404, "NotFound", "The operation was not found.".into()));
    };
    operation.left = operation.left.saturating_sub(1);
    let body = match (operation.left, operation.failure) {
        (0, None) => json!({ "status": "Succeeded" }),
        (0, Some(code)) => json!({
            "status": "Failed",
            "error": { "code": code, "message": "Allocation failed. We do not have sufficient capacity for the requested VM size in this region." },
        }),
        _ => json!({ "status": "InProgress" }),
    };
    Ok(Answer(200, vec![("retry-after", "0".into())], body))
}
