//! Waiting until the forge says that the runner is online, and noticing that it never will be.

use std::time::Duration;

use anyhow::Result;
use common::error::{Class, Failure, Report};
use common::forge::Which;
use common::phase::{self, State};
use tokio::time::{Instant, sleep, timeout};

use super::diagnosis::Diagnosis;
use super::{Launch, Made};
use crate::cloud::{Instance, Search};

/// How long the console may take to show how far a machine has come: it is only for people, and the runner may be online meanwhile.
const CONSOLE: Duration = Duration::from_secs(3);

/// No pause is shorter.
const SHORTEST: Duration = Duration::from_millis(50);

/// How often one asks: in proportion to the budget, so that a launch takes as many requests in a rehearsal as in earnest.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The first pause between two questions to the forge; each is a quarter longer than the one before.
    first: Duration,
    /// The longest.
    longest: Duration,
    /// The pause between two questions to the cloud, whose calls are scarcer.
    health: Duration,
}

impl Pace {
    /// 2 s, 10 s and 30 s of ten minutes, and never more.
    pub fn of(budget: Duration) -> Self {
        let part = |parts: u32, longest: u64| (budget / parts).clamp(SHORTEST, Duration::from_secs(longest));
        Self {
            first: part(300, 2),
            longest: part(60, 10),
            health: phase::look(budget).max(SHORTEST),
        }
    }
}

impl Launch<'_> {
    /// Returns once the runner is online, or has been: a single job can be over between two questions.
    pub(super) async fn wait_online(&self, instance: &Instance, made: &Made) -> Result<()> {
        let pace = Pace::of(self.prepared.budget);
        let mut pause = pace.first;
        let mut next_health = Instant::now() + pace.health;
        let mut health = Health::default();
        let mut was_listed = false;
        loop {
            match self.forge.runners(Which::Named(&self.request.name)).await {
                Ok(runners) if runners.iter().any(|runner| runner.online) => return Ok(()),
                // The registration of a single-use configuration ends with its job.
                Ok(runners) if runners.is_empty() && made.registration.is_some() && was_listed => return Ok(()),
                Ok(runners) => was_listed |= !runners.is_empty(),
                Err(error) => {
                    if matches!(Report(&error).class(), Class::Access | Class::Usage) {
                        return Err(error.context("asking whether the runner is online"));
                    }
                    tracing::warn!("asking whether the runner is online: {error:#}");
                }
            }
            if Instant::now() >= next_health {
                next_health = Instant::now() + pace.health;
                if let Some(state) = self.death(instance, &mut health).await {
                    return self.judge(instance, &state).await;
                }
                match self.progress(instance, made).await {
                    Progress::Online => {
                        tracing::info!("the runner was online, says its machine's console");
                        return Ok(());
                    }
                    Progress::Failed => {
                        let message = format!("the instance {} gave up before its runner was online", instance.id);
                        return Err(Failure::new(Class::NotOnline, message).into());
                    }
                    Progress::Going(stage) => {
                        let (name, waited) = (&self.request.name, self.start.elapsed().as_secs());
                        tracing::info!("waiting for {name} for {waited} s: {stage}");
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 5 / 4).min(pace.longest);
        }
    }

    /// How far the machine has come, as far as its console tells. On some clouds the console goes with the machine: a short life is only seen here.
    async fn progress(&self, instance: &Instance, made: &Made) -> Progress {
        let console = timeout(CONSOLE, self.cloud.console(&instance.id)).await;
        // A console that cannot be read, or not yet, is told of when the launch fails.
        let console = console.ok().and_then(Result::ok).unwrap_or_default();
        if was_online(&console) {
            return Progress::Online;
        }
        let diagnosis = Diagnosis::read(&console, &made.secrets);
        match &diagnosis.phase {
            // Every machine goes after that.
            Some(phase) if phase.state == State::Fail => Progress::Failed,
            _ => Progress::Going(diagnosis.stage()),
        }
    }

    /// The state of an instance that is no more.
    async fn death(&self, instance: &Instance, health: &mut Health) -> Option<String> {
        let found = match self.cloud.find(&Search::Launch(&self.prepared.launch_id)).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("asking how the instance is: {error:#}");
                return None;
            }
        };
        match found.into_iter().find(|found| found.id == instance.id) {
            Some(found) if found.is_gone() => Some(found.state),
            Some(_) => {
                *health = Health { seen: true, missed: 0 };
                None
            }
            None => {
                health.missed += 1;
                // A cloud may take some seconds to list what it has just made.
                (health.seen || health.missed > 1).then(|| "terminated".to_owned())
            }
        }
    }

    /// What an instance that is no more came to.
    async fn judge(&self, instance: &Instance, state: &str) -> Result<()> {
        let console = self.cloud.console(&instance.id).await.unwrap_or_default();
        if was_online(&console) {
            tracing::info!("the runner was online, and is gone already");
            return Ok(());
        }
        let message = format!("the instance {} ended before its runner was online: {state}", instance.id);
        Err(Failure::new(Class::NotOnline, message).into())
    }
}

/// Whether a console tells that the runner was online.
fn was_online(console: &str) -> bool {
    Diagnosis::phases(console).any(|phase| phase.name == "online" && phase.state == State::Ok)
}

/// How far a machine has come.
enum Progress {
    /// Its runner was online.
    Online,
    /// It gave up, and goes.
    Failed,
    /// As far as this, for people.
    Going(String),
}

/// What the cloud said of the instance so far.
#[derive(Debug, Default)]
struct Health {
    /// It was listed.
    seen: bool,
    /// How often it was not listed since.
    missed: u32,
}
