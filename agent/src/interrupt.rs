//! The user's script for interruptions: it saves what a job has done before the job is interrupted.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use common::spec::Script;

use crate::script;
use crate::supervise::CommandLine;

/// What the runner is told in its environment is none of the script's business.
const RUNNERS_OWN: &str = "ACTIONS_";

/// Runs it as the jobs' user, in the runner's directory, with why and for how many whole seconds in its environment; its output goes to the log.
///
/// # Errors
/// It cannot be started, fails, or takes longer than the budget; then nothing that it started survives, but the job does.
pub async fn save(script: &Script, runner: &CommandLine, reason: &str, budget: Duration) -> Result<()> {
    let own = runner.env.iter().filter(|(name, _)| !name.starts_with(RUNNERS_OWN)).cloned();
    let more = [
        ("CML_INTERRUPT_REASON".to_owned(), reason.to_owned()),
        ("CML_SECONDS_LEFT".to_owned(), budget.as_secs().to_string()),
    ];
    let within = CommandLine {
        dir: runner.dir.clone(),
        env: own.chain(more).collect(),
        user: runner.user.clone(),
        shares_user: true,
        ..CommandLine::default()
    };
    tracing::info!("letting the job save its work for {} s", budget.as_secs());
    let ended = script::run(script, within, budget, |line| tracing::info!("on interrupt: {line}")).await;
    match ended.context("running the script for interruptions (--on-interrupt)")? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("the script for interruptions failed: {status}"),
        None => bail!(
            "the script for interruptions took longer than {} s: it was killed",
            budget.as_secs()
        ),
    }
}
