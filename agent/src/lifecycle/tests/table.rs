//! docs/lifecycle.md: every step and every event.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::super::{Limits, deadline, transition};
use super::{STEPS, events, limits, usual};

fn table() -> String {
    let mut out = String::from(
        "# The agent's life\n\nGenerated from `agent/src/lifecycle` by `make golden`, and compared in the tests. Each step begins its action; what is not listed \
         changes nothing.\nThe steps of a stop are shown for an interruption in the middle of a job, with `--on-interrupt`.\n",
    );
    let limits = Limits { save: true, ..limits() };
    let now = Duration::from_secs(100);
    for step in STEPS {
        let state = usual(step);
        let ends = deadline(&state, &limits).map_or("none".into(), |at| {
            let from = if at == Duration::from_mins(10) {
                "the agent's begin"
            } else {
                "its begin"
            };
            let after = if from == "its begin" { at.saturating_sub(state.since) } else { at };
            format!("{} s after {from}", after.as_secs())
        });
        let _ = write!(out, "\n## {step:?}\n\nAction: {:?}. Deadline: {ends}.\n\n", step.action());
        let _ = writeln!(out, "| event | next step | reason |\n|---|---|---|");
        for (name, event) in events() {
            let (next, action) = transition(state.clone(), event, now, &limits);
            if action.is_some() || next != state {
                let reason = next.stop.as_ref().filter(|_| next.stop != state.stop);
                let reason = reason.map(ToString::to_string).unwrap_or_default();
                let _ = writeln!(out, "| {name} | {:?} | {reason} |", next.step);
            }
        }
    }
    out
}

#[test]
fn the_table_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/lifecycle.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, table()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        table(),
        "run `make golden` and look at the diff"
    );
}

#[test]
fn every_step_can_be_left() {
    let left: BTreeSet<String> = STEPS
        .iter()
        .filter(|step| {
            events()
                .into_iter()
                .any(|(_, event)| transition(usual(**step), event, Duration::from_secs(100), &limits()).0.step != **step)
        })
        .map(|step| format!("{step:?}"))
        .collect();
    assert_eq!(left.len(), STEPS.len() - 1, "all but Done: {left:?}");
}
