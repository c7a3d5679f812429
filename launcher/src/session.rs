//! One command's conversation with a forge and a cloud, which a signal can end.

use anyhow::{Context as _, Result};
use common::forge::Forge;
use tokio::runtime::Builder;

use crate::cloud::{self, Cloud};
use crate::request::Request;
use crate::signal::{Signals, stoppable};

/// Whom a command speaks to.
pub struct Session {
    /// The repository's forge.
    pub forge: Box<dyn Forge>,
    /// The cloud that was asked for.
    pub cloud: Box<dyn Cloud>,
    /// What ends it.
    pub signals: Signals,
}

/// Does the work of a command. What it gave up does not hold it up: a thread that still asks a name server which never answers, above all.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting the async runtime")?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

impl Session {
    /// Opens both and does the work, to its end.
    pub fn run<T>(request: &Request, work: impl AsyncFnOnce(Self) -> Result<T>) -> Result<T> {
        let kind = request.options.cloud.cloud.context("no cloud was asked for")?;
        block_on(async {
            let mut signals = Signals::listen()?;
            let forge = request.access.open(request.forge, &request.repo)?;
            let cloud = stoppable(&mut signals, cloud::open(kind, &request.options.cloud)).await?;
            work(Self { forge, cloud, signals }).await
        })
    }
}
