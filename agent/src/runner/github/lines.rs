//! The listener's output. Its lines hold job names, which anybody who may open a pull request chooses: only whole lines count, from their
//! first byte to their last.

use crate::runner::{Line, stamp};

/// .NET's format `u`.
const TIME: &str = "0000-00-00 00:00:00Z: ";

/// What a line that has no time stamp begins with when the registration is gone. Source: BrokerMessageListener.cs, Runner.cs.
const DEREGISTERED: [&str; 2] = [
    "Failed to create a session. The runner registration has been deleted from the server",
    "The runner no longer exists on the server.",
];

/// Reads one line.
pub fn read(line: &str) -> Option<Line> {
    if DEREGISTERED.iter().any(|text| line.starts_with(text)) {
        return Some(Line::Deregistered);
    }
    let text = stamp::after(line, TIME)?;
    if text == "Listening for Jobs" {
        return Some(Line::Listening);
    }
    if let Some(name) = text.strip_prefix("Running job: ") {
        return Some(Line::JobStarted(name.into()));
    }
    // The last one: a name may hold the same words.
    let (name, result) = text.strip_prefix("Job ")?.rsplit_once(" completed with result: ")?;
    let success = match result {
        "Succeeded" | "SucceededWithIssues" => true,
        "Failed" | "Canceled" | "Skipped" | "Abandoned" => false,
        _ => return None,
    };
    Some(Line::JobEnded {
        name: name.into(),
        success,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::read;
    use crate::runner::Line;

    const AT: &str = "2026-09-26 00:45:30Z: ";

    fn ended(name: &str, success: bool) -> Line {
        Line::JobEnded {
            name: name.into(),
            success,
        }
    }

    #[test]
    fn each_line_is_read() {
        assert_eq!(read(&format!("{AT}Listening for Jobs")), Some(Line::Listening));
        assert_eq!(
            read(&format!("{AT}Running job: build (1, x)")),
            Some(Line::JobStarted("build (1, x)".into()))
        );
        for (result, success) in [
            ("Succeeded", true),
            ("SucceededWithIssues", true),
            ("Failed", false),
            ("Canceled", false),
            ("Skipped", false),
            ("Abandoned", false),
        ] {
            assert_eq!(
                read(&format!("{AT}Job build completed with result: {result}")),
                Some(ended("build", success))
            );
        }
        for gone in [
            "Failed to create a session. The runner registration has been deleted from the server, please re-configure. Runner registrations are automatically deleted for runners that have not connected to the service recently.",
            "The runner no longer exists on the server. Please reconfigure the runner.",
            "The runner no longer exists on the server. Cleaning up local configuration.",
        ] {
            assert_eq!(read(gone), Some(Line::Deregistered), "{gone}");
        }
    }

    #[test]
    fn what_only_resembles_a_line_is_none() {
        for line in [
            "",
            "Listening for Jobs",
            "Running job: build",
            " 2026-09-26 00:45:30Z: Listening for Jobs",
            "2026-09-26 00:45:30Z: Listening for Jobs ",
            "2026-09-26 00:45:30: Listening for Jobs",
            "2026-09-26T00:45:30Z: Listening for Jobs",
            "2026-09-26 00:45:30Z: Job build completed with result: Succeeded…",
            "2026-09-26 00:45:30Z: Job build completed with result: Splendid",
            "2026-09-26 00:45:30Z: job build completed with result: Succeeded",
            "[RUNNER 2026-09-26 00:45:30Z INFO Terminal] WRITE LINE: 2026-09-26 00:45:30Z: Listening for Jobs",
            "2026-09-26 00:45:30Z: Runner connect error: x. Retrying until reconnected.",
            "20é6-09-26 00:45:30Z: Listening for Jobs",
            "x The runner no longer exists on the server.",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    /// Names that were made to be taken for something else.
    fn names() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec![
            AT,
            "Running job: ",
            "Job ",
            " completed with result: ",
            "Succeeded",
            "Failed",
            "Listening for Jobs",
            "The runner no longer exists on the server.",
            "\r",
            "\u{1b}[2K",
            "\u{2028}",
            "…",
            " ",
        ]);
        prop_oneof![prop::collection::vec(words, 0..8).prop_map(|words| words.concat()), "[^\n]{0,60}"]
    }

    proptest! {
        #[test]
        fn no_name_makes_another_event(name in names(), success: bool) {
            prop_assert_eq!(read(&format!("{AT}Running job: {name}")), Some(Line::JobStarted(name.clone())));
            let result = if success { "Succeeded" } else { "Failed" };
            prop_assert_eq!(read(&format!("{AT}Job {name} completed with result: {result}")), Some(ended(&name, success)));
        }

        #[test]
        fn no_line_panics(line in "\\PC*") {
            let _ = read(&line);
        }
    }
}
