//! The runner is told what it is: registered with a token by its own config.sh, or given a ready single-use configuration.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::{Enrollment, RunnerId};
use common::secret::Secret;
use serde::Deserialize;

use super::{GitHub, LISTENER, UPDATED};
use crate::runner::{Ready, program};
use crate::supervise::{self, CommandLine};

/// How long config.sh may take: a few requests, on a slow machine.
const BUDGET: Duration = Duration::from_mins(3);
/// How many of its lines an error shows.
const LAST_LINES: usize = 8;
/// What an earlier registration left; with it, config.sh refuses.
const STALE: [&str; 6] = [
    ".runner",
    ".credentials",
    ".credentials_rsaparams",
    ".runner_migrated",
    ".credentials_migrated",
    UPDATED,
];
/// Every argument can be given as a variable, which the runner removes from its environment at once: nothing secret is in its arguments.
const TOKEN: &str = "ACTIONS_RUNNER_INPUT_TOKEN";
const JIT: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";

impl GitHub {
    /// Registers it; returns what to run.
    pub(super) async fn register(&self, enrollment: &Enrollment) -> Result<Ready> {
        for name in STALE {
            program::forget(&self.program.dir.join(name))?;
        }
        let mut command = self.command(LISTENER, &["run"]);
        command.env.extend(self.hooks.environment());
        let id = match enrollment {
            Enrollment::Token(token) => {
                self.config(token).await?;
                self.registration()?
            }
            Enrollment::Made { id, config } => {
                command.env.push((JIT.into(), config.expose().into()));
                id.clone()
            }
        };
        Ok(Ready { id, command })
    }

    fn config_command(&self, token: &Secret) -> CommandLine {
        let labels = self.options.labels.join(",");
        let page = self.page.as_str().trim_end_matches('/');
        let mut args = vec![
            "--unattended",
            "--url",
            page,
            "--name",
            &self.name,
            "--labels",
            &labels,
            "--work",
            "_work",
        ];
        if self.options.single {
            args.push("--ephemeral");
        }
        // Else GitHub stops serving a runner some weeks after the next version; a pinned one for a single job would only lose time.
        if self.options.single && self.options.runner_version.is_some() {
            args.push("--disableupdate");
        }
        let mut command = self.command("config.sh", &args);
        command.env.push((TOKEN.into(), token.expose().into()));
        command
    }

    async fn config(&self, token: &Secret) -> Result<()> {
        let mut last = VecDeque::new();
        let ended = supervise::run(&self.config_command(token), BUDGET, |line| {
            let line = line.replace(token.expose(), "****");
            tracing::debug!("config.sh: {line}");
            if !line.trim().is_empty() {
                last.push_back(line);
            }
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        })
        .await
        .context("starting the runner's config.sh")?;
        let said = Vec::from(last).join(" / ");
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(anyhow::anyhow!("config.sh ended with {status}: {said}").context(self.explain(&said))),
            None => {
                let failure = Failure::new(Class::NotOnline, "the runner could not be configured in time");
                Err(anyhow::anyhow!("config.sh said at last: {said}").context(failure.hint("can the machine reach the forge?")))
            }
        }
    }

    /// What config.sh says, for people who do not know it.
    fn explain(&self, said: &str) -> Failure {
        let said = said.to_ascii_lowercase();
        if said.contains("exists with the same name") {
            return Failure::new(Class::NameInUse, format!("the name `{}` is in use by another runner", self.name))
                .hint("choose another --name, use --reuse, or remove that runner in the settings of the forge");
        }
        let failure = Failure::new(Class::NotOnline, "the runner could not be configured");
        if said.contains("libicu") || said.contains("dependencies is missing") {
            return failure.hint("install the runner's libraries (libicu, OpenSSL) in the image or in --cloud-startup-script");
        }
        if said.contains("404") || said.contains("401") || said.contains("403") {
            return Failure::new(Class::Access, "the forge did not let the runner register")
                .hint("may the token still register runners here, and is the machine's clock right?");
        }
        failure
    }

    /// The id that the forge gave it: `agentId` in `.runner`, which begins with a byte-order mark.
    fn registration(&self) -> Result<RunnerId> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Settings {
            agent_id: u64,
        }
        let path = self.program.dir.join(".runner");
        let read = || -> Result<Settings> {
            let text = program::read_small(&path)?;
            Ok(serde_json::from_str(text.trim_start_matches('\u{feff}'))?)
        };
        let settings = read().with_context(|| format!("reading {}", path.display()))?;
        Ok(RunnerId::from(settings.agent_id))
    }
}
