//! Bitbucket Cloud's REST API: <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-pipelines/>

mod labels;
pub(super) mod refusal;
mod rerun;
pub(super) mod scope;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use base64::Engine as _;
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::api::Api;
use super::lost;
use super::{Enroll, Enrollment, Forge, Package, Platform, Removal, Rerun, RerunOutcome, Runner, RunnerId, When, Which};
use crate::http::{Answer, Retry};
use crate::secret::{self, Secret};
use crate::spec::Executor;
use refusal::Permission;
pub use scope::is_uuid;
use scope::{Scope, encoded};

/// The largest page that Bitbucket gives.
const PAGE: &str = "100";
/// More pages than anybody has runners or pipelines of one commit: a server that pages for ever is not followed.
const MAX_PAGES: usize = 1000;
/// The runner that is installed unless the user names another: no API tells the newest.
/// Source: <https://product-downloads.atlassian.com/software/bitbucket/pipelines/CHANGELOG.md>
pub const RUNNER_VERSION: &str = "5.7.0";
/// Where every version is; `{version}` is replaced. One archive for every processor: it is a Java program.
/// Source: <https://support.atlassian.com/bitbucket-cloud/docs/set-up-runners-for-linux-shell/>
pub const RUNNER_URL: &str =
    "https://product-downloads.atlassian.com/software/bitbucket/pipelines/atlassian-bitbucket-pipelines-runner-{version}.tar.gz";
/// The same for steps in containers: an image, whose tags are the same versions.
/// Source: <https://support.atlassian.com/bitbucket-cloud/docs/use-your-docker-images-in-self-hosted-runners/>
pub const RUNNER_IMAGE: &str = "docker-public.packages.atlassian.com/sox/atlassian/bitbucket-pipelines-runner:{version}";
/// No runner has this id.
const NOBODY: &str = "{00000000-0000-0000-0000-000000000000}";

/// Refuses labels that Bitbucket does not take, wherever steps will run.
pub fn check_labels(labels: &[String], executor: Executor) -> Result<()> {
    let checked = match executor {
        Executor::Docker => labels::all(labels, true),
        Executor::Shell => labels::all(labels, false),
        Executor::Auto => labels::all(labels, false).or_else(|_| labels::all(labels, true)),
    };
    checked.map(drop)
}

/// What the runner program is configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerConfig {
    /// The workspace's id, as all of them with its braces.
    pub account_uuid: String,
    /// The repository's, for a runner of a repository.
    pub repository_uuid: Option<String>,
    /// The registration's.
    pub runner_uuid: String,
    /// Of the credential that takes steps and does nothing else.
    pub oauth_client_id: String,
    /// Told once, when the registration is made.
    #[serde(with = "secret::exposed")]
    pub oauth_client_secret: Secret,
    /// Whether its labels say that steps run in containers: the runner must be the one that does that.
    pub containers: bool,
}

/// The API client for one repository or workspace.
#[derive(Clone)]
pub struct Bitbucket {
    api: Api,
    scope: Scope,
}

