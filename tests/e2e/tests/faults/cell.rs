//! One fault at one moment of a machine's life.

use std::fmt;
use std::time::Duration;

use e2e::{Scene, startup_script, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::ci::RunId;
use sandbox::faults::{self, Effect, Gate};
use sandbox::forge::Kind;
use tokio::process::Child;

use super::names::{self, Names};

/// Long enough for all of a stop.
const NOTICE: Duration = Duration::from_secs(30);

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    AgentKilled,
    AgentFrozen,
    AgentKilledAndDeleted,
    RunnerKilled,
    RunnerDeaf,
    BothKilled,
    DiskFull,
    MetadataSilent,
    ForgeUnreachable,
    ForgeUnauthorized,
    ForgeForbidden,
    ForgeLimits,
    ForgeSlow,
    ForgeBroken,
    PowerOffRefused,
}

/// When it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    StartupScript,
    Registering,
    Idle,
    Busy,
    Rerunning,
}

/// What is left when the machine is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Whether the forge still has a registration.
    registered: bool,
    /// Whether the job was run again, if one ran.
    again: Option<bool>,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.registered { "left" } else { "removed" })?;
        match self.again {
            Some(true) => f.write_str(", again"),
            Some(false) => f.write_str(", lost"),
            None => Ok(()),
        }
    }
}

impl When {
    pub const ALL: [Self; 5] = [Self::StartupScript, Self::Registering, Self::Idle, Self::Busy, Self::Rerunning];

    pub const fn title(self) -> &'static str {
        match self {
            Self::StartupScript => "start-up script runs",
            Self::Registering => "runner registers",
            Self::Idle => "idle",
            Self::Busy => "job runs",
            Self::Rerunning => "job is being run again",
        }
    }

    const fn has_runner(self) -> bool {
        matches!(self, Self::Idle | Self::Busy)
    }
}

impl Fault {
    pub const ALL: [Self; 15] = [
        Self::AgentKilled,
        Self::AgentFrozen,
        Self::AgentKilledAndDeleted,
        Self::RunnerKilled,
        Self::RunnerDeaf,
        Self::BothKilled,
        Self::DiskFull,
        Self::MetadataSilent,
        Self::ForgeUnreachable,
        Self::ForgeUnauthorized,
        Self::ForgeForbidden,
        Self::ForgeLimits,
        Self::ForgeSlow,
        Self::ForgeBroken,
        Self::PowerOffRefused,
    ];

    pub const fn title(self) -> &'static str {
        match self {
            Self::AgentKilled => "agent is killed (-9)",
            Self::AgentFrozen => "agent hangs",
            Self::AgentKilledAndDeleted => "agent is killed, its program deleted",
            Self::RunnerKilled => "runner is killed (-9)",
            Self::RunnerDeaf => "runner hangs, deaf to signals",
            Self::BothKilled => "both are killed",
            Self::DiskFull => "agent's disk is full",
            Self::MetadataSilent => "metadata service hangs",
            Self::ForgeUnreachable => "forge hangs up on everybody",
            Self::ForgeUnauthorized => "forge refuses the token (401)",
            Self::ForgeForbidden => "forge forbids everything (403)",
            Self::ForgeLimits => "forge's rate limit is used up for an hour (429)",
            Self::ForgeSlow => "forge takes a second for each answer",
            Self::ForgeBroken => "forge answers 500",
            Self::PowerOffRefused => "first ways to power off fail",
        }
    }

    const fn needs_runner(self) -> bool {
        matches!(self, Self::RunnerKilled | Self::RunnerDeaf | Self::BothKilled)
    }
}

/// A life until the moment, and what holds it there.
struct Held {
    scene: Scene,
    names: Names,
    id: String,
    run: Option<RunId>,
    gate: Option<Gate>,
}

/// Lives one machine's life with one fault in it; none where the two do not meet.
pub async fn live(forge: Kind, fault: Fault, when: When) -> Option<Left> {
    if fault.needs_runner() && !when.has_runner() {
        return None;
    }
    let held = until_moment(forge, when).await;
    held.strike(fault);
    if let Some(gate) = &held.gate {
        gate.open();
    }
    let file = held.scene.world.dir().join("script-gate");
    std::fs::write(file, "").unwrap();
    held.scene.all_gone().await;
    let again = held.run.map(|run| held.scene.world.forge.run(run).unwrap().attempt > 1);
    let timeline = held.scene.timeline();
    let left = held.scene.world.close().await;
    assert!(
        left.live_instances.is_empty() && left.processes.is_empty(),
        "{forge:?} {fault:?} {when:?}: {left:#?}\n{timeline}"
    );
    Some(Left {
        registered: !left.registrations.is_empty(),
        again,
    })
}

