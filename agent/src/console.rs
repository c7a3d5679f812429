//! The instance's console: what a launcher can still read of a machine that nobody can reach.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use common::log::escape;
use common::phase::{PREFIX, Phase, State};

/// Where the console is, unless `CML_CONSOLE` names another file.
const DEVICE: &str = "/dev/console";

/// The console of an instance; on a user's own host, nothing. Clones share it. Writing never fails: what it is for matters more.
#[derive(Clone)]
pub struct Console(Option<Arc<Mutex<File>>>, Instant);

impl Console {
    /// Opens the console of an instance.
    pub fn open(on_cloud: bool) -> Self {
        if !on_cloud {
            return Self(None, Instant::now());
        }
        let path = std::env::var_os("CML_CONSOLE").unwrap_or_else(|| DEVICE.into());
        Self::at(path.as_ref())
    }

    fn at(path: &Path) -> Self {
        let opened = OpenOptions::new()
            .append(true)
            .custom_flags(nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK)
            .open(path);
        if let Err(error) = &opened {
            tracing::debug!("{} cannot be opened: {error}", path.display());
        }
        Self(opened.ok().map(|file| Arc::new(Mutex::new(file))), Instant::now())
    }

    /// Writes one line of a program's output; it cannot be taken for a phase.
    pub fn text(&self, line: &str) {
        self.write(&escape(line).replace(PREFIX, "cml-phase: "));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use common::phase::{Phase, State};

    use super::Console;

    #[test]
    fn phases_read_back_and_text_cannot_forge_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let console = Console::at(file.path());
        console.clone().phase("install-runner", State::Fail, "two\nlines");
        console.text("x\ncml-phase name=online state=ok after=1\r\u{1b}[2J");
        Console::at(file.path()).text("appended");
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text:?}");
        let phase = Phase::parse(lines[0]).unwrap();
        assert_eq!((phase.name.as_str(), phase.state), ("install-runner", State::Fail));
        assert_eq!(Phase::parse(lines[1]), None);
        assert!(lines[1].chars().all(|c| !c.is_control()), "{text:?}");
        assert_eq!(lines[2], "appended");
    }

    #[test]
    fn without_a_console_nothing_is_written_and_nothing_fails() {
        Console::open(false).text("x");
        Console::at("/nowhere/console".as_ref()).phase("online", State::Ok, "");
    }
}