impl Bitbucket {
    /// Reads the page's address; asks nothing yet. The token is an API token with its owner, `EMAIL:TOKEN`, or an access token.
    pub fn new(repo: &Url, token: &Secret) -> Result<Self> {
        let token = token.expose();
        let authorization = if token.contains(':') {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(token))
        } else {
            format!("Bearer {token}")
        };
        Ok(Self {
            api: Api::new(&authorization, &[(ACCEPT, "application/json")])?,
            scope: Scope::parse(repo)?,
        })
    }

    /// The same client with another patience.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.api.retry = retry;
        self
    }

    /// A request to a path below the API's base.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.api.request(method, &format!("{}{path}", self.scope.api()))
    }

    /// Sends one; what is refused with 4xx is the caller's to judge.
    async fn call(&self, method: Method, path: &str) -> Result<Answer> {
        self.api.fetch(self.request(method, path)).await
    }

    fn refused(&self, answer: &Answer, permission: Permission) -> anyhow::Error {
        refusal::of(answer, &self.scope, permission)
    }

    /// Reads something that must be there.
    async fn read<T: DeserializeOwned>(&self, path: &str, permission: Permission) -> Result<T> {
        let answer = self.call(Method::GET, path).await?;
        if answer.status == StatusCode::OK {
            return answer.json();
        }
        Err(self.refused(&answer, permission))
    }

    /// Reads a list to its end.
    async fn pages<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)], permission: Permission) -> Result<Vec<T>> {
        #[derive(Deserialize)]
        struct Page<T> {
            values: Vec<T>,
            next: Option<String>,
        }
        let mut all = Vec::new();
        let mut request = self.request(Method::GET, path).query(query).query(&[("pagelen", PAGE)]);
        for _ in 0..MAX_PAGES {
            let answer = self.api.fetch(request).await?;
            if answer.status != StatusCode::OK {
                return Err(self.refused(&answer, permission));
            }
            let page: Page<T> = answer.json()?;
            all.extend(page.values);
            let Some(next) = page.next else { break };
            // The token goes nowhere else.
            let rest = next.strip_prefix(self.scope.api()).filter(|rest| rest.starts_with('/'));
            let rest = rest.with_context(|| format!("the list goes on elsewhere, at `{next}`"))?;
            request = self.request(Method::GET, rest);
        }
        Ok(all)
    }

    async fn list(&self) -> Result<Vec<RunnerAnswer>> {
        self.pages(&self.scope.runners(), &[], Permission::Runners).await
    }

    /// The ids of the workspace, and of the repository if it is one.
    async fn ids(&self) -> Result<(String, Option<String>)> {
        #[derive(Deserialize)]
        struct Found {
            uuid: String,
            workspace: Option<Workspace>,
        }
        #[derive(Deserialize)]
        struct Workspace {
            uuid: String,
        }
        let found: Found = self.read(&self.scope.path(), Permission::Runners).await?;
        Ok(match found.workspace {
            Some(workspace) => (workspace.uuid, Some(found.uuid)),
            None => (found.uuid, None),
        })
    }

    fn runner_path(&self, id: &RunnerId) -> String {
        format!("{}/{}", self.scope.runners(), encoded(&id.to_string()))
    }

    /// Deletes a registration that was made for us, but whose secret was lost on the way: it could never be used.
    async fn forget(&self, name: &str) -> Result<()> {
        let unused = |answer: &&RunnerAnswer| answer.name == name && answer.state.status == "UNREGISTERED";
        for answer in self.list().await?.iter().filter(unused) {
            self.unregister(&answer.uuid.clone().into(), When::Stopped).await?;
        }
        Ok(())
    }

    /// Deletes a runner that has no step.
    async fn withdraw(&self, id: &RunnerId) -> Result<Removal> {
        let Some(runner) = self.cordon(id, true).await? else {
            return Ok(Removal::Gone);
        };
        if runner.state.step.is_none() {
            return self.remove(id).await;
        }
        if let Err(error) = self.cordon(id, false).await {
            tracing::warn!("the runner stays cordoned after its step: {error:#}");
        }
        Ok(Removal::Busy("it runs a step".into()))
    }

    async fn remove(&self, id: &RunnerId) -> Result<Removal> {
        let answer = self.call(Method::DELETE, &self.runner_path(id)).await?;
        match answer.status {
            status if status.is_success() => Ok(Removal::Removed),
            StatusCode::NOT_FOUND => Ok(Removal::Gone),
            _ => Err(self.refused(&answer, Permission::Runners)),
        }
    }

    /// Lets a runner take no more steps, or again; how it is then. `None`: it is gone.
    async fn cordon(&self, id: &RunnerId, cordoned: bool) -> Result<Option<RunnerAnswer>> {
        let path = self.runner_path(id);
        let answer = self.call(Method::GET, &path).await?;
        let runner: RunnerAnswer = match answer.status {
            StatusCode::OK => answer.json()?,
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refused(&answer, Permission::Runners)),
        };
        // Atlassian's description of the API has the field in the answer, and none for the request: all that a PUT could replace is told.
        let body = json!({ "name": runner.name, "labels": runner.labels, "state": { "cordoned": cordoned } });
        let answer = self.api.fetch(self.request(Method::PUT, &path).json(&body)).await?;
        match answer.status {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.refused(&answer, Permission::Runners)),
            _ => tracing::warn!("Bitbucket does not cordon the runner: {}", refusal::message(&answer)),
        }
        // Not the answer's word for it: a step may have been assigned before, and come into view after.
        let answer = self.call(Method::GET, &path).await?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused(&answer, Permission::Runners)),
        }
    }
}

