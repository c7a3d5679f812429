//! The cloud's metadata service, and who may ask it what: root everything, jobs nothing, or what the role is about that they were given.

mod guard;
pub mod pass;
mod proxy;
#[cfg(test)]
mod tests;

use anyhow::Result;
use common::spec::{CloudKind, JobMetadata};

use guard::Web;

/// Where the service is on every cloud.
pub const ADDRESS: &str = "169.254.169.254";

/// What guards it on one cloud.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// Whose service it is.
    pub cloud: CloudKind,
    /// Where it is in the new protocol, if it is.
    pub v6: Option<&'static str>,
    /// Whether only the next hop can reach it, so that no bridged container can.
    pub one_hop: bool,
}

impl Guard {
    /// Lets jobs reach as much of the service as they may. What they do not get is refused at once, never left unanswered.
    ///
    /// # Errors
    /// It cannot be kept from them: then jobs can read what is in the user data.
    pub async fn set(self, reach: JobMetadata) -> Result<()> {
        match reach {
            JobMetadata::All => {
                tracing::info!("jobs may use all of the metadata service");
                Ok(())
            }
            JobMetadata::None if self.one_hop => guard::keep_from(ADDRESS, self.v6).await,
            JobMetadata::None => guard::web(ADDRESS, self.v6, Web::Shut).await,
            JobMetadata::Role => match proxy::listen(ADDRESS).and_then(|at| proxy::serve(at, format!("http://{ADDRESS}"), self.cloud)) {
                Ok(proxy) => {
                    guard::web(ADDRESS, self.v6, Web::Ours).await?;
                    tokio::spawn(proxy);
                    tracing::info!("jobs may ask the metadata service for their role, and for nothing else");
                    Ok(())
                }
                Err(error) => {
                    tracing::warn!(
                        "jobs cannot be told of their role: listening on {ADDRESS}, port 80, in the metadata service's stead: {error:#}"
                    );
                    guard::web(ADDRESS, self.v6, Web::Shut).await
                }
            },
        }
    }
}
