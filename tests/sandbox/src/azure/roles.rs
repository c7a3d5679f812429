//! Who may do what.

use serde_json::json;

use super::answers::{Answer, Refusal};
use super::front::{Call, Caller};
use super::groups::missing;
use super::{Group, IDENTITY, State, identities, lock};

/// The role that a machine's identity gets.
const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";

/// Whether somebody may change what is in a group. An identity of the user's may.
pub fn check(state: &mut State, who: &Caller, name: &str) -> Result<(), Refusal> {
    let refuse = || {
        let words = "The client does not have authorization to perform the action over the scope, or the scope is invalid.";
        Err(Refusal(403, "AuthorizationFailed", words.into()))
    };
    let Caller::Machine(identity) = who else {
        return Ok(());
    };
    if identity.eq_ignore_ascii_case(IDENTITY) {
        return Ok(());
    }
    if state.slow_rights > 0 {
        state.slow_rights -= 1;
        return refuse();
    }
    match state.groups.get(name) {
        Some(group) if identities::principal(state, identity).is_some_and(|principal| group.contributors.contains(principal)) => Ok(()),
        _ => refuse(),
    }
}

pub fn permissions(call: &Call) -> Result<Answer, Refusal> {
    let state = lock(&call.azure.0.state);
    state
        .groups
        .get(&call.parts[1].to_ascii_lowercase())
        .ok_or_else(|| missing(call.parts[1]))?;
    let forbidden = if state.powerless {
        vec!["Microsoft.Authorization/*/Write"]
    } else {
        Vec::new()
    };
    Ok(Answer::ok(
        json!({ "value": [{ "actions": ["*"], "notActions": forbidden, "dataActions": [], "notDataActions": [] }] }),
    ))
}

pub fn assign(call: &Call) -> Result<Answer, Refusal> {
    let mut state = lock(&call.azure.0.state);
    let refuse = |status, code, words: &str| Err(Refusal(status, code, words.to_owned()));
    if state.powerless || call.who != Caller::Launcher {
        return refuse(
            403,
            "AuthorizationFailed",
            "The client does not have authorization to perform action 'Microsoft.Authorization/roleAssignments/write'.",
        );
    }
    let name = call.parts.last().copied().unwrap_or_default();
    let dashes: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
    if name.len() != 36 || dashes != [8, 13, 18, 23] {
        return refuse(
            400,
            "InvalidRoleAssignmentId",
            "The role assignment ID is not valid. The role assignment ID must be a GUID.",
        );
    }
    let properties = &call.body["properties"];
    let role = properties["roleDefinitionId"].as_str().unwrap_or_default();
    let principal = properties["principalId"].as_str().unwrap_or_default().to_owned();
    if !role.ends_with(CONTRIBUTOR) || properties["principalType"] != "ServicePrincipal" {
        return refuse(
            400,
            "InvalidRequest",
            "The role or the type of the principal is not what the sandbox knows.",
        );
    }
    let group: &mut Group = state
        .groups
        .get_mut(&call.parts[1].to_ascii_lowercase())
        .ok_or_else(|| missing(call.parts[1]))?;
    let identity = group.identities.values_mut().find(|identity| identity.principal == principal);
    match identity {
        Some(identity) if identity.known => {
            if !group.contributors.insert(principal) {
                return refuse(409, "RoleAssignmentExists", "The role assignment already exists.");
            }
            Ok(Answer(201, Vec::new(), call.body.clone()))
        }
        other => {
            if let Some(identity) = other {
                identity.known = true;
            }
            refuse(400, "PrincipalNotFound", "Principal does not exist in the directory.")
        }
    }
}
