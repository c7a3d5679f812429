//! A scripted forge and a scripted cloud, on a clock that the tests move. They keep what was made, so that a test can see what is left.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use common::forge::{Enroll, Enrollment, Forge, Package, Platform, Removal, Rerun, RerunOutcome, Runner};
use common::secret::Secret;
use common::spec::{CloudKind, ForgeKind, RunnerSpec};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::cli::{self, Invocation};
use crate::cloud::{Cloud, Instance, Order};
use crate::launch::prepare::Prepared;
use crate::launch::signal::Signals;
use crate::launch::{Launch, Outcome};
use crate::options::CloudOptions;
use crate::request::Request;

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
        forge: ForgeKind::GitHub,
        repo: "https://github.com/octo/train".parse().unwrap(),
        token: Secret::new("ghp_canary"),
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
    }
}

/// A registration.
pub fn runner(name: &str, online: bool) -> Runner {
    Runner {
        id: 7,
        name: name.into(),
        online,
        busy: false,
        labels: ["self-hosted", "Linux", "X64", "cml"].map(str::to_owned).into(),
    }
}

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

#[derive(Default)]
struct State {
    calls: Vec<String>,
    faults: Vec<(String, Range<usize>, Fault)>,
    runners: Vec<Runner>,
    /// What the machine registers as, and how its removal ends.
    registers: Option<(Runner, Removal)>,
    instances: BTreeSet<String>,
    created: Option<Instant>,
    online_after: Option<Duration>,
    order: Option<Order>,
    hidden: usize,
    death: Option<String>,
    console: String,
}

/// Both servers.
#[derive(Default)]
struct Servers {
    state: Mutex<State>,
    called: Notify,
}

impl Servers {
    fn state(&self) -> MutexGuard<'_, State> {
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

    async fn runners(&self, name: Option<&str>) -> Result<Vec<Runner>> {
        self.call("runners", name.unwrap_or_default(), |state| {
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
            all.filter(|runner| name.is_none_or(|name| runner.name == name)).cloned().collect()
        })
        .await
    }

    async fn enroll(&self, request: &Enroll) -> Result<Enrollment> {
        assert!(request.single && request.platform == Platform::X64);
        self.call("enroll", "", |state| {
            state.runners.push(runner(&request.name, false));
            Enrollment::Jit {
                id: 7,
                config: Secret::new("jit_canary"),
            }
        })
        .await
    }

    async fn unregister(&self, id: u64) -> Result<Removal> {
        self.call("unregister", &id.to_string(), |state| {
            if let Some((_, removal)) = &state.registers {
                return removal.clone();
            }
            state.runners.retain(|runner| runner.id != id);
            Removal::Removed
        })
        .await
    }

    async fn package(&self, _: Platform) -> Result<Package> {
        anyhow::bail!("a launcher does not ask for it")
    }

    async fn rerun(&self, _: &Rerun) -> Result<RerunOutcome> {
        anyhow::bail!("a launcher does not ask for it")
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

    async fn find(&self, launch_id: &str) -> Result<Vec<Instance>> {
        self.call("find", "", |state| {
            assert!(state.order.as_ref().is_none_or(|order| order.launch_id == launch_id));
            if state.hidden > 0 {
                state.hidden -= 1;
                return Vec::new();
            }
            let one = |id: &String| Instance {
                id: id.clone(),
                state: state.death.clone().unwrap_or_else(|| "running".to_owned()),
                ..instance()
            };
            state.instances.iter().map(one).collect()
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
        std::future::pending().await
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
