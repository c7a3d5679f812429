//! The network that the spec describes becomes the agent's own, and so that of the user's script, of the runner and of its jobs.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use common::certificates::Certificates;
use common::log::escape;
use common::network::Network;
use common::spec::{CA_CERTIFICATES, RunnerSpec};
use nix::unistd::Uid;

use crate::state::StateDir;
use crate::supervise::find_program;
use crate::user;

/// Whom to trust is no secret: jobs read it.
const SHARED_DIR: u32 = 0o755;
const SHARED_FILE: u32 = 0o644;
/// Where it is on an instance, outside of the state, which is root's alone.
const INSTANCE: &str = "/opt/cml";

/// Where a kind of system takes certificates of its owner's, and the program that then adds them to its own. Debian's wants one a file, and the
/// others take that too: [Debian, Alpine], [Red Hat], [SUSE].
///
/// [Debian, Alpine]: https://manpages.debian.org/trixie/ca-certificates/update-ca-certificates.8.en.html
/// [Red Hat]: https://www.redhat.com/en/blog/configure-ca-trust-list
/// [SUSE]: https://documentation.suse.com/sles/15-SP6/html/SLES-all/cha-security-certificates.html
const STORES: [(&str, &str); 3] = [
    ("/etc/pki/ca-trust/source/anchors", "update-ca-trust"),
    ("/etc/pki/trust/anchors", "update-ca-certificates"),
    ("/usr/local/share/ca-certificates", "update-ca-certificates"),
];

/// Enters it. Before any thread is started.
pub fn enter(spec: &RunnerSpec, dir: &StateDir) -> Result<()> {
    let mut network = Network {
        proxy: spec.options.proxy.clone(),
        no_proxy: spec.options.no_proxy.clone(),
        trusted: None,
    };
    if let Some(given) = &spec.options.ca_certificates {
        let certificates = Certificates::read(&dir.path().join(given))?;
        if spec.cloud.is_some() && !user::is_rehearsal() && Uid::effective().is_root() {
            // What its programs are told besides is enough for most of them.
            if let Err(error) = install(&certificates) {
                tracing::warn!("the system itself does not trust the given certificates: {error:#}");
            }
        }
        let trusted = trusted(spec, dir)?;
        write(&trusted, &certificates).with_context(|| format!("writing {}", trusted.display()))?;
        tracing::info!("trusting the certificates of {} too", given.display());
        network.trusted = Some(trusted);
    }
    if let Some(proxy) = &network.proxy {
        tracing::info!("going through the proxy {proxy:?}");
    }
    network.enter().map(drop)
}

/// The file that holds everybody who is trusted.
fn trusted(spec: &RunnerSpec, dir: &StateDir) -> Result<PathBuf> {
    let folder = if spec.cloud.is_some() {
        user::instance_path(INSTANCE)
    } else {
        std::path::absolute(dir.path())?
    };
    Ok(folder.join(CA_CERTIFICATES))
}

/// Whole or not at all: programs of before may be reading it.
fn write(path: &Path, certificates: &Certificates) -> Result<()> {
    let folder = path.parent().context("it has no folder")?;
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(SHARED_DIR))?;
    }
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(certificates.with_system().to_pem().as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(SHARED_FILE))?;
    file.persist(path)?;
    Ok(())
}

/// Has the system trust them: for Docker, Java, and whatever else reads no variable.
fn install(certificates: &Certificates) -> Result<()> {
    let (folder, program) = STORES
        .map(|(folder, program)| (Path::new(folder), program))
        .into_iter()
        .find(|(folder, program)| folder.parent().is_some_and(Path::exists) && find_program(program).is_some())
        .context("it has no update-ca-certificates and no update-ca-trust; install the package `ca-certificates` in the image")?;
    fs::create_dir_all(folder)?;
    for (number, text) in certificates.each().enumerate() {
        let file = folder.join(format!("cml-{number}.crt"));
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        fs::set_permissions(&file, Permissions::from_mode(SHARED_FILE))?;
    }
    let output = Command::new(program).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}: {}", output.status, escape(said.trim()));
    Ok(())
}
