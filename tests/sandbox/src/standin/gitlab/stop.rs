//! Signals: a request to quit waits for builds, a request to exit aborts them, a second one ends the program. Source:
//! `commands/single.go`.

use std::time::Duration;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::log::{self, Level};

/// How long the end of everything may take once it is asked for. Source: `common/consts.go`.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// The variable that makes it shorter, in milliseconds.
const SHORTER: &str = "STANDIN_SHUTDOWN_MS";

/// What was asked for so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    No,
    /// No more builds.
    Quit,
    /// At once; by this signal.
    Exit(&'static str),
}

/// Tells the requests; clones hear the same.
#[derive(Clone)]
pub struct Stops(watch::Receiver<Stop>);

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
}

impl Signals {
    /// The next of them, in Go's words.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => "terminated",
            _ = self.quit.recv() => "quit",
        }
    }
}

impl Stops {
    /// From now on signals do not kill us.
    pub fn listen() -> Result<Self> {
        let mut signals = Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
        };
        let (tell, told) = watch::channel(Stop::No);
        tokio::spawn(async move {
            let mut by = signals.next().await;
            while by == "quit" {
                let _ = tell.send(Stop::Quit);
                log::entry("Requested quit, waiting for builds to finish").write(Level::Warning);
                by = signals.next().await;
            }
            let _ = tell.send(Stop::Exit(by));
            log::entry(format!("Requested exit: {by}")).write(Level::Warning);
            let shorter = std::env::var(SHORTER).ok().and_then(|text| text.parse().ok());
            let patience = shorter.map_or(SHUTDOWN, Duration::from_millis);
            tokio::select! {
                again = signals.next() => log::fatal(&format!("forced exit: {again}")),
                () = tokio::time::sleep(patience) => log::fatal("shutdown timed out"),
            }
            std::process::exit(1);
        });
        Ok(Self(told))
    }

    /// Whether no more builds are to be taken.
    pub fn is_finished(&self) -> bool {
        *self.0.borrow() != Stop::No
    }

    /// Waits for the request to exit: the signal. Cancel-safe.
    pub async fn exit(&mut self) -> &'static str {
        loop {
            if let Stop::Exit(by) = *self.0.borrow_and_update() {
                return by;
            }
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
