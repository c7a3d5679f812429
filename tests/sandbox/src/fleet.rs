//! The instances of a cloud, whichever it is: real processes, from their launch to long after their end.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::events::{Events, Source};
use crate::instance::{self, Boot, Isolation, Machine, Machines};
use crate::shared::lock;

/// What a fleet needs of its world.
#[derive(Clone)]
pub struct Options {
    /// Where the instances' files are.
    pub dir: PathBuf,
    /// How instances are kept apart from this machine.
    pub isolation: Isolation,
    /// How often the agents of instances ask the metadata service.
    pub metadata_interval: Duration,
    /// How long an instance has from its notice on, where the notice does not say it; else as long as in production.
    pub notice: Option<Duration>,
    /// Whether instances have a Docker: then the Bitbucket whose runner the image there is.
    pub docker: Option<String>,
    /// Whether instances boot a Linux of their own, and what they share then.
    pub machines: Option<Arc<Machines>>,
}

/// Instances; clones share them.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    options: Options,
    events: Events,
    instances: Mutex<Vec<Instance>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Instance {
    view: InstanceView,
    script: String,
    end: Arc<Notify>,
}

/// What is done before an instance boots.
pub type Preparation = Pin<Box<dyn Future<Output = Result<Ready>> + Send>>;

/// An instance to launch.
pub struct Launch {
    /// The cloud's id.
    pub id: String,
    /// What its runner is called.
    pub name: String,
    /// Its native type.
    pub kind: String,
    /// Its zone.
    pub zone: String,
    /// Whether it is a spot instance.
    pub spot: bool,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What it boots with; waited for on the instance's own time.
    pub boot: Preparation,
    /// What becomes of it when it powers itself off.
    pub off: Off,
}

/// What an instance boots with.
pub struct Ready {
    /// Its start-up data: a script.
    pub script: String,
    /// What its programs are told of where their cloud is.
    pub env: Vec<(&'static str, String)>,
    /// Its metadata service, if it has one.
    pub metadata: Option<SocketAddr>,
    /// What lives as long as it does: its metadata service.
    pub keep: Box<dyn Any + Send>,
}

/// What becomes of an instance that powers itself off.
#[derive(Debug, Clone, Copy)]
pub struct Off {
    /// The cloud's word for why.
    pub reason: &'static str,
    /// It is left behind, stopped.
    pub stays: bool,
}

/// How far an instance's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was asked for.
    Pending,
    /// It has booted.
    Running,
    /// Its end has begun.
    Ending,
    /// Nothing is left of it.
    Ended,
    /// It has powered itself off, and its disk is left.
    Stopped,
}

impl State {
    /// Whether it neither runs nor will run.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Ending | Self::Ended | Self::Stopped)
    }
}

/// An instance as it is now.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// The cloud's id.
    pub id: String,
    /// How far its life has come.
    pub state: State,
    /// Why it ended: the cloud's word.
    pub reason: String,
    /// What its runner is called.
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

impl Fleet {
    /// An empty one.
    pub fn new(events: Events, options: Options) -> Self {
        Self(Arc::new(Inner {
            options,
            events,
            instances: Mutex::default(),
            tasks: Mutex::new(JoinSet::new()),
        }))
    }

    /// Every instance that there ever was.
    pub fn instances(&self) -> Vec<InstanceView> {
        lock(&self.0.instances).iter().map(|instance| instance.view.clone()).collect()
    }

    /// One of them.
    pub fn instance(&self, id: &str) -> Option<InstanceView> {
        self.with(id, |instance| instance.view.clone())
    }

    /// The start-up data that an instance booted with, unpacked.
    pub fn script(&self, id: &str) -> Option<String> {
        self.with(id, |instance| instance.script.clone())
    }

    /// Launches one in the background.
    pub fn launch(&self, launch: Launch) {
        let market = if launch.spot { "spot" } else { "on-demand" };
        let detail = format!("{} {} in {} ({market})", launch.name, launch.kind, launch.zone);
        self.0.events.push(Source::Cloud, "instance-launched", &launch.id, detail);
        let end = Arc::new(Notify::new());
        lock(&self.0.instances).push(Instance {
            view: InstanceView {
                id: launch.id.clone(),
                state: State::Pending,
                reason: String::new(),
                name: launch.name,
                kind: launch.kind,
                zone: launch.zone,
                spot: launch.spot,
                tags: launch.tags,
                launched: SystemTime::now(),
            },
            script: String::new(),
            end: Arc::clone(&end),
        });
        let fleet = self.clone();
        lock(&self.0.tasks).spawn(async move { fleet.live(&launch.id, launch.boot, &end, launch.off).await });
    }

