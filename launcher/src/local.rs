//! Without `--cloud`: this host is the machine. Writes the spec and becomes the agent, so that signals and exit code need no forwarding.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::lock;
use common::spec::Credential;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::infer;
use crate::network::Entered;
use crate::request::Request;

/// The agent's program.
const AGENT: &str = "cml-agent";

/// Where an agent keeps what the next one must know if it is killed.
const REMAINS: &str = "state.json";

/// The spec holds the token: for its owner only.
const PRIVATE_DIR: u32 = 0o700;

/// Where the agent and the runner's state are looked for.
#[derive(Debug)]
pub struct Host {
    /// The user's home.
    pub home: Option<PathBuf>,
    /// This program.
    pub exe: Option<PathBuf>,
    /// `PATH`
    pub path: Option<OsString>,
}

impl Host {
    /// This host.
    pub fn here() -> Self {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        Self {
            home: home.map(PathBuf::from),
            // A link such as `cml-runner` leads to the folder where the agent lies.
            exe: std::env::current_exe().ok().and_then(|exe| exe.canonicalize().ok()),
            path: std::env::var_os("PATH"),
        }
    }

    /// Beside this program, else on the search path.
    fn agent(&self) -> Result<PathBuf> {
        let beside = self.exe.as_deref().and_then(Path::parent).map(Path::to_owned);
        let folders = beside.into_iter().chain(self.path.iter().flat_map(std::env::split_paths));
        let mut agents = folders.map(|folder| folder.join(AGENT));
        agents.find(|agent| is_program(agent)).ok_or_else(|| {
            Failure::new(Class::Usage, format!("`{AGENT}` is not installed on this host"))
                .hint(format!(
                    "put `{AGENT}` beside `cml` or on the PATH, or give `--cloud` to launch an instance"
                ))
                .into()
        })
    }

    /// Whether an agent of this name was killed here: it runs no more, but had no time to remove its state.
    pub fn was_killed(&self, request: &Request) -> bool {
        let Ok(state) = self.state(request) else { return false };
        state.join(REMAINS).exists() && lock::holder(&state).is_none()
    }

    /// `--state-dir`, else `~/.cml/NAME`
    fn state(&self, request: &Request) -> Result<PathBuf> {
        if let Some(given) = &request.options.decision.state_dir {
            return std::path::absolute(given).context("finding the working directory");
        }
        let home = self.home.as_ref().ok_or_else(|| {
            Failure::new(Class::Usage, "the environment variable HOME is not set")
                .hint("the runner's state is kept in ~/.cml, unless `--state-dir` names another directory")
        })?;
        Ok(home.join(".cml").join(&request.name))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// What an agent here is.
pub const WHAT: &str = "a runner on this host";

/// Becomes the agent; returns only when it cannot.
pub fn run(request: Request, host: &Host, network: Entered) -> Result<()> {
    let agent = host.agent()?;
    let state = host.state(&request)?;
    let request = on_this_host(request)?;
    request.access.token(WHAT)?;
    make_private(&state).with_context(|| format!("creating {}", state.display()))?;
    let lock = take(&state, &request.name)?;
    let spec = state.join("spec.json");
    write_spec(&spec, &request).with_context(|| format!("writing {}", spec.display()))?;
    keep_across_exec(&lock)?;
    let mut command = Command::new(&agent);
    command.args(["run", "--spec"]).arg(&spec);
    for variable in infer::token_variables() {
        command.env_remove(variable);
    }
    network.leave(&mut command);
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", agent.display()))
}

/// What [`run`] would do, as text: secrets are masked.
pub fn plan(request: Request, host: &Host) -> Result<String> {
    let spec = host.state(&request)?.join("spec.json");
    let request = on_this_host(request)?.masked();
    let masked = request.spec(Credential::Token(request.access.token(WHAT)?.clone())).to_json()?;
    Ok(format!(
        "write {} (mode 0600):\n{masked}\nexec {} run --spec {}\n",
        spec.display(),
        host.agent()?.display(),
        spec.display()
    ))
}

/// A script made for a fresh instance is not run on the user's own host, as in the old tool; and the agent may have another directory.
fn on_this_host(mut request: Request) -> Result<Request> {
    request.options.runner.cloud_startup_script = None;
    let options = &mut request.options.runner;
    for path in [&mut options.workdir, &mut options.ca_certificates].into_iter().flatten() {
        *path = std::path::absolute(&*path).context("finding the working directory")?;
    }
    Ok(request)
}

fn make_private(state: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(state)?;
    // It may have been there, with wider permissions.
    std::fs::set_permissions(state, Permissions::from_mode(PRIVATE_DIR))?;
    Ok(())
}

/// Whole or not at all: a crash never leaves half a spec.
fn write_spec(path: &Path, request: &Request) -> Result<()> {
    let folder = path.parent().context("it has no folder")?;
    // Such a file is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let json = request.spec(Credential::Token(request.access.token(WHAT)?.clone())).to_json()?;
    file.write_all(json.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Holds it as long as the agent lives that this process becomes.
fn take(state: &Path, name: &str) -> Result<File> {
    let taken = lock::take(state).with_context(|| format!("locking {}", state.join(lock::NAME).display()))?;
    taken.ok_or_else(|| {
        let process = lock::holder(state).map(|pid| format!(" (process {pid})")).unwrap_or_default();
        Failure::new(Class::NameInUse, format!("the runner `{name}` is running on this host{process}"))
            .hint("give another `--name`, or stop that one")
            .into()
    })
}

fn keep_across_exec(lock: &File) -> Result<()> {
    fcntl(lock, FcntlArg::F_SETFD(FdFlag::empty())).context("keeping the lock for the agent")?;
    Ok(())
}
