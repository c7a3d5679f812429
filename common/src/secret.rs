//! A value that never shows itself: it prints as `****`, and leaves the process only where [`Secret::expose`] is called.

use std::fmt;

use serde::{Deserialize, Deserializer, Serializer};
use zeroize::Zeroizing;

/// A token, key or single-use configuration. Its memory is wiped when it is dropped.
///
/// It has no `Serialize`: a field that must be written says so with `#[serde(with = "common::secret::exposed")]`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a value; the caller drops its own copies.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value itself. Each call is a place where a secret leaves: a request header, a 0600 file, a child's environment.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Keeps this process's memory, which holds secrets, from everybody but root: no core dump, no debugger, no `/proc/PID/environ` for others of its user.
/// What it starts dumps no core either; the rest is not inherited.
pub fn seal() {
    use nix::sys::{prctl, resource};
    let sealed = resource::setrlimit(resource::Resource::RLIMIT_CORE, 0, 0).and_then(|()| prctl::set_dumpable(false));
    if let Err(error) = sealed {
        tracing::warn!("the memory of this process may be dumped: {error}");
    }
}

/// So that clap can parse one; surrounding white space (a pasted newline) is cut.
impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(value.trim()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// `#[serde(with = "exposed")]`: writes the value itself, into the spec file and nowhere else.
pub mod exposed {
    use super::{Deserialize, Deserializer, Secret, Serializer};

    /// Writes the secret in clear.
    pub fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    /// Reads it back.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        Secret::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn prints_nothing_of_itself() {
        let secret = Secret::new("ghp_canary");
        assert_eq!(format!("{secret} {secret:?} {:#?}", Some(&secret)), "**** **** Some(\n    ****,\n)");
    }
}
