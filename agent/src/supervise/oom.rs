//! A machine that runs out of memory loses its agent last: whoever ends the machine must be alive to do so.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

/// See [proc_pid_oom_score_adj(5)](https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html).
const ADJUSTMENT: &str = "/proc/self/oom_score_adj";
/// Never taken.
const NEVER: &str = "-1000";
/// Taken as anything else.
const USUAL: &str = "0";

static PROTECTED: AtomicBool = AtomicBool::new(false);

/// From now on the kernel does not take this process, if we may say so.
pub fn protect() {
    match fs::write(ADJUSTMENT, NEVER) {
        Ok(()) => PROTECTED.store(true, Ordering::Relaxed),
        Err(error) => tracing::debug!("the agent is not protected from running out of memory: {error}"),
    }
}

/// Starts a program, which inherits what we are at that moment: it must not be protected.
pub fn start<T>(start: impl FnOnce() -> T) -> T {
    if !PROTECTED.load(Ordering::Relaxed) {
        return start();
    }
    let usual = fs::write(ADJUSTMENT, USUAL);
    let started = start();
    if let Err(error) = usual.and_then(|()| fs::write(ADJUSTMENT, NEVER)) {
        tracing::warn!("the protection from running out of memory is lost: {error}");
    }
    started
}
