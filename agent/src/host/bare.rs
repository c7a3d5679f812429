//! A machine of the user's own: it is never powered off.

use anyhow::Result;
use async_trait::async_trait;

use common::spec::JobMetadata;

use super::{Host, Interruption, Will};

/// A user's own host.
pub struct Bare;

#[async_trait]
impl Host for Bare {
    async fn next_interruption(&self, _: bool) -> Interruption {
        std::future::pending().await
    }

    fn attend(&self, _: bool) {
        // Nobody is asked here.
    }

    async fn guard_metadata(&self, _: JobMetadata) -> Result<()> {
        // There is none, or it is the owner's business.
        Ok(())
    }

    async fn terminate(&self, _: &Will) -> Result<()> {
        tracing::info!("this is your own host: it stays up");
        Ok(())
    }
}