#[derive(Deserialize)]
struct RunnerAnswer {
    uuid: String,
    name: String,
    #[serde(default)]
    labels: Vec<String>,
    state: RunnerState,
}

#[derive(Deserialize)]
struct RunnerState {
    status: String,
    #[serde(default)]
    cordoned: bool,
    /// The step that it has. Not in Atlassian's description, but in what
    /// [their own autoscaler](https://bitbucket.org/bitbucketpipelines/runners-autoscaler) tells busy runners by.
    step: Option<IgnoredAny>,
}

impl From<RunnerAnswer> for Runner {
    fn from(answer: RunnerAnswer) -> Self {
        Self {
            id: answer.uuid.into(),
            name: answer.name,
            // One that takes no more steps is as good as gone for whoever looks for a runner.
            online: answer.state.status == "ONLINE" && !answer.state.cordoned,
            busy: answer.state.step.is_some(),
            labels: answer.labels,
        }
    }
}

#[async_trait]
impl Forge for Bitbucket {
    async fn check_access(&self) -> Result<()> {
        // To register one would leave it behind. Whoever may delete one that is not there may register one.
        self.ids().await?;
        let _: IgnoredAny = self
            .read(&format!("{}?pagelen=1", self.scope.runners()), Permission::Runners)
            .await?;
        let answer = self.call(Method::DELETE, &self.runner_path(&NOBODY.to_owned().into())).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(&answer, Permission::Runners)),
            _ => Ok(()),
        }
    }

    async fn runners(&self, which: Which<'_>) -> Result<Vec<Runner>> {
        let mut found: Vec<_> = self.list().await?.into_iter().map(Runner::from).collect();
        found.retain(|runner| !which.excludes(&runner.name));
        Ok(found)
    }

    async fn enroll(&self, request: &Enroll) -> Result<Enrollment> {
        #[derive(Deserialize)]
        struct Made {
            uuid: String,
            oauth_client: Client,
        }
        #[derive(Deserialize)]
        struct Client {
            id: String,
            secret: Secret,
        }
        let labels = labels::all(&request.labels, request.containers)?;
        let (account_uuid, repository_uuid) = self.ids().await?;
        // Names repeat here; but what goes wrong later is cleaned up by name, and must not meet another's.
        if !self.runners(Which::Named(&request.name)).await?.is_empty() {
            return Err(super::name_in_use(&request.name));
        }
        let body = json!({ "name": request.name, "labels": labels });
        for _ in 0..lost::TRIES {
            let post = self.request(Method::POST, &self.scope.runners()).json(&body);
            let Some(answer) = lost::send_once(post, &self.api.retry).await? else {
                self.forget(&request.name).await?;
                continue;
            };
            if !answer.status.is_success() {
                return Err(self.refused(&answer, Permission::Runners));
            }
            let made: Made = answer.json()?;
            let config = RunnerConfig {
                account_uuid,
                repository_uuid,
                runner_uuid: made.uuid.clone(),
                oauth_client_id: made.oauth_client.id,
                oauth_client_secret: made.oauth_client.secret,
                containers: request.containers,
            };
            return Ok(Enrollment::Made {
                id: made.uuid.into(),
                config: Secret::new(serde_json::to_string(&config)?),
            });
        }
        Err(lost::give_up())
    }

    /// Bitbucket refuses nothing, so that the runner is cordoned before it is looked whether it has a step: none can come in between.
    async fn unregister(&self, id: &RunnerId, when: When) -> Result<Removal> {
        if when == When::Idle {
            let (own, id) = (self.clone(), id.clone());
            // Whoever waits for it may turn to a step that has just begun: the runner must not stay cordoned for that.
            return tokio::spawn(async move { own.withdraw(&id).await }).await?;
        }
        self.remove(id).await
    }

    async fn package(&self, _: Platform) -> Result<Package> {
        Ok(Package {
            url: RUNNER_URL
                .replace("{version}", RUNNER_VERSION)
                .parse()
                .context("building the runner's address")?,
            // Atlassian publishes none.
            sha256: None,
            token: None,
        })
    }

    async fn rerun(&self, request: &Rerun) -> Result<RerunOutcome> {
        rerun::rerun(self, request).await
    }
}
