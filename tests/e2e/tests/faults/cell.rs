//! One fault at one moment of a machine's life.
//!
//! Nothing here waits for a time. A machine's own timers stand still until the fault has been met, and the agent's limits are far away; only where a
//! clock breaks are they near, since they are what it could break.

use std::path::PathBuf;

use e2e::surroundings::{self, NameServer, Time};
use e2e::{Scene, startup_script, until};
use sandbox::ci::RunId;
use sandbox::events::Event;
use sandbox::faults::{self, Effect, Gate};
use sandbox::fleet::State;
use sandbox::forge::Kind;
use tokio::process::Child;

use super::fault::{End, Fault, Left, When};
use super::names::{self, Names};

/// Far away: what is held ends sooner.
const FAR: &[&str] = &[
    "--provisioning-timeout=10min",
    "--max-lifetime=10min",
    "--idle-timeout=never",
    "--cloud-spot",
];
/// Near, and counted only from the moment on.
const NEAR: &[&str] = &["--idle-timeout=3s", "--job-time-limit=3s"];

/// What the agent says when it has started its runner, is online, has heard of its job, starts a runner again, has to ask the forge again, asks it in
/// vain, fails, and cannot end its machine.
const STARTED: &str = "name=online state=begin";
const ONLINE: &str = "name=online state=ok";
const HAS_JOB: &str = "\"status\":\"job_started\"";
const STARTS_AGAIN: &str = "Idle → Starting";
const ASKS_AGAIN: &str = "trying again in";
const IN_VAIN: &str = "asking whether the runner is online";
const FAILED: &str = "state=fail";
const STAYS: &str = "name=terminate state=fail";

/// How often power is refused by the time that the agent has tried every way to power off, the start-up data after it, and the timer of the lifetime.
const REFUSALS: (usize, usize) = (6, 9);

/// A life until the moment, and what holds it there.
pub struct Held {
    pub scene: Scene,
    pub names: Names,
    pub id: String,
    pub name_server: Option<NameServer>,
    run: Option<RunId>,
    gate: Option<Gate>,
    time: Time,
}

/// Lives one machine's life with one fault in it; none where the two do not meet.
pub async fn live(forge: Kind, fault: Fault, when: When) -> Option<Left> {
    if !fault.meets(when) {
        return None;
    }
    let mut held = until_moment(forge, fault, when).await;
    held.strike(fault);
    if let Some(gate) = &held.gate {
        gate.open();
    }
    std::fs::write(held.scene.world.dir().join("script-gate"), "").unwrap();
    let stays = held.end(fault, when).await;
    let registered = !held.scene.world.forge.runners().is_empty();
    if stays {
        held.destroy().await;
    }
    let again = held.run.map(|run| held.scene.world.forge.run(run).unwrap().attempt > 1);
    let timeline = held.scene.timeline();
    let left = held.scene.world.close().await;
    assert!(
        left.live_instances.is_empty() && left.processes.is_empty(),
        "{forge:?} {fault:?} {when:?}: {left:#?}\n{timeline}"
    );
    Some(Left { registered, again, stays })
}

async fn until_moment(forge: Kind, fault: Fault, when: When) -> Held {
    let scene = Scene::on(forge).await;
    let names = names::of(forge);
    let dir = scene.world.dir().to_owned();
    let time = Time::stand_still(&dir);
    let mut options = FAR.to_vec();
    if fault.is_of_clock() {
        surroundings::let_clock_jump(&dir);
        options.extend(NEAR);
    }
    let name_server = if fault == Fault::NamesUnknown {
        scene.world.forge.go_by_name("localhost");
        Some(NameServer::of_machines(&dir).await)
    } else {
        None
    };
    let gate = match when {
        When::Registering => Some(hold(&scene, names.registers)),
        When::Rerunning => Some(hold(&scene, names.reruns)),
        _ => None,
    };
    let run = matches!(when, When::Busy | When::Rerunning).then(|| scene.job(&until(&dir.join("never"))));
    let script = startup_script(&if when == When::StartupScript {
        until(&dir.join("script-gate"))
    } else {
        String::new()
    });
    options.push(&script);
    let launcher = scene.start(&options);
    let id = reach(&scene, when, gate.as_ref()).await;
    end(launcher).await;
    Held {
        scene,
        names,
        id,
        name_server,
        run,
        gate,
        time,
    }
}

fn hold(scene: &Scene, request: &str) -> Gate {
    let gate = Gate::default();
    scene.world.forge.faults().add(faults::Fault {
        request: request.into(),
        skip: 0,
        times: 1,
        effect: Effect::Hold(gate.clone()),
    });
    gate
}

