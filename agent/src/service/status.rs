//! `cml-agent status`: the runners of this host, without a question to any forge.

use anyhow::Result;
use common::error::{Class, Failure};
use common::lock;
use common::log::escape;
use nix::unistd::Uid;

use super::place::Place;
use super::say;
use super::systemd::{self, State};
use crate::condition::Condition;
use crate::lifecycle::Step;
use crate::pause::Failures;

/// Some runner is not online. Source: as `systemctl status`.
const NOT_ONLINE: u8 = 3;
/// There is none.
const NONE: u8 = 4;

/// Shows the runner of this name, or all of them; returns the exit code.
pub fn status(name: Option<&str>) -> Result<u8> {
    if systemd::runs() && !Uid::effective().is_root() {
        let failure = Failure::new(Class::Usage, "only root can look at the runners of this host");
        return Err(failure.hint("use sudo").into());
    }
    let wanted = |place: &Place| name.is_none_or(|name| place.name == name);
    let places: Vec<Place> = Place::all().into_iter().filter(wanted).collect();
    if places.is_empty() {
        say(&match name {
            Some(name) => format!("no runner {name} is installed on this host"),
            None => "no runner is installed on this host".into(),
        })?;
        return Ok(NONE);
    }
    let mut code = 0;
    for place in places {
        let (text, is_online) = describe(&place)?;
        say(&text)?;
        if !is_online {
            code = NOT_ONLINE;
        }
    }
    Ok(code)
}

fn describe(place: &Place) -> Result<(String, bool)> {
    let condition = Condition::read(&place.state());
    let lives = lock::holder(&place.state()).is_some();
    let failures = Failures::of(&place.state()).count();
    let is_online = lives && condition.as_ref().is_some_and(Condition::is_online);
    let mut text = vec![format!("{}: {}", place.name, words(condition.as_ref(), lives, failures))];
    if let Some(condition) = condition {
        let Condition { version, repo, labels, .. } = condition;
        text.push(format!("  {repo}, labels {}, cml-agent {version}", labels.join(",")));
    }
    if systemd::runs() && place.unit_file().exists() {
        let unit = place.unit();
        let State {
            active, enabled, restarts, ..
        } = State::of(&unit)?;
        text.push(format!("  {unit}: {active}, {enabled}, started again {restarts} times"));
    }
    // A reason may tell what a job is called.
    let text: Vec<String> = text.iter().map(|line| escape(line)).collect();
    Ok((text.join("\n"), is_online))
}

/// What it does, since when, and why if not what it should.
fn words(condition: Option<&Condition>, lives: bool, failures: u32) -> String {
    let Some(condition) = condition else {
        return if lives { "starting".into() } else { "not running".into() };
    };
    let does = match condition.step {
        _ if !lives => "not running",
        Step::Terminating if failures > 0 => "waiting to try again",
        Step::Idle | Step::Checking => "online, idle",
        Step::Busy => "online, runs a job",
        Step::Withdrawing | Step::Finishing => "online, leaving",
        Step::Provisioning | Step::Rebooting | Step::Installing | Step::Registering | Step::Starting => "starting",
        Step::Saving | Step::Stopping | Step::Rerunning | Step::Unregistering | Step::Terminating | Step::Done => "stopping",
    };
    let reason = condition.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{does} since {:.0}{reason}", condition.since)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Step, words};
    use crate::condition::Condition;

    #[test]
    fn it_says_what_a_runner_does_and_why_not() {
        let at = |step: Step, reason: Option<&str>| Condition {
            version: "1.2.3".into(),
            repo: "https://github.com/octo/train".into(),
            labels: vec!["gpu".into()],
            step,
            since: Timestamp::UNIX_EPOCH,
            registered: true,
            reason: reason.map(str::to_owned),
        };
        let when = "since 1970-01-01T00:00:00Z";
        assert_eq!(words(None, false, 0), "not running");
        assert_eq!(words(Some(&at(Step::Idle, None)), true, 0), format!("online, idle {when}"));
        let drains = at(Step::Busy, Some("drained"));
        assert_eq!(words(Some(&drains), true, 0), format!("online, runs a job {when} (drained)"));
        assert_eq!(words(Some(&drains), false, 0), format!("not running {when} (drained)"));
        let refused = at(Step::Terminating, Some("401 Unauthorized"));
        assert_eq!(
            words(Some(&refused), true, 2),
            format!("waiting to try again {when} (401 Unauthorized)")
        );
    }
}
