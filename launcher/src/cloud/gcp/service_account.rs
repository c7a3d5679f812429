//! `--cloud-permission-set`: the service account that jobs get, `email[,scopes=a,b,…]` as in the old tool.

use anyhow::Result;
use common::error::{Class, Failure};

use super::body::ServiceAccount;

/// What every scope begins with.
const PREFIX: &str = "https://www.googleapis.com/auth/";
/// The scope that leaves all limits to the account's roles, which is [Google's advice][scopes].
///
/// [scopes]: https://docs.cloud.google.com/compute/docs/access/service-accounts#scopes_best_practice
const ALL: &str = "cloud-platform";
/// [Short names][names] that differ from the scope's own.
///
/// [names]: https://docs.cloud.google.com/sdk/gcloud/reference/compute/instances/create#--scopes
const SHORT: [(&str, &str); 23] = [
    ("cloud-source-repos", "source.full_control"),
    ("cloud-source-repos-ro", "source.read_only"),
    ("compute-ro", "compute.readonly"),
    ("compute-rw", "compute"),
    ("logging-write", "logging.write"),
    ("monitoring-read", "monitoring.read"),
    ("monitoring-write", "monitoring.write"),
    ("service-control", "servicecontrol"),
    ("service-management", "service.management.readonly"),
    ("sql", "sqlservice"),
    ("sql-admin", "sqlservice.admin"),
    ("storage-full", "devstorage.full_control"),
    ("storage-ro", "devstorage.read_only"),
    ("storage-rw", "devstorage.read_write"),
    ("trace", "trace.append"),
    ("useraccounts-ro", "cloud.useraccounts.readonly"),
    ("useraccounts-rw", "cloud.useraccounts"),
    ("userinfo-email", "userinfo.email"),
    // Those that are the same.
    ("bigquery", "bigquery"),
    ("datastore", "datastore"),
    ("monitoring", "monitoring"),
    ("pubsub", "pubsub"),
    ("taskqueue", "taskqueue"),
];

/// Reads it.
///
/// # Errors
/// It has another form, or names an unknown scope.
pub fn read(text: &str) -> Result<ServiceAccount> {
    let refuse = |why: String| Failure::new(Class::Usage, format!("`--cloud-permission-set={text}` {why}"));
    let form = "write `EMAIL`, or `EMAIL,scopes=SCOPE,SCOPE,…`; a scope is a short name such as `storage-rw`, or its address";
    let (email, rest) = text.split_once(',').map_or((text, None), |(email, rest)| (email, Some(rest)));
    if !email.contains('@') || email.contains(char::is_whitespace) {
        return Err(refuse("is no service account".into()).hint(form).into());
    }
    let scopes = match rest {
        None => vec![format!("{PREFIX}{ALL}")],
        Some(rest) => {
            let list = rest.strip_prefix("scopes=").filter(|list| !list.is_empty());
            let list = list.ok_or_else(|| refuse("has no `scopes=` after the account".into()).hint(form))?;
            let known = |name: &str| scope(name).ok_or_else(|| refuse(format!("names the unknown scope `{name}`")).hint(form));
            list.split(',').map(|name| known(name.trim())).collect::<Result<_, _>>()?
        }
    };
    Ok(ServiceAccount {
        email: email.to_owned(),
        scopes,
    })
}

/// The address of a scope.
fn scope(name: &str) -> Option<String> {
    if name.starts_with("https://") {
        return Some(name.to_owned());
    }
    if name == ALL {
        return Some(format!("{PREFIX}{ALL}"));
    }
    let found = SHORT.iter().find(|(short, full)| *short == name || *full == name)?;
    Some(format!("{PREFIX}{}", found.1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::read;

    #[test]
    fn an_account_has_scopes() {
        let account = read("ci@p.iam.gserviceaccount.com").unwrap();
        assert_eq!(account.scopes, ["https://www.googleapis.com/auth/cloud-platform"]);
        let account = read("ci@p.iam.gserviceaccount.com,scopes=storage-rw,compute-ro,bigquery,https://www.googleapis.com/auth/x").unwrap();
        assert_eq!(account.email, "ci@p.iam.gserviceaccount.com");
        let scopes = ["devstorage.read_write", "compute.readonly", "bigquery", "x"];
        assert_eq!(
            account.scopes,
            scopes.map(|scope| format!("https://www.googleapis.com/auth/{scope}"))
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "arn:aws:iam::1:instance-profile/x",
            "a@b,storage-rw",
            "a@b,scopes=",
            "a@b,scopes=storage",
            "a@b,scopes=compute-rw,,x",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
