//! The signals that end a launch, as one stream.

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Ctrl-C, what CI systems send when a job is cancelled, and a terminal that closes.
const KINDS: [fn() -> SignalKind; 3] = [SignalKind::interrupt, SignalKind::terminate, SignalKind::hangup];

/// The signals in the order in which they came; none is lost between two looks.
#[derive(Debug)]
pub struct Signals(mpsc::UnboundedReceiver<i32>);

impl Signals {
    /// From here on these signals no longer end the process.
    pub fn listen() -> Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for kind in KINDS.map(|kind| kind()) {
            let number = kind.as_raw_value();
            // `nohup` says so: the launch is to outlive its terminal.
            if kind == SignalKind::hangup() && is_ignored(number) {
                continue;
            }
            let mut stream = signal(kind).with_context(|| format!("listening to signal {number}"))?;
            let sender = sender.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(number).is_ok() {} });
        }
        Ok(Self(receiver))
    }

    /// The next one's number.
    pub async fn next(&mut self) -> i32 {
        match self.0.recv().await {
            Some(number) => number,
            None => std::future::pending().await,
        }
    }

    /// Signals that a test sends.
    #[cfg(test)]
    pub fn scripted() -> (mpsc::UnboundedSender<i32>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self(receiver))
    }
}

/// Something that leaves nothing behind when a signal ends it.
pub async fn stoppable<T>(signals: &mut Signals, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        number = signals.next() => Err(interrupted(number)),
        done = work => done,
    }
}

/// Why a launch ended that got a signal.
fn interrupted(number: i32) -> anyhow::Error {
    Failure::new(Class::Signal(number), format!("stopped by signal {number}")).into()
}

/// Whether whoever started us ignores a signal: its bit in [`SigIgn`] is set.
///
/// [`SigIgn`]: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(number - 1).is_ok_and(|bit| mask.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nix::sys::signal::{Signal, raise};

    use super::{Signals, is_ignored};

    #[tokio::test]
    async fn each_signal_is_seen_and_none_is_lost() {
        let mut signals = Signals::listen().unwrap();
        let sent = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        for signal in sent.into_iter().filter(|signal| !is_ignored(*signal as i32)) {
            raise(signal).unwrap();
            assert_eq!(signals.next().await, signal as i32);
        }
        assert!(!is_ignored(Signal::SIGSEGV as i32));
    }
}
