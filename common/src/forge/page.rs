//! The page of a repository, as any forge has it.

use anyhow::Result;
use url::{Host, Url};

use crate::error::{Class, Failure};

/// Refuses what would send a token in clear.
pub fn check(page: &Url) -> Result<()> {
    if page.scheme() == "https" || (page.scheme() == "http" && is_loopback(page)) {
        return Ok(());
    }
    Err(Failure::new(Class::Usage, format!("`{}` is not an https address", shown(page)))
        .hint("a token is never sent in clear; use https")
        .into())
}

/// The parts of its path.
pub fn parts(page: &Url) -> Vec<&str> {
    page.path().split('/').filter(|part| !part.is_empty()).collect()
}

/// Whether a name can be one part of a path and nothing else.
pub fn is_plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !matches!(name, "" | "." | "..") && name.chars().all(allowed)
}

/// Whether it is on this very machine.
fn is_loopback(page: &Url) -> bool {
    match page.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The address without the credentials that a git remote may hold.
pub fn shown(page: &Url) -> String {
    format!("{}{}", page.origin().ascii_serialization(), page.path())
}
