//! The runner's output: `[2026-06-05 17:23:41,945] WORDS`. What steps write is not in it, it goes to Bitbucket. Only whole lines count,
//! from their first byte to their last, all the same: errors repeat what others sent.

use common::forge::Job;
use common::forge::bitbucket::is_uuid;

use crate::runner::{Line, stamp};

/// The logging library's usual time, with a comma before the milliseconds.
const TIME: &str = "[0000-00-00 00:00:00,000] ";

/// That the runner is about to tell Bitbucket that it is online; more may follow. Older releases say it with the first word.
const ONLINE: [&str; 2] = ["Updating runner status to \"ONLINE\"", "Updating runner state to \"ONLINE\""];
const STEP: &str = "Getting step StepId{";
const RESULT: &str = "Completing step with result Result{status=";

/// Reads one line. `repository` is the runner's own one, `WORKSPACE/REPO`, or its workspace.
pub fn read(line: &str, repository: &str) -> Option<Line> {
    let text = stamp::after(line, TIME)?;
    if ONLINE.iter().any(|words| {
        text.strip_prefix(words)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '.']))
    }) {
        // The line comes before Bitbucket knows it, and is none of a runner that was disabled or removed there.
        return Some(Line::Asking);
    }
    if let Some(ids) = inside(text, STEP) {
        return step(ids, repository).map(Line::JobKnown);
    }
    let result = inside(text, RESULT)?;
    let status = result.split(',').next()?;
    let is_word = !status.is_empty() && status.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    is_word.then(|| Line::JobEnded {
        name: String::new(),
        success: status == "PASSED",
    })
}

/// What is between the beginning of a record and its closing brace; a full stop may follow.
fn inside<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.strip_prefix(start)?.strip_suffix('}')
}

/// `accountUuid={…}, repositoryUuid={…}, pipelineUuid={…}, stepUuid={…}`.
fn step(ids: &str, repository: &str) -> Option<Job> {
    let mut found = [("accountUuid", ""), ("repositoryUuid", ""), ("pipelineUuid", ""), ("stepUuid", "")];
    let mut parts = ids.split(", ");
    for (name, value) in &mut found {
        *value = parts.next()?.strip_prefix(*name)?.strip_prefix('=').filter(|id| is_uuid(id))?;
    }
    let [_, (_, its_repository), (_, pipeline), (_, step)] = found;
    parts.next().is_none().then(|| Job {
        run: pipeline.into(),
        attempt: 1,
        repository: if repository.contains('/') {
            repository.into()
        } else {
            format!("{repository}/{its_repository}")
        },
        key: step.into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::read;
    use crate::runner::Line;

    const AT: &str = "[2026-06-05 17:23:41,945] ";
    const IDS: &str = "accountUuid={00000000-0000-4000-8000-00000000000a}, repositoryUuid={00000000-0000-4000-8000-00000000000b}, \
                       pipelineUuid={00000000-0000-4000-8000-00000000000c}, stepUuid={00000000-0000-4000-8000-00000000000d}";

    fn text(text: &str) -> Option<Line> {
        read(&format!("{AT}{text}"), "octo/train")
    }

    #[test]
    fn both_spellings_of_online_are_a_question_to_bitbucket() {
        for words in [
            "Updating runner status to \"ONLINE\" and checking for new steps assigned to the runner after 0 seconds and then every 30 seconds.",
            "Updating runner state to \"ONLINE\".",
        ] {
            assert_eq!(text(words), Some(Line::Asking), "{words}");
        }
        for words in ["Updating runner state to \"OFFLINE\".", "Updating runner state to \"ONLINE\"x"] {
            assert_eq!(text(words), None, "{words}");
        }
    }

    #[test]
    fn a_step_tells_its_ids() {
        for (repository, expected) in [
            ("octo/train", "octo/train"),
            ("octo", "octo/{00000000-0000-4000-8000-00000000000b}"),
        ] {
            let Some(Line::JobKnown(job)) = read(&format!("{AT}Getting step StepId{{{IDS}}}."), repository) else {
                panic!("not read");
            };
            assert_eq!(job.run, "{00000000-0000-4000-8000-00000000000c}");
            assert_eq!(job.key, "{00000000-0000-4000-8000-00000000000d}");
            assert_eq!((job.attempt, job.repository.as_str()), (1, expected));
        }
    }

    #[test]
    fn a_step_ends_well_or_not() {
        for (result, success) in [
            ("PASSED, error=None", true),
            ("FAILED, error=None", false),
            ("ERROR, error=Some(it broke}.)", false),
            ("STOPPED", false),
        ] {
            let name = String::new();
            let words = format!("Completing step with result Result{{status={result}}}.");
            assert_eq!(text(&words), Some(Line::JobEnded { name, success }), "{words}");
        }
    }

    #[test]
    fn half_a_line_and_other_words_are_none() {
        let result = "Completing step with result Result{status=PASSED, error=None}.";
        for line in [
            String::new(),
            result.to_owned(),
            format!(" {AT}{result}"),
            format!("{AT}{AT}{result}"),
            format!("{AT}error: {result}"),
            format!("{AT}{result} and more"),
            format!("{AT}Completing step with result Result{{status=PASS"),
            format!("{AT}Completing step with result Result{{status=passed}}."),
            format!("{AT}Getting step StepId{{{IDS}"),
            format!("{AT}Getting step StepId{{{IDS}, stepUuid={{x}}}}."),
            format!("{AT}Getting step StepId{{{}}}.", IDS.replace("-00000000000c", "-../../x")),
            format!("{AT}Getting step StepId{{accountUuid={{}}}}."),
        ] {
            assert_eq!(read(&line, "octo/train"), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*") {
            let _ = read(&line, &line);
            let _ = text(&line);
            let _ = text(&format!("Getting step StepId{{{line}}}."));
            let _ = text(&format!("Completing step with result Result{{status={line}}}."));
        }
    }
}
