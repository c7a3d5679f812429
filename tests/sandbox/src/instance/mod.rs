//! Instances as real processes: the user data is executed as it would be on the machine, apart from the user's own system.

mod init;

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::events::{Events, Source};

/// How often an instance's console and power button are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long the processes of a destroyed instance may take to vanish.
const GONE: Duration = Duration::from_secs(10);

/// How instances are kept apart from this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Own process ids, mounts, host name, and a copy-on-write view of this machine's files.
    Namespaces,
    /// A directory of its own, and our programs' promise to stay in it (`CML_ROOT`).
    PrivateRoot,
}

impl Isolation {
    /// The best that this machine allows.
    pub fn best() -> Self {
        let Ok(dir) = tempfile::tempdir() else {
            return Self::PrivateRoot;
        };
        let mut probe = init::namespaces(dir.path(), dir.path(), "true");
        let worked = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if worked.is_ok_and(|status| status.success()) {
            Self::Namespaces
        } else {
            Self::PrivateRoot
        }
    }

    /// For people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Namespaces => "instances have their own processes, mounts and files (namespaces on a copy-on-write root)",
            Self::PrivateRoot => "instances share this machine's processes and files; theirs are in a private root",
        }
    }
}

/// What an instance boots with.
pub struct Boot {
    /// `i-…`
    pub id: String,
    /// Its files, seen from outside.
    pub dir: PathBuf,
    /// How it is kept apart.
    pub isolation: Isolation,
    /// Its start-up data, unpacked.
    pub user_data: String,
    /// Its metadata service.
    pub metadata: String,
    /// Where its console goes.
    pub events: Events,
}

/// A running instance.
pub struct Machine {
    boot: Boot,
    init: tokio::process::Child,
    console: u64,
    line: String,
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
    /// Boots: like cloud-init, executes what begins with `#!`.
    pub fn boot(boot: Boot) -> Result<Self> {
        let dir = &boot.dir;
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        for name in ["console", "power"] {
            fs::write(dir.join(name), "")?;
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o666))?;
        }
        init::write_shims(dir)?;
        let script = dir.join("user-data");
        fs::write(&script, &boot.user_data)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
        let mut command = match boot.isolation {
            Isolation::Namespaces => init::namespaces(dir, world(dir), &init::boot(dir)),
            Isolation::PrivateRoot => init::private_root(dir)?,
        };
        command
            .env_clear()
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.env(
            "PATH",
            format!(
                "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                dir.join("shims").display()
            ),
        );
        command.env("HOME", "/root").env("LANG", "C.UTF-8");
        command.env("CML_CONSOLE", dir.join("console"));
        command.env("CML_METADATA_INTERVAL", "200");
        command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &boot.metadata);
        if boot.isolation == Isolation::PrivateRoot {
            command.env("CML_ROOT", dir.join("root"));
        }
        let init = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .context("starting the instance")?;
        Ok(Self {
            boot,
            init,
            console: 0,
            line: String::new(),
        })
    }

    /// Waits until it powers itself off; meanwhile its console is told.
    pub async fn powered_off(&mut self) {
        loop {
            self.tell_console();
            let pressed = fs::metadata(self.boot.dir.join("power")).is_ok_and(|file| file.len() > 0);
            let ended = matches!(self.init.try_wait(), Ok(Some(_)) | Err(_));
            if pressed || ended {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
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
        self.tell_console();
    }

    /// Publishes the whole lines that are new on the console.
    fn tell_console(&mut self) {
        let Ok(mut file) = fs::File::open(self.boot.dir.join("console")) else {
            return;
        };
        let mut bytes = Vec::new();
        if file.seek(SeekFrom::Start(self.console)).is_err() || file.read_to_end(&mut bytes).is_err() {
            return;
        }
        self.console += bytes.len() as u64;
        self.line.push_str(&String::from_utf8_lossy(&bytes));
        while let Some(end) = self.line.find('\n') {
            let line: String = self.line.drain(..=end).collect();
            self.boot.events.push(Source::Instance, "console", &self.boot.id, line.trim_end());
        }
    }
}

/// The directory of the world that an instance's is in: it is seen at the same path inside, so that tests can leave files in it.
fn world(dir: &Path) -> &Path {
    dir.parent().and_then(Path::parent).unwrap_or(dir)
}

/// The processes whose environment names a directory: they belong to it, however far they went.
pub fn processes(dir: &Path) -> Vec<(i32, String)> {
    let mark = dir.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        let names = |text: &[u8]| String::from_utf8_lossy(text).contains(&mark);
        if pid != i32::try_from(std::process::id()).unwrap_or_default() && names(&environ) {
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
