use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use common::forge::{Job, Removal};
use common::timeout::Timeout;
use proptest::prelude::*;

use super::{Action, Event, Limits, Running, State, Step, StopReason, deadline, transition};
use crate::host::Interruption;
use crate::runner::Exit;

const STEPS: [Step; 13] = [
    Step::Provisioning,
    Step::Installing,
    Step::Registering,
    Step::Starting,
    Step::Idle,
    Step::Busy,
    Step::Withdrawing,
    Step::Finishing,
    Step::Stopping,
    Step::Rerunning,
    Step::Unregistering,
    Step::Terminating,
    Step::Done,
];

fn limits() -> Limits {
    Limits {
        idle: Timeout::secs(300),
        job: Timeout::secs(72 * 3600),
        provisioning: Timeout::secs(600),
        single: false,
        rerun: true,
    }
}

fn ids() -> Job {
    Job {
        run: "42".into(),
        attempt: 1,
        repository: "octo/train".into(),
        key: "train".into(),
    }
}

fn notice(advice: bool) -> Event {
    Event::Notice(Interruption {
        reason: "spot instance-action terminate".into(),
        left: Duration::from_secs(120),
        advice,
    })
}

fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("its action succeeds", Event::Succeeded),
        ("its action fails", Event::Failed("why".into())),
        ("its deadline comes", Event::Deadline),
        ("forge: removed", Event::Answered(Removal::Removed)),
        ("forge: was gone", Event::Answered(Removal::Gone)),
        ("forge: runs a job", Event::Answered(Removal::Busy("still running".into()))),
        ("runner listens", Event::Listening),
        ("job starts", Event::JobStarted("train".into())),
        ("job's ids are known", Event::JobKnown(ids())),
        ("job ends well", Event::JobEnded("train".into(), true)),
        ("job ends badly", Event::JobEnded("train".into(), false)),
        ("runner was removed", Event::Deregistered),
        ("runner ends", Event::Exited(Exit::Done)),
        ("runner updates itself", Event::Exited(Exit::Restart)),
        ("runner fails", Event::Exited(Exit::Failed(2))),
        ("cloud takes the machine", notice(false)),
        ("cloud advises to leave", notice(true)),
        ("signal", Event::Signal(15)),
    ]
}

/// A usual state in this step: a stop is an interruption in the middle of a job.
fn usual(step: Step) -> State {
    let at = STEPS.iter().position(|one| *one == step).unwrap_or_default();
    let busy = Running {
        name: Some("train".into()),
        ids: Some(ids()),
    };
    let stopping = at >= 8;
    State {
        step,
        since: Duration::from_secs(60),
        stop: stopping.then(|| StopReason::Interrupted("spot".into(), Duration::from_secs(120))),
        registered: (2..=10).contains(&at),
        alive: (3..=8).contains(&at),
        job: (step == Step::Busy || stopping).then_some(busy),
        ..State::first()
    }
}

