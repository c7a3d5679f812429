//! Instances as real processes: the user data is executed as it would be on the machine, apart from the user's own system.

mod booted;
mod disk;
mod init;
mod network;

pub use booted::{Machines, remove_groups};
pub(crate) use init::JAVA;
pub use network::{MAC, Net};

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, Uid};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::{self, Receiver};
use tokio::process::{Child, ChildStdin};

use crate::events::{Events, Source};
use network::Network;

/// How often the processes of a destroyed instance are looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How long the processes of a destroyed instance may take to vanish.
const GONE: Duration = Duration::from_secs(10);
/// How much is read from a console at once, in bytes.
const CHUNK: usize = 4096;
/// Where, in an instance's directory, all that its console showed is kept.
pub const CONSOLE: &str = "console.log";
/// The PATH of an instance, after the power buttons.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How instances are kept apart from this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Own processes, mounts, host name, and a copy-on-write view of this machine's files. Needs root.
    Overlay,
    /// The same as an ordinary user: what is not the instance's own is read-only, and jobs run as the same user as the agent.
    UserNamespace,
    /// A directory of its own, and our programs' promise to stay in it (`CML_ROOT`).
    PrivateRoot,
}

impl Isolation {
    /// The best that this machine allows; found out once.
    pub fn best() -> Self {
        static BEST: OnceLock<Isolation> = OnceLock::new();
        *BEST.get_or_init(|| {
            let root = Uid::effective().is_root();
            let candidates = [(root, Self::Overlay), (true, Self::UserNamespace)];
            let found = candidates
                .into_iter()
                .find(|(possible, isolation)| *possible && isolation.works().unwrap_or(false));
            found.map_or(Self::PrivateRoot, |(_, isolation)| isolation)
        })
    }

    fn works(self) -> Result<bool> {
        let world = tempfile::tempdir()?;
        fs::set_permissions(world.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let dir = world.path().join("probe");
        init::prepare(&dir, "", self)?;
        let mut command = init::probe(&dir, self)?;
        command.env_clear().env("PATH", PATH);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        Ok(status.success())
    }

    /// For people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Overlay => "instances have their own processes, mounts and host name, on a copy-on-write view of this machine",
            Self::UserNamespace => "instances have their own processes, mounts and host name, on a read-only view of this machine",
            Self::PrivateRoot => {
                "instances share this machine's processes and files (namespaces are not allowed here); theirs are in a private root"
            }
        }
    }
}

/// What an instance boots with.
pub struct Boot {
    /// `i-…`
    pub id: String,
    /// Its files, seen from outside; two directories up is what it sees at the same path.
    pub dir: PathBuf,
    /// How it is kept apart.
    pub isolation: Isolation,
    /// Its start-up data, unpacked.
    pub script: String,
    /// What its programs are told of where their cloud is.
    pub env: Vec<(&'static str, String)>,
    /// How often its agent asks the metadata service.
    pub metadata_interval: Duration,
    /// Whether it has a Docker: then the Bitbucket whose runner the image there is.
    pub docker: Option<String>,
    /// Its metadata service, if it has one.
    pub metadata: Option<SocketAddr>,
    /// Whether it boots a Linux of its own, and what it shares with others that do.
    pub machines: Option<Arc<Machines>>,
    /// Where its console goes.
    pub events: Events,
}

/// A running instance.
pub struct Machine {
    boot: Boot,
    init: Child,
    /// Its power: it ends when this is closed.
    _supply: Option<ChildStdin>,
    cord: Option<Child>,
    /// Its network, if it is not this machine's.
    network: Option<Network>,
    console: Receiver,
    power: Receiver,
    log: fs::File,
    line: Vec<u8>,
}

/// Base64, gzip or not, as `RunInstances` takes it.
pub fn user_data(encoded: &str) -> Result<String> {
    let bytes = STANDARD.decode(encoded).context("the user data is not base64")?;
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(bytes.as_slice())
            .read_to_string(&mut text)
            .context("unpacking the user data")?;
    } else {
        text = String::from_utf8(bytes).context("the user data is not text")?;
    }
    Ok(text)
}

impl Machine {
    /// Boots: like cloud-init, executes user data that begins with `#!`, once.
    pub fn boot(boot: Boot) -> Result<Self> {
        let dir = &boot.dir;
        let script = if boot.script.starts_with("#!") {
            boot.script.as_str()
        } else {
            "#!/bin/sh\n"
        };
        init::prepare(dir, script, boot.isolation)?;
        let programs = programs()?;
        if let Some(service) = &boot.docker {
            init::give_docker(dir, &programs, service)?;
        }
        // Read and write: there is always a reader, and never an end.
        let open = |name: &str| pipe::OpenOptions::new().read_write(true).open_receiver(dir.join(name));
        let (console, power) = (open("console")?, open("power")?);
        let log = fs::File::create(dir.join(CONSOLE)).context("making the console's log")?;
        let (mut init, network) = start(&boot, &programs, None)?;
        let cord = (boot.isolation == Isolation::PrivateRoot).then(|| cord(dir)).transpose()?;
        Ok(Self {
            boot,
            // Waiting for a child closes what is left in it.
            _supply: init.stdin.take(),
            init,
            cord,
            network,
            console,
            power,
            log,
            line: Vec::new(),
        })
    }

