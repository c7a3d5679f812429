//! GitHub's REST API, of github.com, of GitHub Enterprise Cloud with data residency, and of GitHub Enterprise Server.

pub mod app;
mod find;
pub(super) mod refusal;
mod rerun;
pub(super) mod scope;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use reqwest::header::{ACCEPT, HeaderName};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::api::Api;
use super::lost;
use super::{Enroll, Enrollment, Forge, Package, Platform, Removal, Rerun, RerunOutcome, Runner, RunnerId, When, Which};
use crate::error::{Class, Failure};
use crate::http::{self, Answer, Retry};
use crate::secret::Secret;
use refusal::Permission;
use scope::Scope;

/// The version of the API that we were written for. Source: <https://docs.github.com/en/rest/about-the-rest-api/api-versions>
const API_VERSION: &str = "2022-11-28";
/// The largest page that GitHub gives.
const PAGE: &str = "100";
/// More pages of runners than an organisation can have (10 000 runners a group): a server that pages for ever is not followed.
const MAX_PAGES: usize = 1000;
/// The runner group that every repository and organisation has.
const DEFAULT_GROUP: u64 = 1;

/// The API client for one repository, organisation or enterprise.
pub struct GitHub {
    api: Api,
    scope: Scope,
}

impl GitHub {
    /// Reads the page's address; asks nothing yet.
    pub fn new(repo: &Url, token: &Secret) -> Result<Self> {
        Ok(Self {
            api: api(token)?,
            scope: Scope::parse(repo)?,
        })
    }

    /// The same client with another patience.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.api.retry = retry;
        self
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.api.request(method, &format!("{}{path}", self.scope.api()))
    }

    /// Sends one request to a path below the API's base; what is refused with 4xx is the caller's to judge.
    async fn call(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<&Value>, retry: &Retry) -> Result<Answer> {
        let mut request = self.request(method, path).query(query);
        if let Some(body) = body {
            request = request.json(body);
        }
        http::fetch(request, retry).await
    }

    /// The same below the repository's, organisation's or enterprise's own path.
    async fn own(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<&Value>) -> Result<Answer> {
        self.call(method, &format!("{}{path}", self.scope.path()), query, body, &self.api.retry)
            .await
    }

    /// Reads a list to its end.
    async fn pages<P: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        retry: &Retry,
        permission: Permission,
    ) -> Result<Vec<P>> {
        let mut pages = Vec::new();
        for number in 1..=MAX_PAGES {
            let number = number.to_string();
            let query = [query, &[("per_page", PAGE), ("page", &number)]].concat();
            let answer = self.call(Method::GET, path, &query, None, retry).await?;
            if answer.status != StatusCode::OK {
                return Err(refusal::of(&answer, &self.scope, permission));
            }
            pages.push(answer.json()?);
            if !answer.header("link").is_some_and(|link| link.contains("rel=\"next\"")) {
                break;
            }
        }
        Ok(pages)
    }

    async fn registration_token(&self) -> Result<Secret> {
        #[derive(Deserialize)]
        struct Token {
            token: Secret,
        }
        let answer = self.own(Method::POST, "/actions/runners/registration-token", &[], None).await?;
        match answer.status {
            StatusCode::CREATED => Ok(answer.json::<Token>()?.token),
            _ => Err(refusal::of(&answer, &self.scope, Permission::Runners)),
        }
    }

    async fn just_in_time(&self, enroll: &Enroll) -> Result<Enrollment> {
        #[derive(Deserialize)]
        struct Made {
            runner: RunnerAnswer,
            encoded_jit_config: Secret,
        }
        // GitHub adds its own labels to a runner that registers itself, but not to one that is made here.
        let own = ["self-hosted", "Linux", enroll.platform.label()].map(str::to_owned);
        let labels = [&own, enroll.labels.as_slice()].concat();
        let body = json!({ "name": enroll.name, "runner_group_id": DEFAULT_GROUP, "labels": labels, "work_folder": "_work" });
        let path = format!("{}/actions/runners/generate-jitconfig", self.scope.path());
        for _ in 0..lost::TRIES {
            let request = self.request(Method::POST, &path).json(&body);
            let Some(answer) = lost::send_once(request, &self.api.retry).await? else {
                self.forget(&enroll.name, &labels).await?;
                continue;
            };
            return match answer.status {
                StatusCode::CREATED => {
                    let made: Made = answer.json()?;
                    Ok(Enrollment::Made {
                        id: RunnerId::from(made.runner.id),
                        config: made.encoded_jit_config,
                    })
                }
                StatusCode::CONFLICT => Err(super::name_in_use(&enroll.name)),
                _ => Err(refusal::of(&answer, &self.scope, Permission::Runners)),
            };
        }
        Err(lost::give_up())
    }

    /// Deletes a registration that was made for us, but whose configuration was lost on the way: it could never be used.
    async fn forget(&self, name: &str, labels: &[String]) -> Result<()> {
        let found = self.runners(Which::Named(name)).await?;
        for runner in found
            .iter()
            .filter(|runner| !runner.online && !runner.busy && runner.has_labels(labels))
        {
            self.unregister(&runner.id, When::Idle).await?;
        }
        Ok(())
    }
}

