//! `cml-agent install`: a runner becomes a service of this host.

use std::fs::{self, DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::installation::Installation;
use common::log::escape;
use common::{certificates::Certificates, network};
use nix::unistd::Uid;
use zeroize::Zeroizing;

use super::place::Place;
use super::systemd::{self, State};
use super::{say, unit};
use crate::condition::Condition;
use crate::lifecycle::Step;
use crate::pause::Failures;
use crate::supervise::find_program;
use crate::user::{self, User};

/// The program that reads the options.
const LAUNCHER: &str = "cml";
/// What only root reads.
const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
/// Neither is a directory above, nor a unit.
const SHARED_DIR: u32 = 0o755;
const SHARED_FILE: u32 = 0o644;
/// State is root's alone, but the way through it is everybody's.
const THROUGH: u32 = 0o711;
/// Writable by others than the owner.
const OTHERS_WRITE: u32 = 0o022;
/// Where a service does not see what others see, or what others may change.
const HIDDEN: [&str; 5] = ["/home", "/root", "/tmp", "/var/tmp", "/run"];
/// How often the service is looked at while it starts.
const LOOK: Duration = Duration::from_millis(200);
/// The variables by which the launcher is told of a user, a directory, a token, and what its network needs.
const JOB_USER: &str = "CML_RUNNER_JOB_USER";
const WORKDIR: &str = "CML_RUNNER_WORKDIR";
const EXECUTOR: &str = "CML_RUNNER_EXECUTOR";
const STATE_DIR: &str = "CML_RUNNER_STATE_DIR";
const CA_CERTIFICATES: &str = "CML_RUNNER_CA_CERTIFICATES";
const TOKEN: &str = "CML_RUNNER_TOKEN";
const ONCE: [&str; 3] = ["CML_RUNNER_TOKEN_FILE", "CML_TOKEN_FILE", "CML_RUNNER_EXPORT"];

/// Installs the runner that these options of `cml runner` describe, and waits until it is online. Returns the exit code.
pub fn install(words: &[String]) -> Result<u8> {
    let launcher = launcher()?;
    let is_service = systemd::runs();
    if is_service {
        if !Uid::effective().is_root() {
            return Err(Failure::new(Class::Usage, "only root can install a service")
                .hint("use sudo; or `cml runner` for a runner in the foreground, as who you are")
                .into());
        }
        check(&launcher)?;
    }
    let mut installation = match ask(&launcher, words)? {
        Ok(installation) => installation,
        // It has said why.
        Err(code) => return Ok(code),
    };
    let place = Place::of(&installation.name)?;
    if !is_service {
        say("systemd does not run on this host: the runner runs in the foreground, and ends with this command")?;
        return Err(foreground(&launcher, &place, installation));
    }
    let network = network::VARIABLES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    installation.options.extend(network);
    write(&place, &launcher, &mut installation)?;
    begin(&place)
}

/// `cml`, beside this program or on the search path.
fn launcher() -> Result<PathBuf> {
    let own = std::env::current_exe().and_then(fs::canonicalize).context("finding this program")?;
    let beside = own.parent().map(|folder| folder.join(LAUNCHER)).filter(|file| file.is_file());
    beside.or_else(|| find_program(LAUNCHER)).ok_or_else(|| {
        Failure::new(Class::Usage, format!("`{LAUNCHER}`, which reads the options, is not on this host"))
            .hint("put it beside `cml-agent`: both are of one release")
            .into()
    })
}

/// What root starts at every boot must be there then, and nobody else's to change.
fn check(launcher: &Path) -> Result<()> {
    let agent = std::env::current_exe().and_then(fs::canonicalize).context("finding this program")?;
    let launcher = launcher
        .canonicalize()
        .with_context(|| format!("looking at {}", launcher.display()))?;
    for program in [&launcher, &agent] {
        for path in [Some(program.as_path()), program.parent()].into_iter().flatten() {
            let file = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
            let others = file.uid() != 0 || file.mode() & OTHERS_WRITE != 0;
            if others || HIDDEN.iter().any(|hidden| program.starts_with(hidden)) {
                let what = format!(
                    "a service cannot be made of {}: it must be in a directory of the system that only root can write to",
                    program.display()
                );
                return Err(Failure::new(Class::Usage, what)
                    .hint("sudo install cml cml-agent /usr/local/bin, and then use that one")
                    .into());
            }
        }
    }
    Ok(())
}

/// What the options mean, checked by the launcher; its exit code if it refuses them.
fn ask(launcher: &Path, words: &[String]) -> Result<std::result::Result<Installation, u8>> {
    // Removed when this returns; nobody else can look into it.
    let dir = tempfile::tempdir().context("making a directory for the options")?;
    let file = dir.path().join("installation");
    let mut command = Command::new(launcher);
    command.arg("runner").arg(format!("--export={}", file.display())).args(words);
    let status = command.status().with_context(|| format!("starting {}", launcher.display()))?;
    if !status.success() {
        return Ok(Err(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
    }
    let text = fs::read_to_string(&file).map(Zeroizing::new).map_err(|error| {
        let failure = Failure::new(Class::Usage, "these are not the options of a runner");
        anyhow::anyhow!(error).context(failure.hint("`cml runner --help` lists them"))
    })?;
    Installation::from_json(&text).map(Ok)
}

/// Becomes the launcher, and so the agent; returns only the error.
fn foreground(launcher: &Path, place: &Place, installation: Installation) -> anyhow::Error {
    let Installation { options, token, .. } = installation;
    let mut command = Command::new(launcher);
    command.arg("runner").envs(&options).env(TOKEN, token.expose());
    for variable in ONCE {
        command.env_remove(variable);
    }
    // Else it is a runner of who we are, in our own home.
    if user::is_rehearsal() || Uid::effective().is_root() {
        command.env(STATE_DIR, place.state());
        match room(place, options.get(JOB_USER)) {
            Ok(None) => {}
            Ok(Some(user)) => {
                command.env(JOB_USER, user);
            }
            Err(error) => return error,
        }
    }
    let error = command.exec();
    anyhow::anyhow!(error).context(format!("starting {}", launcher.display()))
}

/// The directories of a runner, and the user that its jobs run as: none in a rehearsal, which makes no users.
fn room(place: &Place, named: Option<&String>) -> Result<Option<String>> {
    make(&place.settings(), PRIVATE_DIR)?;
    make(&place.state(), THROUGH)?;
    if user::is_rehearsal() || named.is_some() {
        return Ok(named.cloned());
    }
    Ok(Some(user::make_system(&place.user(), &place.home())?.name))
}

/// The user, and all files. Again with other options: they replace what is there.
fn write(place: &Place, launcher: &Path, installation: &mut Installation) -> Result<()> {
    if let Some(name) = room(place, installation.options.get(JOB_USER))? {
        if installation.option(EXECUTOR) == Some("docker")
            && let Some(user) = User::named(&name)?
        {
            // The service itself cannot change the groups of this host.
            user::join_docker(&user);
        }
        installation.options.insert(JOB_USER.into(), name);
    }
    if let Some(given) = installation.option(CA_CERTIFICATES).map(PathBuf::from) {
        // The file may go, or lie where a service sees nothing.
        let copy = place.certificates();
        replace(&copy, &Certificates::read(&given)?.to_pem(), SHARED_FILE)?;
        installation.options.insert(CA_CERTIFICATES.into(), copy.display().to_string());
    }
    let workdir = installation.option(WORKDIR).map(PathBuf::from);
    replace(&place.token(), installation.token.expose(), PRIVATE_FILE)?;
    replace(&place.options(), &unit::options(&installation.options), PRIVATE_FILE)?;
    replace(&place.unit_file(), &unit::unit(place, launcher, workdir.as_deref()), SHARED_FILE)?;
    // What failed before was another life's.
    Failures::of(&place.state()).clear();
    Ok(())
}

fn make(dir: &Path, mode: u32) -> Result<()> {
    let done = DirBuilder::new().recursive(true).mode(SHARED_DIR).create(dir);
    // It may have been there, with wider permissions.
    let done = done.and_then(|()| fs::set_permissions(dir, Permissions::from_mode(mode)));
    done.with_context(|| format!("making {}", dir.display()))
}

/// Whole or not at all.
fn replace(path: &Path, text: &str, mode: u32) -> Result<()> {
    let write = || -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(path.parent().context("it has no folder")?)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// What became of a service that was told to begin.
enum Begun {
    Online(Condition),
    /// The runner of before has a job.
    Busy,
    /// It is not tried again.
    Refused,
    /// It is.
    Failed,
}

/// Has systemd start it, or, if it runs, lets it take the new options once its job is done.
fn begin(place: &Place) -> Result<u8> {
    let unit = place.unit();
    let before = State::of(&unit)?;
    systemd::ctl(&["daemon-reload"])?;
    systemd::ctl(&["--quiet", "enable", &unit])?;
    if before.active == "active" {
        systemd::ctl(&["reload", &unit])?;
    } else {
        systemd::ctl(&["restart", "--no-block", &unit])?;
    }
    let begun = loop {
        if let Some(begun) = look(place, &before)? {
            break begun;
        }
        sleep(LOOK);
    };
    let name = &place.name;
    let end = match begun {
        Begun::Online(condition) => {
            say(&format!(
                "the runner {name} is online, with the labels {}",
                condition.labels.join(",")
            ))?;
            return Ok(0);
        }
        Begun::Busy => {
            say(&format!(
                "the runner {name} has a job: its new options are in effect once that is done"
            ))?;
            return Ok(0);
        }
        Begun::Refused => format!("`cml-agent uninstall --name={name}` removes it"),
        Begun::Failed => format!("it is tried again and again, until `cml-agent uninstall --name={name}`"),
    };
    let journal: Vec<String> = systemd::journal(&unit).lines().map(escape).collect();
    say(&format!("the last lines of `journalctl -u {unit}`:\n{}", journal.join("\n")))?;
    Err(Failure::new(Class::NotOnline, format!("the runner {name} did not come online"))
        .hint(end)
        .into())
}

fn look(place: &Place, before: &State) -> Result<Option<Begun>> {
    let (now, state) = (State::of(&place.unit())?, place.state());
    let condition = Condition::read(&state);
    if now.invocation == before.invocation {
        let is_busy = before.active == "active" && condition.is_some_and(|condition| condition.step == Step::Busy);
        return Ok(is_busy.then_some(Begun::Busy));
    }
    Ok(match now.active.as_str() {
        // One that clears up after another that was killed is none of the two.
        "active" => condition.filter(Condition::is_online).map(Begun::Online),
        "failed" => Some(Begun::Refused),
        _ => (Failures::of(&state).count() > 0).then_some(Begun::Failed),
    })
}
