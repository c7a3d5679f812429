//! How the machine may end itself: by deleting its group, as an identity that may do that. It is made, and has its right, before the machine is.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use ring::digest;
use serde::Deserialize;

use super::arm::{Arm, Error};
use super::{body, refusal};

/// The versions of Azure's APIs for rights, and for those who have them.
const VERSION: &str = "2022-04-01";
const IDENTITIES: &str = "2023-01-31";
/// What the launcher must be allowed to do.
const ASSIGN: &str = "Microsoft.Authorization/roleAssignments/write";
/// The role [Contributor], which may delete a group.
///
/// [Contributor]: https://learn.microsoft.com/en-us/azure/role-based-access-control/built-in-roles/privileged#contributor
const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";
/// How long a new identity may be unknown to the part of Azure that gives rights ([why]); the launch's own budget is the real limit.
///
/// [why]: https://learn.microsoft.com/en-us/azure/role-based-access-control/troubleshooting#symptom---assigning-a-role-to-a-new-principal-sometimes-fails
const UNKNOWN: Duration = Duration::from_mins(3);
/// The first pause between two tries; each one after it is twice as long, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// What the launcher may do with a group.
#[derive(Debug, Deserialize)]
struct Permissions {
    value: Vec<Permission>,
}

/// The rights of one role.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Permission {
    #[serde(default)]
    actions: Vec<String>,
    #[serde(default)]
    not_actions: Vec<String>,
}

/// A new identity.
#[derive(Debug, Deserialize)]
struct Made {
    properties: Who,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Who {
    principal_id: String,
}

/// Refuses, while nothing costs anything yet, if the launcher may not give the machine's identity a role.
pub async fn check(arm: &Arm, group: &str) -> Result<()> {
    let path = format!("{group}/providers/Microsoft.Authorization/permissions");
    match arm.get::<Permissions>(&path, &[("api-version", VERSION)]).await {
        Ok(Some(found)) if !may_assign(&found) => Err(refused().into()),
        Ok(_) => Ok(()),
        // Then the assignment itself will tell.
        Err(Error::Refused(refusal)) => {
            tracing::debug!("whether roles may be assigned is not known: {refusal}");
            Ok(())
        }
        Err(error) => Err(refusal::of("asking for the launcher's own rights", error)),
    }
}

/// Makes an identity; returns its principal, which rights are given to.
pub async fn introduce(arm: &Arm, path: &str, body: &body::Group<'_>) -> Result<String> {
    let made = arm.put(path, IDENTITIES, body).await;
    let made = made.map_err(|error| refusal::of("making the machine's identity", error))?;
    let made: Made = made.json().context("reading who the new identity is")?;
    Ok(made.properties.principal_id)
}

/// Lets an identity delete the group that it is in, and do nothing outside of it.
pub async fn allow(arm: &Arm, group: &str, principal: &str) -> Result<()> {
    let path = format!(
        "{group}/providers/Microsoft.Authorization/roleAssignments/{}",
        guid(&[group, principal])
    );
    let role = arm.path(&format!("/providers/Microsoft.Authorization/roleDefinitions/{CONTRIBUTOR}"));
    let body = body::assignment(&role, principal);
    let deadline = tokio::time::Instant::now() + UNKNOWN;
    let mut pause = PAUSES.0;
    loop {
        let refusal = match arm.put(&path, VERSION, &body).await {
            Ok(_) => return Ok(()),
            Err(Error::Refused(refusal)) if refusal.is("RoleAssignmentExists") => return Ok(()),
            Err(Error::Refused(refusal)) => refusal,
            Err(error) => return Err(refusal::of("assigning a role", error)),
        };
        let is_new = refusal.is("PrincipalNotFound");
        if is_new && tokio::time::Instant::now() + pause < deadline {
            tracing::debug!("the machine's identity is not known everywhere yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
            continue;
        }
        if matches!(refusal.status, 401 | 403) {
            return Err(anyhow::Error::new(refusal).context(refused()));
        }
        return Err(refusal::of("assigning a role", Error::Refused(refusal)));
    }
}

/// A machine that could not end itself would cost money for ever: `poweroff` alone does not end the bill on Azure.
fn refused() -> Failure {
    let message = format!("the machine could not end itself: the launcher may not give it the right to ({ASSIGN})");
    Failure::new(Class::Access, message).hint(
        "three ways out: give the launcher's principal a role with that right on the subscription (\"Role Based Access Control Administrator\", which can be \
         limited to the role Contributor); or name identities that may delete resource groups with `--cloud-permission-set`; or run the runner on a machine of \
         your own, without `--cloud`. docs/clouds/azure.md has the commands",
    )
}

/// What one role allows and another does not deny.
fn may_assign(found: &Permissions) -> bool {
    let covers = |patterns: &[String]| patterns.iter().any(|pattern| covers(pattern, ASSIGN));
    found.value.iter().any(|role| covers(&role.actions) && !covers(&role.not_actions))
}

/// `*` stands for any text; upper and lower case are the same.
fn covers(pattern: &str, action: &str) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| action.strip_prefix(head)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// A name for an assignment that is the same each time: a UUID made of what it is for.
fn guid(parts: &[&str]) -> String {
    let hash = digest::digest(&digest::SHA256, parts.join("\n").as_bytes());
    let mut hex = String::new();
    for byte in hash.as_ref().iter().take(16) {
        let _ = write!(hex, "{byte:02x}");
    }
    for at in [20, 16, 12, 8] {
        hex.insert(at, '-');
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::{Permission, Permissions, covers, guid, may_assign};

    fn role(actions: &[&str], not_actions: &[&str]) -> Permission {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Permission {
            actions: owned(actions),
            not_actions: owned(not_actions),
        }
    }

    #[test]
    fn contributors_may_not_assign_and_owners_may() {
        let contributor = || role(&["*"], &["Microsoft.Authorization/*/Delete", "Microsoft.Authorization/*/Write"]);
        let may = |value| may_assign(&Permissions { value });
        assert!(!may(vec![]));
        assert!(!may(vec![contributor()]));
        assert!(may(vec![role(&["*"], &[])]));
        assert!(may(vec![
            contributor(),
            role(&["Microsoft.Authorization/roleAssignments/write"], &[])
        ]));
        assert!(!may(vec![role(&["Microsoft.Compute/*", "*/read"], &[])]));
    }

    #[test]
    fn a_star_is_any_text_in_an_action() {
        assert!(covers("Microsoft.Authorization/*", "microsoft.authorization/roleassignments/write"));
        assert!(covers("*/write", "a/write"));
        assert!(!covers("*/write", "a/write/b"));
        assert!(!covers("a/b", "a/b/c"));
    }

    #[test]
    fn the_same_assignment_has_the_same_name() {
        let name = guid(&["/subscriptions/s/resourceGroups/g", "p"]);
        assert_eq!(name, guid(&["/subscriptions/s/resourceGroups/g", "p"]));
        assert_ne!(name, guid(&["/subscriptions/s/resourceGroups/g", "q"]));
        assert_eq!((name.len(), name.matches('-').count()), (36, 4));
    }
}
