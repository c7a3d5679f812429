//! Whether those who start us let us, and what we start, be interrupted.

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Whether whoever started us ignores a signal (nohup does SIGHUP, the background of a script SIGINT): then so do our programs.
pub fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as i32 - 1) & 1 == 1
}

/// Lets the programs that we start be interrupted, as they are on a machine of their own: what is caught here, and only that, is not ignored
/// there. For us it stays as it was.
pub fn let_programs_hear() {
    if is_ignored(Signal::SIGINT) {
        let _ = signal(SignalKind::interrupt());
    }
}
