//! The runner's log, one JSON object a line. Nothing in it is a job's own: jobs write to their log on the server.

use common::forge::Job;
use serde::Deserialize;
use url::Url;

use crate::runner::Line;

/// What we read of a line.
#[derive(Deserialize)]
struct Record {
    msg: String,
    job: Option<u64>,
    repo_url: Option<Url>,
}

/// Reads one line. The words are spaced by chance: `Checking for jobs... received`, `Checking for jobs...no content`.
/// Sources: network/gitlab.go, commands/single.go and common/build.go of gitlab-runner 19.4.
pub fn read(line: &str) -> Option<Line> {
    let record: Record = serde_json::from_str(line).ok()?;
    let words: String = record.msg.split_whitespace().collect();
    match (words.as_str(), record.job) {
        (asking, None) if asking.starts_with("Startingrunnerfor") => Some(Line::Asking),
        ("Checkingforjobs...forbidden", _) => Some(Line::Deregistered),
        ("Checkingforjobs...received", Some(job)) => Some(Line::JobKnown(Job {
            run: job.to_string(),
            attempt: 1,
            repository: record.repo_url.as_ref().map(project).unwrap_or_default(),
            key: String::new(),
        })),
        ("Jobsucceeded", Some(job)) => Some(ended(job, true)),
        // The server does not want it any more, perhaps before it has begun: then there is no other word of its end.
        ("Submittingjobtocoordinator...jobfailed" | "Submittingjobtocoordinator...notfound", Some(job)) => Some(ended(job, false)),
        (failed, Some(job)) if failed.starts_with("Jobfailed") => Some(ended(job, false)),
        _ => None,
    }
}

fn ended(job: u64, success: bool) -> Line {
    Line::JobEnded {
        name: job.to_string(),
        success,
    }
}

/// The project that is cloned from an address.
fn project(clone: &Url) -> String {
    let path = clone.path().trim_matches('/');
    path.strip_suffix(".git").unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::read;
    use crate::runner::Line;

    #[test]
    fn each_line_is_read() {
        let starts =
            r#"{"level":"info","msg":"Starting runner for http://127.0.0.1:1/gitlab with token x ...","time":"2026-08-22T10:00:00Z"}"#;
        assert_eq!(read(starts), Some(Line::Asking));
        let gone = r#"{"level":"error","msg":"Checking for jobs... forbidden","runner":"x","status":"403 Forbidden","time":"2026-08-22T10:00:00Z"}"#;
        assert_eq!(read(gone), Some(Line::Deregistered));
        let received = r#"{"job":7,"level":"info","msg":"Checking for jobs... received","repo_url":"https://gitlab.example.com/octo/team/train.git","runner":"x","time":"2026-08-22T10:00:00Z"}"#;
        let Some(Line::JobKnown(job)) = read(received) else {
            panic!("not read");
        };
        assert_eq!((job.run.as_str(), job.repository.as_str()), ("7", "octo/team/train"));
        for (msg, success) in [
            ("Job succeeded", true),
            ("Job failed: exit status 1", false),
            ("Job failed (system failure): prepare environment", false),
            ("Job failed: canceled", false),
            ("Submitting job to coordinator... job failed", false),
        ] {
            let line = json!({ "level": "info", "msg": msg, "job": 7, "duration_s": 1.5 }).to_string();
            let name = "7".to_owned();
            assert_eq!(read(&line), Some(Line::JobEnded { name, success }), "{msg}");
        }
    }

    #[test]
    fn what_is_no_word_of_a_job_is_none() {
        for line in [
            "",
            "Job succeeded",
            "{}",
            r#"{"msg":"Job succeeded"}"#,
            r#"{"msg":"Checking for jobs... received"}"#,
            r#"{"msg":"Checking for jobs... failed","status":"couldn't execute POST"}"#,
            r#"{"msg":"Submitting job to coordinator...ok","job":7,"job-status":""}"#,
            r#"{"msg":"Appending trace to coordinator...ok","job":7,"job-status":"running"}"#,
            r#"{"msg":"Updating job...","job":7}"#,
            r#"{"msg":"Job succeeded","job":"7"}"#,
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC*", msg in "\\PC*", job: u64) {
            let _ = read(&line);
            let _ = read(&json!({ "msg": msg, "job": job, "repo_url": line }).to_string());
        }
    }
}
