//! The signals that mean: take your leave; SIGHUP: once your job is done.

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// All of them.
pub struct Signals([(i32, Signal); 4]);

impl Signals {
    /// From now on they no longer end the process.
    pub fn listen() -> Result<Self> {
        let one = |number| -> Result<(i32, Signal)> {
            let listening = signal(SignalKind::from_raw(number)).context("listening for signals")?;
            Ok((number, listening))
        };
        Ok(Self([one(SIGTERM)?, one(SIGINT)?, one(SIGHUP)?, one(SIGQUIT)?]))
    }

    /// The next one's number. Cancel-safe.
    pub async fn next(&mut self) -> i32 {
        let [a, b, c, d] = &mut self.0;
        tokio::select! {
            _ = a.1.recv() => a.0,
            _ = b.1.recv() => b.0,
            _ = c.1.recv() => c.0,
            _ = d.1.recv() => d.0,
        }
    }
}
