//! EC2 on loopback: the query API for what a launcher calls, with instances that are real processes.

mod answers;
mod check;
mod front;
mod machine;
mod offers;
mod refusal;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::events::{Events, Source};
use crate::faults::Faults;
use crate::imds::Metadata;
use crate::instance::{self, Isolation};
use crate::shared::{appending, lock};

pub use answers::error;

/// The parameters of a request.
pub type Form = BTreeMap<String, String>;

/// The access key that is accepted; its secret is never sent, and not checked.
pub const ACCESS_KEY: &str = "AKIASANDBOX000000000";

/// What an EC2 needs of its world.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the instances' files are.
    pub dir: PathBuf,
    /// How instances are kept apart from this machine.
    pub isolation: Isolation,
    /// How often the agents of instances ask the metadata service.
    pub metadata_interval: Duration,
    /// Where every request's form is written down, one a line.
    pub record: Option<PathBuf>,
}

/// An EC2; clones share it.
#[derive(Clone)]
pub struct Ec2(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    options: Options,
    events: Events,
    faults: Faults,
    instances: Mutex<Vec<Instance>>,
    full: Mutex<BTreeSet<String>>,
    log: Mutex<Vec<(String, Form)>>,
    record: Option<Mutex<std::fs::File>>,
    tasks: Mutex<JoinSet<()>>,
}

/// An instance, from its launch to long after its end.
struct Instance {
    id: String,
    state: State,
    reason: String,
    form: Form,
    zone: String,
    launched: SystemTime,
    metadata: Metadata,
    end: Arc<Notify>,
}

impl Instance {
    fn view(&self) -> InstanceView {
        let tags = run::tags(&self.form, "instance");
        InstanceView {
            id: self.id.clone(),
            state: self.state.names().1.into(),
            reason: self.reason.clone(),
            name: tags.get("Name").cloned().unwrap_or_default(),
            kind: self.form.get("InstanceType").cloned().unwrap_or_default(),
            zone: self.zone.clone(),
            spot: run::is_spot(&self.form),
            tags,
            launched: self.launched,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    Stopped,
}

impl State {
    /// EC2's code and name.
    const fn names(self) -> (u16, &'static str) {
        match self {
            Self::Pending => (0, "pending"),
            Self::Running => (16, "running"),
            Self::ShuttingDown => (32, "shutting-down"),
            Self::Terminated => (48, "terminated"),
            Self::Stopped => (80, "stopped"),
        }
    }
}

/// An instance as it is now.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// `i-…`
    pub id: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopped`
    pub state: String,
    /// Why it ended: EC2's code.
    pub reason: String,
    /// Its tag `Name`.
    pub name: String,
    /// Its native type.
    pub kind: String,
    /// Its zone.
    pub zone: String,
    /// Whether it is a spot instance.
    pub spot: bool,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When.
    pub launched: SystemTime,
}

impl Ec2 {
    /// Starts one on a free port.
    pub async fn start(events: Events, options: Options) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let record = options.record.as_deref().map(appending).transpose()?;
        let ec2 = Self(Arc::new(Inner {
            address: listener.local_addr()?,
            options,
            events,
            faults: Faults::default(),
            instances: Mutex::default(),
            full: Mutex::default(),
            log: Mutex::default(),
            record,
            tasks: Mutex::new(JoinSet::new()),
        }));
        let app = front::app(&ec2);
        lock(&ec2.0.tasks).spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(ec2)
    }

    /// Its address: `AWS_ENDPOINT_URL_EC2`.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// What goes wrong here.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The next `times` requests of this action are refused with this code of EC2's, with its status and a message like EC2's.
    pub fn fail(&self, action: &str, code: &str, times: usize) {
        let (status, message) = refusal::known(code);
        self.0.faults.answer(action, times, status, &error(code, message));
    }

    /// From now on there is no room for a launch in this zone, or for this type.
    pub fn no_capacity(&self, zone_or_type: &str) {
        lock(&self.0.full).insert(zone_or_type.into());
    }

    /// Every request so far: its action and its parameters.
    pub fn requests(&self) -> Vec<(String, Form)> {
        lock(&self.0.log).clone()
    }

    /// Every instance that there ever was.
    pub fn instances(&self) -> Vec<InstanceView> {
        lock(&self.0.instances).iter().map(Instance::view).collect()
    }

    /// EC2 takes a spot instance back: the notice now, the machine after `left`.
    pub fn spot_notice(&self, id: &str, left: Duration) {
        self.with(id, |instance| instance.metadata.take_back(SystemTime::now() + left));
        self.0.events.push(
            Source::Cloud,
            "spot-notice",
            id,
            format!("the machine is taken in {} s", left.as_secs()),
        );
        let (ec2, id) = (self.clone(), id.to_owned());
        lock(&self.0.tasks).spawn(async move {
            tokio::time::sleep(left).await;
            ec2.terminate(&id, "Server.SpotInstanceTermination");
        });
    }

    /// EC2 advises to leave a spot instance.
    pub fn rebalance(&self, id: &str) {
        self.with(id, |instance| instance.metadata.advise(SystemTime::now()));
        self.0.events.push(Source::Cloud, "rebalance", id, "recommended");
    }

    /// The metadata service of an instance answers no more.
    pub fn silence_metadata(&self, id: &str) {
        self.with(id, |instance| instance.metadata.fall_silent());
        self.0.events.push(Source::Cloud, "metadata-silent", id, "");
    }

    /// The machine is lost without a word.
    pub fn vanish(&self, id: &str) {
        self.terminate(id, "Server.InternalError");
    }

    /// The process id of an instance's agent, as seen from here.
    pub fn agent_pid(&self, id: &str) -> Option<i32> {
        self.pid(id, "cml-agent")
    }

    /// The process id of a program on an instance, as seen from here.
    pub fn pid(&self, id: &str, program: &str) -> Option<i32> {
        instance::find_process(&self.machine_dir(id), program)
    }

    /// Asks an instance's agent to stop.
    pub fn signal_agent(&self, id: &str) -> Result<()> {
        let pid = self.agent_pid(id).context("no agent runs there")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        Ok(())
    }

    /// Ends it, with all instances.
    pub async fn close(&self) {
        for instance in self.instances() {
            self.terminate(&instance.id, "Server.WorldEnded");
        }
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
    }

    /// The files of an instance's own, seen from outside: its power buttons are in `shims`.
    pub fn machine_dir(&self, id: &str) -> PathBuf {
        self.0.options.dir.join(id)
    }

    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Instance) -> T) -> Option<T> {
        lock(&self.0.instances).iter_mut().find(|instance| instance.id == id).map(act)
    }

    /// Begins the end of an instance; one that has ended stays as it is. Returns the states before and after.
    fn terminate(&self, id: &str, reason: &str) -> Option<(State, State)> {
        self.with(id, |instance| {
            let before = instance.state;
            if !matches!(before, State::Terminated | State::ShuttingDown) {
                instance.state = State::ShuttingDown;
                instance.reason = reason.into();
                instance.end.notify_one();
            }
            (before, instance.state)
        })
    }
}
