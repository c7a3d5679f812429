//! Instances that boot a Linux of their own: systemd is the first process, and cloud-init fetches the user data, as on a cloud's machine.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::network::{Net, Network};
use super::{Boot, disk};
use crate::cloud::Kind;
use crate::world::Image;

/// Boots one.
const BOOT: &str = include_str!("boot.sh");
/// The status of a machine that wants to be booted again.
pub const REBOOT: i32 = 133;
/// Where a control group may be: a machine that mixes the versions has the first two, another only the last.
const HIERARCHIES: [&str; 3] = ["systemd", "unified", "."];

/// What a world's machines share.
pub struct Machines {
    /// Whose they are.
    pub cloud: Kind,
    /// What they boot.
    pub image: Image,
    /// The world's network.
    pub net: Net,
    /// The servers that machines hear on their loopback.
    pub servers: Vec<SocketAddr>,
}

impl Machines {
    /// The command that is a machine, and its network, `before` if it has had one. What lies in `shared` is seen at the same path.
    ///
    /// # Errors
    /// A file or the network cannot be made.
    pub fn boot(&self, boot: &Boot, shared: &Path, before: Option<Network>) -> Result<(Command, Network)> {
        let (dir, metadata) = (&boot.dir, boot.metadata.context("it has no metadata service")?);
        // The metadata service is where it always is; what else is named is another server.
        let is_other = |(_, value): &&(_, String)| !value.contains(&metadata.to_string());
        let env: Vec<(&str, String)> = boot.env.iter().filter(is_other).cloned().collect();
        let named = env.iter().filter_map(|(_, value)| address(value));
        let servers: Vec<SocketAddr> = self.servers.iter().copied().chain(named).collect();
        let own = disk::files(self.cloud, &boot.script, &env);
        write(dir, own.iter().chain(&self.image.files))?;
        let network = self.net.lay(before.map(|network| network.number()), &servers, metadata)?;
        let namespace = format!("/proc/{}/fd/{}", std::process::id(), network.namespace().as_raw_fd());
        let console = File::options()
            .write(true)
            .open(dir.join("console"))
            .context("opening the console")?;
        let mut command = Command::new("sh");
        command.args(["-c", BOOT, "boot"]).arg(&self.image.root).arg(dir).arg(shared);
        command.arg(group(dir)).arg(namespace);
        command.arg(self.image.disk_mib.map(|mib| mib.to_string()).unwrap_or_default());
        command.stdin(Stdio::null()).stderr(console.try_clone()?).stdout(console);
        Ok((command, network))
    }
}

/// The server that an address names.
fn address(url: &str) -> Option<SocketAddr> {
    url.strip_prefix("http://")?.split('/').next()?.parse().ok()
}

/// Writes what a machine has on its disk that its root file system has not.
fn write<'a>(dir: &Path, files: impl Iterator<Item = &'a (String, String)>) -> Result<()> {
    for (path, text) in files {
        let path = dir.join("root").join(path.trim_start_matches('/'));
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The name of the control groups of a machine; of a world for its own directory. No other world has it.
pub fn group(dir: &Path) -> String {
    let name = dir.strip_prefix(std::env::temp_dir()).unwrap_or(dir);
    name.display().to_string().trim_start_matches('/').to_owned()
}

/// Removes the control groups of a machine that has ended, or of a world of them.
pub fn remove_groups(dir: &Path) {
    for hierarchy in HIERARCHIES {
        remove(&Path::new("/sys/fs/cgroup").join(hierarchy).join(group(dir)));
    }
}

fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // It is empty, or it was never made.
    let _ = fs::remove_dir(group);
}
