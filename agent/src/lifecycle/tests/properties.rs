//! What is true of every life.

use std::time::Duration;

use common::timeout::Timeout;
use proptest::prelude::*;

use super::super::{Action, Event, Limits, State, Step, StopReason, deadline, transition};
use super::{events, follow, limits, usual};

fn any_event() -> impl Strategy<Value = Event> {
    let all: Vec<Event> = events().into_iter().map(|(_, event)| event).collect();
    proptest::sample::select(all)
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (any::<[bool; 2]>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |([single, lingers], rerun, forever, save, short)| Limits {
            single,
            lingers,
            rerun,
            save,
            idle: if forever { Timeout::Never } else { Timeout::secs(300) },
            life: if short { Timeout::secs(30) } else { Timeout::Never },
            ..limits()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_it_ends_and_ends_once(list in proptest::collection::vec(any_event(), 0..60), limits in any_limits()) {
        let mut state = State::first();
        let mut now = Duration::ZERO;
        let (mut reruns, mut terminates, mut rank) = (0, 0, None);
        let signal = [Event::Signal(15)];
        let deadlines = std::iter::repeat_n(Event::Deadline, 13);
        for event in list.into_iter().chain(signal).chain(deadlines) {
            now += Duration::from_secs(1);
            let was = state.clone();
            let idle = event == Event::Deadline && was.step == Step::Idle;
            let (next, action) = transition(was.clone(), event, now, &limits);
            reruns += usize::from(action == Some(Action::Rerun));
            let because = next.reruns && next.stop.as_ref().is_some_and(StopReason::reruns);
            prop_assert!(action != Some(Action::Rerun) || (next.job.is_some() && because), "only a job, only for a cause");
            terminates += usize::from(action == Some(Action::Terminate));
            let outlived = matches!(next.stop, Some(StopReason::Lifetime(_)));
            prop_assert!(!idle || next.step == Step::Withdrawing || outlived, "an idle timeout asks the forge first");
            prop_assert!(was.step != Step::Done || next == was, "the end is the end");
            prop_assert!(deadline(&next, &limits).is_some() || matches!(next.step, Step::Idle | Step::Busy | Step::Done));
            if next.step == Step::Done && next.stop.is_none() {
                // The next agent goes on.
                return Ok(());
            }
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
            let hinted = state.job.as_ref().is_some_and(|job| job.completing.is_some());
            let (next, _) = transition(state, Event::Deadline, Duration::from_secs(1000), &limits());
            prop_assert!(matches!(next.stop, Some(StopReason::TimeLimit(_))) || (hinted && next.stop.is_none()));
        }
    }
}
