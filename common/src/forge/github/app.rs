//! What a GitHub App may ask for: a token of its installation, for one repository or organisation, which may do one thing and lives for an hour.
//!
//! Sources: [installations](https://docs.github.com/en/rest/apps/apps),
//! [their tokens](https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-an-installation-access-token-for-a-github-app).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::scope::Scope;
use super::{api, refusal};
use crate::error::{Class, Failure};
use crate::forge::api::Api;
use crate::http::Answer;
use crate::secret::Secret;

/// What a token is asked for; it may do nothing else.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To register, list and remove runners.
    Runners,
    /// To run a job of this repository (`owner/repo`, as the job names it) again.
    Rerun(&'a str),
}

/// A token of an installation.
#[derive(Debug)]
pub struct Minted {
    /// The token.
    pub token: Secret,
    /// How long it lives, by the server's own clock.
    pub life: Duration,
}

/// A permission in the words of the API, and in those of the App's settings.
struct Needed {
    name: &'static str,
    words: &'static str,
}

const ADMINISTRATION: Needed = Needed {
    name: "administration",
    words: "Repository permissions → Administration: Read and write",
};
const RUNNERS: Needed = Needed {
    name: "organization_self_hosted_runners",
    words: "Organization permissions → Self-hosted runners: Read and write",
};
const ACTIONS: Needed = Needed {
    name: "actions",
    words: "Repository permissions → Actions: Read and write",
};

/// What each of them is asked for as.
const WRITE: &str = "write";

#[derive(Deserialize)]
struct Installation {
    id: u64,
    app_slug: String,
    html_url: String,
    suspended_at: Option<Timestamp>,
    permissions: BTreeMap<String, Value>,
}

/// Refuses a page whose runners no App may register.
pub fn check(page: &Url) -> Result<()> {
    let scope = Scope::parse(page)?;
    if scope.is_enterprise() {
        return Err(Failure::new(Class::Usage, format!("a GitHub App cannot be used for the {scope}"))
            .hint("give a token with the scope `manage_runners:enterprise` by REPO_TOKEN, or the page of an organisation by `--repo`")
            .into());
    }
    Ok(())
}

/// Gets a token for one purpose from the installation at `page`, as the App that signed `jwt`.
pub async fn mint(page: &Url, jwt: &Secret, purpose: Purpose<'_>) -> Result<Minted> {
    let scope = Scope::parse(page)?;
    let needed = match purpose {
        Purpose::Rerun(_) => ACTIONS,
        Purpose::Runners if scope.own_repository().is_some() => ADMINISTRATION,
        Purpose::Runners => RUNNERS,
    };
    let repository = match purpose {
        Purpose::Runners => scope.own_repository(),
        // What tells us of jobs can be written by them.
        Purpose::Rerun(named) => {
            let ours = scope.repository(named);
            Some(ours.with_context(|| format!("the repository `{named}` does not belong to the {scope}"))?)
        }
    };
    let app = App { api: api(jwt)?, scope };
    let installation = app.installation().await?;
    check_grant(&installation, &app.scope, &needed)?;
    app.token(&installation, repository.as_deref(), &needed).await
}

/// One App's conversation about one page.
struct App {
    api: Api,
    scope: Scope,
}

impl App {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request = self.api.request(method, &format!("{}{path}", self.scope.api()));
        if let Some(body) = body {
            request = request.json(body);
        }
        self.api.fetch(request).await
    }

    async fn installation(&self) -> Result<Installation> {
        let answer = self.call(Method::GET, &format!("{}/installation", self.scope.path()), None).await?;
        match answer.status {
            StatusCode::OK => answer.json(),
            _ => Err(self.refused(&answer, None)),
        }
    }

    async fn token(&self, installation: &Installation, repository: Option<&str>, needed: &Needed) -> Result<Minted> {
        #[derive(Deserialize)]
        struct Token {
            token: Secret,
            expires_at: Timestamp,
        }
        let permissions = json!({ (needed.name): WRITE });
        let body = match repository.and_then(|path| path.rsplit('/').next()) {
            Some(name) => json!({ "permissions": permissions, "repositories": [name] }),
            None => json!({ "permissions": permissions }),
        };
        let path = format!("/app/installations/{}/access_tokens", installation.id);
        let answer = self.call(Method::POST, &path, Some(&body)).await?;
        if answer.status != StatusCode::CREATED {
            return Err(self.refused(&answer, Some(installation)));
        }
        let Token { token, expires_at } = answer.json()?;
        let life = expires_at.duration_since(answer.sent_at()).try_into().unwrap_or_default();
        Ok(Minted { token, life })
    }

    /// The failure that an answer other than success means. Its words for a key that is not known, or a clock that is wrong, are GitHub's own.
    fn refused(&self, answer: &Answer, installation: Option<&Installation>) -> anyhow::Error {
        let (said, scope) = (refusal::message(answer), &self.scope);
        let failure = match (answer.status.as_u16(), installation) {
            (401, _) => Failure::new(Class::Access, format!("GitHub does not know the App by its key: {said}"))
                .hint("`--app-id` and `--app-private-key` must be of the same App, the key must not have been deleted in its settings, and this machine's clock must be right"),
            // It says so of an App that it does not know, too.
            (404, None) if said.contains("Integration") => Failure::new(Class::Access, format!("GitHub knows no such App: {said}"))
                .hint("`--app-id` is the client id, or the App's number, of the App's settings page"),
            (404, None) => Failure::new(Class::Access, format!("the GitHub App is not installed on the {scope}, or there is no such"))
                .hint("check `--repo`; else install the App there: in its settings, \"Install App\", and for a repository select it"),
            (403 | 422, Some(own)) => Failure::new(Class::Access, format!("GitHub gives the App `{}` no token for the {scope}: {said}", own.app_slug))
                .hint(format!("look at its repositories and permissions at {}", own.html_url)),
            (status, _) => Failure::new(Class::Unexpected, format!("GitHub answered {status}: {said}")),
        };
        failure.into()
    }
}

/// Before GitHub's own refusal, which names no permission.
fn check_grant(installation: &Installation, scope: &Scope, needed: &Needed) -> Result<()> {
    let Installation { app_slug, html_url, .. } = installation;
    if installation.suspended_at.is_some() {
        return Err(Failure::new(
            Class::Access,
            format!("the installation of the GitHub App `{app_slug}` on the {scope} is suspended"),
        )
        .hint(format!("an owner ends that at {html_url}"))
        .into());
    }
    if installation.permissions.get(needed.name).and_then(Value::as_str) == Some(WRITE) {
        return Ok(());
    }
    let message = format!(
        "the GitHub App `{app_slug}` lacks the permission `{}: {WRITE}` on the {scope}",
        needed.name
    );
    let hint = format!(
        "grant it in the App's settings, \"Permissions & events\": {}; then an owner accepts it at {html_url}",
        needed.words
    );
    Err(Failure::new(Class::Access, message).hint(hint).into())
}
