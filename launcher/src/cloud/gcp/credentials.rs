//! Whose project it is, and the tokens to speak for it: the [application default credentials][adc], or their contents in the environment as
//! in the old tool. What they are stays in `google-cloud-auth`; only tokens leave it.
//!
//! [adc]: https://docs.cloud.google.com/docs/authentication/application-default-credentials

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::http;
use google_cloud_auth::credentials::{CacheableResource, Credentials, external_account, impersonated, mds, service_account, user_account};
use reqwest::header::HeaderMap;
use serde_json::Value;
use tokio::time::timeout;

/// What a token is asked for.
const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/cloud-platform"];
/// The contents of a credential file: the old tool's own name.
const CONTENTS: &str = "GOOGLE_APPLICATION_CREDENTIALS_DATA";
/// The path of one.
const FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Where gcloud keeps the one of a person who logged in, in its directory.
const WELL_KNOWN: &str = "application_default_credentials.json";
/// Where the project is looked for, in order, as the old tool did.
const PROJECT: [&str; 6] = [
    "CLOUDSDK_CORE_PROJECT",
    "CLOUDSDK_PROJECT",
    "GCLOUD_PROJECT",
    "GCP_PROJECT",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_PROJECT",
];
/// All that a token may take, tries and pauses together.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the metadata service, which is there only on a machine of Google's, may take to tell its project.
const METADATA: Duration = Duration::from_secs(3);

/// Who asks, and for which project.
#[derive(Debug)]
pub struct Account {
    credentials: Credentials,
    /// The project's id.
    pub project: String,
}

impl Account {
    /// Finds both in the environment; nothing is asked of Google, but of the metadata service where nothing else is there.
    pub async fn open() -> Result<Self> {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let file = file(&var)?;
        let project = match project(file.as_ref(), &var) {
            Some(project) => project,
            None if file.is_none() => own_project(&var).await?,
            None => return Err(no_project().into()),
        };
        if !is_project(&project) {
            return Err(
                Failure::new(Class::Usage, format!("`{project}` is no id of a Google Cloud project"))
                    .hint("give its id, not its title, in GOOGLE_CLOUD_PROJECT")
                    .into(),
            );
        }
        // It finds the TLS provider of this process, which that installs.
        http::client()?;
        Ok(Self {
            credentials: build(file)?,
            project,
        })
    }

    /// The headers of a request: a token that is asked for when the last one is about to expire.
    #[allow(clippy::default_trait_access, reason = "its type is of a crate that is named nowhere else here")]
    pub async fn headers(&self) -> Result<HeaderMap> {
        let asked = timeout(PATIENCE, self.credentials.headers(Default::default())).await;
        let asked = asked.map_err(|_| anyhow::anyhow!("no token within {} s", PATIENCE.as_secs()));
        let answer = asked.context(unreachable())?.map_err(|error| {
            let failure = if error.is_transient() { unreachable() } else { refused() };
            anyhow::Error::new(error).context(failure)
        })?;
        match answer {
            CacheableResource::New { data, .. } => Ok(data),
            CacheableResource::NotModified => anyhow::bail!("the credentials gave no token"),
        }
    }
}

fn refused() -> Failure {
    Failure::new(Class::Access, "no token for Google Cloud").hint(format!(
        "check {FILE} (or its contents in {CONTENTS}); with workload identity federation, the pool's conditions and the step `google-github-actions/auth`"
    ))
}

fn unreachable() -> Failure {
    Failure::new(Class::Unexpected, "no token for Google Cloud: its token service does not answer").hint(format!(
        "check the network, the proxy and `--ca-certificates`; without {FILE}, or its contents in {CONTENTS}, only a machine of Google's has credentials"
    ))
}

fn no_project() -> Failure {
    Failure::new(Class::Usage, "which project of Google Cloud to use is not said").hint("set GOOGLE_CLOUD_PROJECT")
}

