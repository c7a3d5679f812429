//! The forge's program gets into its directory, or is there already.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::forge::{Forge, Platform};
use common::spec::{Executor, JobDocker, RunnerOptions, RunnerSpec};
use nix::fcntl::OFlag;

use super::environment;
use super::release::{self, Package, Present, Release};
use crate::archive::{self, Destination};
use crate::supervise::{self, CommandLine};
use crate::user::{self, User};

/// What we installed: two lines, the version and the `--runner-url`; either may be empty.
const MARKER: &str = ".cml-package";
/// How long the download may take when provisioning has no limit.
const DOWNLOAD: Duration = Duration::from_mins(30);
/// How long the program may take to say its version.
const VERSION: Duration = Duration::from_secs(30);
/// Whoever runs what is in a directory must reach it.
const SHARED: u32 = 0o755;
/// What is in a directory is its owner's alone, but the way through it is everybody's.
const THROUGH: u32 = 0o711;
/// For nobody but whoever runs what is in it.
const OWN: u32 = 0o700;
const PRIVATE: u32 = 0o600;
/// More than any file has that the runner or a hook leaves for us, in bytes.
const MAX_SMALL: u64 = 16 << 10;

/// The program, in its directory.
pub struct Program {
    /// The directory, which the job user owns.
    pub dir: PathBuf,
    /// Who runs it; none: who we are.
    pub user: Option<User>,
    /// The directory that whoever runs it must get through, and its mode then.
    way: (PathBuf, u32),
    mode: u32,
    joins_docker: bool,
    options: RunnerOptions,
    release: &'static Release,
}

impl Program {
    /// Where the spec wants it: in `--workdir`, else where it lies on an instance, else beside the state. Nothing is done yet.
    pub fn new(spec: &RunnerSpec, state_dir: &Path, user: Option<User>, release: &'static Release) -> Result<Self> {
        let on_cloud = spec.cloud.is_some();
        let (usual, way) = if on_cloud {
            (user::instance_path("/opt/cml/runner"), (user::instance_path("/opt/cml"), SHARED))
        } else {
            (state_dir.join("runner"), (std::path::absolute(state_dir)?, THROUGH))
        };
        Ok(Self {
            way,
            // A host of its owner's has other users, whom the jobs' files are nothing to.
            mode: if on_cloud || spec.options.workdir.is_some() { SHARED } else { OWN },
            // Whoever may start containers can become root: on a host of its own, its owner says so.
            joins_docker: spec.options.docker != JobDocker::Never && (on_cloud || spec.options.executor == Executor::Docker),
            // Of a relative one, everything below would be relative to itself.
            dir: std::path::absolute(spec.options.workdir.as_ref().unwrap_or(&usual))?,
            user,
            options: spec.options.clone(),
            release,
        })
    }

    /// A command of it, as the job user, in the environment that jobs get.
    pub fn command(&self, program: &str, args: &[&str]) -> CommandLine {
        CommandLine {
            program: self.dir.join(program),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            dir: self.dir.clone(),
            env: environment::build(std::env::vars_os(), self.user.as_ref()),
            user: self.user.clone(),
            shares_user: false,
        }
    }

    /// Writes a file into the directory, for whoever runs the program and nobody else; returns its path.
    pub fn write_private(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        write_private(&path, text, self.user.as_ref())?;
        Ok(path)
    }

    /// How long it may take to be fetched.
    pub fn download_budget(&self) -> Duration {
        self.options.provisioning_timeout.duration().unwrap_or(DOWNLOAD)
    }

    /// Makes its directory, for whoever runs it, who may use Docker where it is.
    pub async fn make_room(&self) -> Result<()> {
        if let Some(user) = self.user.as_ref().filter(|_| self.joins_docker) {
            let joining = user.clone();
            tokio::task::spawn_blocking(move || user::join_docker(&joining))
                .await
                .context("waiting for usermod")?;
        }
        self.let_in().with_context(|| format!("making {}", self.dir.display()))
    }

