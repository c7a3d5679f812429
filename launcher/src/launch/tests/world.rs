//! One launch in front of a scripted forge and a scripted cloud, on a clock that the tests move.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use common::forge::{Removal, Runner, RunnerId};
use common::secret::Secret;
use common::spec::{CloudKind, ForgeKind, RunnerSpec};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::servers::{Fault, Servers, State};
use crate::access::Access;
use crate::cli::{self, Invocation};
use crate::cloud::{Instance, Life, Order};
use crate::launch::prepare::Prepared;
use crate::launch::{Launch, Outcome};
use crate::request::Request;
use crate::signal::Signals;

/// The request of a command line.
pub fn request(options: &[&str]) -> Request {
    let fixed = ["cml", "runner", "--cloud=aws", "--cloud-region=us-west", "--agent-sha256"];
    let sha256 = "0".repeat(64);
    let argv = fixed.into_iter().chain([sha256.as_str()]).chain(options.iter().copied());
    let argv: Vec<String> = argv.map(str::to_owned).collect();
    let Invocation::Launch(parsed) = cli::parse(&argv, &BTreeMap::new()).unwrap() else {
        panic!("not a launch");
    };
    let name = parsed.options.decision.name.clone();
    Request {
        certificates: None,
        forge: ForgeKind::GitHub,
        repo: "https://github.com/octo/train".parse().unwrap(),
        access: Access::Token(Secret::new("ghp_canary")),
        named_by_user: name.is_some(),
        name: name.unwrap_or_else(|| "cml-made".to_owned()),
        launch_job: None,
        options: parsed.options,
    }
}

/// The instance that the cloud makes.
pub fn instance() -> Instance {
    Instance {
        id: "i-1".into(),
        ip: Some("192.0.2.7".into()),
        kind: "m7i.2xlarge".into(),
        region: "us-west-1".into(),
        zone: Some("us-west-1a".into()),
        image: "ami-1".into(),
        spot: false,
        launched_at: "2026-03-04T05:06:07Z".into(),
        state: "running".into(),
        life: Life::Live,
        tags: BTreeMap::new(),
    }
}

/// A registration.
pub fn runner(name: &str, online: bool) -> Runner {
    Runner {
        id: RunnerId::from(7),
        name: name.into(),
        online,
        busy: false,
        labels: ["self-hosted", "Linux", "X64", "cml"].map(str::to_owned).into(),
    }
}

/// One launch in front of the servers.
pub struct World {
    request: Request,
    prepared: Prepared,
    servers: Arc<Servers>,
}

impl World {
    pub fn new(options: &[&str]) -> Self {
        let world = Self::prepared(options).unwrap();
        world.online_after(Duration::from_secs(1));
        world
    }