/// The credential file that the environment means; none: the metadata service.
fn file(var: &impl Fn(&str) -> Option<String>) -> Result<Option<Value>> {
    if let Some(text) = var(CONTENTS) {
        return parse(&text, CONTENTS).map(Some);
    }
    let read = |path: &PathBuf| std::fs::read_to_string(path);
    if let Some(path) = var(FILE).map(PathBuf::from) {
        let text = read(&path).with_context(|| {
            Failure::new(Class::Usage, format!("the credential file {} cannot be read", path.display())).hint(format!("{FILE} names it"))
        })?;
        return parse(&text, &path.display().to_string()).map(Some);
    }
    let dir = var("CLOUDSDK_CONFIG").map(PathBuf::from);
    let dir = dir.or_else(|| var("HOME").map(|home| PathBuf::from(home).join(".config/gcloud")));
    let Some(path) = dir.map(|dir| dir.join(WELL_KNOWN)) else {
        return Ok(None);
    };
    match read(&path) {
        Ok(text) => parse(&text, &path.display().to_string()).map(Some),
        Err(_) => Ok(None),
    }
}

/// What a parser says of it may hold a part of a key: it is not told.
fn parse(text: &str, source: &str) -> Result<Value> {
    let parsed = serde_json::from_str::<Value>(text).ok().filter(|value| kind(value).is_some());
    parsed.ok_or_else(|| {
        Failure::new(Class::Usage, format!("{source} holds no Google Cloud credentials"))
            .hint("it is the JSON of a key file, of a federation's configuration, or of `gcloud auth application-default login`")
            .into()
    })
}

fn kind(file: &Value) -> Option<&str> {
    file.get("type")?.as_str()
}

fn build(file: Option<Value>) -> Result<Credentials> {
    let Some(file) = file else {
        return Ok(mds::Builder::default().with_scopes(SCOPES).build()?);
    };
    let kind = kind(&file).unwrap_or_default().to_owned();
    let built = match kind.as_str() {
        "service_account" => {
            let access = service_account::AccessSpecifier::from_scopes(SCOPES);
            service_account::Builder::new(file).with_access_specifier(access).build()
        }
        "authorized_user" => user_account::Builder::new(file).build(),
        "external_account" => external_account::Builder::new(file).with_scopes(SCOPES).build(),
        "impersonated_service_account" => impersonated::Builder::new(file).with_scopes(SCOPES).build(),
        other => {
            let message = format!("credentials of the type `{other}` are not known");
            return Err(Failure::new(Class::Usage, message)
                .hint("known: service_account, authorized_user, external_account, impersonated_service_account")
                .into());
        }
    };
    built.map_err(|error| {
        // What it says of the contents may hold a part of a key.
        let what = if error.is_missing_field() {
            "lack a field"
        } else {
            "cannot be read"
        };
        Failure::new(Class::Usage, format!("the Google Cloud credentials of the type `{kind}` {what}"))
            .hint("download the file again, or write it again with `gcloud`")
            .into()
    })
}

/// The project that the credentials belong to, else the one that the environment names, else that of the account which is impersonated.
fn project(file: Option<&Value>, var: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let text = |name: &str| file?.get(name)?.as_str().map(str::to_owned);
    text("project_id")
        .or_else(|| PROJECT.iter().find_map(|name| var(name)))
        .or_else(|| impersonated_project(&text("service_account_impersonation_url")?))
        .or_else(|| text("quota_project_id"))
        .map(|project| project.trim().to_owned())
}

/// `…/serviceAccounts/NAME@PROJECT.iam.gserviceaccount.com:generateAccessToken`
fn impersonated_project(url: &str) -> Option<String> {
    let (_, account) = url.split_once("/serviceAccounts/")?;
    let (_, domain) = account.split_once('@')?;
    let (project, rest) = domain.split_once('.')?;
    rest.starts_with("iam.gserviceaccount.com").then(|| project.to_owned())
}

/// Whether it can be one part of a path: `my-project`, `example.com:my-project`.
fn is_project(project: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    project.starts_with(is_letter) && project.chars().all(|c| is_letter(c) || "-.:".contains(c))
}