/// Waits until the moment has come on the one machine, and returns its id.
async fn reach(scene: &Scene, when: When, gate: Option<&Gate>) -> String {
    let first = || scene.world.fleet.instances().remove(0).id;
    match when {
        When::StartupScript => {
            scene
                .event_where("the start-up script", |event| event.detail.ends_with("working"))
                .await;
        }
        When::Registering => reached(scene, gate).await,
        When::Idle => said(scene, ONLINE).await,
        When::Busy | When::Rerunning => {
            said(scene, HAS_JOB).await;
            scene.working().await;
        }
    }
    if when == When::Rerunning {
        scene.world.fleet.signal_agent(&first()).unwrap();
        reached(scene, gate).await;
    }
    first()
}

/// Waits until the machine's request stands at the gate.
async fn reached(scene: &Scene, gate: Option<&Gate>) {
    let gate = gate.expect("there is one");
    let reached = tokio::time::timeout(e2e::PATIENCE, gate.reached()).await;
    assert!(reached.is_ok(), "nothing was asked for:\n{}", scene.timeline());
}

/// The launcher is gone: nobody helps.
async fn end(mut launcher: Child) {
    launcher.kill().await.unwrap();
}

/// Waits until the machine's console says this.
async fn said(scene: &Scene, words: &str) {
    scene.event_where(words, |event| event.detail.contains(words)).await;
}

impl Held {
    /// Waits until the machine has ended, as it does after this fault; whether it stays instead.
    async fn end(&mut self, fault: Fault, when: When) -> bool {
        match fault.end(when) {
            End::ByItself => {}
            End::Told => self.tell(fault, when).await,
            End::ByTimers => self.time.pass(),
            End::ToldThenByTimers => {
                self.tell(fault, when).await;
                // By now the fault has been met, and is not the end of it.
                self.said_or_gone(&[ASKS_AGAIN]).await;
                if let Some(server) = &self.name_server {
                    let asked = tokio::time::timeout(e2e::PATIENCE, server.asked()).await;
                    assert!(asked.is_ok(), "no name was asked for:\n{}", self.scene.timeline());
                }
                self.time.pass();
            }
            End::FromOutside => {
                self.tell(fault, when).await;
                said(&self.scene, STAYS).await;
                self.refused(REFUSALS.0).await;
                self.time.pass();
                self.refused(REFUSALS.1).await;
                let instance = self.scene.world.fleet.instance(&self.id).unwrap();
                assert_eq!(instance.state, State::Running, "{}", self.scene.timeline());
                return true;
            }
        }
        self.scene.all_gone().await;
        false
    }

    /// Tells the agent to stop, as a host that shuts down does, once it has come as far as the fault lets it.
    async fn tell(&self, fault: Fault, when: When) {
        match when {
            // It has been told.
            When::Rerunning => return,
            When::Idle if fault == Fault::RunnerKilled => said(&self.scene, STARTS_AGAIN).await,
            // A runner that cannot reach its forge is waited for.
            early if early.is_early() => {
                let cut_off = fault.end(when) == End::ToldThenByTimers;
                let come = if cut_off { STARTED } else { ONLINE };
                self.said_or_gone(&[come, FAILED, ASKS_AGAIN, IN_VAIN]).await;
            }
            _ => {}
        }
        // It may have ended by itself.
        let _ = self.scene.world.fleet.signal_agent(&self.id);
    }

    /// Waits until the console says one of these, or the machine has gone.
    async fn said_or_gone(&self, words: &[&str]) {
        let is_over = |event: &Event| event.what == "instance-terminated" || words.iter().any(|words| event.detail.contains(words));
        self.scene.event_where(&words.join(", "), is_over).await;
    }

    /// Where every refused attempt to power off is written down.
    pub fn refusals(&self) -> PathBuf {
        self.scene.world.dir().join("refused")
    }

    async fn refused(&self, times: usize) {
        let count = || std::fs::read_to_string(self.refusals()).unwrap_or_default().lines().count();
        let often = async {
            while count() < times {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let seen = tokio::time::timeout(e2e::PATIENCE, often).await;
        assert!(seen.is_ok(), "{} of {times} refusals:\n{}", count(), self.scene.timeline());
    }

    /// Ends the machine as a person does.
    async fn destroy(&self) {
        let name = self.scene.world.fleet.instance(&self.id).unwrap().name;
        let ended = Scene::finish(self.scene.command(&["runner", "terminate", &name, &self.scene.cloud()])).await;
        ended.succeeded();
        self.scene.all_gone().await;
    }
}