    pub fn prepared(options: &[&str]) -> Result<Self> {
        let request = request(options);
        Ok(Self {
            prepared: Prepared::new(&request, CloudKind::Aws, jiff::Timestamp::UNIX_EPOCH)?,
            request,
            servers: Arc::default(),
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.servers.state())
    }

    /// Registers a runner beforehand.
    pub fn registered(&self, runner: Runner) {
        self.with(|state| state.runners.push(runner));
    }

    /// An instance that somebody else made.
    pub fn other(&self, instance: Instance) {
        self.with(|state| state.others.push(instance));
    }

    pub fn registers_as(&self, runner: Runner, removal: Removal) {
        self.with(|state| state.registers = Some((runner, removal)));
    }

    pub fn online_after(&self, after: Duration) {
        self.with(|state| state.online_after = Some(after));
    }

    pub fn never_online(&self) {
        self.with(|state| state.online_after = None);
    }

    pub fn hides_instance_for(&self, calls: usize) {
        self.with(|state| state.hidden = calls);
    }

    pub fn dies(&self, how: &str) {
        self.with(|state| state.death = Some(how.to_owned()));
    }

    pub fn console(&self, text: &str) {
        self.with(|state| text.clone_into(&mut state.console));
    }

    /// The first call of a step meets a fault.
    pub fn on(&self, step: &str, fault: Fault) {
        self.with(|state| state.faults.push((step.to_owned(), 0..1, fault)));
    }

    pub fn hangs(&self, step: &str) {
        self.on(step, Fault::Hang);
    }

    pub fn fails_after(&self, step: &str, error: impl Fn() -> anyhow::Error + Send + Sync + 'static) {
        self.on(step, Fault::FailAfter(Arc::new(error)));
    }

    pub fn fails(&self, step: &str, error: impl Fn() -> anyhow::Error + Send + Sync + 'static) {
        self.fails_from(step, 0..usize::MAX, error);
    }

    pub fn fails_from(&self, step: &str, calls: Range<usize>, error: impl Fn() -> anyhow::Error + Send + Sync + 'static) {
        self.with(|state| state.faults.push((step.to_owned(), calls, Fault::Fail(Arc::new(error)))));
    }

    async fn run(&self, signals: &mut Signals) -> Result<Outcome> {
        let launch = self.of();
        launch.run(signals).await
    }

    fn of(&self) -> Launch<'_> {
        Launch {
            request: &self.request,
            prepared: self.prepared.clone(),
            forge: &*self.servers,
            cloud: &*self.servers,
            start: Instant::now(),
        }
    }

    /// Launches without any signal.
    pub async fn launch(&self) -> Result<Outcome> {
        let (_sender, mut signals) = Signals::scripted();
        self.run(&mut signals).await
    }

    pub async fn plan(&self) -> Result<String> {
        self.of().plan().await
    }

    /// Launches, and sends a signal while a step is being asked.
    pub async fn interrupted_at(&self, step: &str, number: i32) -> anyhow::Error {
        let (sender, mut signals) = Signals::scripted();
        tokio::select! {
            error = async { self.run(&mut signals).await.unwrap_err() } => error,
            () = self.send_on(step, &sender, number) => unreachable!(),
        }
    }

    /// Launches, sends a signal, and the rest of so many of them one by one from a step on.
    pub async fn signalled_from(&self, step: &str, count: usize) -> anyhow::Error {
        let (sender, mut signals) = Signals::scripted();
        let send = async {
            self.wait_for("runners", 3).await;
            sender.send(2).unwrap();
            self.wait_for(step, 1).await;
            for _ in 1..count {
                sender.send(2).unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            error = async { self.run(&mut signals).await.unwrap_err() } => error,
            () = send => unreachable!(),
        }
    }

    async fn send_on(&self, step: &str, sender: &mpsc::UnboundedSender<i32>, number: i32) {
        self.wait_for(step, 1).await;
        sender.send(number).unwrap();
        std::future::pending::<()>().await;
    }

    /// Waits until a step has been asked so often.
    async fn wait_for(&self, step: &str, count: usize) {
        let count_now = || self.calls().iter().filter(|call| call.split(' ').next() == Some(step)).count();
        loop {
            let called = self.servers.called.notified();
            if count_now() >= count {
                return;
            }
            called.await;
        }
    }

    pub fn calls(&self) -> Vec<String> {
        self.with(|state| state.calls.clone())
    }

    pub fn expect(&self, calls: &[&str]) {
        assert_eq!(self.calls(), calls);
    }

    pub fn is_clean(&self) -> bool {
        self.with(|state| state.instances.is_empty() && state.runners.is_empty())
    }

    pub fn order(&self) -> Order {
        self.with(|state| state.order.clone().unwrap())
    }

    /// The spec as a machine gets it: the shell's quotes undone.
    pub fn spec(&self) -> RunnerSpec {
        let script = self.order().startup_data;
        let (_, rest) = script.split_once("printf %s '").unwrap();
        let (quoted, _) = rest.split_once("' >\"$state/spec.json.new\"").unwrap();
        RunnerSpec::from_json(&quoted.replace(r"'\''", "'")).unwrap()
    }
}