/// The project of the machine that this runs on.
async fn own_project(var: &impl Fn(&str) -> Option<String>) -> Result<String> {
    let host = var("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".into());
    let request = http::local(METADATA)?.get(format!("http://{host}/computeMetadata/v1/project/project-id"));
    let answer = request.header("metadata-flavor", "Google").send().await.ok();
    let text = match answer.filter(|answer| answer.status().is_success()) {
        Some(answer) => answer.text().await.unwrap_or_default(),
        None => String::new(),
    };
    if text.trim().is_empty() {
        return Err(Failure::new(Class::Access, "no Google Cloud credentials")
            .hint(format!(
                "set {FILE} to a file (or {CONTENTS} to its contents); on GitHub, `google-github-actions/auth` does"
            ))
            .into());
    }
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use common::error::{Class, Report};
    use serde_json::{Value, json};

    use super::{build, file, is_project, project};

    fn vars(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let vars: BTreeMap<String, String> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        move |name| vars.get(name).cloned()
    }

    #[test]
    fn the_contents_come_before_the_file_and_the_file_before_a_login() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, project: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, json!({"type": "service_account", "project_id": project}).to_string()).unwrap();
            path.display().to_string()
        };
        let key = write("key.json", "of-the-file");
        write(".config/gcloud/application_default_credentials.json", "of-the-login");
        let home = dir.path().display().to_string();
        let contents = json!({"type": "service_account", "project_id": "of-the-contents"}).to_string();
        let all = [
            ("GOOGLE_APPLICATION_CREDENTIALS_DATA", contents.as_str()),
            ("GOOGLE_APPLICATION_CREDENTIALS", &key),
            ("HOME", &home),
        ];
        for (number, expected) in ["of-the-contents", "of-the-file", "of-the-login"].iter().enumerate() {
            let found = file(&vars(&all[number..])).unwrap();
            assert_eq!(project(found.as_ref(), &vars(&[])).as_deref(), Some(*expected));
        }
        assert!(file(&vars(&[("HOME", "/nowhere")])).unwrap().is_none());
        assert!(file(&vars(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")])).is_err());
    }

    #[test]
    fn the_project_is_said_in_one_of_many_ways() {
        let federated = json!({
            "type": "external_account",
            "service_account_impersonation_url":
                "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/ci@from-url.iam.gserviceaccount.com:generateAccessToken",
        });
        assert_eq!(project(Some(&federated), &vars(&[])).as_deref(), Some("from-url"));
        let named = vars(&[("GOOGLE_PROJECT", "last"), ("GCLOUD_PROJECT", " named\n")]);
        assert_eq!(project(Some(&federated), &named).as_deref(), Some("named"));
        assert_eq!(project(None, &vars(&[])), None);
        assert!(is_project("example.com:my-project-1") && !is_project("My Project") && !is_project("a/../b") && !is_project(""));
    }

    #[tokio::test]
    async fn credentials_that_cannot_be_read_are_refused_without_a_word_of_them() {
        let _ = common::http::client();
        let canary = "canary-0123456789";
        let broken: [Value; 4] = [
            json!({"type": "service_account", "private_key": canary}),
            json!({"type": "service_account", "client_email": [canary], "private_key_id": "1", "private_key": canary, "project_id": "p"}),
            json!({"type": "external_account", "audience": canary}),
            json!({"type": "gdch_service_account", "key": canary}),
        ];
        for value in broken {
            let error = build(Some(value)).map(|_| ()).unwrap_err();
            let text = format!("{} {error:#} {error:?}", Report(&error));
            assert_eq!(Report(&error).class(), Class::Usage);
            assert!(!text.contains(canary), "{text}");
        }
        for text in ["", "canary-0123456789", "\"canary-0123456789\"", "{\"type\":1}"] {
            let error = file(&vars(&[("GOOGLE_APPLICATION_CREDENTIALS_DATA", text)])).unwrap_err();
            assert!(!Report(&error).to_string().contains(canary));
        }
    }
}
