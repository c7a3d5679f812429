//! Whether jobs run in containers, where that is for the runner to say.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Result;
use common::error::{Class, Failure};
use common::spec::Executor;

use crate::supervise;

/// Where Docker listens unless `DOCKER_HOST` says otherwise.
pub const SOCKET: &str = "/var/run/docker.sock";
/// Its program, on the search path.
pub const PROGRAM: &str = "docker";
/// There while NVIDIA's driver is loaded.
const GPU: &str = "/dev/nvidiactl";
/// What lets containers use it.
const TOOLKIT: &str = "nvidia-container-runtime";

/// What jobs run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The machine itself.
    Shell,
    /// Containers.
    Containers {
        /// Whether they can use the machine's GPUs.
        gpus: bool,
    },
}

/// The Docker of this machine.
#[derive(Debug, Clone)]
pub struct Docker {
    /// `DOCKER_HOST`, or nothing.
    host: String,
    /// Whether only one of this machine will do, with its program.
    here: bool,
}

impl Docker {
    /// The one that the agent and its jobs are told of.
    pub fn of_environment() -> Self {
        Self::at(&std::env::var("DOCKER_HOST").unwrap_or_default())
    }

    /// The one at an address, as `DOCKER_HOST` has it.
    pub fn at(host: &str) -> Self {
        Self {
            host: host.into(),
            here: false,
        }
    }

    /// For a runner that is a container itself, with files and the socket of this machine.
    #[must_use]
    pub fn here(self) -> Self {
        Self { here: true, ..self }
    }

    /// Where jobs run. To be asked when the start-up script, which may install Docker, has run.
    pub fn place(&self, executor: Executor) -> Result<Place> {
        match executor {
            Executor::Auto | Executor::Docker if self.answers() => Ok(Place::Containers { gpus: has_gpu() }),
            Executor::Auto | Executor::Shell => Ok(Place::Shell),
            Executor::Docker => Err(Failure::new(Class::NotOnline, "no Docker answers on this machine")
                .hint("install it in the image or in --cloud-startup-script, or run jobs in a shell with --executor=shell")
                .into()),
        }
    }

    /// Where it listens on this machine; nothing for one elsewhere (`tcp://…`).
    pub fn socket(&self) -> Option<PathBuf> {
        match self.host.strip_prefix("unix://") {
            Some(path) => Some(path.into()),
            None => self.host.is_empty().then(|| SOCKET.into()),
        }
    }

    /// One elsewhere is taken at its word, where it will do.
    fn answers(&self) -> bool {
        let answers = self.socket().map_or(!self.here, |path| UnixStream::connect(path).is_ok());
        answers && (!self.here || supervise::find_program(PROGRAM).is_some())
    }
}

/// Whether containers can use a GPU of this machine.
fn has_gpu() -> bool {
    Path::new(GPU).exists() && supervise::find_program(TOOLKIT).is_some()
}
