//! The instance's console: what a launcher can still read of a machine that nobody can reach.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use common::log::escape;
use common::phase::{Phase, State};

/// Where the console is, unless `CML_CONSOLE` names another file.
const DEVICE: &str = "/dev/console";

/// The console of an instance; on a user's own host, nothing. Clones share it. Writing never fails: what it is for matters more.
#[derive(Clone)]
pub struct Console(Option<Arc<Mutex<File>>>, Instant);

impl Console {
    /// Opens the console of an instance.
    pub fn open(on_cloud: bool) -> Self {
        let path = std::env::var_os("CML_CONSOLE").unwrap_or_else(|| DEVICE.into());
        let open = || {
            OpenOptions::new()
                .append(true)
                .custom_flags(nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK)
                .open(&path)
        };
        let file = on_cloud.then(open).and_then(|opened| {
            let told = |error| tracing::debug!("the console cannot be opened: {error}");
            opened.map_err(told).ok()
        });
        Self(file.map(|file| Arc::new(Mutex::new(file))), Instant::now())
    }

    /// Writes one line of a program's output.
    pub fn text(&self, line: &str) {
        self.write(&escape(line));
    }

    /// Says where a phase stands.
    pub fn phase(&self, name: &str, state: State, detail: &str) {
        let phase = Phase {
            name: name.into(),
            state,
            after: self.1.elapsed(),
            detail: escape(detail),
        };
        self.write(&phase.to_string());
    }

    fn write(&self, line: &str) {
        if let Some(file) = &self.0 {
            // A serial line that nobody reads blocks: then the line is lost, not the machine.
            let _ = file
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_all(format!("{line}\n").as_bytes());
        }
    }
}
