//! Whether a machine is needed at all.

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::{Forge, Runner, Which};

use crate::request::Request;

/// Asks the forge for the runners that are there, if they matter, and decides.
pub async fn ask(request: &Request, forge: &dyn Forge) -> Result<Decision> {
    let options = &request.options.decision;
    let looks_at_all = options.reuse || options.reuse_idle;
    if !looks_at_all && !request.named_by_user {
        return Ok(Decision::Launch);
    }
    let labels = &request.options.runner.labels;
    let which = if looks_at_all {
        Which::Matching(&request.name, labels)
    } else {
        Which::Named(&request.name)
    };
    let runners = forge.runners(which).await.context("listing the runners")?;
    let ask = Ask {
        name: request.name.clone(),
        labels: labels.clone(),
        reuse: options.reuse,
        reuse_idle: options.reuse_idle,
    };
    decide(&ask, &runners)
}

/// What a launch asks of the runners that are there.
#[derive(Debug, Clone, Default)]
struct Ask {
    /// The name of the runner to launch.
    name: String,
    /// The labels that it is to have.
    labels: Vec<String>,
    /// `--reuse`
    reuse: bool,
    /// `--reuse-idle`
    reuse_idle: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Launch a new runner.
    Launch,
    /// There is one already.
    Reuse {
        /// That one.
        runner: Runner,
        /// The old tool's words for it, which people search their logs for.
        message: String,
    },
}

/// Decides; pure. A runner that is offline is never reused: nobody knows whether it comes back.
fn decide(ask: &Ask, runners: &[Runner]) -> Result<Decision> {
    let named = runners.iter().find(|runner| runner.name.eq_ignore_ascii_case(&ask.name));
    let mut online = runners.iter().filter(|runner| runner.online && runner.has_labels(&ask.labels));
    let chosen = match (ask.reuse, ask.reuse_idle, named) {
        (true, _, Some(named)) if named.online => Some((named, format!("Reusing existing runner named {}...", named.name))),
        (true, _, _) => online.next().map(|runner| {
            let labels = ask.labels.join(",");
            (runner, format!("Reusing existing online runners with the {labels} labels..."))
        }),
        (_, true, _) => online
            .find(|runner| !runner.busy)
            .map(|runner| (runner, "Found matching idle runner.".to_owned())),
        _ => None,
    };
    if let Some((runner, message)) = chosen {
        return Ok(Decision::Reuse {
            runner: runner.clone(),
            message,
        });
    }
    named.map_or(Ok(Decision::Launch), |named| Err(in_use(named, ask.reuse).into()))
}

fn in_use(named: &Runner, reuse: bool) -> Failure {
    let name = &named.name;
    let message = format!("Runner name {name} is already in use. Please change the name or terminate the existing runner.");
    let hint = match (named.online, reuse) {
        (false, _) => "it is offline: delete it in the forge's runner settings, or give another `--name`",
        (true, false) => "give another `--name`, or `--reuse` to use that runner",
        (true, true) => "give another `--name`",
    };
    Failure::new(Class::NameInUse, message).hint(hint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use common::error::{Class, Report};
    use common::forge::{Runner, RunnerId};

    use super::{Ask, Decision, decide};

    fn runner(name: &str, online: bool, busy: bool, labels: &str) -> Runner {
        Runner {
            id: RunnerId::from(1),
            name: name.into(),
            online,
            busy,
            labels: labels.split(',').map(str::to_owned).collect(),
        }
    }

    fn there() -> Vec<Runner> {
        vec![
            runner("off", false, false, "self-hosted,Linux,X64,gpu"),
            runner("busy", true, true, "self-hosted,Linux,X64,gpu"),
            runner("idle", true, false, "self-hosted,Linux,X64,gpu,big"),
        ]
    }

    /// The name of the runner that is reused, `launch`, or the class of the refusal.
    fn decided(name: &str, reuse: bool, reuse_idle: bool, labels: &str) -> String {
        let ask = Ask {
            name: name.into(),
            labels: labels.split(',').map(str::to_owned).collect(),
            reuse,
            reuse_idle,
        };
        match decide(&ask, &there()) {
            Ok(Decision::Launch) => "launch".into(),
            Ok(Decision::Reuse { runner, .. }) => runner.name,
            Err(error) => format!("{:?}", Report(&error).class()),
        }
    }

    #[test]
    fn each_way_to_ask() {
        for (name, reuse, reuse_idle, labels, expected) in [
            ("new", false, false, "gpu", "launch"),
            ("busy", false, false, "gpu", "NameInUse"),
            ("off", false, false, "gpu", "NameInUse"),
            ("OFF", false, false, "gpu", "NameInUse"),
            ("busy", true, false, "other", "busy"),
            ("new", true, false, "GPU,linux", "busy"),
            ("new", true, false, "big", "idle"),
            ("new", true, false, "gpu,none", "launch"),
            ("off", true, false, "gpu", "busy"),
            ("off", true, false, "none", "NameInUse"),
            ("new", false, true, "gpu", "idle"),
            ("busy", false, true, "gpu", "idle"),
            ("busy", false, true, "none", "NameInUse"),
            ("new", false, true, "none", "launch"),
        ] {
            assert_eq!(
                decided(name, reuse, reuse_idle, labels),
                expected,
                "--name={name} --reuse={reuse} --reuse-idle={reuse_idle} --labels={labels}"
            );
        }
    }

    #[test]
    fn the_old_words() {
        let said = |name: &str, reuse, labels: &str| {
            let ask = Ask {
                name: name.into(),
                labels: labels.split(',').map(str::to_owned).collect(),
                reuse,
                reuse_idle: !reuse,
            };
            match decide(&ask, &there()).unwrap() {
                Decision::Reuse { message, .. } => message,
                Decision::Launch => panic!("nothing to reuse"),
            }
        };
        assert_eq!(said("idle", true, "gpu"), "Reusing existing runner named idle...");
        assert_eq!(
            said("new", true, "gpu,big"),
            "Reusing existing online runners with the gpu,big labels..."
        );
        assert_eq!(said("new", false, "gpu"), "Found matching idle runner.");
        let ask = Ask {
            name: "idle".into(),
            ..Ask::default()
        };
        let error = decide(&ask, &there()).unwrap_err();
        assert_eq!(Report(&error).class(), Class::NameInUse);
        assert_eq!(
            error.to_string(),
            "Runner name idle is already in use. Please change the name or terminate the existing runner."
        );
    }
}
