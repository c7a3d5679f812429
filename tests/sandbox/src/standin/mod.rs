//! A stand-in for GitHub's runner program: the archive, and the program in it, which behaves like the real one from outside.
//!
//! What the real one does, with the places in its source, is told in <https://github.com/actions/runner>; the names of files below are
//! those of its `src/`.

pub mod bitbucket;
mod configure;
mod dispatch;
pub mod docker;
pub mod gitlab;
pub mod http;
mod listener;
mod session;
mod step;
mod worker;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

pub use listener::main;

/// The version that it says it has.
pub const VERSION: &str = "2.336.0";

/// GitHub's label for this machine's processor.
pub const ARCH: &str = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };

/// Where the listener is in the archive.
const LISTENER: &str = "./bin/Runner.Listener";

/// The scripts of the archive.
const SCRIPTS: [(&str, &str); 7] = [
    ("./config.sh", include_str!("scripts/config.sh")),
    ("./env.sh", include_str!("scripts/env.sh")),
    ("./run.sh", include_str!("scripts/run.sh")),
    ("./run-helper.sh.template", include_str!("scripts/run-helper.sh")),
    ("./safe_sleep.sh", "#!/bin/bash\nsleep \"$1\"\n"),
    ("./bin/installdependencies.sh", "#!/bin/bash\necho 'Finish Install Dependencies'\n"),
    ("./externals/node20/bin/node", "#!/bin/sh\nexit 1\n"),
];

/// The name of the archive's file, for `x64` or `arm64`.
pub fn archive_name(arch: &str) -> String {
    format!("actions-runner-linux-{arch}-{VERSION}.tar.gz")
}

/// The archive and its SHA-256, made once in a process. As in the real one, the names in it start with `./`.
pub fn archive() -> Result<(Bytes, String)> {
    static ARCHIVE: OnceLock<(Bytes, String)> = OnceLock::new();
    if let Some(archive) = ARCHIVE.get() {
        return Ok(archive.clone());
    }
    let path = program("runner-listener")?;
    let listener = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    // Not compressed: this is done in every test process, and unpacked in every instance, by programs that are built for debugging.
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::none()));
    let scripts = SCRIPTS.map(|(path, text)| (path, text.as_bytes()));
    for (path, content) in scripts.into_iter().chain([(LISTENER, listener.as_slice())]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        // `append_data` would take the `./` away.
        let name = header.as_old_mut().name.get_mut(..path.len()).context("too long a name")?;
        name.copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, content).context("packing the runner")?;
    }
    let mut gzip = tar.into_inner()?;
    gzip.flush()?;
    let bytes = gzip.finish()?;
    let sum = sha256(&bytes);
    Ok(ARCHIVE.get_or_init(|| (bytes.into(), sum)).clone())
}

/// Finds one of our programs: beside the running one, or above it (a test runs in `deps/`).
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding our own program")?;
    let found = own
        .ancestors()
        .skip(1)
        .take(3)
        .map(|dir: &Path| dir.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("`{name}` is not built: run `cargo build --workspace`"))
}

/// A program and its SHA-256. A debug build is large: a test process reads it once for all its worlds.
pub fn read_once(path: &Path) -> Result<(Bytes, String)> {
    static KNOWN: Mutex<BTreeMap<PathBuf, (Bytes, String)>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = known.get(path) {
        return Ok(program.clone());
    }
    let bytes = Bytes::from(std::fs::read(path).with_context(|| format!("reading {}", path.display()))?);
    let program = (bytes.clone(), sha256(&bytes));
    known.insert(path.to_owned(), program.clone());
    Ok(program)
}

/// In lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The beginning of most of its lines.
fn stamp() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Prints a line. As with the real one, a reader that has gone is nothing to worry about.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Prints a line on standard error.
fn complain(line: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