    async fn live(&self, id: &str, boot: Preparation, end: &Notify, off: Off) {
        let failure = match self.boot(id, boot).await {
            Ok((_keep, mut machine)) => {
                self.with(id, |instance| {
                    if instance.view.state == State::Pending {
                        instance.view.state = State::Running;
                    }
                });
                tokio::select! {
                    () = end.notified() => {}
                    () = machine.powered_off() => {
                        self.end(id, off.reason);
                    }
                }
                machine.destroy().await;
                None
            }
            Err(error) => Some(format!("{error:#}")),
        };
        let ended = self.with(id, |instance| {
            let stays = off.stays && instance.view.reason == off.reason;
            instance.view.state = if stays { State::Stopped } else { State::Ended };
            if let Some(failure) = failure {
                instance.view.reason = failure;
            }
            (stays, instance.view.reason.clone())
        });
        let (stays, reason) = ended.unwrap_or_default();
        let what = if stays { "instance-stopped" } else { "instance-terminated" };
        self.0.events.push(Source::Cloud, what, id, reason);
    }

    async fn boot(&self, id: &str, boot: Preparation) -> Result<(Box<dyn Any + Send>, Machine)> {
        let mut ready = boot.await?;
        if let Some(notice) = self.0.options.notice {
            ready.env.push(("CML_GRACE_SECONDS", notice.as_secs().to_string()));
        }
        self.with(id, |instance| instance.script.clone_from(&ready.script));
        let machine = Machine::boot(Boot {
            id: id.to_owned(),
            dir: self.machine_dir(id),
            isolation: self.0.options.isolation,
            script: ready.script,
            env: ready.env,
            metadata_interval: self.0.options.metadata_interval,
            docker: self.0.options.docker.clone(),
            metadata: ready.metadata,
            machines: self.0.options.machines.clone(),
            events: self.0.events.clone(),
        })?;
        Ok((ready.keep, machine))
    }

    /// Begins the end of an instance; one that has ended stays as it is. Returns the states before and after.
    pub fn end(&self, id: &str, reason: &str) -> Option<(State, State)> {
        let (before, after) = self.with(id, |instance| {
            let view = &mut instance.view;
            let before = view.state;
            match before {
                State::Ending | State::Ended => {}
                // Nothing runs that could end: its disk goes at once.
                State::Stopped => view.state = State::Ended,
                State::Pending | State::Running => {
                    view.state = State::Ending;
                    instance.end.notify_one();
                }
            }
            if before != view.state {
                reason.clone_into(&mut view.reason);
            }
            (before, view.state)
        })?;
        if (before, after) == (State::Stopped, State::Ended) {
            self.0.events.push(Source::Cloud, "instance-terminated", id, reason);
        }
        Some((before, after))
    }

    /// The machine is taken after this time.
    pub fn end_after(&self, id: &str, left: Duration, reason: &'static str) {
        let (fleet, id) = (self.clone(), id.to_owned());
        lock(&self.0.tasks).spawn(async move {
            tokio::time::sleep(left).await;
            fleet.end(&id, reason);
        });
    }

    /// The machine is lost without a word.
    pub fn vanish(&self, id: &str) {
        self.end(id, "it was lost");
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

    /// The files of an instance's own, seen from outside: its power buttons are in `shims`.
    pub fn machine_dir(&self, id: &str) -> PathBuf {
        self.0.options.dir.join(id)
    }

    /// All that an instance's console has shown.
    pub fn console(&self, id: &str) -> Vec<u8> {
        std::fs::read(self.machine_dir(id).join(instance::CONSOLE)).unwrap_or_default()
    }

    /// Ends all of them.
    pub async fn close(&self) {
        for instance in self.instances() {
            self.end(&instance.id, "the world ended");
        }
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.shutdown().await;
    }

    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Instance) -> T) -> Option<T> {
        lock(&self.0.instances).iter_mut().find(|instance| instance.view.id == id).map(act)
    }
}
