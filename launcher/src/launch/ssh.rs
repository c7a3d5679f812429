//! The public half of `--cloud-ssh-private`: the only one that leaves the launcher.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::error::{Class, Failure};
use common::secret::Secret;
use ssh_key::PrivateKey;
use zeroize::Zeroizing;

/// A line for `authorized_keys`, from a private key in the format of OpenSSH, or an RSA key in PKCS#1 or PKCS#8 (`ssh-keygen -m PEM`).
pub fn public_half(private: &Secret) -> Result<String> {
    let text = private.expose().trim();
    let key = if text.contains("BEGIN OPENSSH PRIVATE KEY") {
        openssh(text)
    } else {
        rsa(text).map(|(exponent, modulus)| line(&exponent, &modulus))
    };
    key.with_context(|| {
        Failure::new(Class::Usage, "`--cloud-ssh-private` is no private key that can be read")
            .hint("make one with `ssh-keygen -t rsa -m PEM`, without a passphrase, and give the text of its private half")
    })
}

fn openssh(text: &str) -> Result<String> {
    // A text that went through an environment variable may have lost its last line feed.
    let key = PrivateKey::from_openssh(format!("{text}\n"))?;
    Ok(key.public_key().to_openssh()?)
}

/// RSA's public exponent and modulus, as DER writes integers: the same bytes as in the SSH format ([RFC 4251] §5).
///
/// [RFC 4251]: https://datatracker.ietf.org/doc/html/rfc4251#section-5
fn rsa(text: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let pkcs8 = text.starts_with("-----BEGIN PRIVATE KEY-----");
    anyhow::ensure!(pkcs8 || text.starts_with("-----BEGIN RSA PRIVATE KEY-----"), "an unknown format");
    anyhow::ensure!(!text.contains("ENCRYPTED"), "it has a passphrase");
    let packed: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(str::split_whitespace)
        .collect();
    let der = Zeroizing::new(STANDARD.decode(packed).context("not base64")?);
    let mut key = Der(&der).value(SEQUENCE)?;
    key.value(INTEGER)?;
    if pkcs8 {
        // The algorithm; then the same as in PKCS#1, wrapped: https://datatracker.ietf.org/doc/html/rfc5208#section-5
        key.value(SEQUENCE)?;
        key = key.value(OCTETS)?.value(SEQUENCE)?;
        key.value(INTEGER)?;
    }
    let modulus = key.value(INTEGER)?.0.to_vec();
    Ok((key.value(INTEGER)?.0.to_vec(), modulus))
}

fn line(exponent: &[u8], modulus: &[u8]) -> String {
    let mut blob = Vec::new();
    for part in [b"ssh-rsa".as_slice(), exponent, modulus] {
        // A key's parts are far below 4 GiB.
        blob.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        blob.extend(part);
    }
    format!("ssh-rsa {}", STANDARD.encode(blob))
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// What is left of some DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next value, which must have this tag.
    fn value(&mut self, tag: u8) -> Result<Der<'a>> {
        let cut = "it is cut off";
        let (&[own, short], rest) = self.0.split_first_chunk().context(cut)?;
        anyhow::ensure!(own == tag, "not an RSA key");
        // A length of 128 or more follows in as many bytes as the low bits say.
        let count = if short < 0x80 { 0 } else { usize::from(short & 0x7f) };
        anyhow::ensure!(count <= size_of::<u32>(), "not an RSA key");
        let (bytes, rest) = rest.split_at_checked(count).context(cut)?;
        let long = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let length = if count == 0 { usize::from(short) } else { long };
        let (value, rest) = rest.split_at_checked(length).context(cut)?;
        self.0 = rest;
        Ok(Der(value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use common::secret::Secret;

    use super::public_half;
    use crate::bootstrap::tests::machine::skip;

    /// Type and key, without the comment.
    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().take(2).collect()
    }

    #[test]
    fn the_public_half_is_the_one_that_ssh_keygen_makes() {
        for options in [
            ["-t", "rsa", "-m", "PEM"],
            ["-t", "rsa", "-m", "PKCS8"],
            ["-t", "rsa", "-m", "RFC4716"],
            ["-t", "ed25519", "-C", "me"],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            let Ok(output) = Command::new("ssh-keygen")
                .args(options)
                .args(["-q", "-N", "", "-f"])
                .arg(&path)
                .output()
            else {
                skip("the_public_half_is_the_one_that_ssh_keygen_makes", "no ssh-keygen here");
                return;
            };
            assert!(output.status.success(), "{output:?}");
            let private = Secret::new(std::fs::read_to_string(&path).unwrap());
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            assert_eq!(words(&public_half(&private).unwrap()), words(&public), "{options:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        for text in [
            "",
            "canary",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIcanary\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nMAA=\n",
        ] {
            let error = public_half(&Secret::new(text)).unwrap_err();
            assert!(!format!("{error:#}").contains("canary"), "{error:#}");
        }
    }
}
