//! What a forge says of its runner's program.

/// The SHA-256 that is told for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// That of the whole program.
    Right,
    /// Another one.
    Wrong,
    /// None.
    Missing,
}

impl Checksum {
    /// What is told for a program with this one.
    pub fn of(self, sha256: &str) -> Option<String> {
        match self {
            Self::Right => Some(sha256.to_owned()),
            Self::Wrong => Some("0".repeat(64)),
            Self::Missing => None,
        }
    }
}
