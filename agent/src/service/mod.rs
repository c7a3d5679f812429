//! A runner that is a service of a user's own host: installed, looked at, removed. The service itself is `cml runner`, which becomes `cml-agent run`.

mod install;
mod place;
mod status;
mod systemd;
mod uninstall;
mod unit;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

pub use install::install;
pub use status::status;
pub use uninstall::uninstall;

/// Tells a person; who reads only the start of it (`| head`) is content.
fn say(text: &str) -> Result<()> {
    let written = writeln!(io::stdout().lock(), "{text}");
    if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return Ok(());
    }
    written.context("writing to standard output")
}
