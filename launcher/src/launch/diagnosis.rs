//! What an instance's console says of a launch that failed. Pure.

use std::time::Duration;

use anyhow::Error;
use common::error::{Class, Failure, Report};
use common::log::escape;
use common::phase::{Phase, State};
use common::secret::Secret;

/// How many of the console's last lines are shown.
const LINES: usize = 30;

/// A shorter secret would mask parts of ordinary words.
const SHORTEST_SECRET: usize = 4;

/// The end of a console, without secrets and without anything that moves a cursor.
#[derive(Debug, Default)]
pub struct Diagnosis {
    /// The last phase that was told.
    pub phase: Option<Phase>,
    /// The last lines.
    pub lines: Vec<String>,
}

impl Diagnosis {
    /// Reads a console.
    pub fn read(console: &str, secrets: &[Secret]) -> Self {
        let mut text = console.to_owned();
        for secret in secrets.iter().filter(|secret| secret.expose().len() >= SHORTEST_SECRET) {
            text = text.replace(secret.expose(), "****");
        }
        let mut lines: Vec<String> = text
            .lines()
            .rev()
            .map(|line| escape(line.trim_end()))
            .filter(|line| !line.is_empty())
            .take(LINES)
            .collect();
        lines.reverse();
        Self {
            phase: Self::phases(&text).last(),
            lines,
        }
    }

    /// Every phase that a console tells of, in order.
    pub fn phases(console: &str) -> impl Iterator<Item = Phase> {
        console.lines().filter_map(Phase::parse)
    }

    /// The error that a launch ends with whose instance did not become a runner: its class and hint stay if it has its own.
    pub fn explain(&self, error: Error) -> Error {
        let class = match Report(&error).class() {
            Class::Unexpected => Class::NotOnline,
            own => own,
        };
        if class != Class::NotOnline {
            return error;
        }
        let failure = Failure::new(class, format!("the runner did not come online: {}", self.stage())).hint(self.hint());
        error.context(failure)
    }

    /// How far it came, for people.
    pub fn stage(&self) -> String {
        let Some(phase) = &self.phase else {
            return "its console tells of no phase".to_owned();
        };
        let name = escape(&phase.name);
        match phase.state {
            State::Begin if phase.detail.is_empty() => format!("phase `{name}` had begun"),
            State::Begin => format!("phase `{name}` had begun: {}", escape(&phase.detail)),
            State::Ok => format!("phase `{name}` was done"),
            State::Fail => format!("phase `{name}` failed: {}", escape(parts(&phase.detail).0)),
        }
    }

    /// The agent's own, where it has one: it knows what went wrong.
    fn hint(&self) -> String {
        let own = self.phase.as_ref().and_then(|phase| parts(&phase.detail).1);
        own.map_or_else(|| self.usual_hint().to_owned(), escape)
    }

    fn usual_hint(&self) -> &'static str {
        match self.phase.as_ref().map(|phase| phase.name.as_str()) {
            None | Some("boot") => {
                "the machine did not get as far as the agent: is the image one with cloud-init, and the machine large enough to boot in time?"
            }
            Some("pod") => {
                "the cluster has not started the pod; why is in the console's lines: check the image, the nodes and their labels, `--cloud-type` and `--cloud-hdd-size`"
            }
            Some("agent") => {
                "the machine needs a way out to the agent's address: a public address, a NAT, a `--proxy`, or a mirror given as `--agent-url`; where its certificate is not trusted, `--ca-certificates`"
            }
            Some("startup-script") => {
                "what `--cloud-startup-script` printed is in the console's lines; `--provisioning-timeout` is how long it may take"
            }
            Some("install-runner") => {
                "the machine needs a way out to the runner's download (`--proxy`), or a mirror given as `--runner-url`, and disk space (`--cloud-hdd-size`)"
            }
            Some("register") => "the machine needs a way out to the forge, and the token must last until then",
            Some(_) => "the runner was started; its own log lines are in the console's lines",
        }
    }
}

/// The agent's words for a failure, `WHAT (hint: WHAT TO DO)`, apart.
fn parts(detail: &str) -> (&str, Option<&str>) {
    let hinted = detail.strip_suffix(')').and_then(|text| text.rsplit_once(" (hint: "));
    hinted.map_or((detail, None), |(what, hint)| (what, Some(hint)))
}

/// The error of a launch that used up its time.
pub fn late(budget: Duration, stage: &str) -> Error {
    Failure::new(
        Class::NotOnline,
        format!(
            "the time was used up: {} s (`--provisioning-timeout`), at last {stage}",
            budget.as_secs_f64()
        ),
    )
    .hint("give a longer `--provisioning-timeout` if that is what it takes")
    .into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::error::{Class, Failure, Report};
    use common::secret::Secret;

    use super::{Diagnosis, LINES, late};

    #[test]
    fn the_end_of_a_console_without_secrets_and_control_characters() {
        let mut console = "a line\r\n\n".repeat(100);
        console += "cml-phase name=boot state=ok after=1\ntoken=ghp_canary \u{1b}[2Jx\nab\n";
        console += "[  3.1] cml-phase name=startup-script state=fail after=12 detail=exit status 7 ghp_canary \u{1b}[31m\n";
        let diagnosis = Diagnosis::read(&console, &[Secret::new("ghp_canary"), Secret::new("ab"), Secret::default()]);
        assert_eq!(diagnosis.lines.len(), LINES);
        let text = diagnosis.lines.join("\n");
        assert!(!text.contains("canary") && !text.contains(['\u{1b}', '\r']), "{text}");
        assert!(text.contains("token=**** ") && text.contains("\nab\n"), "{text}");
        let error = diagnosis.explain(late(Duration::from_mins(10), "waiting for the runner"));
        assert_eq!(Report(&error).class(), Class::NotOnline);
        insta::assert_snapshot!("late", Report(&error));
    }

    #[test]
    fn every_phase_has_its_hint() {
        let mut hints = Vec::new();
        for name in ["boot", "pod", "agent", "startup-script", "install-runner", "register", "online"] {
            let diagnosis = Diagnosis::read(&format!("cml-phase name={name} state=begin after=0"), &[]);
            hints.push(diagnosis.hint());
        }
        let count = hints.len();
        hints.dedup();
        assert_eq!(hints.len(), count);
        assert_eq!(Diagnosis::read("", &[]).stage(), "its console tells of no phase");
    }

    #[test]
    fn the_agents_own_hint_is_better_than_that_of_the_phase() {
        let failed = |detail: &str| {
            let console = format!("cml-phase name=install-runner state=fail after=1 detail={detail}");
            let diagnosis = Diagnosis::read(&console, &[]);
            (diagnosis.stage(), diagnosis.hint())
        };
        let (stage, hint) = failed("no Docker answers (hint: install it (or not))");
        assert_eq!(stage, "phase `install-runner` failed: no Docker answers");
        assert_eq!(hint, "install it (or not)");
        let (stage, hint) = failed("cut off (hint: inst");
        assert!(
            stage.ends_with("cut off (hint: inst") && hint.contains("--runner-url"),
            "{stage} {hint}"
        );
    }

    #[test]
    fn an_error_that_knows_better_keeps_its_class_and_hint() {
        let refused = Failure::new(Class::Access, "401").hint("a new token").into();
        let error = Diagnosis::default().explain(refused);
        assert_eq!(
            (Report(&error).class(), Report(&error).hint()),
            (Class::Access, Some("a new token"))
        );
        let other = Diagnosis::default().explain(anyhow::anyhow!("broken"));
        assert_eq!(Report(&other).class(), Class::NotOnline);
    }
}
