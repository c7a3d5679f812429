//! How a stop begins: the work of a job saved, and the life of a machine.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use common::forge::Removal;
use common::timeout::Timeout;

use super::super::{Action, Event, Limits, Running, State, Step, StopReason, deadline, save_budget, transition};
use super::{follow, ids, limits, notice, usual};
use crate::runner::Exit;

/// A runner of one job on a forge that has no such thing goes once the forge lets it, and never with a job that was faster.
#[test]
fn a_single_runner_that_stays_is_withdrawn() {
    let single = Limits {
        single: true,
        lingers: true,
        ..limits()
    };
    let done = Event::JobEnded("train".into(), true);
    let busy = Event::Answered(Removal::Busy("it runs a step".into()));
    let events = [
        done.clone(),
        busy,
        Event::Deadline,
        Event::JobStarted("next".into()),
        done,
        Event::Deadline,
    ];
    let events = [
        &events[..5],
        &[Event::JobEnded("next".into(), false), Event::Answered(Removal::Removed)],
    ]
    .concat();
    let (state, actions) = follow(usual(Step::Busy), &events, &single);
    let withdraw = Action::Unregister;
    assert_eq!(actions, [withdraw, Action::Wait, withdraw, Action::Wait, withdraw, Action::Stop]);
    assert_eq!((state.stop, state.registered), (Some(StopReason::Single), false));
}

fn saving() -> Limits {
    Limits { save: true, ..limits() }
}

#[test]
fn a_job_that_ends_while_its_work_is_saved_is_not_run_again() {
    let events = [notice(false), Event::JobEnded("train".into(), false), Event::Succeeded];
    let (state, actions) = follow(usual(Step::Busy), &events, &saving());
    assert_eq!(actions, [Action::Save, Action::Stop, Action::Unregister]);
    assert_eq!(state.job, None);
}

#[test]
fn a_runner_that_ends_while_its_work_is_saved_is_stopped_at_once() {
    let events = [notice(false), Event::Exited(Exit::Failed(1))];
    let (state, actions) = follow(usual(Step::Busy), &events, &saving());
    assert_eq!(
        (state.step, actions.as_slice()),
        (Step::Stopping, &[Action::Save, Action::Stop][..])
    );
}

#[test]
fn without_a_job_and_after_a_failure_of_ours_there_is_nothing_to_save() {
    let (state, _) = follow(usual(Step::Idle), &[notice(false)], &saving());
    assert_eq!(state.step, Step::Stopping);
    let (state, _) = follow(usual(Step::Busy), &[Event::Exited(Exit::Failed(1))], &saving());
    assert_eq!(state.step, Step::Stopping);
}

#[test]
fn saving_takes_a_part_of_what_is_left() {
    let (state, _) = follow(usual(Step::Busy), &[notice(false)], &saving());
    assert_eq!(save_budget(&state), Duration::from_mins(1), "of two minutes");
    let (state, _) = follow(usual(Step::Busy), &[Event::Signal(15)], &saving());
    assert_eq!(save_budget(&state), Duration::from_secs(30));
    let (state, _) = transition(usual(Step::Busy), Event::Deadline, Duration::from_hours(73), &saving());
    assert_eq!(
        save_budget(&state),
        Duration::from_secs(150),
        "of the five minutes that a limit is early"
    );
}

#[test]
fn each_job_has_its_own_limit_or_none() {
    let events = [
        Event::JobEnded("train".into(), true),
        Event::JobStarted("next".into()),
        // Its ids and its hook are no new beginning.
        Event::JobKnown(ids()),
    ];
    let began = usual(Step::Busy);
    let (mut state, _) = follow(began.clone(), &events[..1], &limits());
    for event in &events[1..] {
        state = transition(state, event.clone(), began.since + Duration::from_hours(71), &limits()).0;
    }
    assert_eq!((state.step, state.since), (Step::Busy, began.since + Duration::from_hours(71)));
    let never = Limits {
        job: Timeout::Never,
        ..limits()
    };
    assert_eq!(deadline(&state, &never), None);
    let early = transition(state, Event::Deadline, began.since + Duration::from_hours(200), &limits()).0;
    assert_eq!((early.stop, early.reruns), (Some(StopReason::TimeLimit(limits().job)), true));
}

