//! Wakes the loop when a job hook has left a word, without ever looking by the clock.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

/// At least one event with the longest name, in bytes. Source: inotify(7).
const EVENTS: usize = 4096;

/// A watched directory. tokio reads an inotify descriptor as it reads a pipe.
pub struct Watch(Receiver);

impl Watch {
    /// Watches a directory, which is made if it is not there yet.
    pub fn open(dir: &Path) -> Result<Self> {
        let open = || -> Result<Self> {
            std::fs::create_dir_all(dir)?;
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            inotify.add_watch(dir, AddWatchFlags::IN_MOVED_TO)?;
            Ok(Self(Receiver::from_owned_fd_unchecked(inotify.into())?))
        };
        open().with_context(|| format!("watching {}", dir.display()))
    }

    /// Waits until a file was renamed into it. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            if self.0.readable().await.is_err() {
                return std::future::pending().await;
            }
            // What happened is of no interest, only that it did.
            match self.0.try_read(&mut [0; EVENTS]) {
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!("the job hooks are not watched any more: {error}");
                    return std::future::pending().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use tokio::time::timeout;

    use super::Watch;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn each_word_wakes_once_and_an_unfinished_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = dir.path().join("hooks");
        let mut watch = Watch::open(&hooks).unwrap();
        for _ in 0..2 {
            std::fs::write(hooks.join(".job.7"), "x").unwrap();
            // Polled once, and not woken: nothing is there yet.
            assert!(timeout(Duration::ZERO, watch.changed()).await.is_err());
            std::fs::rename(hooks.join(".job.7"), hooks.join("job")).unwrap();
            timeout(PATIENCE, watch.changed()).await.unwrap();
        }
    }
}
