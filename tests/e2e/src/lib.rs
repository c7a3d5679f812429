//! Scenarios on the real binaries, in the sandbox: what they share.
//!
//! Every scene ends with [`Scene::end`], which waits until the world is empty again and asserts it: no instance, no registration, no
//! process.

// All of it runs in tests: to panic is how they fail.
#![allow(clippy::missing_panics_doc, clippy::expect_used)]

pub mod bench;
pub mod machine;
pub mod memory;
pub mod surroundings;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use sandbox::ci::{JobSpec, RunId, Workflow};
use sandbox::cloud;
use sandbox::events::Event;
use sandbox::fleet::{InstanceView, State};
use sandbox::forge::Kind;
use sandbox::instance::Isolation;
use sandbox::world::{Options, World};
use tokio::process::Child;

/// How long a test waits for what must happen: never reached when all is well, so it only bounds a failing run.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The label of every runner of these tests, unless a test says otherwise.
pub const LABEL: &str = "gpu";

/// What a scaled machine has from its notice on, unless the notice says another time; two minutes, mostly, in production.
pub const NOTICE: Duration = Duration::from_secs(20);

/// Leaves no byte of the disk that the agent writes to.
pub const FILL_DISK: &str = "mount -o remount,size=512k /var/lib/cml && { cat /dev/zero >/var/lib/cml/all 2>/dev/null; :; }";

/// The options of a launch on any cloud: as a user would write them, with every deadline scaled down.
const LAUNCH: &[&str] = &["--labels=gpu", "--idle-timeout=1s", "--provisioning-timeout=40s"];

/// One list of scenarios, a column for each forge, on EC2. What a forge cannot do is an ignored test that says why.
#[macro_export]
macro_rules! on_every_forge {
    ($($list:tt)*) => {
        mod github { $crate::column! { GitHub: $($list)* } }
        mod gitlab { $crate::column! { GitLab: $($list)* } }
        mod bitbucket { $crate::column! { Bitbucket: $($list)* } }
    };
}

/// The same, and a column for each cloud but EC2, with GitHub.
#[macro_export]
macro_rules! everywhere {
    ($($list:tt)*) => {
        $crate::on_every_forge! { $($list)* }
        mod azure { $crate::column! { Azure: $($list)* } }
        mod gcp { $crate::column! { Gcp: $($list)* } }
        mod kubernetes { $crate::column! { Kubernetes: $($list)* } }
    };
}

/// The tests of one [`Column`].
#[macro_export]
macro_rules! column {
    ($column:ident: $($scenario:ident $(except $other:ident $reason:literal)*),* $(,)?) => {
        $($crate::column!(@ $column $scenario $($other $reason)*);)*
    };
    (@ GitHub $scenario:ident GitHub $reason:literal $($rest:tt)*) => { $crate::column!(@not $scenario $reason); };
    (@ GitLab $scenario:ident GitLab $reason:literal $($rest:tt)*) => { $crate::column!(@not $scenario $reason); };
    (@ Bitbucket $scenario:ident Bitbucket $reason:literal $($rest:tt)*) => { $crate::column!(@not $scenario $reason); };
    (@ Azure $scenario:ident Azure $reason:literal $($rest:tt)*) => { $crate::column!(@not $scenario $reason); };
    (@ Gcp $scenario:ident Gcp $reason:literal $($rest:tt)*) => { $crate::column!(@not $scenario $reason); };
    (@ Kubernetes $scenario:ident Kubernetes $reason:literal $($rest:tt)*) => { $crate::column!(@not $scenario $reason); };
    (@ $column:ident $scenario:ident $other:ident $reason:literal $($rest:tt)*) => { $crate::column!(@ $column $scenario $($rest)*); };
    (@not $scenario:ident $reason:literal) => {
        #[test]
        #[ignore = $reason]
        fn $scenario() {}
    };
    (@ $column:ident $scenario:ident) => {
        #[tokio::test]
        async fn $scenario() {
            super::$scenario($crate::Scene::of($crate::Column::$column).await).await;
        }
    };
}

/// What a scenario is played on: a forge with EC2, or a cloud with GitHub.
#[derive(Debug, Clone, Copy)]
pub enum Column {
    /// GitHub, and EC2.
    GitHub,
    /// GitLab.
    GitLab,
    /// Bitbucket.
    Bitbucket,
    /// Azure.
    Azure,
    /// Google Cloud.
    Gcp,
    /// A Kubernetes cluster.
    Kubernetes,
}

