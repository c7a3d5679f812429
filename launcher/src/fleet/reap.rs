//! Cleaning up: what nobody needs is ended, what is gone is forgotten, and what could not be run again is.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use common::forge::{Declined, Interrupted, Pending, Rerun, RerunOutcome};
use common::phase::{self, Phase, State};
use jiff::Timestamp;
use tokio::time::sleep;

use super::Fleet;
use super::legacy::Leftover;
use super::machine::{Machine, Verdict};
use crate::cloud::{Instance, Life, Search};

/// A runner that only restarts is back by then: what is to be destroyed is looked at twice.
const SECOND_LOOK: Duration = Duration::from_secs(20);
/// How long the forge may take to let a run run again; the run ended long ago.
const RERUN: Duration = Duration::from_mins(1);

impl Fleet<'_> {
    /// Does it, or with `--dry-run` only says it.
    pub(super) async fn reap(&self) -> Result<String> {
        let machines = self.machines().await?;
        let doomed = self.doomed(&machines).await?;
        let cleaned = self.clean(&machines, &doomed).await;
        let legacy = self.legacy().await;
        match cleaned {
            Ok(said) => Ok(said + &legacy),
            Err(error) => {
                crate::write_out(legacy.as_bytes())?;
                Err(error)
            }
        }
    }

    /// What the old tool left behind, of whatever repository: it does not say. Only told of, since what a name proves is not enough to end a machine.
    async fn legacy(&self) -> String {
        let found = match self.cloud.find(&Search::Legacy).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("looking for machines that the old `cml` left behind: {error:#}");
                return String::new();
            }
        };
        let cloud = self.request.options.cloud.cloud;
        let left = found.into_iter().filter_map(Leftover::of);
        let now = Timestamp::now();
        left.filter_map(|leftover| Some(leftover.line(cloud?, now))).collect()
    }

    /// Ends those of `found`, which the cloud has just listed, that nobody needs; forgets and runs again nothing else.
    pub(super) async fn tidy(&self, found: Vec<Instance>) -> Result<String> {
        let now = Timestamp::now();
        let found = found.into_iter().map(Machine::new);
        let mut suspects = found.filter(|machine| machine.is_of(&self.request.repo) && machine.is_suspect(now));
        if suspects.next().is_none() {
            return Ok(String::new());
        }
        let mut machines = self.machines().await?;
        let doomed = self.doomed(&machines).await?;
        machines.retain(|machine| doomed.contains(&machine.instance.id));
        if machines.is_empty() {
            return Ok(String::new());
        }
        self.clean(&machines, &doomed).await
    }

    /// Goes on past what fails.
    async fn clean(&self, machines: &[Machine], doomed: &[String]) -> Result<String> {
        let (mut said, mut failed) = (String::new(), Vec::new());
        let mut note = |outcome: Result<String>| match outcome {
            Ok(line) => said += &line,
            Err(error) => failed.push(format!("{error:#}")),
        };
        for machine in machines {
            // Before it is destroyed: not every cloud keeps the console of what is gone.
            if machine.instance.is_gone() {
                let outcome = self.run_again(machine).await;
                let is_kept = outcome.is_err() && machine.instance.life == Life::Stopped;
                note(outcome);
                if is_kept {
                    // Its last words would go with it; it costs next to nothing, and the next time may do better.
                    continue;
                }
            }
            match machine.verdict(Timestamp::now()) {
                Verdict::Destroy(why) if doomed.contains(&machine.instance.id) => note(self.destroy(machine, why).await),
                Verdict::Forget => note(self.forget_gone(machine).await),
                Verdict::Destroy(_) | Verdict::Keep => {}
            }
        }
        if said.is_empty() && failed.is_empty() {
            let _ = writeln!(said, "nothing to clean up (machines: {})", machines.len());
        }
        if failed.is_empty() {
            return Ok(said);
        }
        crate::write_out(said.as_bytes())?;
        bail!("not everything could be cleaned up: {}", failed.join("; "))
    }

    /// The ids of those that both looks find useless.
    async fn doomed(&self, machines: &[Machine]) -> Result<Vec<String>> {
        let useless = |machines: &[Machine]| -> Vec<String> {
            let doomed = machines
                .iter()
                .filter(|machine| matches!(machine.verdict(Timestamp::now()), Verdict::Destroy(_)));
            doomed.map(|machine| machine.instance.id.clone()).collect()
        };
        let first = useless(machines);
        let is_sure = |id: &String| {
            machines
                .iter()
                .any(|machine| machine.instance.id == *id && machine.instance.is_gone())
        };
        if first.iter().all(is_sure) || self.is_rehearsal() {
            return Ok(first);
        }
        tracing::info!("looking again at {} in {} s", first.join(", "), SECOND_LOOK.as_secs());
        sleep(SECOND_LOOK).await;
        let second = useless(&self.machines().await?);
        Ok(first.into_iter().filter(|id| second.contains(id)).collect())
    }

    fn is_rehearsal(&self) -> bool {
        self.request.options.decision.dry_run
    }

    async fn destroy(&self, machine: &Machine, why: &str) -> Result<String> {
        if self.is_rehearsal() {
            return Ok(format!("{} ({}): would be terminated, {why}\n", machine.name, machine.instance.id));
        }
        tracing::info!("{}: {why}", machine.name);
        self.end(machine).await
    }

    async fn forget_gone(&self, machine: &Machine) -> Result<String> {
        let name = &machine.name;
        if self.is_rehearsal() {
            return Ok(format!("{name}: its machine is gone, its registration would be deleted\n"));
        }
        Ok(format!("{name}: its machine is gone{}\n", self.forget(machine).await?))
    }

    /// Runs again what the machine could not before it died; nothing to say where there is no such thing.
    async fn run_again(&self, machine: &Machine) -> Result<String> {
        let console = match self.cloud.console(&machine.instance.id).await {
            Ok(console) => console,
            Err(error) if machine.instance.life == Life::Stopped => {
                return Err(error.context(format!("reading the last words of {}, which is kept", machine.name)));
            }
            // A console that cannot be read any more has nothing to tell.
            Err(_) => String::new(),
        };
        let Some(pending) = pending(&console) else {
            return Ok(String::new());
        };
        let what = format!(
            "{}: the interrupted job of run {}",
            machine.name,
            common::log::escape(&pending.job.run)
        );
        if self.is_rehearsal() {
            return Ok(format!("{what} would be run again\n"));
        }
        let request = Rerun {
            job: Interrupted::Known(pending.job),
            runner: machine.name.clone(),
            launch: pending.launch,
            max_attempts: self.request.options.runner.max_attempts,
            patience: RERUN,
            budget: RERUN,
        };
        Ok(match self.forge.rerun(&request).await.with_context(|| what.clone())? {
            RerunOutcome::Requested(_) => format!("{what} runs again\n"),
            // Said once: whoever reaps every hour has heard it before.
            RerunOutcome::Declined(Declined::AlreadyRerun | Declined::Succeeded | Declined::Cancelled | Declined::Unknown) => String::new(),
            RerunOutcome::Declined(Declined::AttemptsUsedUp(attempts)) => {
                format!("{what} is not run again: it has had {attempts} attempts (--max-attempts)\n")
            }
        })
    }
}

/// The job that a machine's last words say it was about to run again, and do not say that it was.
fn pending(console: &str) -> Option<Pending> {
    let last = console
        .lines()
        .rev()
        .filter_map(Phase::parse)
        .find(|phase| phase.name == phase::RERUN)?;
    (last.state != State::Ok).then(|| serde_json::from_str(&last.detail).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::pending;

    const JOB: &str = r#"{"job":{"run":"42","attempt":1,"repository":"octo/train","key":"train"},"launch":null}"#;

    fn console(lines: &[(&str, &str)]) -> String {
        let line = |(state, detail): &(&str, &str)| format!("[ 1.0] cml-phase name=rerun state={state} after=3 detail={detail}\r\n");
        lines.iter().map(line).collect::<String>() + "[ 2.0] reboot: Power down\r\n"
    }

    #[test]
    fn only_what_was_not_run_again_is_left() {
        for (lines, left) in [
            (&[][..], false),
            (&[("begin", JOB)][..], true),
            (&[("begin", JOB), ("fail", JOB)][..], true),
            (&[("begin", JOB), ("ok", "")][..], false),
            (&[("fail", "nonsense")][..], false),
        ] {
            assert_eq!(pending(&console(lines)).is_some(), left, "{lines:?}");
        }
    }
}
