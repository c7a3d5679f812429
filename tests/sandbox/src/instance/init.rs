//! The first process of an instance, and what it may find on its PATH.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

/// Prepares the view: `$1` is the instance's directory, `$2` what is seen inside at the same path, `$3` what to run.
///
/// The upper layer is on a file system of its own: it may not lie on the one that it covers.
const VIEW: &str = r#"
dir=$1 shared=$2
mount --make-rprivate /
mkdir -p "$dir/view"
mount -t tmpfs tmpfs "$dir/view"
mkdir "$dir/view/upper" "$dir/view/work" "$dir/view/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/view/upper,workdir=$dir/view/work" "$dir/view/root"
root=$dir/view/root
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root$shared"
mount --bind "$shared" "$root$shared"
[ -z "$4" ] || { mkdir -p "$root$4"; mount --bind "$4" "$root$4"; }
hostname "$(basename "$dir")" 2>/dev/null || true
exec chroot "$root" /bin/sh -c "$3"
"#;

/// A power button that works like the real programs', but only presses the sandbox's.
const SHIM: &str = "#!/bin/sh\ncase \"${0##*/} $*\" in\n\"systemctl poweroff\" | poweroff* | shutdown* | reboot* | halt*) echo \"$0 $*\" >>'@power@' ;;\n*) exit 1 ;;\nesac\n";

/// The programs that end a machine.
const SHIMS: [&str; 5] = ["systemctl", "poweroff", "shutdown", "reboot", "halt"];

/// Writes the power buttons.
pub fn write_shims(dir: &Path) -> Result<()> {
    let shims = dir.join("shims");
    fs::create_dir_all(&shims)?;
    let text = SHIM.replace("@power@", &dir.join("power").display().to_string());
    for name in SHIMS {
        let path = shims.join(name);
        fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// What the first process does: starts the user data, then adopts and reaps what is orphaned until the power goes.
pub fn boot(dir: &Path) -> String {
    let script = dir.join("user-data");
    format!(
        "cd /; '{0}' >>'{1}' 2>&1 & while :; do sleep 1000 & wait $!; done",
        script.display(),
        dir.join("console").display()
    )
}

/// A command in namespaces of its own. Everything in them dies with it, and it dies with us.
pub fn namespaces(dir: &Path, shared: &Path, run: &str) -> Command {
    // The directory of our programs may be on another file system, which the view of `/` does not show.
    let programs = std::env::current_exe()
        .ok()
        .and_then(|path| path.ancestors().nth(1).map(Path::to_owned));
    let programs = programs.map(|path| {
        if path.ends_with("deps") {
            path.parent().map_or(path.clone(), Path::to_owned)
        } else {
            path
        }
    });
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--kill-child",
    ]);
    if !nix::unistd::Uid::effective().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-e", "-c", VIEW, "sh"]).arg(dir).arg(shared).arg(run);
    command.arg(programs.as_deref().unwrap_or(Path::new("")));
    command
}

/// A command whose files are in a directory of its own.
pub fn private_root(dir: &Path) -> Result<Command> {
    for name in ["var/lib", "opt", "etc", "root"] {
        fs::create_dir_all(dir.join("root").join(name))?;
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "sh", "-c", &boot(dir)]);
    Ok(command)
}
