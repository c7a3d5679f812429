//! A user's own host: however the runner there ends, the host stays up, and what is not the runner's stays as it was.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use e2e::surroundings::NameServer;
use e2e::{Outcome, Scene, startup_script, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::ci::Request;
use sandbox::faults::{Effect, Fault, Gate};
use tokio::process::Child;

e2e::on_every_forge! {
    it_stays_up_when_its_runner_has_nothing_to_do_any_more,
    it_stays_up_when_its_runner_has_lived_long_enough,
    it_stays_up_when_a_busy_runner_is_told_to_stop_and_the_job_runs_again_here,
    it_stays_up_when_the_agent_was_killed_and_the_next_one_clears_up,
    it_stays_up_when_the_forge_refuses_everything,
    a_runner_that_is_there_is_reused_here_too,
    a_startup_script_that_was_made_for_an_instance_is_not_run,
    one_that_is_drained_finishes_its_job_and_goes,
}

/// A host with power buttons that only tell that they were pressed, and a file of its owner's.
struct Host {
    scene: Scene,
}

impl Host {
    fn of(scene: Scene) -> Self {
        let host = Self { scene };
        let buttons = host.path("buttons");
        std::fs::create_dir(&buttons).unwrap();
        for name in ["systemctl", "poweroff", "shutdown", "reboot", "halt"] {
            let button = buttons.join(name);
            let script = format!("#!/bin/sh\necho \"$0 $*\" >>'{}'\n", host.path("pressed").display());
            std::fs::write(&button, script).unwrap();
            std::fs::set_permissions(&button, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(host.path("precious"), "mine").unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.world.dir().join(name)
    }

    /// Starts a runner here.
    fn start(&self, more: &[&str]) -> Child {
        self.start_in(&[], more)
    }

    /// Starts one by a command that becomes the launcher.
    fn start_in(&self, around: &[&str], more: &[&str]) -> Child {
        let args: Vec<&str> = ["runner", "--labels=gpu", "--name=here"].iter().chain(more).copied().collect();
        let mut command = self.scene.world.launcher(&args);
        if let Some((first, rest)) = around.split_first() {
            let launcher = std::mem::replace(&mut command, tokio::process::Command::new(first)).into_std();
            command.args(rest).arg(launcher.get_program()).args(launcher.get_args());
            command.env_clear().envs(self.scene.world.env()).current_dir(self.scene.world.dir());
        }
        let path = self.scene.world.env().into_iter().find(|(name, _)| name == "PATH").unwrap().1;
        command.env("PATH", format!("{}:{path}", self.path("buttons").display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn().unwrap()
    }

    /// Starts one and waits until it is online.
    async fn online(&self, more: &[&str]) -> Child {
        let before = self.scene.world.events.count("runner-online");
        let child = self.start(more);
        self.scene.events("runner-online", before + 1).await;
        child
    }

    /// Waits until the agent has written down that a job runs.
    async fn knows_its_job(&self) {
        self.writes("state.json", "\"at\"").await;
    }

    /// Waits until the agent says this of itself, for `cml-agent status`.
    async fn says(&self, words: &str) {
        self.writes("status.json", words).await;
    }

    async fn writes(&self, file: &str, words: &str) {
        let file = self.path(".cml/here").join(file);
        let written = async {
            while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains(words)) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(e2e::PATIENCE, written)
            .await
            .unwrap_or_else(|_| panic!("the agent writes `{words}` into {}", file.display()));
    }

    /// The host is as it was.
    async fn end(self) {
        let pressed = std::fs::read_to_string(self.path("pressed")).unwrap_or_default();
        assert_eq!(pressed, "", "the host was to go down");
        assert_eq!(std::fs::read_to_string(self.path("precious")).unwrap(), "mine");
        assert!(self.scene.world.cloud.calls().is_empty(), "no cloud was asked");
        self.scene.end().await;
    }
}

/// Waits until a process has done all that it can do now.
async fn until_it_waits(child: &Child) {
    let stat = format!("/proc/{}/stat", child.id().unwrap());
    let waits = async {
        while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(e2e::PATIENCE, waits).await.expect("it comes to rest");
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Runs a command with other files in place of those that names are looked up in: they are in the first argument, a folder, by their names.
const WITH_FILES: &str = r#"
for file in "$1"/*; do mount --bind "$file" "/etc/${file##*/}" || exit; done
shift
exec "$@"
"#;

#[tokio::test]
async fn a_name_server_that_never_answers_does_not_hold_up_its_end() {
    if !e2e::is_isolated("a_name_server_that_never_answers_does_not_hold_up_its_end") {
        return;
    }
    let scene = Scene::new().await;
    scene.world.forge.go_by_name("localhost");
    let host = Host::of(scene);
    let server = NameServer::silent().await;
    let etc = host.path("etc");
    std::fs::create_dir(&etc).unwrap();
    // Longer, all in all, than anybody waits here.
    let resolver = format!("nameserver {}\noptions timeout:30 attempts:5\n", server.address());
    for (file, text) in [
        ("hosts", "127.0.0.1 localhost\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
        ("resolv.conf", &resolver),
    ] {
        std::fs::write(etc.join(file), text).unwrap();
    }
    // The agent asks for the runner's archive until it is told to stop, each time on another connection.
    let faults = host.scene.world.forge.faults();
    let archives = "GET /repos/*/actions/runners/downloads";
    faults.answer(archives, 1, 500, "");
    faults.add(Fault {
        request: archives.into(),
        skip: 0,
        times: usize::MAX,
        effect: Effect::Reset,
    });
    let files = etc.display().to_string();
    let runner = host.start_in(
        &["unshare", "--mount", "sh", "-c", WITH_FILES, "sh", &files],
        &["--idle-timeout=never"],
    );
    let asked = async {
        while !host.scene.world.forge.requests().iter().any(Request::from_agent) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        std::fs::write(etc.join("hosts"), "").unwrap();
        server.asked().await;
    };
    tokio::time::timeout(e2e::PATIENCE, asked).await.expect("a name is asked for");
    signal(&runner, Signal::SIGTERM);
    ended(runner).await.succeeded();
    host.end().await;
}

async fn ended(child: Child) -> Outcome {
    Scene::finish(child).await
}

async fn it_stays_up_when_its_runner_has_nothing_to_do_any_more(scene: Scene) {
    let host = Host::of(scene);
    ended(host.online(&["--idle-timeout=1s"]).await).await.succeeded();
    host.end().await;
}

async fn it_stays_up_when_its_runner_has_lived_long_enough(scene: Scene) {
    let host = Host::of(scene);
    // Several times what it takes to come online, on a machine that does other things too.
    ended(host.online(&["--idle-timeout=never", "--max-lifetime=12s"]).await)
        .await
        .succeeded();
    host.end().await;
}

async fn it_stays_up_when_a_busy_runner_is_told_to_stop_and_the_job_runs_again_here(scene: Scene) {
    let host = Host::of(scene);
    let gate = host.path("gate");
    let run = host.scene.job(&until(&gate));
    let first = host.online(&["--idle-timeout=never"]).await;
    host.scene.working().await;
    signal(&first, Signal::SIGTERM);
    ended(first).await.succeeded();
    host.scene.event("run-rerun").await;
    std::fs::write(&gate, "").unwrap();
    let second = host.start(&["--idle-timeout=1s"]);
    assert_eq!(host.scene.conclusion(run).await, "success");
    ended(second).await.succeeded();
    host.end().await;
}

async fn it_stays_up_when_the_agent_was_killed_and_the_next_one_clears_up(scene: Scene) {
    let host = Host::of(scene);
    let gate = host.path("gate");
    let run = host.scene.job(&until(&gate));
    let first = host.online(&["--idle-timeout=never"]).await;
    host.scene.working().await;
    // The job's word can be here before the agent has heard of the job.
    host.knows_its_job().await;
    signal(&first, Signal::SIGKILL);
    ended(first).await;
    // The one after it never resumes: it ends what was left, has the job run again, and says that something was wrong.
    let second = ended(host.start(&["--idle-timeout=1s"])).await;
    second.failed_with(1, &["an agent was killed here"]);
    host.scene.event("run-rerun").await;
    std::fs::write(&gate, "").unwrap();
    let third = host.start(&["--idle-timeout=1s"]);
    assert_eq!(host.scene.conclusion(run).await, "success");
    ended(third).await.succeeded();
    host.end().await;
}

async fn it_stays_up_when_the_forge_refuses_everything(scene: Scene) {
    let host = Host::of(scene);
    let runner = host.online(&["--idle-timeout=never"]).await;
    let faults = host.scene.world.forge.faults();
    for verb in ["GET", "POST", "PUT", "DELETE"] {
        // Not the runner's own requests, which have another credential.
        for path in ["/repos/*", "/projects/*", "/runners/*", "/repositories/*"] {
            faults.answer(&format!("{verb} {path}"), usize::MAX, 401, r#"{"message":"Bad credentials"}"#);
        }
    }
    signal(&runner, Signal::SIGTERM);
    ended(runner).await.succeeded();
    faults.clear();
    // Its registration is all that is left, and in the way of the next one: its owner must remove it.
    assert_eq!(host.scene.world.forge.runners().len(), 1);
    let next = ended(host.start(&["--idle-timeout=1s"])).await;
    next.failed_with(6, &["here", "hint"]);
    host.scene.world.forge.forget("here");
    host.end().await;
}

async fn a_runner_that_is_there_is_reused_here_too(scene: Scene) {
    let host = Host::of(scene);
    let first = host.online(&["--idle-timeout=never"]).await;
    let reused = ended(host.start(&["--reuse", "--output=json"])).await;
    reused.succeeded();
    let result: serde_json::Value = serde_json::from_str(&reused.stdout).unwrap();
    assert_eq!((&result["name"], &result["reused"]), (&"here".into(), &true.into()));
    ended(host.start(&[])).await.failed_with(6, &["running on this host", "hint"]);
    signal(&first, Signal::SIGTERM);
    ended(first).await.succeeded();
    host.end().await;
}

async fn a_startup_script_that_was_made_for_an_instance_is_not_run(scene: Scene) {
    let host = Host::of(scene);
    let script = startup_script(&format!("rm -f '{}'", host.path("precious").display()));
    let outcome = ended(host.online(&["--idle-timeout=1s", &script]).await).await;
    outcome.succeeded();
    assert!(outcome.stderr.contains("no effect"), "{}", outcome.stderr);
    host.end().await;
}

async fn one_that_is_drained_finishes_its_job_and_goes(scene: Scene) {
    let host = Host::of(scene);
    let gate = host.path("gate");
    let run = host.scene.job(&until(&gate));
    let runner = host.online(&["--idle-timeout=never"]).await;
    host.scene.working().await;
    signal(&runner, Signal::SIGHUP);
    host.says("drained").await;
    std::fs::write(&gate, "").unwrap();
    let outcome = ended(runner).await;
    outcome.succeeded();
    assert!(outcome.stderr.contains(r#""reason":"drained""#), "{}", outcome.stderr);
    assert_eq!(host.scene.conclusion(run).await, "success");
    assert_eq!(host.scene.world.events.count("run-rerun"), 0, "{}", host.scene.timeline());
    host.end().await;
}

/// GitHub hands out the next job once it is told that one is done: by then the runner has been told to stop.
#[tokio::test]
async fn one_that_is_drained_takes_no_other_job() {
    let host = Host::of(Scene::new().await);
    let (first, second) = (host.path("first"), host.path("second"));
    let run = host.scene.job(&until(&first));
    let runner = host.online(&["--idle-timeout=never"]).await;
    host.scene.working().await;
    let waits = host.scene.job(&until(&second));
    let told = Gate::default();
    host.scene.world.forge.faults().add(Fault {
        request: "POST /_runner/done".into(),
        skip: 0,
        times: 1,
        effect: Effect::Hold(told.clone()),
    });
    signal(&runner, Signal::SIGHUP);
    host.says("drained").await;
    std::fs::write(&first, "").unwrap();
    told.reached().await;
    host.says("Stopping").await;
    until_it_waits(&runner).await;
    told.open();
    ended(runner).await.succeeded();
    assert_eq!(host.scene.conclusion(run).await, "success");
    assert_eq!(host.scene.world.events.count("job-started"), 1, "{}", host.scene.timeline());
    assert!(host.scene.world.forge.runners().is_empty());
    // It waits for the next one, as whoever replaces a program starts it.
    std::fs::write(&second, "").unwrap();
    let next = host.start(&["--idle-timeout=1s"]);
    assert_eq!(host.scene.conclusion(waits).await, "success");
    ended(next).await.succeeded();
    host.end().await;
}
