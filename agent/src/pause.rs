//! The pause after a life that failed, where a service manager starts the next one at once: a token that is refused, or a forge that is down, is not
//! asked every second for ever.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use sd_notify::NotifyState;

use crate::run::{Signals, Watchdog};

/// Set by the unit of an installed runner: whatever ends is started again.
const SERVICE: &str = "CML_SERVICE";
/// How many lives in a row have failed.
const FILE: &str = "failures";
/// After the first failure; twice as long after each…
const FIRST: Duration = Duration::from_secs(5);
/// … up to this.
const LONGEST: Duration = Duration::from_mins(10);

/// The lives of one runner that failed in a row, on disk beside its state.
pub struct Failures(PathBuf);

impl Failures {
    /// Of the runner with this state.
    pub fn of(state: &Path) -> Self {
        Self(state.join(FILE))
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// The runner is online, or ended as it should: all is well.
    pub fn clear(&self) {
        // There is none, mostly.
        let _ = std::fs::remove_file(&self.0);
    }

    /// One more life is over. After one that failed, waits for its time, or for a signal; returns the exit code.
    pub fn add(&self, code: u8) -> Result<u8> {
        if std::env::var_os(SERVICE).is_none() {
            return Ok(code);
        }
        if code == 0 {
            self.clear();
            return Ok(code);
        }
        let count = self.count().saturating_add(1);
        if let Err(error) = std::fs::write(&self.0, count.to_string()) {
            tracing::warn!("{} cannot be written: {error}", self.0.display());
        }
        let pause = pause(count);
        let words = format!("failed {count} times in a row: the next try is in {} s", pause.as_secs());
        tracing::warn!("{words}");
        if let Err(error) = sd_notify::notify(&[NotifyState::Status(&words)]) {
            tracing::debug!("systemd was not told: {error}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("starting the runtime")?.block_on(async {
            let (mut signals, mut watchdog) = (Signals::listen()?, Watchdog::from_environment());
            let mut over = std::pin::pin!(tokio::time::sleep(pause));
            loop {
                tokio::select! {
                    () = &mut over => return Ok(code),
                    // Told to stop, or to try again now.
                    _ = signals.next() => return Ok(0),
                    () = watchdog.due() => {}
                }
            }
        })
    }
}

fn pause(count: u32) -> Duration {
    let doublings = 2_u32.saturating_pow(count.saturating_sub(1));
    FIRST.saturating_mul(doublings).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause;

    #[test]
    fn each_pause_is_twice_the_last_up_to_ten_minutes() {
        let seconds = [1, 2, 3, 7, 8, 99].map(pause).map(|pause| pause.as_secs());
        assert_eq!(seconds, [5, 10, 20, 320, 600, 600]);
        assert_eq!(pause(u32::MAX), Duration::from_mins(10));
    }
}
