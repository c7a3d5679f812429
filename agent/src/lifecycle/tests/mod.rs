#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check;
mod ends;
mod properties;
mod reruns;
mod table;

use std::time::Duration;

use common::forge::{Job, Removal};
use common::timeout::Timeout;

use super::{Action, Event, Limits, Running, State, Step, StopReason, deadline, grace, rerun_budget, script_budget, transition};
use crate::host::Interruption;
use crate::runner::Exit;

const STEPS: [Step; 16] = [
    Step::Provisioning,
    Step::Rebooting,
    Step::Installing,
    Step::Registering,
    Step::Starting,
    Step::Idle,
    Step::Checking,
    Step::Busy,
    Step::Withdrawing,
    Step::Finishing,
    Step::Saving,
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
        life: Timeout::Never,
        provisioning: Timeout::secs(600),
        check: Timeout::secs(3600),
        single: false,
        lingers: false,
        save: false,
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
        left: Duration::from_mins(2),
        advice,
    })
}

fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("its action succeeds", Event::Succeeded),
        ("its action fails", Event::Failed("why".into())),
        ("its registration is refused", Event::Refused("why".into())),
        ("its deadline comes", Event::Deadline),
        ("forge: removed", Event::Answered(Removal::Removed)),
        ("forge: was gone", Event::Answered(Removal::Gone)),
        ("forge: runs a job", Event::Answered(Removal::Busy("still running".into()))),
        ("runner listens", Event::Listening),
        ("job starts", Event::JobStarted("train".into())),
        ("job's ids are known", Event::JobKnown(ids())),
        ("job's last hook ran", Event::JobCompleting),
        ("job ends well", Event::JobEnded("train".into(), true)),
        ("job ends badly", Event::JobEnded("train".into(), false)),
        ("runner was removed", Event::Deregistered),
        ("runner ends", Event::Exited(Exit::Done)),
        ("runner updates itself", Event::Exited(Exit::Restart)),
        ("runner fails", Event::Exited(Exit::Failed(2))),
        ("cloud takes the machine", notice(false)),
        ("cloud advises to leave", notice(true)),
        ("is told to drain", Event::Drain),
        ("signal", Event::Signal(15)),
        ("machine restarts", Event::Reboot(15)),
    ]
}

