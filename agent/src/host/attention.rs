//! How often a machine looks for a notice: seldom while nothing runs, often while a job does.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use super::Interruption;
use super::silence::Silence;
use super::ticks::Ticks;

/// Whether a job runs now.
pub struct Attention(watch::Sender<bool>);

impl Attention {
    /// None runs yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// From now on a job runs, or none does.
    pub fn set(&self, busy: bool) {
        self.0.send_if_modified(|before| std::mem::replace(before, busy) != busy);
    }

    /// Looks until there is something to tell: at once, whenever a job begins or ends, and in between as often as that asks for. `look` is given how many
    /// looks there were before.
    pub async fn watch<F>(&self, idle: Duration, busy: Duration, mut look: impl FnMut(u32) -> F + Send) -> Result<Interruption>
    where
        F: Future<Output = Result<Option<Interruption>>> + Send,
    {
        let mut changes = self.0.subscribe();
        let mut silence = Silence::default();
        let mut looks = 0_u32;
        loop {
            let often = *changes.borrow_and_update();
            let ticks = Ticks::every(if often { idle.min(busy) } else { idle })?;
            loop {
                match look(looks).await {
                    Ok(Some(interruption)) => return Ok(interruption),
                    seen => silence.heard(seen.err().as_ref()),
                }
                looks = looks.wrapping_add(1);
                tokio::select! {
                    tick = ticks.next() => tick?,
                    _ = changes.changed() => break,
                }
            }
        }
    }
}
