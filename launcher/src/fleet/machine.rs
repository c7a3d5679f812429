//! One machine as its cloud and its forge see it, and whether it is still good for anything. Pure.

use std::time::Duration;

use common::forge::Runner;
use jiff::{SignedDuration, Timestamp};
use url::Url;

use crate::cloud::{Instance, Life};

/// How long past its deadline a machine without an online runner is left alone: its own timer ends it before.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

const HOUR: Duration = Duration::from_hours(1);

/// One machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its name, and its runner's.
    pub name: String,
    /// What the cloud says of it.
    pub instance: Instance,
    /// What the forge says of its runner; none where it has no such runner.
    pub runner: Option<Runner>,
    /// USD an hour, where the cloud says; asked for only when machines are listed.
    pub hourly: Option<f64>,
}

/// What is to be done with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does its work, or may come to it yet.
    Keep,
    /// Nobody needs it, for this reason.
    Destroy(&'static str),
    /// It is gone, but the forge still knows its runner.
    Forget,
}

impl Machine {
    /// Of an instance that has our tags.
    pub fn new(instance: Instance) -> Self {
        let name = ["cml-runner-name", "Name"].iter().find_map(|tag| instance.tags.get(*tag));
        Self {
            name: name.unwrap_or(&instance.id).clone(),
            instance,
            runner: None,
            hourly: None,
        }
    }

    /// A tag that the launcher gave it.
    fn tag(&self, name: &str) -> Option<&str> {
        self.instance.tags.get(name).map(String::as_str)
    }

    /// Whether it was launched for this repository.
    pub fn is_of(&self, repo: &Url) -> bool {
        self.tag("cml-repo").is_some_and(|own| own.eq_ignore_ascii_case(repo.as_str()))
    }

    /// Whether a person who says `wanted` means it.
    pub fn is_called(&self, wanted: &str) -> bool {
        self.name.eq_ignore_ascii_case(wanted) || self.instance.id == wanted
    }

    /// The workflow run that launched it.
    pub fn run(&self) -> Option<&str> {
        self.tag("cml-run")
    }

    /// When its launcher gave it up unless its runner was online.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.tag("cml-deadline")?.parse().ok()
    }

    /// How long ago it was launched.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        age(&self.instance, now)
    }

    /// USD that it has cost so far at its price of now.
    pub fn cost(&self, now: Timestamp) -> Option<f64> {
        Some(self.hourly? * self.age(now)?.as_secs_f64() / HOUR.as_secs_f64())
    }

    /// What the forge says of its runner, in one word.
    pub fn runner_state(&self) -> &'static str {
        match &self.runner {
            None => "none",
            Some(runner) if runner.busy => "busy",
            Some(runner) if runner.online => "idle",
            Some(_) => "offline",
        }
    }

    /// Whether the cloud's word alone makes it look useless; only its runner can tell.
    pub fn is_suspect(&self, now: Timestamp) -> bool {
        match self.instance.life {
            Life::Stopped | Life::Off => true,
            Life::Live => self.is_late(now),
            Life::Gone => false,
        }
    }

    fn is_late(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| now.duration_since(deadline) > PATIENCE)
    }

    /// Whether it is still good for anything.
    pub fn verdict(&self, now: Timestamp) -> Verdict {
        // A stopped machine's disk costs money, if not all of it does, and nobody starts it again.
        if matches!(self.instance.life, Life::Stopped | Life::Off) {
            return Verdict::Destroy("it is stopped");
        }
        match &self.runner {
            Some(runner) if runner.online || runner.busy => Verdict::Keep,
            Some(_) if self.instance.is_gone() => Verdict::Forget,
            _ if self.instance.is_gone() => Verdict::Keep,
            runner if self.is_late(now) => Verdict::Destroy(match runner {
                Some(_) => "it is past its deadline, and its runner is offline",
                None => "it is past its deadline, and has no runner",
            }),
            _ => Verdict::Keep,
        }
    }
}

/// How long ago an instance was launched, where its cloud says.
pub fn age(instance: &Instance, now: Timestamp) -> Option<Duration> {
    let launched: Timestamp = instance.launched_at.parse().ok()?;
    now.duration_since(launched).try_into().ok()
}
