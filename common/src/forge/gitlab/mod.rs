//! GitLab's REST API, of gitlab.com and of self-managed ones, with port, path and private certificates.

pub(super) mod refusal;
mod removal;
mod rerun;
mod scope;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OnceCell;
use url::Url;

use super::api::Api;
use super::{Enroll, Enrollment, Forge, Package, Platform, Removal, Rerun, RerunOutcome, Runner, RunnerId, When, Which};
use super::{lost, page};
use crate::http::{Answer, Retry};
use crate::secret::{self, Secret};
use scope::{Kind, Scope};

/// The largest page that GitLab gives.
const PAGE: &str = "100";
/// More pages of runners than anybody has: a server that pages for ever is not followed.
const MAX_PAGES: usize = 1000;
/// Where GitLab's runners are. Source: <https://docs.gitlab.com/runner/install/bleeding-edge/>
const RELEASES: &str = "https://s3.dualstack.us-east-1.amazonaws.com/gitlab-runner-downloads";

/// What the runner program is configured with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerConfig {
    /// The server that it asks for jobs.
    pub server: String,
    /// Its own token, which takes jobs and does nothing else.
    #[serde(with = "secret::exposed")]
    pub token: Secret,
}

/// The API client for one project, group or whole GitLab.
#[derive(Clone)]
pub struct GitLab {
    api: Api,
    page: Url,
    scope: OnceCell<Scope>,
}

impl GitLab {
    /// Checks the page's address; asks nothing yet.
    pub fn new(repo: &Url, token: &Secret) -> Result<Self> {
        page::check(repo)?;
        Ok(Self {
            // Not `PRIVATE-TOKEN`, which would go along when another host is redirected to.
            api: Api::new(&format!("Bearer {}", token.expose()), &[])?,
            page: repo.clone(),
            scope: OnceCell::new(),
        })
    }

