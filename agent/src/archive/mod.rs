//! A program that is downloaded: hashed, and unpacked if it is an archive, as it comes, used only once all of it is verified.

mod download;
mod extract;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod place;
#[cfg(test)]
pub mod tests;

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::secret::Secret;
use reqwest::Client;
use tokio::sync::mpsc;
use url::Url;

use crate::user::User;
use download::{Download, End};
use extract::Limits;
use place::Partial;

/// How many pieces of the download may wait to be unpacked: the network is not slowed by a short stall of the disk, and little memory is used.
const QUEUE: usize = 8;

/// What a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An archive, which is unpacked.
    TarGz,
    /// The program itself, which gets this name.
    Program(&'static str),
}

/// A program to download.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is.
    pub url: Url,
    /// Its SHA-256 in hex; none: not checked.
    pub sha256: Option<String>,
    /// Sent as a bearer token, to this host only.
    pub token: Option<Secret>,
    /// What it is.
    pub form: Form,
}

/// Where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Destination<'a> {
    /// The directory that gets the archive's top entries. It may exist and hold other things.
    pub dir: &'a Path,
    /// Who owns all of it; none: who we are.
    pub owner: Option<&'a User>,
    /// Whether what is there under the same names goes away; else that is an error.
    pub replace: bool,
}

/// Downloads, verifies and unpacks, in one pass and without a copy of the archive. A broken connection is resumed. After an error
/// nothing of it is in the directory.
///
/// # Errors
/// The server's answer, the budget, a wrong checksum, a damaged or hostile archive, a full disk; each with a hint.
pub async fn install(client: &Client, source: &Source, destination: Destination<'_>, budget: Duration) -> Result<()> {
    let wanted = source.sha256.as_deref().map(checksum).transpose()?;
    let partial = Partial::create(destination.dir)?;
    let (owner, form) = (destination.owner.map(|user| (user.uid, user.gid)), source.form);
    let (sender, receiver) = mpsc::channel(QUEUE);
    // The guard travels with the work: if nobody waits for it any more, what it wrote is removed when it ends.
    let unpacking = tokio::task::spawn_blocking(move || {
        let result = match form {
            Form::TarGz => extract::extract(receiver, partial.path(), owner, Limits::RUNNER),
            Form::Program(name) => extract::save(receiver, &partial.path().join(name), owner),
        };
        (partial, result)
    });
    let mut download = Download::new(client, source, budget);
    let downloaded = download.run(sender).await;
    let (partial, unpacked) = unpacking.await.context("unpacking")?;
    let end = downloaded.with_context(|| format!("downloading {}", shown(&source.url)))?;
    if let (End::Whole(digest), Some(wanted)) = (&end, &wanted) {
        verify(digest.as_ref(), wanted)?;
    }
    unpacked
        .map_err(explain)
        .with_context(|| format!("unpacking {}", shown(&source.url)))?;
    partial.move_into(destination)
}

/// An address for people: a signed download's query is a secret.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Reads a SHA-256 in hex.
fn checksum(hex: &str) -> Result<Vec<u8>> {
    let wrong =
        || Failure::new(Class::Usage, format!("`{hex}` is not a SHA-256 in hex")).hint("give the 64 digits that `sha256sum` prints");
    let digits: Option<Vec<u32>> = hex.trim().chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits
        .filter(|digits| digits.len() == 2 * ring::digest::SHA256_OUTPUT_LEN)
        .ok_or_else(wrong)?;
    Ok(digits
        .chunks(2)
        .filter_map(|pair| u8::try_from(pair.iter().fold(0, |byte, digit| byte * 16 + digit)).ok())
        .collect())
}

fn verify(found: &[u8], wanted: &[u8]) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    };
    let message = format!("the SHA-256 of the download is {}, not {}: it is not used", hex(found), hex(wanted));
    let hint = "if you set --runner-url or --runner-sha256: they must belong together; else a mirror or proxy changes the file";
    Err(Failure::new(Class::Unexpected, message).hint(hint).into())
}

/// Puts words on what goes wrong while unpacking.
fn explain(error: io::Error) -> anyhow::Error {
    let failure = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::new(Class::Usage, "the disk is full").hint("take a larger one (--cloud-hdd-size), or another place (--workdir)")
        }
        io::ErrorKind::UnexpectedEof => Failure::new(Class::Unexpected, "the archive ends too early: it is not used")
            .hint("the server or a mirror holds a truncated file"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            Failure::new(Class::Unexpected, "the archive is damaged or hostile: it is not used")
                .hint("--runner-url must be that of a .tar.gz")
        }
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(failure)
}