/// A usual state in this step: a stop is an interruption in the middle of a job.
fn usual(step: Step) -> State {
    let at = STEPS.iter().position(|one| *one == step).unwrap_or_default();
    let busy = Running {
        name: Some("train".into()),
        ids: Some(ids()),
        completing: None,
    };
    let stopping = at >= 10;
    State {
        step,
        since: Duration::from_mins(1),
        stop: stopping.then(|| StopReason::Interrupted("spot".into(), Duration::from_mins(3))),
        reruns: stopping,
        registered: (3..=13).contains(&at),
        alive: (4..=11).contains(&at),
        job: (step == Step::Busy || stopping).then_some(busy),
        online: at >= 5,
        quiet: Duration::from_mins(1),
        ..State::first()
    }
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
    let all = [
        notice(false),
        Event::Succeeded,
        Event::Succeeded,
        Event::Succeeded,
        Event::Answered(Removal::Removed),
        Event::Succeeded,
    ];
    let done = [
        Action::Save,
        Action::Stop,
        Action::Rerun,
        Action::Unregister,
        Action::Terminate,
        Action::Exit,
    ];
    let saving = Limits { save: true, ..limits() };
    for (limits, events, expected) in [(saving, &all[..], &done[..]), (limits(), &all[1..], &done[1..])] {
        let busy = usual(Step::Busy);
        let (state, actions) = follow(busy, &[&[notice(false)], &events[1..]].concat(), &limits);
        assert_eq!(actions, expected);
        assert_eq!(state.stop.unwrap().exit_code(), 0);
    }
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
fn a_job_whose_last_line_was_not_understood_ends_some_time_after_its_hook() {
    let (state, actions) = follow(usual(Step::Busy), &[Event::JobCompleting], &limits());
    assert_eq!((state.step, actions.len()), (Step::Busy, 0));
    let at = deadline(&state, &limits()).unwrap();
    let (early, _) = transition(state.clone(), Event::Deadline, at.saturating_sub(Duration::from_secs(1)), &limits());
    assert!(early.stop.is_some(), "that would be the job's own limit");
    let (state, _) = transition(state, Event::Deadline, at, &limits());
    assert_eq!((state.step, state.stop), (Step::Idle, None));
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
    let all = [Event::Succeeded, Event::Succeeded, Event::Answered(Removal::Gone), Event::Succeeded];
    assert_eq!(State::crashed(None).step.action(), Action::Stop);
    let busy = usual(Step::Busy).job;
    let (state, actions) = follow(State::crashed(busy), &all, &limits());
    assert_eq!(actions, [Action::Rerun, Action::Unregister, Action::Terminate, Action::Exit]);
    assert_eq!(state.stop.unwrap().exit_code(), 1);
    let (_, actions) = follow(State::crashed(None), &all, &limits());
    assert_eq!(actions[0], Action::Unregister);
}

#[test]
fn a_job_that_has_told_no_ids_yet_is_run_again_too() {
    let begins = Event::JobStarted("train".into());
    for events in [
        [begins.clone(), Event::Signal(15), Event::Succeeded],
        // It was assigned while the runner was idle, and stopped before its line was read.
        [Event::Signal(15), begins, Event::Succeeded],
    ] {
        let (state, _) = follow(usual(Step::Idle), &events, &limits());
        assert_eq!(state.step, Step::Rerunning, "{events:?}");
        assert_eq!(state.job.unwrap().ids, None);
    }
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

fn busy_for(limits: &Limits) -> Duration {
    let state = usual(Step::Busy);
    deadline(&state, limits).unwrap().checked_sub(state.since).unwrap()
}

#[test]
fn the_unit_lets_a_stop_take_as_long_as_it_may() {
    let unit = include_str!("../../../systemd/cml-agent.service");
    let allowed: Timeout = unit
        .split_once("\nTimeoutStopSec=")
        .unwrap()
        .1
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let longest: Duration = [
        Step::Saving,
        Step::Stopping,
        Step::Rerunning,
        Step::Unregistering,
        Step::Terminating,
    ]
    .map(|step| State {
        since: Duration::ZERO,
        stop: Some(StopReason::Signal(15)),
        ..usual(step)
    })
    .iter()
    .filter_map(|state| deadline(state, &limits()))
    .sum();
    assert!(allowed.duration().unwrap() >= longest, "{allowed}, but a stop takes {longest:?}");
}

#[test]
fn a_job_is_interrupted_some_time_before_its_limit() {
    let long = busy_for(&limits());
    assert_eq!(long, Duration::from_mins(72 * 60 - 5));
    let short = Limits {
        job: Timeout::secs(20),
        ..limits()
    };
    let short = busy_for(&short);
    assert_eq!(short, Duration::from_secs(19));
    let (now, limit) = (Duration::from_secs(2), Duration::from_mins(10));
    assert_eq!(
        script_budget(now, &limits()),
        limit.checked_sub(Duration::from_secs(7)),
        "so that it can say so"
    );
}

#[test]
fn what_is_left_of_a_machine_is_shared_out() {
    let at = |seconds| Duration::from_secs(seconds);
    let mut state = State {
        stop: Some(StopReason::Interrupted("spot".into(), at(180))),
        ..usual(Step::Stopping)
    };
    assert_eq!(grace(&state), at(30), "of two minutes");
    state.since = at(90);
    assert_eq!(rerun_budget(&state), at(80), "ten seconds are kept to take leave");
    state.since = at(176);
    assert_eq!((grace(&state), rerun_budget(&state)), (at(4) / 3, at(3)), "of four seconds");
    state.since = at(200);
    assert_eq!((grace(&state), rerun_budget(&state)), (at(0), at(0)), "of none");
}

#[test]
fn the_idle_time_does_not_begin_again_with_the_runner() {
    let events = [Event::Exited(Exit::Restart), Event::Succeeded, Event::Listening];
    let idle = usual(Step::Idle);
    let (state, _) = follow(idle.clone(), &events, &limits());
    assert_eq!(state.step, Step::Idle);
    assert_eq!(deadline(&state, &limits()), deadline(&idle, &limits()));
}

#[test]
fn a_runner_that_only_starts_again_is_given_up_at_one_deadline() {
    let again = [Event::Exited(Exit::Restart), Event::Succeeded];
    for first in [usual(Step::Starting), follow(usual(Step::Idle), &again, &limits()).0] {
        let limit = deadline(&first, &limits());
        let (state, _) = follow(first, &[again.as_slice(); 50].concat(), &limits());
        assert_eq!((state.step, deadline(&state, &limits())), (Step::Starting, limit));
    }
}

#[test]
fn advice_lets_the_job_finish_and_takes_no_other() {
    let events = [notice(true), Event::JobEnded("train".into(), true)];
    let (state, actions) = follow(usual(Step::Busy), &events, &limits());
    assert_eq!((state.step, actions.as_slice()), (Step::Withdrawing, &[Action::Unregister][..]));
    let (state, _) = follow(state, &[Event::Answered(Removal::Removed)], &limits());
    assert_eq!(state.stop, Some(StopReason::Advised));
}

#[test]
fn our_own_deletion_is_not_taken_for_somebody_elses() {
    for events in [
        [Event::Deadline, Event::Deregistered],
        [Event::Deadline, Event::Answered(Removal::Removed)],
    ] {
        let (state, _) = follow(usual(Step::Idle), &events, &limits());
        let (state, _) = follow(state, &[Event::Deregistered], &limits());
        assert_eq!(state.stop.unwrap().to_string(), "timeout:300");
    }
    let single = Limits { single: true, ..limits() };
    let events = [Event::Deregistered, Event::Exited(Exit::Done)];
    let (state, _) = follow(usual(Step::Busy), &events, &single);
    assert_eq!(state.stop, Some(StopReason::Single));
    let (state, _) = follow(usual(Step::Idle), &[Event::Deregistered], &limits());
    assert_eq!(state.stop, Some(StopReason::Unregistered));
}

#[test]
fn the_ids_of_a_job_come_before_its_line_or_after_it() {
    let (line, hook) = (Event::JobStarted("train".into()), Event::JobKnown(ids()));
    for events in [[line.clone(), hook.clone()], [hook, line]] {
        let (state, actions) = follow(usual(Step::Idle), &events, &limits());
        assert_eq!(state.job, usual(Step::Busy).job);
        assert_eq!(actions, [Action::Wait]);
    }
}
