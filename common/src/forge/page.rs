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
