//! The first table of docs/reruns.md: which causes interrupt a job, and which of those run it again.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use common::forge::Removal;
use common::timeout::Timeout;

use super::super::{Action, Event, Limits, Running, State, Step, deadline, transition};
use super::{limits, notice, usual};
use crate::runner::Exit;

/// A state to begin with.
type Start = fn() -> State;

/// Where the cause meets the agent.
const STATES: [(&str, Start); 4] = [
    ("job runs", || usual(Step::Busy)),
    ("job has just begun", || State {
        job: Some(Running {
            name: Some("train".into()),
            ..Running::default()
        }),
        ..usual(Step::Busy)
    }),
    ("idle", || usual(Step::Idle)),
    ("asks whether it is idle", || usual(Step::Withdrawing)),
];

/// A cause: what happens to a state.
type Cause = fn(State, &Limits) -> State;

fn event(state: State, event: Event, limits: &Limits) -> State {
    let now = state.since;
    transition(state, event, now, limits).0
}

/// The next deadline, if there is one.
fn time(state: State, limits: &Limits) -> State {
    match deadline(&state, limits) {
        Some(at) => transition(state, Event::Deadline, at, limits).0,
        None => state,
    }
}

const CAUSES: [(&str, Cause); 12] = [
    ("spot notice", |state, limits| event(state, notice(false), limits)),
    ("signal: the host shuts down, or a person", |state, limits| {
        event(state, Event::Signal(15), limits)
    }),
    ("`--job-time-limit`", |state, limits| match state.step {
        Step::Busy => time(state, limits),
        _ => state,
    }),
    ("`--max-lifetime`", |state, limits| {
        let mortal = Limits {
            life: Timeout::secs(100),
            ..limits.clone()
        };
        time(state, &mortal)
    }),
    ("agent is killed", |state, _| State::crashed(state.job)),
    ("cloud advises to leave", |state, limits| {
        let advised = event(state, notice(true), limits);
        match advised.step {
            Step::Withdrawing => event(advised, Event::Answered(Removal::Removed), limits),
            _ => advised,
        }
    }),
    ("is told to drain (SIGHUP)", |state, limits| {
        let drained = event(state, Event::Drain, limits);
        match drained.step {
            Step::Withdrawing => event(drained, Event::Answered(Removal::Removed), limits),
            _ => drained,
        }
    }),
    ("idle timeout", |state, limits| match state.step {
        Step::Busy => state,
        _ => event(time(state, limits), Event::Answered(Removal::Removed), limits),
    }),
    ("job ends badly by itself", |state, limits| match state.step {
        Step::Busy => event(state, Event::JobEnded("train".into(), false), limits),
        _ => state,
    }),
    ("the one job of `--single` is done", |state, limits| match state.step {
        Step::Busy => {
            let single = Limits {
                single: true,
                ..limits.clone()
            };
            let done = event(state, Event::JobEnded("train".into(), true), &single);
            event(done, Event::Exited(Exit::Done), &single)
        }
        _ => state,
    }),
    ("runner crashes", |state, limits| {
        let tired = State { failures: 9, ..state };
        event(tired, Event::Exited(Exit::Failed(1)), limits)
    }),
    ("runner is removed from the forge", |state, limits| {
        event(state, Event::Deregistered, limits)
    }),
];

/// Lets every action succeed until the machine is gone, or nothing more ends.
fn outcome(mut state: State, limits: &Limits) -> &'static str {
    if !state.step.is_stopping() {
        return "stays";
    }
    while state.step != Step::Done {
        if state.step.action() == Action::Rerun {
            return "again";
        }
        state = event(state, Event::Succeeded, limits);
        state = event(state, Event::Answered(Removal::Removed), limits);
    }
    "goes"
}

fn table(limits: &Limits) -> String {
    let columns = STATES.map(|(name, _)| name);
    let mut text = format!("| cause | {} |\n|---|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for (name, cause) in CAUSES {
        let cells = STATES.map(|(_, state)| outcome(cause(state(), limits), limits));
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text
}

#[test]
fn the_table_of_causes_is_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reruns.md");
    let kept = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- begin: machine -->\n", "<!-- end: machine -->");
    let (head, rest) = kept.split_once(begin).unwrap();
    let (_, tail) = rest.split_once(end).unwrap();
    let now = format!("{head}{begin}{}{end}{tail}", table(&limits()));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        now,
        "run `make golden` and look at the diff"
    );
}

#[test]
fn no_retry_runs_nothing_again_whatever_happens() {
    let never = Limits { rerun: false, ..limits() };
    assert!(!table(&never).contains("again |"), "{}", table(&never));
}