async fn until_moment(forge: Kind, when: When) -> Held {
    let scene = Scene::on(forge).await;
    let names = names::of(forge);
    let dir = scene.world.dir().to_owned();
    let hold = |request: &str| {
        let gate = Gate::default();
        scene.world.forge.faults().add(faults::Fault {
            request: request.into(),
            skip: 0,
            times: 1,
            effect: Effect::Hold(gate.clone()),
        });
        gate
    };
    let gate = match when {
        When::Registering => Some(hold(names.registers)),
        When::Rerunning => Some(hold(names.reruns)),
        _ => None,
    };
    let run = matches!(when, When::Busy | When::Rerunning).then(|| scene.job(&until(&dir.join("never"))));
    let script = startup_script(&if when == When::StartupScript {
        until(&dir.join("script-gate"))
    } else {
        String::new()
    });
    // It ends when it has lived long enough, unless the fault ends it before.
    let launcher = scene.start(&[
        // Short only where nothing comes online: elsewhere a slow machine must not decide.
        if gate_is_early(when) {
            "--provisioning-timeout=8s"
        } else {
            "--provisioning-timeout=40s"
        },
        "--idle-timeout=never",
        "--max-lifetime=12s",
        "--cloud-spot",
        &script,
    ]);
    match when {
        When::StartupScript => {
            scene
                .event_where("the start-up script", |event| event.detail.ends_with("working"))
                .await;
            end(launcher).await;
        }
        When::Registering => {
            reached(&scene, gate.as_ref().unwrap()).await;
            end(launcher).await;
        }
        When::Idle | When::Busy | When::Rerunning => {
            Scene::finish(launcher).await.succeeded();
            if when != When::Idle {
                scene.working().await;
            }
        }
    }
    let id = scene.world.fleet.instances().remove(0).id;
    if let (When::Rerunning, Some(gate)) = (when, &gate) {
        scene.world.fleet.signal_agent(&id).unwrap();
        reached(&scene, gate).await;
    }
    Held {
        scene,
        names,
        id,
        run,
        gate,
    }
}

/// Waits until the machine's request stands at the gate.
async fn reached(scene: &Scene, gate: &Gate) {
    let reached = tokio::time::timeout(e2e::PATIENCE, gate.reached()).await;
    assert!(reached.is_ok(), "nothing was asked for:\n{}", scene.timeline());
}

/// Whether the machine is held before its runner is online.
const fn gate_is_early(when: When) -> bool {
    matches!(when, When::StartupScript | When::Registering)
}

/// The launcher is gone: nobody helps.
async fn end(mut launcher: Child) {
    launcher.kill().await.unwrap();
}

impl Held {
    fn strike(&self, fault: Fault) {
        let forge = |effect: Effect| {
            for request in self.names.api {
                self.scene.world.forge.faults().add(faults::Fault {
                    request: (*request).into(),
                    skip: 0,
                    times: usize::MAX,
                    effect: effect.clone(),
                });
            }
        };
        let answer = |status, body: &str| Effect::Answer {
            status,
            headers: Vec::new(),
            body: body.into(),
        };
        match fault {
            Fault::AgentKilled => self.signal("cml-agent", Signal::SIGKILL),
            Fault::AgentFrozen => self.signal("cml-agent", Signal::SIGSTOP),
            Fault::AgentKilledAndDeleted => {
                self.scene.inside(&self.id, "rm -f /opt/cml/bin/cml-agent");
                self.signal("cml-agent", Signal::SIGKILL);
            }
            Fault::RunnerKilled => self.signal(self.names.runner, Signal::SIGKILL),
            Fault::RunnerDeaf => {
                self.signal(self.names.runner, Signal::SIGSTOP);
                // Of a notice's time the runner gets a part to stop in, which is over sooner than the minute that it gets otherwise.
                self.scene.world.cloud.take_back(&self.id, NOTICE);
            }
            Fault::BothKilled => {
                // An agent that sees its runner's end first takes it for a crash of the runner.
                let runner = self.pid(self.names.runner);
                self.signal("cml-agent", Signal::SIGKILL);
                kill(runner, Signal::SIGKILL).unwrap();
            }
            Fault::DiskFull => self.scene.inside(&self.id, e2e::FILL_DISK),
            Fault::MetadataSilent => self.scene.world.cloud.silence_metadata(&self.id),
            Fault::ForgeUnreachable => {
                forge(Effect::Reset);
                self.scene.world.forge.faults().add(faults::Fault {
                    request: self.names.protocol.into(),
                    skip: 0,
                    times: usize::MAX,
                    effect: Effect::Reset,
                });
            }
            Fault::ForgeUnauthorized => forge(answer(401, r#"{"message":"Bad credentials"}"#)),
            Fault::ForgeForbidden => forge(answer(403, r#"{"message":"Resource not accessible by personal access token"}"#)),
            Fault::ForgeLimits => forge(Effect::Answer {
                status: 429,
                headers: vec![("retry-after".into(), "3600".into())],
                body: String::new(),
            }),
            Fault::ForgeSlow => forge(Effect::Delay(Duration::from_secs(1))),
            Fault::ForgeBroken => forge(answer(500, "")),
            Fault::PowerOffRefused => {
                for way in ["systemctl", "poweroff"] {
                    std::fs::write(
                        self.scene.world.fleet.machine_dir(&self.id).join("shims").join(way),
                        "#!/bin/sh\nexit 1\n",
                    )
                    .unwrap();
                }
            }
        }
    }

    fn signal(&self, program: &str, signal: Signal) {
        kill(self.pid(program), signal).unwrap();
    }

    fn pid(&self, program: &str) -> Pid {
        let pid = self.scene.world.fleet.pid(&self.id, program);
        Pid::from_raw(pid.unwrap_or_else(|| panic!("{program} does not run:\n{}", self.scene.timeline())))
    }
}
