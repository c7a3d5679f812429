//! GitHub's REST API. (Being built.)
use anyhow::Result;
use async_trait::async_trait;
use url::Url;

use super::{Enroll, Enrollment, Forge, Package, Platform, Removal, Rerun, RerunOutcome, Runner};
use crate::secret::Secret;

pub struct GitHub;

impl GitHub {
    pub fn new(_repo: &Url, _token: Secret) -> Result<Self> {
        Ok(Self)
    }
}

#[async_trait]
impl Forge for GitHub {
    async fn check_access(&self) -> Result<()> {
        anyhow::bail!("being built")
    }
    async fn runners(&self, _name: Option<&str>) -> Result<Vec<Runner>> {
        anyhow::bail!("being built")
    }
    async fn enroll(&self, _request: &Enroll) -> Result<Enrollment> {
        anyhow::bail!("being built")
    }
    async fn unregister(&self, _id: u64) -> Result<Removal> {
        anyhow::bail!("being built")
    }
    async fn package(&self, _platform: Platform) -> Result<Package> {
        anyhow::bail!("being built")
    }
    async fn rerun(&self, _request: &Rerun) -> Result<RerunOutcome> {
        anyhow::bail!("being built")
    }
}
