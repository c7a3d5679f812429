//! What runners and jobs' hooks say, given any bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

use std::path::Path;

use common::forge::Job;
use url::Url;

use super::github::hooks::Hooks;
use super::{Hook, Line, bitbucket, github, gitlab};

/// What may follow a line that was cut.
const CUT: char = '…';
const OWN: &str = "octo/train";

fn is_id(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A line of GitHub's runner: an event has its exact form, from the line's first byte to its last; and as a job's name it is a name.
pub fn github_line(data: &[u8]) {
    const AT: &str = "2026-09-26 00:45:30Z: ";
    let read = github::lines::read;
    let text = String::from_utf8_lossy(data);
    for line in text.split('\n') {
        let words = line.get(AT.len()..).unwrap_or_default();
        match read(line) {
            Some(Line::Listening) => assert_eq!(words, "Listening for Jobs"),
            Some(Line::JobStarted(name)) => assert_eq!(words, format!("Running job: {name}")),
            Some(Line::JobEnded { name, success }) => {
                let result = words
                    .strip_prefix(&format!("Job {name} completed with result: "))
                    .expect("the name is not the line's");
                assert_eq!(success, result.starts_with("Succeeded"), "{result}");
            }
            Some(Line::Deregistered) => {
                assert!(line.starts_with("Failed to create a session.") || line.starts_with("The runner no longer"));
            }
            Some(other) => panic!("GitHub has no such line: {other:?}"),
            None => {}
        }
        assert_eq!(read(&format!("x{line}")), None, "half a line counts");
        let cut = read(&format!("{line}{CUT}"));
        assert!(
            !matches!(cut, Some(Line::Listening | Line::JobEnded { .. })),
            "a cut line counts: {cut:?}"
        );
        let name = || line.to_owned();
        assert_eq!(read(&format!("{AT}Running job: {line}")), Some(Line::JobStarted(name())));
        for (result, success) in [("Failed", false), ("Succeeded", true)] {
            let ended = Line::JobEnded { name: name(), success };
            assert_eq!(read(&format!("{AT}Job {line} completed with result: {result}")), Some(ended));
        }
    }
}

/// A line of GitLab's runner: what it says of a job names it by its number; and as the words of a record that names no job it is none of a job.
pub fn gitlab_line(data: &[u8]) {
    let read = gitlab::lines::read;
    let text = String::from_utf8_lossy(data);
    for line in text.split('\n') {
        let numbered = |event: Option<Line>| match event {
            Some(Line::JobKnown(job)) => Some((job.run, job.attempt, job.key)),
            Some(Line::JobEnded { name, .. }) => Some((name, 1, String::new())),
            Some(Line::Listening | Line::JobStarted(_)) => panic!("GitLab has no such line: {line}"),
            Some(Line::Asking | Line::Deregistered) | None => None,
        };
        if let Some((run, attempt, key)) = numbered(read(line)) {
            assert!(is_id(&run) && attempt == 1 && key.is_empty(), "{line}");
        }
        assert_eq!(read(&format!("x{line}")), None, "half a line counts");
        assert_eq!(read(&format!("{line}{CUT}")), None, "a cut line counts");
        let record =
            |job: Option<u64>| serde_json::json!({ "msg": line, "job": job, "repo_url": "https://gitlab.com/octo/train.git" }).to_string();
        assert_eq!(numbered(read(&record(None))), None, "a job without a number");
        if let Some((run, ..)) = numbered(read(&record(Some(7)))) {
            assert_eq!(run, "7");
        }
    }
}

/// A line of Bitbucket's runner: ids are ids, and the repository our own or one of our workspace; and what an error repeats is none.
pub fn bitbucket_line(data: &[u8]) {
    const AT: &str = "[2026-06-05 17:23:41,945] ";
    let is_uuid = common::forge::bitbucket::is_uuid;
    let text = String::from_utf8_lossy(data);
    for line in text.split('\n') {
        for own in [OWN, "octo"] {
            let read = |line: &str| bitbucket::lines::read(line, own);
            match read(line) {
                Some(Line::JobKnown(job)) => {
                    assert!(is_uuid(&job.run) && is_uuid(&job.key) && job.attempt == 1, "{job:?}");
                    let its = job.repository.strip_prefix("octo/").expect("not our workspace");
                    assert!(if own == OWN { its == "train" } else { is_uuid(its) }, "{job:?}");
                }
                Some(Line::JobEnded { name, success }) => {
                    let result = line
                        .get(AT.len()..)
                        .and_then(|words| words.strip_prefix("Completing step with result Result{status="));
                    let status = result.and_then(|result| result.split([',', '}']).next());
                    assert!(name.is_empty() && success == (status == Some("PASSED")), "{line}");
                }
                Some(Line::Asking) | None => {}
                Some(other) => panic!("Bitbucket has no such line: {other:?}"),
            }
            assert_eq!(read(&format!("x{line}")), None, "half a line counts");
            let repeated = read(&format!("{AT}{line}"));
            assert!(read(line).is_none() || repeated.is_none(), "a repeated line counts: {line}");
            assert_eq!(read(&format!("{AT}error: {line}")), None);
        }
    }
}

/// What a job left in its hook's place: whatever is believed is in bounds, of a repository that is ours, and reads back as the same.
pub fn hook_word(data: &[u8]) {
    let Ok(word) = std::str::from_utf8(data) else { return };
    for page in [OWN, "Octo", "enterprises/octo"] {
        let url: Url = format!("https://github.com/{page}").parse().unwrap();
        let hooks = Hooks::new(&url, Path::new("/nonexistent"), None);
        let Some(Hook::Started(job)) = hooks.parse(word) else { continue };
        believed(&job);
        let (owner, _) = job.repository.split_once('/').unwrap();
        match page {
            OWN => assert_eq!(job.repository, OWN),
            "Octo" => assert!(owner.eq_ignore_ascii_case(page), "{job:?}"),
            _ => {}
        }
        let again = format!("started\n{}\n{}\n{}\n{}\n", job.run, job.attempt, job.repository, job.key);
        assert_eq!(hooks.parse(&again), Some(Hook::Started(job)));
    }
}

fn believed(job: &Job) {
    assert!(is_id(&job.run) && job.attempt > 0, "{job:?}");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    assert!((1..=200).contains(&job.key.len()) && job.key.chars().all(is_plain), "{job:?}");
    let parts: Vec<&str> = job.repository.split('/').collect();
    let is_name =
        |name: &&str| (1..=200).contains(&name.len()) && !matches!(*name, "." | "..") && name.chars().all(|c| is_plain(c) || c == '.');
    assert!(parts.len() == 2 && parts.iter().all(is_name), "{job:?}");
}
