//! What a GitHub runner can be told.

use crate::ci::Message;

/// What a runner can be told to do besides a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Order {
    /// Replace itself by another version: it exits with 3 (4 when it is for one job only) and its update script goes on.
    Update,
    /// Read its configuration again: it says once more that it listens.
    Refresh,
    /// Stop, since its version is too old: it exits with 7, or 1.
    Deprecated,
}

/// What a runner gets when it asks for work.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub enum Work {
    /// A job.
    Job(Box<Message>),
    /// Something else.
    Order(Order),
}
