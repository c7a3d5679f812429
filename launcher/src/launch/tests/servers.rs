//! A scripted forge and a scripted cloud. They keep what was made, so that a test can see what is left.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use common::forge::{Enroll, Enrollment, Forge, Package, Platform, Removal, Rerun, RerunOutcome, Runner, RunnerId, When, Which};
use common::secret::Secret;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::world::{instance, runner};
use crate::cloud::{Cloud, Instance, Life, Offer, Order, Prices, Search};
use crate::options::CloudOptions;

type Error = Arc<dyn Fn() -> anyhow::Error + Send + Sync>;

/// What happens to a call instead of an answer.
#[derive(Clone)]
pub enum Fault {
    /// It has no effect and no answer.
    Hang,
    /// It has its effect, and no answer.
    HangAfter,
    /// It has no effect.
    Fail(Error),
    /// It has its effect, and the answer is an error.
    FailAfter(Error),
}

/// What there is, what was asked, and what is to happen.
#[derive(Default)]
pub struct State {
    pub calls: Vec<String>,
    pub faults: Vec<(String, Range<usize>, Fault)>,
    pub runners: Vec<Runner>,
    /// What the machine registers as, and how its removal ends.
    pub registers: Option<(Runner, Removal)>,
    pub instances: BTreeSet<String>,
    pub created: Option<Instant>,
    pub online_after: Option<Duration>,
    pub order: Option<Order>,
    pub hidden: usize,
    pub death: Option<String>,
    pub tags: BTreeMap<String, String>,
    /// Of other launches.
    pub others: Vec<Instance>,
    pub console: String,
    /// What may have been left by the old tool.
    pub legacy: Vec<Instance>,
    /// By types.
    pub prices: BTreeMap<String, f64>,
}

/// Both servers.
#[derive(Default)]
pub struct Servers {
    state: Mutex<State>,
    /// Told of each call.
    pub called: Notify,
}

impl Servers {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Notes a call, has its effect unless a fault forbids it, and answers unless a fault does not.
    async fn call<T>(&self, step: &str, detail: &str, effect: impl FnOnce(&mut State) -> T) -> Result<T> {
        let (fault, done) = {
            let mut state = self.state();
            let number = state.calls.iter().filter(|call| call.split(' ').next() == Some(step)).count();
            state.calls.push(format!("{step} {detail}").trim_end().to_owned());
            let fault = state.faults.iter().find(|(name, calls, _)| name == step && calls.contains(&number));
            let fault = fault.map(|(_, _, fault)| fault.clone());
            let is_lost = matches!(fault, Some(Fault::Hang | Fault::Fail(_)));
            (fault, (!is_lost).then(|| effect(&mut state)))
        };
        self.called.notify_waiters();
        // An answer takes its time: a signal can come in between.
        tokio::time::sleep(Duration::from_millis(10)).await;
        match (fault, done) {
            (None, Some(answer)) => Ok(answer),
            (Some(Fault::Fail(error) | Fault::FailAfter(error)), _) => Err(error()),
            _ => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Forge for Servers {
    async fn check_access(&self) -> Result<()> {
        self.call("check_access", "", |_| ()).await
    }

    async fn runners(&self, which: Which<'_>) -> Result<Vec<Runner>> {
        let name = match which {
            Which::Named(name) => name,
            Which::All | Which::Matching(..) => "",
        };
        self.call("runners", name, |state| {
            let is_up = state
                .created
                .zip(state.online_after)
                .is_some_and(|(at, after)| at.elapsed() >= after);
            if is_up && let Some(order) = &state.order {
                let name = order.name.clone();
                state.runners.retain(|runner| runner.name != name);
                state.runners.push(runner(&name, true));
            }
            let all = state.runners.iter();
            all.filter(|runner| !which.excludes(&runner.name)).cloned().collect()
        })
        .await
    }

    async fn enroll(&self, request: &Enroll) -> Result<Enrollment> {
        assert!(request.single && request.platform == Platform::X64);
        self.call("enroll", "", |state| {
            state.runners.push(runner(&request.name, false));
            Enrollment::Made {
                id: RunnerId::from(7),
                config: Secret::new("jit_canary"),
            }
        })
        .await
    }

    async fn unregister(&self, id: &RunnerId, _: When) -> Result<Removal> {
        self.call("unregister", &id.to_string(), |state| {
            if let Some((_, removal)) = &state.registers {
                return removal.clone();
            }
            state.runners.retain(|runner| runner.id != *id);
            Removal::Removed
        })
        .await
    }

    async fn package(&self, _: Platform) -> Result<Package> {
        let url = "https://github.test/runner.tar.gz".parse().unwrap();
        self.call("package", "", |_| Package {
            url,
            sha256: Some("5a".repeat(32)),
            token: None,
        })
        .await
    }

    async fn rerun(&self, _: &Rerun) -> Result<RerunOutcome> {
        anyhow::bail!("a launcher does not ask for it")
    }
}

#[async_trait]
impl Prices for Servers {
    async fn hourly(&self, offer: &Offer) -> Result<Option<f64>> {
        self.call("hourly", &offer.kind, |state| state.prices.get(&offer.kind).copied())
            .await
    }
}

#[async_trait]
impl Cloud for Servers {
    fn supports(&self, _: &CloudOptions) -> Result<()> {
        Ok(())
    }

    async fn plan(&self, _: &Order) -> Result<Vec<String>> {
        self.call("plan", "", |_| vec!["RunInstances".to_owned()]).await
    }

    async fn create(&self, order: &Order) -> Result<Instance> {
        self.call("create", "", |state| {
            state.order = Some(order.clone());
            state.created = Some(Instant::now());
            state.instances.insert(instance().id);
            if let Some((runner, _)) = state.registers.clone() {
                state.runners.push(runner);
            }
            Instance { ip: None, ..instance() }
        })
        .await
    }

    async fn find(&self, search: &Search<'_>) -> Result<Vec<Instance>> {
        if *search == Search::Legacy {
            return self.call("find-legacy", "", |state| state.legacy.clone()).await;
        }
        self.call("find", "", |state| {
            let is_own = |order: &Order| matches!(*search, Search::Launch(id) if id == order.launch_id);
            assert!(*search == Search::All || state.order.as_ref().is_none_or(is_own));
            if state.hidden > 0 {
                state.hidden -= 1;
                return Vec::new();
            }
            let one = |id: &String| Instance {
                id: id.clone(),
                life: state.death.as_ref().map_or(Life::Live, |_| Life::Gone),
                state: state.death.clone().unwrap_or_else(|| "running".to_owned()),
                tags: state.tags.clone(),
                ..instance()
            };
            state.instances.iter().map(one).chain(state.others.iter().cloned()).collect()
        })
        .await
    }

    async fn destroy(&self, instance_id: &str) -> Result<()> {
        self.call("destroy", instance_id, |state| {
            state.instances.remove(instance_id);
        })
        .await
    }

    async fn console(&self, instance_id: &str) -> Result<String> {
        self.call("console", instance_id, |state| state.console.clone()).await
    }
}
