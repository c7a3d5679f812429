//! Machines that boot: what their tests and the benchmark share.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sandbox::events::Events;
use sandbox::standin;
use sandbox::world::Image;

/// Makes an image of another one, as images/install.sh does it.
const BAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/bake.sh");

/// The root file system that `make test` has made; none where this machine cannot boot one.
pub fn image() -> Option<Image> {
    std::env::var_os("CML_TEST_IMAGE").map(|root| Image {
        root: PathBuf::from(root),
        ..Image::default()
    })
}

/// The same with the agent and GitHub's runner baked in; what is added lies in `dir`. Debian's packages are fetched: not from a world's own network.
///
/// # Errors
/// The image cannot be made.
pub fn baked(plain: &Image, dir: &Path, agent: &Path) -> Result<Image> {
    let (archive, _) = standin::archive()?;
    let runner = dir.join("runner.tar.gz");
    std::fs::write(&runner, archive)?;
    let mut command = Command::new(BAKE);
    command.arg(&plain.root).arg(dir).arg(agent).arg(&runner).stdin(Stdio::null());
    let made = command.output().context("starting bake.sh")?;
    if !made.status.success() {
        bail!("no image was baked: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(Image {
        root: String::from_utf8(made.stdout)?.trim().into(),
        ..plain.clone()
    })
}

/// How long the first machine took from its launch on, until…
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// … its start-up data ran,
    pub user_data: Duration,
    /// … the agent was there,
    pub agent: Duration,
    /// … the forge's runner was installed,
    pub installed: Duration,
    /// … and online.
    pub online: Duration,
}

impl Timings {
    /// Read off what happened in its world.
    ///
    /// # Errors
    /// It did not come online.
    pub fn of(events: &Events) -> Result<Self> {
        let all = events.all();
        let launched = all
            .iter()
            .find(|event| event.what == "instance-launched")
            .context("nothing was launched")?
            .at;
        let until = |phase: &str| {
            let line = format!("cml-phase name={phase}");
            let found = all.iter().find(|event| event.detail.starts_with(&line));
            found
                .map(|event| event.at.saturating_sub(launched))
                .with_context(|| format!("`{line}` was not seen"))
        };
        Ok(Self {
            user_data: until("boot state=begin")?,
            agent: until("agent state=ok")?,
            installed: until("install-runner state=ok")?,
            online: until("online state=ok")?,
        })
    }
}