    /// The same client with another patience.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.api.retry = retry;
        self
    }

    /// What the page is; the server is asked once.
    async fn scope(&self) -> Result<&Scope> {
        self.scope.get_or_try_init(|| scope::find(self)).await
    }

    /// A request to a path of the API.
    async fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let url = self.scope().await?.api(path);
        Ok(self.api.request(method, &url))
    }

    /// Sends one; what is refused with 4xx is the caller's to judge.
    async fn call(&self, method: Method, path: &str) -> Result<Answer> {
        let request = self.request(method, path).await?;
        self.api.fetch(request).await
    }

    fn refused(&self, answer: &Answer) -> anyhow::Error {
        match self.scope.get() {
            Some(scope) => refusal::of(answer, &scope.to_string(), scope.runner_permission()),
            None => refusal::of(answer, &format!("project or group {}", page::shown(&self.page)), "the scope `api`"),
        }
    }

    /// Reads something that must be there.
    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.call(Method::GET, path).await?;
        if answer.status == StatusCode::OK {
            return answer.json();
        }
        Err(self.refused(&answer))
    }

    /// Reads one part of a list.
    async fn page(&self, path: &str, query: &[(&str, &str)], size: &str, number: &str) -> Result<Answer> {
        let request = self.request(Method::GET, path).await?;
        let request = request.query(query).query(&[("per_page", size), ("page", number)]);
        let answer = self.api.fetch(request).await?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        Err(self.refused(&answer))
    }

    /// Reads a list to its end.
    async fn pages<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let mut next = "1".to_owned();
        for _ in 0..MAX_PAGES {
            let answer = self.page(path, query, PAGE, &next).await?;
            all.extend(answer.json::<Vec<T>>()?);
            match answer.header("x-next-page").filter(|page| !page.is_empty()) {
                Some(page) => page.clone_into(&mut next),
                None => break,
            }
        }
        Ok(all)
    }

    /// Runners of our own scope: those that are shared with it are managed elsewhere.
    async fn list(&self, more: &[(&str, &str)]) -> Result<Vec<RunnerAnswer>> {
        let scope = self.scope().await?;
        let own = [("type", scope.runner_type())];
        self.pages(&scope.runners(), &[&own, more].concat()).await
    }

    /// Makes a registration: through the user, or, on a server that is older than that, with the project's or group's own token.
    async fn make(&self, request: &Enroll) -> Result<Option<Answer>> {
        let scope = self.scope().await?;
        let mut body = json!({
            "description": request.name,
            "tag_list": request.labels,
            // A runner without tags is for all jobs; one with tags is for those that ask for it.
            "run_untagged": request.labels.is_empty(),
            "locked": true,
        });
        let mut set = |name: &str, value: serde_json::Value| {
            if let Some(fields) = body.as_object_mut() {
                fields.insert(name.into(), value);
            }
        };
        match &scope.kind {
            Kind::Project(id, _) => set("project_id", json!(id)),
            Kind::Group(id, _) => set("group_id", json!(id)),
            Kind::Instance => {}
        }
        set("runner_type", json!(scope.runner_type()));
        let made = lost::send_once(self.request(Method::POST, "/user/runners").await?.json(&body), &self.api.retry).await?;
        match (made, scope.registration_token()) {
            // The way of GitLab 15.10 and older. Source: <https://docs.gitlab.com/ci/runners/new_creation_workflow/>
            (Some(answer), Some(path)) if answer.status == StatusCode::NOT_FOUND => {
                #[derive(Deserialize)]
                struct Page {
                    runners_token: Option<Secret>,
                }
                let Some(token) = self.read::<Page>(&path).await?.runners_token else {
                    return Ok(Some(answer));
                };
                if let Some(fields) = body.as_object_mut() {
                    fields.insert("token".into(), json!(token.expose()));
                }
                lost::send_once(self.request(Method::POST, "/runners").await?.json(&body), &self.api.retry).await
            }
            (made, _) => Ok(made),
        }
    }

    /// Deletes a registration that was made for us, but whose token was lost on the way: it could never be used.
    async fn forget(&self, name: &str) -> Result<()> {
        let unused = |runner: &&RunnerAnswer| runner.is_called(name) && runner.status == "never_contacted";
        for runner in self.list(&[]).await?.iter().filter(unused) {
            self.unregister(&runner.id.into(), When::Stopped).await?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct RunnerAnswer {
    id: u64,
    description: Option<String>,
    status: String,
    /// Since GitLab 18; `active` while it has a job.
    job_execution_status: Option<String>,
}

impl RunnerAnswer {
    fn is_called(&self, name: &str) -> bool {
        self.description.as_deref() == Some(name)
    }

    fn runner(self, labels: &[String]) -> Runner {
        Runner {
            id: self.id.into(),
            name: self.description.unwrap_or_default(),
            online: self.status == "online",
            busy: self.job_execution_status.is_some_and(|status| status == "active"),
            labels: labels.to_vec(),
        }
    }
}

#[async_trait]
impl Forge for GitLab {
    async fn check_access(&self) -> Result<()> {
        // To register one would leave it behind. Whoever may see the runners of a project or group may register one, given the scope `api`.
        let scope = self.scope().await?;
        let answer = self.page(&scope.runners(), &[("type", scope.runner_type())], "1", "1").await?;
        answer.json::<Vec<RunnerAnswer>>().map(drop)
    }

    async fn runners(&self, which: Which<'_>) -> Result<Vec<Runner>> {
        let Which::Matching(name, labels) = which else {
            let mut found: Vec<_> = self.list(&[]).await?.into_iter().map(|answer| answer.runner(&[])).collect();
            found.retain(|runner| !which.excludes(&runner.name));
            return Ok(found);
        };
        let older = |answer: &RunnerAnswer| answer.job_execution_status.is_none() && answer.status == "online";
        let mut found = Vec::new();
        // The tags of a runner are told by itself only, so that the server does the comparing.
        for answer in self.list(&[("tag_list", &labels.join(","))]).await? {
            let is_silent = older(&answer);
            let mut runner = answer.runner(labels);
            runner.busy |= is_silent && removal::has_job(self, &runner.id).await? == Some(true);
            found.push(runner);
        }
        let others = self.list(&[]).await?.into_iter().filter(|answer| answer.is_called(name));
        let others: Vec<_> = others.map(|answer| answer.runner(&[])).collect();
        found.extend(
            others
                .into_iter()
                .filter(|other| !found.iter().any(|known| known.id == other.id))
                .collect::<Vec<_>>(),
        );
        Ok(found)
    }

    async fn enroll(&self, request: &Enroll) -> Result<Enrollment> {
        #[derive(Deserialize)]
        struct Made {
            id: u64,
            token: Secret,
        }
        // Names repeat here; but what goes wrong later is cleaned up by name, and must not meet another's.
        if self.list(&[]).await?.iter().any(|runner| runner.is_called(&request.name)) {
            return Err(super::name_in_use(&request.name));
        }
        for _ in 0..lost::TRIES {
            let Some(answer) = self.make(request).await? else {
                self.forget(&request.name).await?;
                continue;
            };
            if answer.status != StatusCode::CREATED {
                return Err(self.refused(&answer));
            }
            let made: Made = answer.json()?;
            let server = self.scope().await?.server.clone();
            let config = serde_json::to_string(&RunnerConfig { server, token: made.token })?;
            return Ok(Enrollment::Made {
                id: made.id.into(),
                config: Secret::new(config),
            });
        }
        Err(lost::give_up())
    }

    async fn unregister(&self, id: &RunnerId, when: When) -> Result<Removal> {
        match when {
            When::Stopped => removal::delete(self, id).await,
            When::Idle => {
                let (own, id) = (self.clone(), id.clone());
                // Whoever waits for it may turn to a job that has just begun: the runner must not stay paused for that.
                tokio::spawn(async move { removal::withdraw(&own, &id).await }).await?
            }
        }
    }

    /// Of the server's own version, since an older server need not understand a newer runner.
    async fn package(&self, platform: Platform) -> Result<Package> {
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        let answer = self.call(Method::GET, "/version").await?;
        let told: Option<Version> = (answer.status == StatusCode::OK).then(|| answer.json().ok()).flatten();
        let release = told.and_then(|told| release(&told.version)).unwrap_or_else(|| "latest".into());
        let url = format!("{RELEASES}/{release}/binaries/gitlab-runner-linux-{}", platform.debian());
        Ok(Package {
            url: url.parse().context("building the runner's address")?,
            // In a list beside it.
            sha256: None,
            token: None,
        })
    }

    async fn rerun(&self, request: &Rerun) -> Result<RerunOutcome> {
        rerun::rerun(self, request).await
    }
}

/// The runner's release for a server of this version, `18.6.1-ee`: the first of that minor version. A server of a version to come
/// (gitlab.com: `18.7.0-pre`) has none yet.
fn release(server: &str) -> Option<String> {
    if server.ends_with("-pre") {
        return None;
    }
    let mut parts = server.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some(format!("v{major}.{minor}.0"))
}

#[cfg(test)]
mod tests {
    use super::release;

    #[test]
    fn a_server_has_a_runner_of_its_minor_version() {
        for (server, runner) in [
            ("18.6.1-ee", Some("v18.6.0")),
            ("17.0.0", Some("v17.0.0")),
            ("18.7.0-pre", None),
            ("nonsense", None),
            ("18", None),
        ] {
            assert_eq!(release(server).as_deref(), runner, "{server}");
        }
    }
}