/// What speaks to any GitHub with this token.
fn api(token: &Secret) -> Result<Api> {
    let version = HeaderName::from_static("x-github-api-version");
    let headers = [(ACCEPT, "application/vnd.github+json"), (version, API_VERSION)];
    Api::new(&format!("Bearer {}", token.expose()), &headers)
}

#[derive(Deserialize)]
struct RunnerAnswer {
    id: u64,
    name: String,
    status: String,
    busy: bool,
    labels: Vec<Label>,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

impl From<RunnerAnswer> for Runner {
    fn from(answer: RunnerAnswer) -> Self {
        Self {
            id: RunnerId::from(answer.id),
            name: answer.name,
            online: answer.status == "online",
            busy: answer.busy,
            labels: answer.labels.into_iter().map(|label| label.name).collect(),
        }
    }
}

#[async_trait]
impl Forge for GitHub {
    async fn check_access(&self) -> Result<()> {
        // The one request that needs exactly the permission to register, and that leaves nothing but a token that ends in an hour.
        self.registration_token().await.map(drop)
    }

    async fn runners(&self, which: Which<'_>) -> Result<Vec<Runner>> {
        #[derive(Deserialize)]
        struct Page {
            runners: Vec<RunnerAnswer>,
        }
        let path = format!("{}/actions/runners", self.scope.path());
        let only = match which {
            Which::Named(name) => vec![("name", name)],
            Which::All | Which::Matching(..) => Vec::new(),
        };
        let pages: Vec<Page> = self.pages(&path, &only, &self.api.retry, Permission::Runners).await?;
        let mut found: Vec<_> = pages.into_iter().flat_map(|page| page.runners).map(Runner::from).collect();
        // Older servers do not know the parameter and send all of them.
        found.retain(|runner| !which.excludes(&runner.name));
        Ok(found)
    }

    async fn enroll(&self, request: &Enroll) -> Result<Enrollment> {
        if request.single {
            self.just_in_time(request).await
        } else {
            self.registration_token().await.map(Enrollment::Token)
        }
    }

    async fn unregister(&self, id: &RunnerId, _: When) -> Result<Removal> {
        let answer = self.own(Method::DELETE, &format!("/actions/runners/{id}"), &[], None).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(Removal::Removed),
            // Ours was taken by a try whose answer was lost, or GitHub was faster: gone is gone.
            StatusCode::NOT_FOUND => Ok(Removal::Gone),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Removal::Busy(refusal::message(&answer))),
            _ => Err(refusal::of(&answer, &self.scope, Permission::Runners)),
        }
    }

    async fn package(&self, platform: Platform) -> Result<Package> {
        #[derive(Deserialize)]
        struct Application {
            os: String,
            architecture: String,
            download_url: Url,
            sha256_checksum: Option<String>,
            temp_download_token: Option<Secret>,
        }
        let answer = self.own(Method::GET, "/actions/runners/downloads", &[], None).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal::of(&answer, &self.scope, Permission::Runners));
        }
        let offered: Vec<Application> = answer.json()?;
        let fits = |application: &Application| application.os == "linux" && application.architecture == platform.github();
        let application = offered.into_iter().find(fits).with_context(|| {
            let message = format!("GitHub offers no runner for linux-{}", platform.github());
            Failure::new(Class::Unexpected, message).hint("name one with `--runner-url`")
        })?;
        Ok(Package {
            url: application.download_url,
            sha256: application.sha256_checksum.filter(|sum| !sum.is_empty()),
            token: application.temp_download_token.filter(|token| !token.is_empty()),
        })
    }

    async fn rerun(&self, request: &Rerun) -> Result<RerunOutcome> {
        rerun::rerun(self, request).await
    }
}