/// One world, and the launchers in it.
pub struct Scene {
    /// Its servers and instances.
    pub world: World,
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Outcome {
    /// Asserts the exit code and that standard error holds each of these texts.
    #[track_caller]
    pub fn failed_with(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is missing in:\n{}", self.stderr);
        }
    }

    /// Asserts that it ended well.
    #[track_caller]
    pub fn succeeded(&self) {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
    }
}

impl Scene {
    /// A world without faults.
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// A world of this column.
    pub async fn of(column: Column) -> Self {
        match column {
            Column::GitHub => Self::on(Kind::GitHub).await,
            Column::GitLab => Self::on(Kind::GitLab).await,
            Column::Bitbucket => Self::on(Kind::Bitbucket).await,
            Column::Azure => Self::over(cloud::Kind::Azure).await,
            Column::Gcp => Self::over(cloud::Kind::Gcp).await,
            Column::Kubernetes => Self::over(cloud::Kind::Kubernetes).await,
        }
    }

    /// A world with this forge.
    pub async fn on(forge: Kind) -> Self {
        Self::with(Options {
            forge: forge.into(),
            ..Options::default()
        })
        .await
    }

    /// A world with this cloud.
    pub async fn over(cloud: cloud::Kind) -> Self {
        Self::with(Options {
            cloud,
            notice: Some(NOTICE),
            ..Options::default()
        })
        .await
    }

    /// A world of one's own making.
    pub async fn with(options: Options) -> Self {
        let world = World::start(options)
            .await
            .expect("the sandbox starts (run `cargo build --workspace` first)");
        Self { world }
    }

    /// Starts a launcher on the world's cloud with [`LAUNCH`] and more options.
    pub fn start(&self, more: &[&str]) -> Child {
        let cloud = self.cloud();
        let own = self.world.cloud.kind().options().iter();
        let args = ["runner", &cloud].into_iter().chain(own.chain(LAUNCH).chain(more).copied());
        self.command(&args.collect::<Vec<_>>())
    }

    /// Runs a launch of a machine that the cloud may take back.
    pub async fn launch_spot(&self, more: &[&str]) -> Outcome {
        self.launch(&[self.world.cloud.kind().spot(), more].concat()).await
    }

    /// A launch as a job of a workflow writes it.
    pub fn command_line(&self, more: &[&str]) -> String {
        let own = self.world.cloud.kind();
        let words = [own.options(), LAUNCH, more].concat();
        format!("cml runner {} {}", self.cloud(), words.join(" "))
    }

    /// Starts a launcher with exactly these arguments.
    pub fn command(&self, args: &[&str]) -> Child {
        let mut command = self.world.launcher(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).spawn().expect("the launcher starts")
    }

    /// The option that names the world's cloud.
    pub fn cloud(&self) -> String {
        format!("--cloud={}", self.world.cloud.kind().name())
    }

    /// Runs a launch to its end.
    pub async fn launch(&self, more: &[&str]) -> Outcome {
        Self::finish(self.start(more)).await
    }

    /// Waits for a launcher's end.
    pub async fn finish(child: Child) -> Outcome {
        let output = tokio::time::timeout(PATIENCE * 2, child.wait_with_output());
        output.await.expect("the launcher ends").expect("its output is read").into()
    }

    /// Waits for an event of this kind.
    pub async fn event(&self, what: &str) -> Event {
        self.event_where(what, |event| event.what == what).await
    }

    /// Waits until there were `times` events of this kind.
    pub async fn events(&self, what: &str, times: usize) {
        let log = &self.world.events;
        let seen = log.wait(PATIENCE, |_| log.count(what) >= times).await;
        assert!(seen.is_some(), "`{what}` was not seen {times} times:\n{}", self.timeline());
    }

    /// Waits for an event.
    pub async fn event_where(&self, name: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        match self.world.events.wait(PATIENCE, wanted).await {
            Some(event) => event,
            None => panic!("`{name}` did not happen:\n{}", self.timeline()),
        }
    }

    /// Everything that happened, for a failing test's message.
    pub fn timeline(&self) -> String {
        let events = self.world.events.all();
        let lines = events
            .iter()
            .map(|event| format!("{:9.3}s {:?} {event}\n", event.at.as_secs_f64(), event.source));
        lines.collect()
    }

    /// Queues a run of one job for our runner.
    pub fn job(&self, script: &str) -> RunId {
        self.run(&[job("train", script)])
    }

