//! `make bench`: each figure beside its goal, or beside the tool that it is measured against in the same run.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use e2e::PATIENCE;
use e2e::bench::{Usage, resident};
use e2e::machine::{self, Timings};
use sandbox::ci::{JobSpec, Workflow};
use sandbox::cloud::Kind;
use sandbox::faults::{Effect, Fault, Gate};
use sandbox::fleet::State;
use sandbox::world::{Image, Options, World};

/// How long the idle agent is watched; the figures are scaled to a minute.
const WATCHED: Duration = Duration::from_secs(20);
/// How often an idle agent looks for a notice on EC2; with a job it looks more often.
const AS_IN_PRODUCTION: Duration = Duration::from_secs(7);
/// How many notices are given, each at another moment between two looks.
const NOTICES: u32 = 9;
/// Within how many milliseconds a runner is to be told of a notice: EC2's is looked for, Google's is waited for, and Azure leaves 30 s only.
const GOALS: [(Kind, f64); 3] = [(Kind::Aws, 2000.0), (Kind::Azure, 1500.0), (Kind::Gcp, 200.0)];
/// What a notice leaves; the machine is gone long before.
const LEFT: Duration = Duration::from_mins(2);
/// How large the runner's archive is that is unpacked: GitHub's own is about this large.
const ARCHIVE: usize = 200 << 20;
/// How often a short program is run; the median counts.
const RUNS: usize = 21;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let programs: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [launcher, agent] = programs.as_slice() else {
        bail!("usage: bench LAUNCHER AGENT");
    };
    println!("{:<58} {:>12} {:>12} {:>7}", "figure", "measured", "against", "ratio");
    sizes(launcher, agent)?;
    help(launcher)?;
    let options = || Options {
        launcher: Some(launcher.clone()),
        agent: Some(agent.clone()),
        ..Options::default()
    };
    start(World::start(options()).await?).await?;
    ready(World::start(options()).await?).await?;
    life(World::start(options()).await?).await?;
    for (cloud, goal) in GOALS {
        let world = World::start(Options {
            cloud,
            metadata_interval: Some(AS_IN_PRODUCTION),
            ..options()
        });
        notice(world.await?, goal).await?;
    }
    archive(World::start(options()).await?).await?;
    let Some(plain) = machine::image() else {
        println!("SKIP machines that boot: they need root, mmdebstrap, systemd-container and dnsmasq-base");
        return Ok(());
    };
    // From here on this is in no network.
    let dir = tempfile::tempdir()?;
    let baked = machine::baked(&plain, dir.path(), agent)?;
    let (plain, baked) = (boot(options(), plain).await?, boot(options(), baked).await?);
    for (until, plain, baked) in [
        ("start-up data runs", plain.user_data, baked.user_data),
        ("agent is there", plain.agent, baked.agent),
        ("runner is installed", plain.installed, baked.installed),
        ("runner is online", plain.online, baked.online),
    ] {
        line(
            &format!("baked machine, power-on until {until} (plain one)"),
            milli(baked),
            milli(plain),
            "ms",
        );
    }
    Ok(())
}

/// How long a machine takes that boots this image.
async fn boot(options: Options, image: Image) -> Result<Timings> {
    let world = World::start(Options {
        image: Some(image),
        ..options
    })
    .await?;
    launch(&world, &["--idle-timeout=1s"]).await?;
    let timings = Timings::of(&world.events)?;
    wait_gone(&world).await?;
    empty(world).await?;
    Ok(timings)
}

/// Prints one line: what was measured, and what it is measured against.
fn line(figure: &str, measured: f64, against: f64, unit: &str) {
    println!(
        "{figure:<58} {measured:>9.1} {unit:<2} {against:>9.1} {unit:<2} {:>7.2}",
        measured / against
    );
}

