//! How often a forge is looked at.

use std::time::Duration;

/// How often within the patience.
const LOOKS: u32 = 20;
/// Bounds of the time between two looks.
const EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The time between two looks.
pub fn interval(patience: Duration) -> Duration {
    (patience / LOOKS).clamp(EVERY.0, EVERY.1)
}
