//! The machine seen from inside: when it will be taken away, and how to make it go away.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;

/// One per cloud, and one for a user's own host.
#[async_trait]
pub trait Host: Send + Sync {
    /// Waits until the machine is about to be taken away (or advised to take no more jobs). Never returns on a host that has no such notice.
    async fn next_interruption(&self) -> Interruption;

    /// Makes the machine go away. On a user's own host: does nothing and says so.
    async fn terminate(&self) -> Result<()>;
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// The cloud's words: `spot instance-action terminate`.
    pub reason: String,
    /// How long is left.
    pub left: Duration,
    /// Only advice (AWS rebalance): finish the job, take no other.
    pub advice: bool,
}
