//! The status records that users' scripts parse: an interface, with a golden test.

use jiff::{Timestamp, Unit};
use url::Url;

use crate::forge::Job;

/// A record of the agent's life; written as a log record with the message `runner status`.
#[derive(Debug, Clone)]
pub enum Status<'a> {
    /// The runner is online and waits for jobs.
    Ready,
    /// A job began; its ids, where they are known already.
    JobStarted(Option<&'a Job>),
    /// A job ended.
    JobEnded {
        /// Which one.
        job: Option<&'a Job>,
        /// Whether it ended well.
        success: bool,
    },
    /// The runner is gone, for this reason: `timeout:300`, `single job`, `SIGTERM`, …
    Terminated {
        /// The peer's words for it.
        reason: &'a str,
    },
}

/// Writes one record. `job` is the id of the workflow run: what the runner itself knows of its job without asking the forge.
pub fn emit(status: &Status<'_>, repo: &Url) {
    emit_at(status, repo, Timestamp::now());
}

fn emit_at(status: &Status<'_>, repo: &Url, now: Timestamp) {
    let date = format!("{:.3}", now.round(Unit::Millisecond).unwrap_or(now));
    let (date, repo) = (date.as_str(), repo.as_str());
    match status {
        Status::Ready => tracing::info!(date, repo, status = "ready", "runner status"),
        Status::JobStarted(job) => {
            let job = job.map(|job| job.run.as_str());
            tracing::info!(date, repo, job, status = "job_started", "runner status");
        }
        Status::JobEnded { job, success } => {
            let job = job.map(|job| job.run.as_str());
            tracing::info!(date, repo, job, status = "job_ended", success, "runner status");
        }
        Status::Terminated { reason } => tracing::info!(reason, status = "terminated", "runner status"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Status, emit, emit_at};
    use crate::forge::Job;
    use crate::log::tests::logged;

    #[test]
    fn the_records_are_an_interface() {
        let repo = "https://github.com/octo/train".parse().unwrap();
        let now = "2026-03-04T05:06:07.0894Z".parse().unwrap();
        let job = Job {
            run: "42".into(),
            attempt: 1,
            repository: "octo/train".into(),
            key: "train".into(),
        };
        let job = Some(&job);
        let lines = logged(|| {
            for status in [
                Status::Ready,
                Status::JobStarted(None),
                Status::JobStarted(job),
                Status::JobEnded { job, success: true },
                Status::JobEnded { job: None, success: false },
                Status::Terminated { reason: "timeout:300" },
            ] {
                emit_at(&status, &repo, now);
            }
        });
        insta::assert_snapshot!(lines, @r#"
        {"date":"2026-03-04T05:06:07.089Z","level":"info","message":"runner status","repo":"https://github.com/octo/train","status":"ready"}
        {"date":"2026-03-04T05:06:07.089Z","level":"info","message":"runner status","repo":"https://github.com/octo/train","status":"job_started"}
        {"date":"2026-03-04T05:06:07.089Z","job":"42","level":"info","message":"runner status","repo":"https://github.com/octo/train","status":"job_started"}
        {"date":"2026-03-04T05:06:07.089Z","job":"42","level":"info","message":"runner status","repo":"https://github.com/octo/train","status":"job_ended","success":true}
        {"date":"2026-03-04T05:06:07.089Z","level":"info","message":"runner status","repo":"https://github.com/octo/train","status":"job_ended","success":false}
        {"level":"info","message":"runner status","reason":"timeout:300","status":"terminated"}
        "#);
    }

    #[test]
    fn the_date_is_now_with_milliseconds() {
        let repo = "https://github.com/octo/train".parse().unwrap();
        let line = logged(|| emit(&Status::Ready, &repo));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        let date = read["date"].as_str().unwrap();
        assert_eq!(date.len(), "2026-03-04T05:06:07.089Z".len(), "{date}");
        assert!(date.parse::<jiff::Timestamp>().is_ok(), "{date}");
    }
}
