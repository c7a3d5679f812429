//! What the tests of every forge's runner start from.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use common::forge::{
    Enroll, Enrollment, Forge, Package, Platform, Removal, Rerun, RerunOutcome, Runner as Registered, RunnerId, When, Which,
};
use common::log::Level;
use common::secret::Secret;
use common::spec::{Credential, ForgeKind, RunnerOptions, RunnerSpec, SPEC_VERSION};

/// A forge that has one runner to offer.
pub struct Offer {
    package: Mutex<Option<Package>>,
    /// How often it was asked for it.
    pub asked: AtomicU32,
}

#[async_trait::async_trait]
impl Forge for Offer {
    async fn check_access(&self) -> anyhow::Result<()> {
        unreachable!("not asked by a runner")
    }
    async fn runners(&self, _: Which<'_>) -> anyhow::Result<Vec<Registered>> {
        unreachable!("not asked by a runner")
    }
    async fn enroll(&self, _: &Enroll) -> anyhow::Result<Enrollment> {
        unreachable!("not asked by a runner")
    }
    async fn unregister(&self, _: &RunnerId, _: When) -> anyhow::Result<Removal> {
        unreachable!("not asked by a runner")
    }
    async fn package(&self, _: Platform) -> anyhow::Result<Package> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.package.lock().unwrap().clone().expect("the forge is not asked"))
    }
    async fn rerun(&self, _: &Rerun) -> anyhow::Result<RerunOutcome> {
        unreachable!("not asked by a runner")
    }
}

/// Offers this package; without one, to be asked is an error.
pub fn offer(package: Option<Package>) -> Arc<Offer> {
    Arc::new(Offer {
        package: Mutex::new(package),
        asked: AtomicU32::new(0),
    })
}

/// The options of a command line that gives two labels.
pub fn options() -> RunnerOptions {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: RunnerOptions,
    }
    <Line as clap::Parser>::parse_from(["cml", "--labels", "cml,gpu"]).options
}

/// A runner of this page, on a user's own host.
pub fn spec(forge: ForgeKind, repo: &str) -> RunnerSpec {
    RunnerSpec {
        version: SPEC_VERSION,
        name: "cml-abc".into(),
        forge,
        repo: repo.parse().unwrap(),
        cloud: None,
        credential: Credential::Token(Secret::new("forge-canary")),
        launch: None,
        log: Level::Info,
        options: options(),
    }
}
