//! A stand-in for GitHub's runner program: the archive, and the program in it, which behaves like the real one from outside.

mod configure;
mod http;
mod job;
mod listener;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

pub use listener::main;

/// The version that it says it has.
pub const VERSION: &str = "2.336.0";

/// As the real one refuses root, writes its environment down, and hands over.
const CONFIG: &str = r#"#!/bin/bash
user_id=$(id -u)
if [ "$user_id" -eq 0 ] && [ -z "$RUNNER_ALLOW_RUNASROOT" ]; then
    echo "Must not run with sudo"
    exit 1
fi
cd "$(dirname "$0")"
source ./env.sh
if [[ "$1" == "remove" ]]; then
    ./bin/Runner.Listener "$@"
else
    ./bin/Runner.Listener configure "$@"
fi
"#;

const ENV: &str = "#!/bin/bash\necho \"$PATH\" > .path\n";

const RUN: &str = r#"#!/bin/bash
cd "$(dirname "$0")"
./bin/Runner.Listener run $*
echo "Exiting runner..."
exit 0
"#;

const DEPENDENCIES: &str = "#!/bin/bash\necho 'Finish Install Dependencies'\n";

/// The name of the archive's file.
pub fn archive_name() -> String {
    format!("actions-runner-linux-x64-{VERSION}.tar.gz")
}

/// The archive, made once. The program in it hands over to ours, which instances see at the same path.
pub fn archive() -> Result<Vec<u8>> {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(archive) = ARCHIVE.get() {
        return Ok(archive.clone());
    }
    let listener = program("runner-listener")?;
    let hand_over = format!("#!/bin/sh\nexec '{}' \"$(dirname \"$0\")/..\" \"$@\"\n", listener.display());
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in [
        ("./config.sh", CONFIG),
        ("./env.sh", ENV),
        ("./run.sh", RUN),
        ("./bin/installdependencies.sh", DEPENDENCIES),
        ("./bin/Runner.Listener", &hand_over),
        ("./externals/node20/bin/node", "#!/bin/sh\nexit 1\n"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, text.as_bytes()).context("packing the runner")?;
    }
    let mut gzip = tar.into_inner()?;
    gzip.flush()?;
    let bytes = gzip.finish()?;
    Ok(ARCHIVE.get_or_init(|| bytes).clone())
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