    /// Makes it ready to be configured: what is there will do, or it is downloaded and verified.
    pub async fn make_ready(&self, forge: &dyn Forge) -> Result<()> {
        self.make_room().await?;
        let present = self.present().await;
        match &present {
            Some(present) if self.release.fits(present, &self.options) => {
                let version = present.version.as_deref().unwrap_or("of the given address");
                tracing::info!("the runner {version} is in {} already", self.dir.display());
                Ok(())
            }
            _ => {
                self.download(forge, present.is_some()).await?;
                // What was unpacked brings a mode of its own.
                self.let_in().with_context(|| format!("closing {}", self.dir.display()))
            }
        }
    }

    /// Makes the directory, and the way to it, for the job user.
    fn let_in(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let Some(user) = &self.user else {
            return Ok(());
        };
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(self.mode))?;
        chown(&self.dir, Some(user.uid), Some(user.gid))?;
        let (above, mode) = &self.way;
        if self.dir.starts_with(above) {
            fs::set_permissions(above, fs::Permissions::from_mode(*mode))?;
        }
        Ok(())
    }

    /// The runner that is there, if any.
    async fn present(&self) -> Option<Present> {
        if !self.dir.join(self.release.program).is_file() {
            return None;
        }
        if let Ok(marker) = read_small(&self.dir.join(MARKER)) {
            let mut lines = marker.lines().map(|line| Some(line.to_owned()).filter(|line| !line.is_empty()));
            let (version, url) = (lines.next().flatten(), lines.next().flatten());
            // Where its address named none (`latest`), it says its version itself.
            let version = match version {
                None if url.is_none() => self.ask_version().await,
                version => version,
            };
            return Some(Present { version, url });
        }
        Some(Present {
            version: self.ask_version().await,
            url: None,
        })
    }

    /// The first version that it names.
    async fn ask_version(&self) -> Option<String> {
        let mut version = None;
        let command = self.command(self.release.program, &["--version"]);
        let ended = supervise::run(&command, VERSION, |line| {
            let last = line.split_whitespace().next_back().filter(|word| release::numbers(word).is_some());
            version = version.take().or_else(|| last.map(str::to_owned));
        });
        match ended.await {
            Ok(Some(status)) if status.success() => version,
            other => {
                tracing::warn!("the runner in {} does not say its version: {other:?}", self.dir.display());
                None
            }
        }
    }

    async fn download(&self, forge: &dyn Forge, replace: bool) -> Result<()> {
        let Package { source, version } = self.release.find(&self.options, forge, Platform::current()).await?;
        tracing::info!("downloading the runner {}", version.as_deref().unwrap_or_default());
        if source.sha256.is_none() {
            tracing::warn!("nobody tells the runner's checksum: it is not checked, unless --runner-sha256 gives it");
        }
        let budget = self.download_budget();
        let destination = Destination {
            dir: &self.dir,
            owner: self.user.as_ref(),
            replace,
        };
        let marker = self.dir.join(MARKER);
        forget(&marker)?;
        archive::install(&common::http::client()?, &source, destination, budget)
            .await
            .context("installing the runner")?;
        let url = self.options.runner_url.as_deref().unwrap_or_default();
        let text = format!("{}\n{url}\n", version.unwrap_or_default());
        // Never through a link: the directory is the job user's.
        let write = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&marker)?
                .write_all(text.as_bytes())
        };
        write().with_context(|| format!("writing {}", marker.display()))
    }
}

/// Writes a file for its owner, or for us, and nobody else.
pub fn write_private(path: &Path, text: &str, owner: Option<&User>) -> Result<()> {
    forget(path)?;
    let write = || -> io::Result<()> {
        // Never through a link: the directory may be the job user's.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path)?;
        file.write_all(text.as_bytes())?;
        owner.map_or(Ok(()), |user| fchown(&file, Some(user.uid), Some(user.gid)))
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Removes a file that need not be there; a link is removed itself.
pub fn forget(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| format!("removing {}", path.display())),
        _ => Ok(()),
    }
}

/// Reads a small file that a job could have written: never through a link, and nothing that could block or fill our memory.
pub fn read_small(path: &Path) -> io::Result<String> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    file.take(MAX_SMALL).read_to_string(&mut text)?;
    Ok(text)
}