    /// Waits until it powers itself off; meanwhile its console is told.
    pub async fn powered_off(&mut self) {
        let (mut text, mut word) = (vec![0; CHUNK], [0]);
        loop {
            tokio::select! {
                read = self.console.read(&mut text) => match read {
                    Ok(length) => self.tell(&text[..length]),
                    Err(_) => return,
                },
                _ = self.power.read(&mut word) => return,
                status = self.init.wait() => {
                    let reboots = status.is_ok_and(|status| status.code() == Some(booted::REBOOT));
                    if !reboots || self.boot_again().is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn boot_again(&mut self) -> Result<()> {
        self.boot.events.push(Source::Instance, "rebooted", &self.boot.id, "");
        (self.init, self.network) = start(&self.boot, &programs()?, self.network.take())?;
        Ok(())
    }

    /// Takes the power away: no process of it is left.
    pub async fn destroy(&mut self) {
        if let Some(group) = self.init.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let deadline = tokio::time::Instant::now() + GONE;
        loop {
            let left = processes(&self.boot.dir);
            if left.is_empty() || tokio::time::Instant::now() > deadline {
                break;
            }
            for (pid, _) in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            tokio::time::sleep(LOOK).await;
        }
        let _ = self.init.wait().await;
        if let Some(mut cord) = self.cord.take() {
            drop(cord.stdin.take());
            let _ = cord.wait().await;
        }
        let mut text = vec![0; CHUNK];
        while let Ok(length) = self.console.try_read(&mut text) {
            self.tell(&text[..length]);
        }
        if !self.line.is_empty() {
            self.tell(b"\n");
        }
        self.network = None;
        booted::remove_groups(&self.boot.dir);
    }

    /// Keeps what came from the console, and publishes its whole lines.
    fn tell(&mut self, text: &[u8]) {
        // The log is for who reads the console later; the events are told in any case.
        let _ = self.log.write_all(text);
        self.line.extend_from_slice(text);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line);
            self.boot.events.push(Source::Instance, "console", &self.boot.id, text.trim_end());
        }
    }
}

/// Starts the first process, in the network that the machine had before, if it is booted again.
fn start(boot: &Boot, programs: &Path, before: Option<Network>) -> Result<(Child, Option<Network>)> {
    let dir = &boot.dir;
    let (mut command, network) = if let Some(machines) = &boot.machines {
        let (mut command, network) = machines.boot(boot, world(dir), before)?;
        command.env_clear().env("PATH", PATH);
        (command, Some(network))
    } else {
        let mut command = init::command(dir, world(dir), programs, boot.isolation)?;
        command.env_clear().envs(environment(boot));
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        // What goes wrong before the user data starts is on the console, too.
        command.stderr(fs::OpenOptions::new().write(true).open(dir.join("console"))?);
        (command, None)
    };
    command.process_group(0);
    let init = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    Ok((init.context("starting the instance")?, network))
}

/// The power cord of an instance without namespaces. Its own death must not be part of the instance's, and Ctrl-C is not its business.
fn cord(dir: &Path) -> Result<Child> {
    let mut command = init::cord(dir);
    command.env_clear().env("PATH", PATH).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    tokio::process::Command::from(command).spawn().context("starting the power cord")
}

/// All that an instance has of an environment.
fn environment(boot: &Boot) -> Vec<(&'static str, String)> {
    let shown = |name: &str| boot.dir.join(name).display().to_string();
    let mut environment = vec![
        ("PATH", format!("{}:{PATH}", shown("shims"))),
        ("HOME", "/root".into()),
        ("LANG", "C.UTF-8".into()),
        ("CML_CONSOLE", shown("console")),
        ("CML_METADATA_INTERVAL", boot.metadata_interval.as_millis().to_string()),
    ];
    environment.extend(boot.env.iter().cloned());
    if boot.docker.is_some() {
        environment.push(("DOCKER_HOST", format!("unix://{}", shown("docker.sock"))));
    }
    if boot.isolation == Isolation::PrivateRoot {
        environment.push(("CML_ROOT", shown("root")));
    }
    environment
}

/// The directory of the world that an instance's is in: it is seen at the same path inside, so that tests can leave files in it.
fn world(dir: &Path) -> &Path {
    dir.parent().and_then(Path::parent).unwrap_or(dir)
}

/// Where our programs are: the stand-in runner is one of them. It may be on another file system, which the view of `/` does not show.
fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding our own program")?;
    let dir = own.parent().context("our own program is in no directory")?;
    // A test runs in `deps/`.
    let above = dir.parent().filter(|_| dir.ends_with("deps"));
    Ok(above.unwrap_or(dir).to_owned())
}

/// The processes whose environment or control group names something in a directory: they belong to it, however far they went.
pub fn processes(dir: &Path) -> Vec<(i32, String)> {
    let (mark, group) = (dir.display().to_string(), booted::group(dir));
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let names = |file: &str, mark: &str| {
            let text = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).contains(mark)
        };
        if pid != own && (names("environ", &mark) || names("cgroup", &group)) {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned()));
        }
    }
    found
}

/// The process of a program of this name among a directory's.
pub fn find_process(dir: &Path, program: &str) -> Option<i32> {
    let runs = |command: &str| {
        command
            .split(' ')
            .next()
            .is_some_and(|first| first.rsplit('/').next() == Some(program))
    };
    processes(dir).into_iter().find(|(_, command)| runs(command)).map(|(pid, _)| pid)
}
