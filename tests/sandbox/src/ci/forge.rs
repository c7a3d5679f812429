//! What makes a forge this one and no other.

use std::path::Path;

use anyhow::Result;
use axum::http::HeaderMap;
use axum::response::Response;

use super::front::Asked;
use super::run::{JobSpec, Message};
use super::runners::Registration;
use super::state::{Job, State};

/// How long a runner may be silent, and what becomes of jobs that nobody hears of: the rules of a forge's state.
pub trait Rules: Sized + Send + Sync + 'static {
    /// What it keeps of a runner, besides what all forges keep.
    type Runner: Send;
    /// What else it remembers.
    type Book: Default + Send;

    /// Whether a runner may be given a job that waits.
    fn takes(runner: &Registration<Self::Runner>, job: &JobSpec) -> bool;

    /// Whether a runner is there, as far as the forge tells.
    fn is_there(runner: &Registration<Self::Runner>) -> bool;

    /// A running job whose runner has been silent for too long.
    fn on_silence(state: &mut State<Self>, job: u64);

    /// A running job that takes longer than it may.
    fn on_timeout(job: &mut Job);
}

/// A forge as its clients see it.
pub trait Forge: Rules {
    /// The name of one of its own machines.
    fn machine(job: u64) -> String;

    /// The full name of its one repository.
    fn repository(&self) -> String;

    /// The variables that it gives a job, besides the job's own; what they name is made in the job's directory.
    fn environment(&self, message: &Message, dir: &Path) -> Result<Vec<(String, String)>>;

    /// What a path is called in faults and in the log, and whether a client of the REST API asks for it: not a runner.
    fn name<'a>(&self, path: &'a str) -> (&'a str, bool);

    /// Why a request to the REST API is not even looked at.
    fn objection(&self, asked: &Asked, headers: &HeaderMap) -> Option<Response>;

    /// The headers that tell of the rate limit, when so many requests were answered.
    fn rate(&self, used: usize) -> Vec<(&'static str, String)>;
}
