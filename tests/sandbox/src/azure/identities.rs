//! Who machines are.

use serde_json::{Value, json};

use super::answers::{Answer, Refusal};
use super::front::Call;
use super::groups::open;
use super::{CLIENT, IDENTITY, Identity, SUBSCRIPTION, State, TENANT, check, lock};

pub fn put(call: &Call) -> Result<Answer, Refusal> {
    check::fields(&call.body, &["location", "tags"])?;
    let tags = check::tags(&call.body["tags"])?;
    let mut guard = lock(&call.azure.0.state);
    let state = &mut *guard;
    let group = open(&mut state.groups, call.parts[1])?;
    if call.body["location"] != json!(group.location) {
        return Err(check::invalid("InvalidResourceLocation", "The identity is not where its group is."));
    }
    let name = call.parts[5];
    let id = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}",
        group.name
    );
    let is_new = !group.identities.contains_key(&id.to_ascii_lowercase());
    state.next += u64::from(is_new);
    let principal = format!("principal-{}", state.next);
    let identity = group
        .identities
        .entry(id.to_ascii_lowercase())
        .or_insert(Identity { principal, known: false });
    let body = json!({
        "id": id,
        "name": name,
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
        "location": group.location,
        "tags": tags,
        "properties": { "tenantId": TENANT, "clientId": CLIENT, "principalId": identity.principal },
    });
    Ok(Answer(if is_new { 201 } else { 200 }, Vec::new(), body))
}

/// The principal of an identity in one of the groups.
pub fn principal<'a>(state: &'a State, id: &str) -> Option<&'a str> {
    let id = id.to_ascii_lowercase();
    let found = state.groups.values().find_map(|group| group.identities.get(&id));
    found.map(|identity| identity.principal.as_str())
}

/// Refuses a machine that would be somebody who is not there.
pub fn check_known(state: &State, machine: &Value) -> Result<(), Refusal> {
    let wanted = machine["identity"]["userAssignedIdentities"].as_object().into_iter().flatten();
    for (id, _) in wanted {
        if principal(state, id).is_none() && !id.eq_ignore_ascii_case(IDENTITY) {
            let words = format!("Failed to perform resource identity operation: Resource '{id}' was not found.");
            return Err(Refusal(400, "FailedIdentityOperation", words));
        }
    }
    Ok(())
}
