//! What the world is told: status records, console phases, the service manager.

use std::time::Duration;

use common::phase::State as Phase;
use common::status::{self, Status};
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};

use super::Agent;
use crate::condition::Condition;
use crate::lifecycle::{State, Step};
use crate::pause::Failures;

/// The phase that a launcher sees on the console, for each step before the runner is online.
const fn phase(step: Step) -> Option<&'static str> {
    match step {
        Step::Provisioning => Some("startup-script"),
        Step::Rebooting => Some("reboot"),
        Step::Installing => Some("install-runner"),
        Step::Registering => Some("register"),
        Step::Starting => Some("online"),
        _ => None,
    }
}

impl Agent {
    /// The first step has no one before it.
    pub(super) fn report_begin(&self) {
        if self.state.stop.is_some() {
            // Already at the end: from here on the service manager watches whether it gets there.
            notify(&[NotifyState::Ready]);
        }
        if let Some(name) = phase(self.state.step) {
            self.console.phase(name, Phase::Begin, "");
        }
        self.report_condition();
    }

    /// Tells what changed; `ended` is how a job ended, if one did.
    pub(super) fn report(&mut self, before: &State, ended: Option<bool>) {
        if before.job.is_none() && self.state.job.is_some() {
            let ids = self.state.job.as_ref().and_then(|job| job.ids.as_ref());
            status::emit(&Status::JobStarted(ids), &self.spec.repo);
        }
        if let (Some(job), None) = (&before.job, &self.state.job) {
            let success = ended.unwrap_or(false);
            let job = job.ids.as_ref();
            status::emit(&Status::JobEnded { job, success }, &self.spec.repo);
        }
        if before.step == self.state.step {
            if before.leaves != self.state.leaves {
                self.report_condition();
            }
            return;
        }
        self.since = Timestamp::now();
        self.report_condition();
        tracing::info!("{:?} → {:?}", before.step, self.state.step);
        self.report_phase(before);
        if self.state.online && !before.online {
            self.report_online();
        }
        if self.state.step == Step::Terminating {
            self.report_end();
        }
        notify(&[NotifyState::Status(&format!("{:?}", self.state.step))]);
    }

    /// For whoever looks at a user's own host; on an instance that is the console.
    fn report_condition(&self) {
        if self.spec.cloud.is_some() {
            return;
        }
        let condition = Condition {
            version: env!("CARGO_PKG_VERSION").into(),
            repo: self.spec.repo.to_string(),
            labels: self.spec.options.labels.clone(),
            step: self.state.step,
            since: self.since,
            registered: self.state.registered,
            reason: self.state.stop.as_ref().or(self.state.leaves.as_ref()).map(ToString::to_string),
        };
        if let Err(error) = condition.write(self.dir.path()) {
            tracing::warn!("{error:#}");
        }
    }

    fn report_phase(&self, before: &State) {
        if before.online {
            return;
        }
        if let Some(name) = phase(before.step) {
            match &self.state.stop {
                Some(reason) => self.console.phase(name, Phase::Fail, &reason.to_string()),
                None => self.console.phase(name, Phase::Ok, ""),
            }
        }
        if let Some(name) = phase(self.state.step) {
            self.console.phase(name, Phase::Begin, "");
        }
    }

    fn report_online(&mut self) {
        self.online_at = Some(std::time::Instant::now());
        Failures::of(self.dir.path()).clear();
        if let Err(error) = self.dir.mark_online() {
            // Then the boot deadline ends this machine, which is bad, but not silent.
            tracing::error!("{error:#}");
        }
        status::emit(&Status::Ready, &self.spec.repo);
        notify(&[NotifyState::Ready]);
    }

    fn report_end(&self) {
        if let Some(job) = &self.state.job {
            let job = job.ids.as_ref();
            status::emit(&Status::JobEnded { job, success: false }, &self.spec.repo);
        }
        let reason = self.state.stop.as_ref().map(ToString::to_string).unwrap_or_default();
        if self.state.stop.as_ref().is_some_and(|stop| stop.exit_code() != 0) {
            tracing::error!("{reason}");
        }
        status::emit(&Status::Terminated { reason: &reason }, &self.spec.repo);
        notify(&[NotifyState::Stopping]);
    }
}

/// Tells systemd, if it is there.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd was not told: {error}");
    }
}

/// systemd kills an agent that is silent for longer than the unit's `WatchdogSec`.
pub struct Watchdog(Option<(Duration, Instant)>);

impl Watchdog {
    /// As often as the unit asks for, twice over.
    pub fn from_environment() -> Self {
        let every = sd_notify::watchdog_enabled()
            .map(|limit| limit / 2)
            .filter(|every| !every.is_zero());
        Self(every.map(|every| (every, Instant::now() + every)))
    }

    /// Returns, and tells systemd, whenever it is time. Cancel-safe.
    pub async fn due(&mut self) {
        let Some((every, next)) = &mut self.0 else {
            return std::future::pending().await;
        };
        sleep_until(*next).await;
        notify(&[NotifyState::Watchdog]);
        *next = Instant::now() + *every;
    }
}