#[test]
fn a_name_in_use_is_told_as_the_launcher_tells_it() {
    let (state, _) = follow(usual(Step::Registering), &[Event::Refused("another has it".into())], &limits());
    let reason = state.stop.unwrap();
    assert_eq!(reason.to_string(), "another has it");
    assert_eq!(i32::from(reason.exit_code()), common::error::Class::NameInUse.exit_code());
    assert!(!state.registered, "it is not ours to remove");
}

#[test]
fn a_machine_that_has_lived_long_enough_stops_whatever_it_does() {
    let mortal = Limits {
        life: Timeout::secs(100),
        ..limits()
    };
    for step in [
        Step::Provisioning,
        Step::Starting,
        Step::Idle,
        Step::Checking,
        Step::Busy,
        Step::Withdrawing,
        Step::Finishing,
    ] {
        let state = usual(step);
        let at = deadline(&state, &mortal).unwrap();
        assert_eq!(at, Duration::from_secs(95), "{step:?}");
        let job: Option<Running> = state.job.clone();
        let (state, _) = transition(state, Event::Deadline, at, &mortal);
        assert_eq!(state.stop, Some(StopReason::Lifetime(Timeout::secs(100))), "{step:?}");
        assert_eq!(state.job, job, "a job is run again");
    }
    let stopping = usual(Step::Rerunning);
    assert_eq!(
        deadline(&stopping, &mortal),
        deadline(&stopping, &limits()),
        "a stop takes the time that it takes"
    );
}

#[test]
fn the_signal_that_powering_off_brings_changes_nothing() {
    let failed = State {
        stop: Some(StopReason::Failed("why".into())),
        ..usual(Step::Terminating)
    };
    let (state, _) = follow(failed, &[Event::Signal(15), Event::Succeeded], &limits());
    assert_eq!((state.step, state.stop.unwrap().exit_code()), (Step::Done, 1));
}

#[test]
fn a_job_that_a_crash_of_the_runner_ended_is_not_run_again_by_a_later_signal() {
    let events = [
        Event::Exited(Exit::Failed(1)),
        Event::Signal(15),
        Event::JobKnown(ids()),
        Event::Succeeded,
    ];
    let (state, actions) = follow(usual(Step::Busy), &events, &limits());
    assert_eq!(actions, [Action::Stop, Action::Unregister]);
    assert_eq!(state.job, None);
}

#[test]
fn a_runner_that_is_drained_finishes_its_job_and_is_stopped_before_it_can_take_another() {
    let done = Event::JobEnded("train".into(), true);
    let next = Event::JobStarted("next".into());
    let (state, actions) = follow(usual(Step::Busy), &[Event::Drain, done.clone(), Event::Succeeded], &limits());
    assert_eq!(actions, [Action::Stop, Action::Unregister]);
    assert_eq!((state.stop.unwrap().exit_code(), state.job), (0, None));
    // One that the forge assigned in that moment is not lost.
    let (_, actions) = follow(usual(Step::Busy), &[Event::Drain, done, next, Event::Succeeded], &limits());
    assert_eq!(actions, [Action::Stop, Action::Rerun]);
}

#[test]
fn an_idle_runner_that_is_drained_goes_unless_a_job_was_faster() {
    let (state, actions) = follow(
        usual(Step::Idle),
        &[Event::Drain, Event::Answered(Removal::Removed), Event::Succeeded],
        &limits(),
    );
    assert_eq!(actions, [Action::Unregister, Action::Stop, Action::Terminate]);
    assert_eq!(state.stop, Some(StopReason::Drained));
    let faster = [
        Event::Drain,
        Event::JobStarted("train".into()),
        Event::JobEnded("train".into(), false),
    ];
    let (state, actions) = follow(usual(Step::Idle), &faster, &limits());
    assert_eq!(actions, [Action::Unregister, Action::Wait, Action::Stop]);
    assert_eq!(state.stop, Some(StopReason::Drained));
}

#[test]
fn one_that_is_not_online_yet_is_drained_at_once() {
    for step in [Step::Provisioning, Step::Installing, Step::Registering, Step::Starting] {
        let starting = State {
            online: false,
            ..usual(step)
        };
        let (state, _) = follow(starting, &[Event::Drain], &limits());
        assert_eq!(state.stop, Some(StopReason::Drained), "{step:?}");
    }
}
