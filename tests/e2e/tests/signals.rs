//! Programs that are told to stop, or are killed, at any moment.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use e2e::{PATIENCE, Scene, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::faults::{Effect, Fault, Faults, Gate};
use sandbox::interrupt;
use tokio::process::Child;

e2e::everywhere! {
    the_machine_of_a_launcher_that_was_killed_removes_itself
        except Gcp "its own timer can only power it off; tests/gcp.rs kills the launcher at every call, and reaps",
    an_idle_agent_that_is_told_to_stop_takes_its_leave,
    a_busy_agent_that_is_told_to_stop_has_its_job_run_again,
    a_job_that_was_stopped_before_it_could_tell_its_ids_is_run_again
        except GitLab "its runner tells the id with its first word of a job"
        except Bitbucket "its runner tells the ids with its first word of a step",
    an_agent_that_is_killed_while_idle_takes_its_leave_all_the_same
        except Kubernetes "it is the pod's first process: nothing outlives it, and `reap` forgets its runner",
    the_job_of_an_agent_that_is_killed_is_run_again
        except Kubernetes "it is the pod's first process: nothing outlives it",
    a_machine_that_is_cut_off_leaves_nothing_but_its_registration,
    a_runner_on_this_host_is_stopped_by_control_c,
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().expect("it still runs");
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Which server a request went to.
#[derive(Debug, Clone)]
enum Call {
    Forge(String),
    Cloud(String),
}

impl Call {
    fn faults<'w>(&self, scene: &'w Scene) -> &'w Faults {
        match self {
            Self::Forge(_) => scene.world.forge.faults(),
            Self::Cloud(_) => scene.world.cloud.faults(),
        }
    }

    fn request(&self) -> &str {
        match self {
            Self::Forge(request) | Self::Cloud(request) => request,
        }
    }
}

/// What a launch asks for until its runner is online, each kind of request once.
const CALLS: &[fn() -> Call] = &[
    || Call::Forge("POST /repos/*/actions/runners/registration-token".into()),
    || Call::Forge("GET /repos/*/actions/runners*".into()),
    || Call::Cloud("DescribeImages".into()),
    || Call::Cloud("DescribeSubnets".into()),
    || Call::Cloud("RunInstances".into()),
    || Call::Cloud("DescribeInstances".into()),
];

/// Stops the launcher while the request stands at a gate, or just after it was acted on without an answer.
async fn stopped_at(call: &Call, how: Signal, acted_on: bool) {
    let scene = Scene::new().await;
    let gate = Gate::default();
    let (skip, effect) = if acted_on {
        (0, Effect::LoseAnswer)
    } else {
        (0, Effect::Hold(gate.clone()))
    };
    call.faults(&scene).add(Fault {
        request: call.request().into(),
        skip,
        times: 1,
        effect,
    });
    // A machine that came online before the launcher looks at it would be a launch that succeeded.
    let launcher = scene.start(&["--provisioning-timeout=8s", &e2e::startup_script("sleep 1000")]);
    if acted_on {
        scene.event("instance-launched").await;
    } else {
        gate.reached().await;
    }
    signal(&launcher, how);
    if call.request() == "RunInstances" {
        // It may be acted on while the launcher looks for what it made; of any other the launcher must not need the answer.
        gate.open();
    }
    let outcome = Scene::finish(launcher).await;
    gate.open();
    match how {
        Signal::SIGKILL => assert_eq!(outcome.code, None),
        how => assert_eq!(outcome.code, Some(128 + how as i32), "{call:?}: {outcome:#?}"),
    }
    if how != Signal::SIGKILL {
        let live: Vec<_> = scene
            .world
            .fleet
            .instances()
            .into_iter()
            .filter(|instance| !instance.state.is_over())
            .collect();
        assert!(
            live.is_empty(),
            "{call:?}: the launcher ended, but left {live:#?}\n{}",
            scene.timeline()
        );
    }
    scene.end().await;
}

#[tokio::test]
async fn a_launcher_that_is_interrupted_at_any_call_leaves_nothing() {
    for call in CALLS {
        stopped_at(&call(), Signal::SIGINT, false).await;
    }
}

#[tokio::test]
async fn a_launcher_that_is_killed_at_any_call_leaves_nothing_at_the_deadline() {
    for call in CALLS {
        stopped_at(&call(), Signal::SIGKILL, false).await;
    }
}

#[tokio::test]
async fn an_instance_whose_answer_was_lost_is_found_and_destroyed() {
    stopped_at(&Call::Cloud("RunInstances".into()), Signal::SIGTERM, true).await;
}