fn sizes(launcher: &Path, agent: &Path) -> Result<()> {
    for (name, path, goal) in [
        ("launcher, stripped (goal)", launcher, 15.0),
        ("agent, stripped (goal)", agent, 5.0),
    ] {
        let size = std::fs::metadata(path)
            .with_context(|| format!("looking at {}", path.display()))?
            .len();
        line(name, mega(size), goal, "MB");
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn help(launcher: &Path) -> Result<()> {
    let help = median(|| run(launcher, &["runner", "--help"]))?;
    let nothing = median(|| run(Path::new("/bin/true"), &[]))?;
    line("launcher --help (goal)", milli(help), 10.0, "ms");
    line("launcher --help (against /bin/true)", milli(help), milli(nothing), "ms");
    Ok(())
}

fn run(program: &Path, args: &[&str]) -> Result<Duration> {
    let began = Instant::now();
    let status = Command::new(program).args(args).stdout(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "{} failed", program.display());
    Ok(began.elapsed())
}

fn median(mut measure: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut times = (0..RUNS).map(|_| measure()).collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn milli(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The launcher up to its first request to the cloud, and its memory while it makes the instance.
async fn start(world: World) -> Result<()> {
    let gate = Gate::default();
    world.cloud.faults().add(Fault {
        request: "RunInstances".into(),
        skip: 0,
        times: 1,
        effect: Effect::Hold(gate.clone()),
    });
    let mut child = world
        .launcher(&["runner", "--cloud=aws", "--labels=gpu", "--idle-timeout=1s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    gate.reached().await;
    let pid = child.id().context("the launcher ended")?;
    line(
        "launcher: own time to RunInstances (goal)",
        milli(Usage::of(pid)?.cpu()),
        50.0,
        "ms",
    );
    line("launcher: resident at RunInstances (goal)", mega(resident(pid)?), 15.0, "MB");
    gate.open();
    anyhow::ensure!(child.wait().await?.success(), "the launch failed");
    empty(world).await
}

/// The agent's own time from its start to a runner that listens, with a runner that is installed already: the second life of one on this host.
async fn ready(world: World) -> Result<()> {
    let args = ["runner", "--labels=gpu", "--idle-timeout=never", "--name=bench"];
    for life in 1..=2 {
        let mut child = world.launcher(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let pid = child.id().context("the runner ended")?;
        let online = world.events.wait(PATIENCE, |_| world.events.count("runner-online") >= life).await;
        online.context("the runner is not online")?;
        if life == 2 {
            line(
                "agent: own time from start to a listening runner (goal)",
                milli(Usage::of(pid)?.cpu()),
                20.0,
                "ms",
            );
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        child.wait().await?;
    }
    let leftovers = world.close().await;
    anyhow::ensure!(leftovers.is_empty(), "left: {leftovers:?}");
    Ok(())
}

/// The agent's memory, wake-ups and time while idle; its requests in all its life.
async fn life(world: World) -> Result<()> {
    launch(&world, &["--idle-timeout=never"]).await?;
    let instance = world.fleet.instances().remove(0);
    let pid = world.fleet.agent_pid(&instance.id).context("no agent runs")?.unsigned_abs();
    let (before, asked) = (Usage::of(pid)?, requests(&world));
    tokio::time::sleep(WATCHED).await;
    let minute = Duration::from_mins(1).div_duration_f64(WATCHED);
    let (idle, woken) = Usage::of(pid)?.since(&before);
    line("agent idle: resident (goal)", mega(resident(pid)?), 8.0, "MB");
    line("agent idle: processor time a minute (goal)", milli(idle) * minute, 5.0, "ms");
    #[allow(clippy::cast_precision_loss)]
    line("agent idle: wake-ups a minute (goal)", woken as f64 * minute, 20.0, "");
    let asked = requests(&world) - asked;
    println!("{:<58} {asked:>9}    {:>9}", "agent idle: forge requests (goal)", 0);
    world.fleet.signal_agent(&instance.id)?;
    wait_gone(&world).await?;
    println!(
        "{:<58} {:>9}    {:>9}",
        "agent: forge requests in its life (goal)",
        requests(&world),
        3
    );
    empty(world).await
}

/// From the cloud's notice to the runner that is told to stop, while a job runs: what looking costs, and the agent.
async fn notice(world: World, goal: f64) -> Result<()> {
    let mut slowest = Duration::ZERO;
    for number in 1..=NOTICES {
        let script = "trap 'exit 1' INT; echo working; while :; do sleep 0.05; done".to_owned();
        world.forge.start_run(Workflow {
            name: "ci".into(),
            jobs: vec![JobSpec {
                key: "train".into(),
                name: "train".into(),
                needs: Vec::new(),
                labels: vec!["self-hosted".into(), "gpu".into()],
                script,
                env: Vec::new(),
                timeout: None,
            }],
        });
        launch(&world, &["--cloud-spot", "--no-retry"]).await?;
        let works = world
            .events
            .wait(PATIENCE, |_| world.events.count("job-output") >= number as usize)
            .await;
        works.context("the job does not run")?;
        tokio::time::sleep(AS_IN_PRODUCTION / 4 * number / NOTICES).await;
        let instance = world.fleet.instances().pop().context("no instance")?;
        world.cloud.take_back(&instance.id, LEFT);
        wait_gone(&world).await?;
        let events = world.events.all();
        let last = |text: &str| {
            events
                .iter()
                .rev()
                .find(|event| event.what == text || event.detail.contains(text))
                .map(|event| event.at)
        };
        let (given, told) = (last("spot-notice"), last("Busy → Stopping"));
        let took = told.context("the runner was not told")?.saturating_sub(given.context("no notice")?);
        slowest = slowest.max(took);
    }
    line(
        &format!("{}: notice to runner told to stop, slowest of {NOTICES}", world.cloud.kind().name()),
        milli(slowest),
        goal,
        "ms",
    );
    empty(world).await
}

fn requests(world: &World) -> usize {
    world.forge.requests().iter().filter(|request| request.from_agent()).count()
}

async fn launch(world: &World, more: &[&str]) -> Result<()> {
    let cloud = format!("--cloud={}", world.cloud.kind().name());
    let mut args = vec!["runner", &cloud, "--labels=gpu"];
    args.extend(world.cloud.kind().options());
    args.extend(more);
    let output = world.launcher(&args).output().await?;
    anyhow::ensure!(
        output.status.success(),
        "the launch failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The agent's download → verified → unpacked against `curl | tar xz` of the same archive from the same server.
async fn archive(world: World) -> Result<()> {
    let (url, sha256) = world.github().serve_archive(padded(&world.github().archive())?);
    let dir = tempfile::tempdir()?;
    let began = Instant::now();
    let script = "curl -sf \"$1\" | tar xz -C \"$2\"";
    let piped = tokio::process::Command::new("sh")
        .args(["-c", script, "sh", &url])
        .arg(dir.path())
        .status()
        .await?;
    anyhow::ensure!(piped.success(), "curl | tar failed");
    let piped = began.elapsed();
    launch(&world, &["--idle-timeout=1s", "--runner-url", &url, "--runner-sha256", &sha256]).await?;
    let events = world.events.all();
    let at = |text: &str| events.iter().find(|event| event.detail.contains(text)).map(|event| event.at);
    let (from, to) = (at("name=install-runner state=begin"), at("name=install-runner state=ok"));
    let ours = to
        .context("no end of the installation")?
        .saturating_sub(from.context("no begin of the installation")?);
    line(
        "archive of 200 MB: verified and unpacked (curl | tar xz)",
        milli(ours),
        milli(piped),
        "ms",
    );
    wait_gone(&world).await?;
    empty(world).await
}

/// The runner's archive with a large file of noise added, as compressible as programs are.
fn padded(archive: &[u8]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let (small, files) = (dir.path().join("small.tgz"), dir.path().join("files"));
    std::fs::create_dir(&files)?;
    std::fs::write(&small, archive)?;
    let mut noise = std::io::BufWriter::new(std::fs::File::create(files.join("externals.bin"))?);
    let mut state = 1_u64;
    for _ in 0..ARCHIVE / 8 {
        // xorshift: half of each word is noise, half is zero.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.write_all(&(state & 0xffff_ffff).to_le_bytes())?;
    }
    noise.flush()?;
    let script = "tar xzf \"$1\" -C \"$2\" && tar cf - -C \"$2\" . | gzip -1";
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(&small).arg(&files).output()?;
    anyhow::ensure!(output.status.success(), "packing failed");
    Ok(output.stdout)
}

async fn wait_gone(world: &World) -> Result<()> {
    let gone = |_: &_| world.fleet.instances().iter().all(|instance| instance.state == State::Ended);
    world.events.wait(PATIENCE, gone).await.context("the instance did not go")?;
    Ok(())
}

async fn empty(world: World) -> Result<()> {
    wait_gone(&world).await?;
    let leftovers = world.close().await;
    anyhow::ensure!(leftovers.is_empty(), "left: {leftovers:?}");
    Ok(())
}
