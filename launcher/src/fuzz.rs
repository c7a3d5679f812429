//! Fuzz targets: each gives any bytes to code that reads what others wrote, and panics where that code breaks a promise. `fuzz/` runs them for long, the
//! tests for a moment.

pub use crate::bootstrap::fuzz::bootstrap;
pub use crate::launch::fuzz::console;

#[cfg(test)]
mod tests {
    use super::{bootstrap, console};

    #[test]
    fn no_target_finds_anything_in_a_moment() {
        fuzzed::run("launcher", &[("bootstrap", bootstrap), ("console", console)]);
    }
}
