//! Faults on demand, the same for every server of the world.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

/// The faults of one server; clones share them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

/// What goes wrong, for which requests.
#[derive(Clone)]
pub struct Fault {
    /// The request: `POST /repos/*/actions/runners/registration-token` (`*` stands for any text) or an EC2 action such as `RunInstances`.
    pub request: String,
    /// How many matching requests pass first.
    pub skip: usize,
    /// How many are hit then.
    pub times: usize,
    /// What happens to them.
    pub effect: Effect,
}

/// What happens to a request.
#[derive(Clone)]
pub enum Effect {
    /// It is answered so, without being acted on.
    Answer {
        /// HTTP status.
        status: u16,
        /// Extra headers.
        headers: Vec<(String, String)>,
        /// Body: JSON for a forge, XML for EC2.
        body: String,
    },
    /// The connection is closed without an answer; the request is not acted on.
    Reset,
    /// It is acted on, but the connection is closed without an answer.
    LoseAnswer,
    /// It is acted on after this time.
    Delay(Duration),
    /// It waits at the gate before it is acted on.
    Hold(Gate),
}

/// Stops a request until the test lets it pass.
#[derive(Clone)]
pub struct Gate {
    reached: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            reached: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Gate {
    /// Waits until a request stands at the gate.
    pub async fn reached(&self) {
        if let Ok(permit) = self.reached.acquire().await {
            permit.forget();
        }
    }

    /// Lets every request pass, now and later.
    pub fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Called by the server: announces the request and waits.
    pub async fn pass(&self) {
        self.reached.add_permits(1);
        // The permit returns to the gate: an open gate stays open. It is never closed.
        drop(self.open.acquire().await);
    }
}

impl Faults {
    /// Adds a fault; of several that match, the oldest that is not used up acts.
    pub fn add(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// The next `times` matching requests are answered with this status and body.
    pub fn answer(&self, request: &str, times: usize, status: u16, body: &str) {
        self.add(Fault {
            request: request.into(),
            skip: 0,
            times,
            effect: Effect::Answer {
                status,
                headers: Vec::new(),
                body: body.into(),
            },
        });
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Called by the server for each request: what happens to it.
    pub fn strike(&self, request: &str) -> Option<Effect> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = faults
            .iter_mut()
            .find(|fault| fault.times > 0 && matches(&fault.request, request))?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        fault.times -= 1;
        Some(fault.effect.clone())
    }
}

/// Whether `text` has the form of `pattern`, in which each `*` stands for any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text
            .strip_prefix(head)
            .is_some_and(|tail| (0..=tail.len()).any(|at| tail.is_char_boundary(at) && matches(rest, &tail[at..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, Faults, matches};

    #[test]
    fn a_star_is_any_text() {
        assert!(matches("GET /repos/*/actions/runners", "GET /repos/octo/train/actions/runners"));
        assert!(!matches("GET /repos/*/actions/runners", "GET /repos/octo/train/actions/runners/1"));
        assert!(matches("*", "RunInstances"));
    }

    #[test]
    fn a_fault_is_used_up() {
        let faults = Faults::default();
        faults.answer("RunInstances", 1, 503, "");
        assert!(faults.strike("DescribeInstances").is_none());
        assert!(matches!(faults.strike("RunInstances"), Some(Effect::Answer { status: 503, .. })));
        assert!(faults.strike("RunInstances").is_none());
    }
}
