//! The first process of an instance, and what it may find on its PATH.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};

use super::Isolation;

/// Makes the view of this machine, in namespaces.
const VIEW: &str = include_str!("view.sh");
/// Starts the user data and lives as long as the instance.
const INIT: &str = include_str!("init.sh");
/// Ends an instance that has no namespaces.
const CORD: &str = include_str!("cord.sh");

/// `nobody`: who an instance's root is, where we are root and the instance cannot be kept apart from this machine.
const NOBODY: u32 = 65_534;

/// A power button that works like the real programs', but only presses the sandbox's.
const SHIM: &str = r#"#!/bin/sh
case "${0##*/} $*" in
"systemctl poweroff"* | poweroff* | shutdown* | reboot* | halt*) echo "${0##*/} $*" >'@power@' ;;
*) exit 1 ;;
esac
"#;

/// What an instance has in place of Java: its version, and programs that are no archives but run by themselves.
pub const JAVA: &str = r#"#!/bin/sh
case "$1" in
-version) echo 'openjdk version "21.0.5" 2024-10-15' >&2 ;;
*) exec ./runner.jar "$@" ;;
esac
"#;

/// The programs that end a machine.
const SHIMS: [&str; 5] = ["systemctl", "poweroff", "shutdown", "reboot", "halt"];

/// Writes the files that an instance boots from.
pub fn prepare(dir: &Path, user_data: &str, isolation: Isolation) -> Result<()> {
    let shims = dir.join("shims");
    fs::create_dir_all(&shims).with_context(|| format!("making {}", shims.display()))?;
    let shim = SHIM.replace("@power@", &dir.join("power").display().to_string());
    let programs = SHIMS.map(|name| (shims.join(name), shim.as_str(), 0o755));
    let own = (dir.join("user-data"), user_data, 0o700);
    let java = (shims.join("java"), JAVA, 0o755);
    for (path, text, mode) in programs.into_iter().chain([java, own]) {
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    // Pipes, not files: what is written to a device is never cut off by who opens it next.
    for path in [dir.join("console"), dir.join("power")] {
        mkfifo(&path, Mode::S_IRWXU).with_context(|| format!("making {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    }
    if is_demoted(isolation) {
        for path in [dir.to_owned(), dir.join("user-data")] {
            chown(&path, Some(NOBODY), Some(NOBODY)).with_context(|| format!("giving {} away", path.display()))?;
        }
    }
    Ok(())
}

/// Gives the instance a Docker, which listens before anything else begins. `DIR/docker` has a file for each container.
pub fn give_docker(dir: &Path, programs: &Path, service: &str) -> Result<()> {
    let (shims, standin) = (dir.join("shims"), programs.join("docker-standin"));
    let scripts = [
        ("docker", format!("#!/bin/sh\nexec '{}' \"$@\"\n", standin.display())),
        (
            "dockerd",
            format!(
                "#!/bin/sh\nexec '{}' daemon '{}' '{service}'\n",
                standin.display(),
                dir.join("docker").display()
            ),
        ),
    ];
    for (name, text) in scripts {
        let path = shims.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Whether the instance is run by another user than we are: its root must not be this machine's.
fn is_demoted(isolation: Isolation) -> bool {
    isolation != Isolation::Overlay && Uid::effective().is_root()
}

/// The command that is an instance's power: its standard input is the power cord.
pub fn command(dir: &Path, shared: &Path, programs: &Path, isolation: Isolation) -> Result<Command> {
    first_process(dir, shared, programs, isolation, INIT)
}

/// A command that finds out whether this kind of isolation works here.
pub fn probe(dir: &Path, isolation: Isolation) -> Result<Command> {
    first_process(dir, dir, dir, isolation, "true")
}

fn first_process(dir: &Path, shared: &Path, programs: &Path, isolation: Isolation, run: &str) -> Result<Command> {
    let demote = ["--reuid", "--regid"].map(|option| format!("{option}={NOBODY}"));
    let mut words: Vec<&str> = Vec::new();
    if is_demoted(isolation) {
        words.extend(["setpriv", &demote[0], &demote[1], "--clear-groups"]);
    }
    let namespaces = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"];
    let flavour = match isolation {
        Isolation::Overlay => {
            words.extend(namespaces);
            "overlay"
        }
        Isolation::UserNamespace => {
            words.extend(namespaces);
            // Not root in there: it could neither own files of other users nor become one.
            words.extend(["--user", "--map-current-user", "--keep-caps"]);
            "binds"
        }
        Isolation::PrivateRoot => {
            for name in ["var/lib", "opt", "etc", "root", "home", "tmp"] {
                let path = dir.join("root").join(name);
                fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
            }
            open_up(&dir.join("root"))?;
            words.extend(["sh", "-c", run, "init"]);
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).arg(dir);
            return Ok(command);
        }
    };
    words.extend(["sh", "-e", "-c", VIEW, "view", flavour]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(dir).arg(shared).arg(programs).arg(run);
    Ok(command)
}

/// Another user may write there.
fn open_up(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777))?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            open_up(&path)?;
        }
    }
    Ok(())
}

/// The power cord of an instance that has no namespaces to die with.
pub fn cord(dir: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", CORD, "cord"]).arg(dir);
    command
}