/// docs/lifecycle.md
fn table() -> String {
    let mut out = String::from(
        "# The agent's life\n\nGenerated from `agent/src/lifecycle` by `make golden`, and compared in the tests. Each step begins its action; what is not listed \
         changes nothing.\nThe steps of a stop are shown for an interruption in the middle of a job.\n",
    );
    let now = Duration::from_secs(100);
    for step in STEPS {
        let state = usual(step);
        let ends = deadline(&state, &limits()).map_or("none".into(), |at| {
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
            let (next, action) = transition(state.clone(), event, now, &limits());
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

/// Follows events from a state; returns the last state and all actions.
fn follow(mut state: State, events: &[Event], limits: &Limits) -> (State, Vec<Action>) {
    let mut actions = Vec::new();
    let mut now = state.since;
    for event in events {
        now += Duration::from_secs(1);
        let (next, action) = transition(state, event.clone(), now, limits);
        state = next;
        actions.extend(action);
    }
    (state, actions)
}

#[test]
fn an_interrupted_job_is_stopped_first_then_run_again_then_the_registration_goes() {
    let events = [
        notice(false),
        Event::Succeeded,
        Event::Succeeded,
        Event::Answered(Removal::Removed),
        Event::Succeeded,
    ];
    let (state, actions) = follow(usual(Step::Busy), &events, &limits());
    assert_eq!(
        actions,
        [Action::Stop, Action::Rerun, Action::Unregister, Action::Terminate, Action::Exit]
    );
    assert_eq!(state.stop.unwrap().exit_code(), 0);
}

#[test]
fn an_idle_runner_is_deregistered_first() {
    let events = [
        Event::Deadline,
        Event::Answered(Removal::Removed),
        Event::Succeeded,
        Event::Succeeded,
    ];
    let (state, actions) = follow(usual(Step::Idle), &events, &limits());
    assert_eq!(actions, [Action::Unregister, Action::Stop, Action::Terminate, Action::Exit]);
    assert_eq!(state.stop.unwrap().to_string(), "timeout:300");
}

#[test]
fn a_job_that_was_assigned_in_the_last_moment_wins() {
    let (state, _) = follow(
        usual(Step::Idle),
        &[Event::Deadline, Event::Answered(Removal::Busy(String::new()))],
        &limits(),
    );
    assert_eq!((state.step, state.stop.clone()), (Step::Idle, None));
    let (state, _) = follow(state, &[Event::JobStarted("x".into())], &limits());
    assert_eq!(state.step, Step::Busy);
    let (state, _) = follow(
        usual(Step::Withdrawing),
        &[Event::JobStarted("x".into()), Event::Answered(Removal::Busy(String::new()))],
        &limits(),
    );
    assert_eq!(state.step, Step::Busy, "the line may be faster than the answer");
}

#[test]
fn a_job_that_ended_just_in_time_is_not_run_again() {
    let events = [notice(false), Event::JobEnded("train".into(), true), Event::Succeeded];
    let (state, actions) = follow(usual(Step::Busy), &events, &limits());
    assert_eq!(state.step, Step::Unregistering);
    assert!(!actions.contains(&Action::Rerun));
}

#[test]
fn the_end_of_another_job_ends_nothing() {
    let (state, _) = follow(usual(Step::Busy), &[Event::JobEnded("other".into(), true)], &limits());
    assert_eq!(state.step, Step::Busy);
}

#[test]
fn single_waits_for_the_runner_to_finish_by_itself() {
    let single = Limits { single: true, ..limits() };
    let events = [Event::JobEnded("train".into(), true), Event::Exited(Exit::Done)];
    let (state, actions) = follow(usual(Step::Busy), &events, &single);
    assert_eq!(actions, [Action::Wait, Action::Stop]);
    assert_eq!(state.stop, Some(StopReason::Single));
}

#[test]
fn a_crashed_agent_runs_the_job_again_and_goes() {
    assert_eq!(State::crashed(Some(ids()), &limits()).step, Step::Rerunning);
    assert_eq!(State::crashed(None, &limits()).step, Step::Unregistering);
}

#[test]
fn a_runner_that_keeps_failing_is_given_up() {
    let mut state = usual(Step::Idle);
    for _ in 0..3 {
        state = follow(
            state,
            &[Event::Exited(Exit::Failed(2)), Event::Succeeded, Event::Listening],
            &limits(),
        )
        .0;
        assert_eq!(state.step, Step::Idle);
    }
    let (state, _) = follow(state, &[Event::Exited(Exit::Failed(2))], &limits());
    assert_eq!(state.stop.unwrap().exit_code(), 1);
}

#[test]
fn a_job_is_interrupted_some_time_before_its_limit() {
    let long = deadline(&usual(Step::Busy), &limits()).unwrap() - usual(Step::Busy).since;
    assert_eq!(long, Duration::from_secs(72 * 3600 - 300));
    let short = Limits {
        job: Timeout::secs(20),
        ..limits()
    };
    let short = deadline(&usual(Step::Busy), &short).unwrap() - usual(Step::Busy).since;
    assert_eq!(short, Duration::from_secs(19));
}

fn any_event() -> impl Strategy<Value = Event> {
    let all: Vec<Event> = events().into_iter().map(|(_, event)| event).collect();
    proptest::sample::select(all)
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(single, rerun, forever)| Limits {
        single,
        rerun,
        idle: if forever { Timeout::Never } else { Timeout::secs(300) },
        ..limits()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_it_ends_and_ends_once(list in proptest::collection::vec(any_event(), 0..60), limits in any_limits()) {
        let mut state = State::first();
        let mut now = Duration::ZERO;
        let (mut reruns, mut terminates, mut rank) = (0, 0, None);
        let signal = [Event::Signal(15)];
        let deadlines = std::iter::repeat_n(Event::Deadline, 12);
        for event in list.into_iter().chain(signal).chain(deadlines) {
            now += Duration::from_secs(1);
            let was = state.clone();
            let idle = event == Event::Deadline && was.step == Step::Idle;
            let (next, action) = transition(was.clone(), event, now, &limits);
            reruns += usize::from(action == Some(Action::Rerun));
            terminates += usize::from(action == Some(Action::Terminate));
            prop_assert!(!idle || next.step == Step::Withdrawing, "an idle timeout asks the forge first");
            prop_assert!(was.step != Step::Done || next == was, "the end is the end");
            prop_assert!(deadline(&next, &limits).is_some() || matches!(next.step, Step::Idle | Step::Busy | Step::Done));
            let new = next.stop.as_ref().map(StopReason::rank);
            prop_assert!(new >= rank, "the reason never falls");
            rank = new;
            state = next;
        }
        prop_assert_eq!(state.step, Step::Done);
        prop_assert_eq!(terminates, 1);
        prop_assert!(reruns <= 1 && (limits.rerun || reruns == 0));
    }

    #[test]
    fn no_idle_timeout_stops_a_busy_runner(list in proptest::collection::vec(any_event(), 0..30)) {
        let (state, _) = follow(usual(Step::Idle), &list, &limits());
        if state.step == Step::Busy {
            let (next, _) = transition(state, Event::Deadline, Duration::from_secs(1000), &limits());
            prop_assert!(matches!(next.stop, Some(StopReason::TimeLimit(_))));
        }
    }
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
