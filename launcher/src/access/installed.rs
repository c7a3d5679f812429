//! GitHub as a GitHub App: the ordinary client, with a token that may only do what is asked of it now, and that is made anew before it ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use common::forge::github::GitHub;
use common::forge::github::app::{self, Minted, Purpose};
use common::forge::{
    Enroll, Enrollment, Forge, Interrupted, Package, Platform, Removal, Rerun, RerunOutcome, Runner, RunnerId, When, Which,
};
use jiff::Timestamp;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::App;

/// What a token must have left before it is used: longer than any call takes, with all that is asked again.
const MARGIN: Duration = Duration::from_mins(10);

/// A forge whose tokens an App makes. Nothing is asked before it is needed.
pub struct Installed {
    app: App,
    repo: Url,
    held: Mutex<Option<Held>>,
}

/// A client, and when its token must not be used any more.
struct Held {
    github: Arc<GitHub>,
    until: Instant,
}

impl Installed {
    /// Of the repository or organisation at `repo`.
    pub fn new(app: App, repo: &Url) -> Result<Self> {
        app::check(repo)?;
        Ok(Self {
            app,
            repo: repo.clone(),
            held: Mutex::new(None),
        })
    }

    async fn mint(&self, purpose: Purpose<'_>) -> Result<Minted> {
        let minted = app::mint(&self.repo, &self.app.proof(Timestamp::now())?, purpose).await;
        minted.context("asking GitHub for a token of the App's")
    }

    /// The client that may manage runners, and nothing else.
    async fn runners_client(&self) -> Result<Arc<GitHub>> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| Instant::now() < held.until) {
            return Ok(Arc::clone(&held.github));
        }
        let minted = self.mint(Purpose::Runners).await?;
        let github = Arc::new(GitHub::new(&self.repo, &minted.token)?);
        *held = Some(Held {
            github: Arc::clone(&github),
            until: Instant::now() + minted.life.saturating_sub(MARGIN),
        });
        Ok(github)
    }
}

#[async_trait]
impl Forge for Installed {
    async fn check_access(&self) -> Result<()> {
        self.runners_client().await?.check_access().await
    }

    async fn runners(&self, which: Which<'_>) -> Result<Vec<Runner>> {
        self.runners_client().await?.runners(which).await
    }

    async fn enroll(&self, request: &Enroll) -> Result<Enrollment> {
        self.runners_client().await?.enroll(request).await
    }

    async fn unregister(&self, id: &RunnerId, when: When) -> Result<Removal> {
        self.runners_client().await?.unregister(id, when).await
    }

    async fn package(&self, platform: Platform) -> Result<Package> {
        self.runners_client().await?.package(platform).await
    }

    /// With a token that may do this, in the job's own repository, and nothing else.
    async fn rerun(&self, request: &Rerun) -> Result<RerunOutcome> {
        let Interrupted::Known(job) = &request.job else {
            anyhow::bail!("the job had not told yet which one it is");
        };
        let minted = self.mint(Purpose::Rerun(&job.repository)).await?;
        GitHub::new(&self.repo, &minted.token)?.rerun(request).await
    }
}
