//! Whether an idle runner is still registered.
#![allow(clippy::unwrap_used)]

use common::timeout::Timeout;

use super::super::{Action, Event, Limits, Step, StopReason, deadline, transition};
use super::{follow, limits, usual};

#[test]
fn an_idle_runner_that_the_forge_has_forgotten_is_noticed() {
    let patient = Limits {
        idle: Timeout::Never,
        ..limits()
    };
    let mut state = usual(Step::Idle);
    for answer in [Event::Succeeded, Event::Failed("why".into())] {
        let at = deadline(&state, &patient).unwrap();
        let (checking, action) = transition(state, Event::Deadline, at, &patient);
        assert_eq!((checking.step, action), (Step::Checking, Some(Action::Check)));
        state = transition(checking, answer, at, &patient).0;
        assert_eq!(state.step, Step::Idle);
    }
    let at = deadline(&state, &patient).unwrap();
    let (state, _) = transition(state, Event::Deadline, at, &patient);
    let (state, _) = follow(state, &[Event::Deregistered], &patient);
    assert_eq!((state.step, state.stop), (Step::Stopping, Some(StopReason::Unregistered)));
    let never = Limits {
        check: Timeout::Never,
        ..patient
    };
    assert_eq!(deadline(&usual(Step::Idle), &never), None);
}

#[test]
fn a_check_does_not_begin_the_idle_time_again() {
    let impatient = Limits {
        check: Timeout::secs(200),
        ..limits()
    };
    let idle = usual(Step::Idle);
    let at = deadline(&idle, &impatient).unwrap();
    let (state, _) = transition(idle.clone(), Event::Deadline, at, &impatient);
    assert_eq!(state.step, Step::Checking);
    let (state, _) = transition(state, Event::Succeeded, at, &impatient);
    assert_eq!(deadline(&state, &impatient), deadline(&idle, &limits()));
    let (state, _) = transition(state, Event::Deadline, deadline(&idle, &limits()).unwrap(), &impatient);
    assert_eq!(state.step, Step::Withdrawing);
}
