//! Wakes the loop when a job hook has left a word, without ever looking by the clock.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A watched directory.
pub struct Watch(AsyncFd<Source>);

/// tokio asks for the raw descriptor, which nix does not give.
struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Watches a directory, which is made if it is not there yet.
    pub fn open(dir: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            std::fs::create_dir_all(dir)?;
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            inotify.add_watch(dir, AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE)?;
            Ok(Self(AsyncFd::with_interest(Source(inotify), Interest::READABLE)?))
        };
        open().with_context(|| format!("watching {}", dir.display()))
    }

    /// Waits until a file in it was written or renamed. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return std::future::pending().await;
            };
            let read = ready.get_inner().0.read_events();
            match read {
                Ok(events) if !events.is_empty() => return,
                // Nothing (more) to read: wait for the next change.
                _ => ready.clear_ready(),
            }
        }
    }
}