#[tokio::test]
async fn a_launcher_that_is_stopped_while_it_waits_destroys_the_instance() {
    for how in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .filter(|how| !interrupt::is_ignored(*how))
    {
        let scene = Scene::new().await;
        let launcher = scene.start(&[&e2e::startup_script("sleep 1000")]);
        scene
            .event_where("the start-up script", |event| {
                event.what == "console" && event.detail.contains("name=startup-script state=begin")
            })
            .await;
        signal(&launcher, how);
        let outcome = Scene::finish(launcher).await;
        assert_eq!(outcome.code, Some(128 + how as i32), "{outcome:#?}");
        scene.end().await;
    }
}

async fn the_machine_of_a_launcher_that_was_killed_removes_itself(scene: Scene) {
    let launcher = scene.start(&["--provisioning-timeout=5s", &e2e::startup_script("sleep 1000")]);
    scene.event("instance-launched").await;
    signal(&launcher, Signal::SIGKILL);
    Scene::finish(launcher).await;
    scene.end().await;
}

/// A machine with an agent on it, and the agent's process.
async fn agent(scene: &Scene) -> Pid {
    scene.launch(&["--idle-timeout=never"]).await.succeeded();
    let instance = scene.world.fleet.instances().remove(0);
    let pid = scene.world.fleet.agent_pid(&instance.id).expect("the agent runs");
    Pid::from_raw(pid)
}

async fn an_idle_agent_that_is_told_to_stop_takes_its_leave(scene: Scene) {
    kill(agent(&scene).await, Signal::SIGTERM).unwrap();
    scene.event("runner-removed").await;
    scene.end().await;
}

async fn a_busy_agent_that_is_told_to_stop_has_its_job_run_again(scene: Scene) {
    let agent = agent(&scene).await;
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.working().await;
    kill(agent, Signal::SIGTERM).unwrap();
    scene.runs_again(run, &gate).await;
}

async fn a_job_that_was_stopped_before_it_could_tell_its_ids_is_run_again(scene: Scene) {
    let agent = agent(&scene).await;
    // A job of the same name that failed by itself is none of the agent's business.
    let failed = scene.job("false");
    assert_eq!(scene.conclusion(failed).await, "failure");
    let held = Gate::default();
    scene.world.forge.faults().add(Fault {
        request: "POST /_runner/renew".into(),
        skip: 0,
        times: 1,
        effect: Effect::Hold(held.clone()),
    });
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    held.reached().await;
    kill(agent, Signal::SIGTERM).unwrap();
    let again = scene.event("run-rerun").await;
    assert!(again.detail.contains(&format!("run {} ", run.0)), "{again}");
    scene.runs_again(run, &gate).await;
}

async fn an_agent_that_is_killed_while_idle_takes_its_leave_all_the_same(scene: Scene) {
    kill(agent(&scene).await, Signal::SIGKILL).unwrap();
    scene.event("runner-removed").await;
    scene.end().await;
}

async fn the_job_of_an_agent_that_is_killed_is_run_again(scene: Scene) {
    let agent = agent(&scene).await;
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.working().await;
    kill(agent, Signal::SIGKILL).unwrap();
    scene.runs_again(run, &gate).await;
}

async fn a_machine_that_is_cut_off_leaves_nothing_but_its_registration(scene: Scene) {
    agent(&scene).await;
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.working().await;
    scene.world.fleet.vanish(&scene.world.fleet.instances()[0].id);
    scene.all_gone().await;
    assert_eq!(scene.conclusion(run).await, "failure", "the forge notices that the runner is lost");
    // Nobody is left to remove the registration: GitHub does so after days, GitLab after months, `reap` at once.
    let left = scene.world.close().await;
    assert!(left.live_instances.is_empty() && left.processes.is_empty(), "{left:#?}");
}

async fn a_runner_on_this_host_is_stopped_by_control_c(scene: Scene) {
    let launcher = scene.command(&["runner", "--labels=gpu", "--idle-timeout=never", "--name=here"]);
    scene.event("runner-online").await;
    let run = scene.job("true");
    assert_eq!(scene.conclusion(run).await, "success");
    signal(&launcher, Signal::SIGINT);
    let outcome = tokio::time::timeout(PATIENCE, Scene::finish(launcher)).await.unwrap();
    outcome.succeeded();
    assert!(scene.world.cloud.calls().is_empty());
    scene.end().await;
}