    /// Queues a run of these jobs.
    pub fn run(&self, jobs: &[JobSpec]) -> RunId {
        self.world.forge.start_run(Workflow {
            name: "ci".into(),
            jobs: jobs.to_vec(),
        })
    }

    /// Waits until the step of a job that is held by [`until`] runs: its runner has told all that it tells of it.
    pub async fn working(&self) {
        self.event_where("the job's step", |event| event.what == "job-output" && event.detail == WORKING)
            .await;
    }

    /// The cloud takes the first machine back, and leaves it this long, or the [`NOTICE`] that all of its machines have.
    pub fn take_back(&self, left: Duration) {
        let left = if self.world.cloud.kind().tells_when() { left } else { NOTICE };
        self.world.cloud.take_back(&self.first().id, left);
    }

    /// Runs a script as root of an instance that can be looked into.
    pub fn inside(&self, id: &str, script: &str) {
        let agent = self.world.fleet.agent_pid(id).expect("the agent runs").to_string();
        let mut command = std::process::Command::new("nsenter");
        command.args(["--all", "--root", "--wd", "--target", &agent, "sh", "-c", script]);
        assert!(command.status().expect("nsenter starts").success(), "{script}");
    }

    /// The first instance.
    pub fn first(&self) -> InstanceView {
        self.world.fleet.instances().remove(0)
    }

    /// The interrupted job of a run, which `gate` holds, is run again; a new machine does it, and nothing is left.
    pub async fn runs_again(self, run: RunId, gate: &Path) {
        self.event("run-rerun").await;
        self.all_gone().await;
        std::fs::write(gate, "").expect("the gate opens");
        self.launch(&[]).await.succeeded();
        assert_eq!(self.conclusion(run).await, "success");
        self.end().await;
    }

    /// Waits for a run's end and returns its conclusion.
    pub async fn conclusion(&self, run: RunId) -> String {
        match self.world.forge.wait_run(run, PATIENCE).await {
            Some(view) => view.conclusion.unwrap_or_default(),
            None => panic!("the run did not end:\n{}", self.timeline()),
        }
    }

    /// Waits until every instance is gone.
    pub async fn all_gone(&self) {
        let gone = |_: &Event| self.world.fleet.instances().iter().all(|instance| instance.state == State::Ended);
        let none = self.world.fleet.instances().is_empty() || self.world.events.wait(PATIENCE, gone).await.is_some();
        assert!(
            none,
            "an instance is left:\n{:#?}\n{}",
            self.world.fleet.instances(),
            self.timeline()
        );
    }

    /// Ends the scene: every instance goes by itself, and nothing is left.
    pub async fn end(self) {
        self.all_gone().await;
        let timeline = self.timeline();
        let leftovers = self.world.close().await;
        assert!(leftovers.is_empty(), "{leftovers:#?}\n{timeline}");
    }
}

/// A job for our runner.
pub fn job(key: &str, script: &str) -> JobSpec {
    JobSpec {
        key: key.into(),
        name: key.into(),
        needs: Vec::new(),
        labels: vec!["self-hosted".into(), LABEL.into()],
        script: script.into(),
        env: Vec::new(),
        timeout: None,
    }
}

/// A job for one of GitHub's own machines.
pub fn hosted(key: &str, script: &str) -> JobSpec {
    JobSpec {
        labels: vec!["ubuntu-latest".into()],
        ..job(key, script)
    }
}

/// What the step of [`until`] says first.
const WORKING: &str = "working";

/// A job that runs until the file at `gate` exists, or until it is interrupted.
pub fn until(gate: &std::path::Path) -> String {
    format!(
        "trap 'exit 1' INT; echo {WORKING}; while [ ! -e '{}' ]; do sleep 0.05; done",
        gate.display()
    )
}

/// Whether instances can be looked into, and their jobs are another user; else the test is skipped.
pub fn is_isolated(test: &str) -> bool {
    let isolated = Isolation::best() == Isolation::Overlay;
    if !isolated {
        skip(test, "needs root and overlays");
    }
    isolated
}

/// Says that a test cannot run here, and why.
pub fn skip(test: &str, reason: &str) {
    use std::io::Write as _;
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("CML_TEST_SKIPS") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        writeln!(file.expect("the list of skips opens"), "{test}: {reason}").expect("it is written");
    }
}

/// A start-up script, as the option takes it.
pub fn startup_script(text: &str) -> String {
    use base64::Engine as _;
    format!("--cloud-startup-script={}", base64::engine::general_purpose::STANDARD.encode(text))
}
