//! The runner gets into its directory, or is there already.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::forge::Platform;

use super::package::{self, Package, Present};
use super::{GitHub, LISTENER, dependencies};
use crate::archive::{self, Destination};
use crate::{supervise, user};

/// What we installed: two lines, the version and the `--runner-url`; either may be empty.
const MARKER: &str = ".cml-package";
/// How long the download may take when provisioning has no limit.
const DOWNLOAD: Duration = Duration::from_mins(30);
/// How long the program may take to say its version.
const VERSION: Duration = Duration::from_secs(30);
/// Whoever runs what is in a directory must reach it.
const SHARED: u32 = 0o755;

impl GitHub {
    /// Makes the runner ready to be configured.
    pub(super) async fn make_ready(&self) -> Result<()> {
        if let Some(user) = &self.user {
            let joining = user.clone();
            tokio::task::spawn_blocking(move || user::join_docker(&joining))
                .await
                .context("waiting for usermod")?;
        }
        self.hooks.prepare()?;
        self.let_in().with_context(|| format!("making {}", self.dir.display()))?;
        let present = self.present().await;
        match &present {
            Some(present) if package::fits(present, &self.options) => {
                let version = present.version.as_deref().unwrap_or("of the given address");
                tracing::info!("the runner {version} is in {} already", self.dir.display());
            }
            _ => self.download(present.is_some()).await?,
        }
        if self.on_cloud {
            dependencies::install(&self.dir).await;
        }
        Ok(())
    }

    /// Makes the directory, and the way to it on an instance, for the job user.
    fn let_in(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let Some(user) = &self.user else {
            return Ok(());
        };
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(SHARED))?;
        chown(&self.dir, Some(user.uid), Some(user.gid))?;
        let above = user::instance_path("/opt/cml");
        if self.dir.starts_with(&above) {
            fs::set_permissions(&above, fs::Permissions::from_mode(SHARED))?;
        }
        Ok(())
    }

    /// The runner that is there, if any.
    async fn present(&self) -> Option<Present> {
        if !self.dir.join(LISTENER).is_file() {
            return None;
        }
        if let Ok(marker) = super::read_small(&self.dir.join(MARKER)) {
            let mut lines = marker.lines().map(|line| Some(line.to_owned()).filter(|line| !line.is_empty()));
            return Some(Present {
                version: lines.next().flatten(),
                url: lines.next().flatten(),
            });
        }
        Some(Present {
            version: self.ask_version().await,
            url: None,
        })
    }

    async fn ask_version(&self) -> Option<String> {
        let mut version = None;
        let command = self.command(LISTENER, &["--version"]);
        let ended = supervise::run(&command, VERSION, |line| {
            if package::numbers(line.trim()).is_some() {
                version = Some(line.trim().to_owned());
            }
        });
        match ended.await {
            Ok(Some(status)) if status.success() => version,
            other => {
                tracing::warn!("the runner in {} does not say its version: {other:?}", self.dir.display());
                None
            }
        }
    }

    async fn download(&self, replace: bool) -> Result<()> {
        let Package { source, version } = package::find(&self.options, self.forge.as_ref(), Platform::current()).await?;
        tracing::info!("downloading the runner {}", version.as_deref().unwrap_or_default());
        let budget = self.options.provisioning_timeout.duration().unwrap_or(DOWNLOAD);
        let destination = Destination {
            dir: &self.dir,
            owner: self.user.as_ref(),
            replace,
        };
        let marker = self.dir.join(MARKER);
        super::forget(&marker)?;
        archive::install(&common::http::client()?, &source, destination, budget)
            .await
            .context("installing the runner")?;
        let url = self.options.runner_url.as_deref().unwrap_or_default();
        let text = format!("{}\n{url}\n", version.unwrap_or_default());
        // Never through a link: the directory is the job user's.
        let write = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&marker)?
                .write_all(text.as_bytes())
        };
        write().with_context(|| format!("writing {}", marker.display()))
    }
}
