//! The machine deletes itself, with the service account that its jobs have: no key of the launcher's is here.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use common::http::{self, Retry};
use common::secret::Secret;
use reqwest::StatusCode;
use serde::Deserialize;

use super::{Gcp, last};

/// Where Compute Engine's API is, unless gcloud's own variable names another address.
const ENDPOINT: &str = "https://compute.googleapis.com/compute/v1/";
const OVERRIDE: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE";
/// All that it may take: powering off is the other way.
const BUDGET: Duration = Duration::from_secs(20);
/// Either of these [scopes][docs] lets an account delete a machine, if its roles do.
///
/// [docs]: https://docs.cloud.google.com/compute/docs/access/service-accounts#accesscopesiam
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/compute",
];
/// What the metadata service knows of the machine's account.
const ACCOUNT: &str = "instance/service-accounts/default";

/// A token of the [metadata service][docs].
///
/// [docs]: https://docs.cloud.google.com/compute/docs/access/authenticate-workloads#applications
#[derive(Deserialize)]
struct Token {
    access_token: Secret,
}

impl Gcp {
    /// Asks for its own deletion.
    ///
    /// # Errors
    /// There is no account that may, or it was refused.
    pub(super) async fn delete_itself(&self) -> Result<()> {
        let scopes = self.text(&format!("{ACCOUNT}/scopes")).await?;
        let scopes = scopes.context("the machine has no service account (`--cloud-permission-set`)")?;
        if !scopes.lines().any(|scope| SCOPES.contains(&scope.trim())) {
            bail!("the service account has neither the scope compute-rw nor cloud-platform");
        }
        let need = async |path: &str| {
            self.text(path)
                .await?
                .with_context(|| format!("the metadata service knows no {path}"))
        };
        let (project, zone) = (need("project/project-id").await?, need("instance/zone").await?);
        let name = need("instance/name").await?;
        let token: Token = serde_json::from_str(&need(&format!("{ACCOUNT}/token")).await?)
            // What it says of the text may hold a part of the token.
            .map_err(|_| anyhow::anyhow!("the metadata service's token cannot be read"))?;
        let base = std::env::var(OVERRIDE).unwrap_or_else(|_| ENDPOINT.into());
        let url = format!(
            "{}/projects/{project}/zones/{}/instances/{name}",
            base.trim_end_matches('/'),
            last(&zone)
        );
        let own = http::authorization(&format!("Bearer {}", token.access_token.expose()))?;
        let request = http::client()?.delete(url).header("authorization", own);
        let answer = http::fetch(request, &Retry::API.within(BUDGET)).await?;
        match answer.status {
            status if status.is_success() => {
                tracing::info!("{name} is being deleted, with its disk");
                Ok(())
            }
            StatusCode::NOT_FOUND => Ok(()),
            StatusCode::FORBIDDEN => bail!("the service account lacks compute.instances.delete"),
            status => bail!("Compute Engine answered {status}"),
        }
    }
}
