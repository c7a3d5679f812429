//! What the runner says to the server. Source: `network/gitlab.go`.

use std::time::Duration;

use serde_json::{Value, json};

use super::cli::Options;
use super::log::{self, Entry, Level};
use super::{ARCH, REVISION, VERSION};
use crate::gitlab::PACE;
use crate::standin::http::{Answer, send};

/// How many characters of a token are shown.
const SHOWN: usize = 9;

/// Who speaks, and with whom.
#[derive(Clone)]
pub struct Network {
    api: String,
    token: String,
    name: String,
    info: Value,
    system: String,
}

/// Which job is spoken of.
#[derive(Clone)]
pub struct Credentials {
    pub id: u64,
    pub token: String,
}

/// What came of the question for work.
pub enum Asked {
    Job(Box<Value>, Pace),
    Nothing(Pace),
    /// The server does not know us any more.
    Unhealthy,
}

/// How quick the server wants us to be: the real one knows no such wish.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace(pub Option<Duration>);

impl Pace {
    fn of(answer: &Answer) -> Self {
        let wish = answer.header(PACE).and_then(|text| text.trim().parse().ok());
        Self(wish.map(Duration::from_millis))
    }

    /// What takes this long with the real one.
    pub fn or(self, usual: Duration) -> Duration {
        self.0.unwrap_or(usual)
    }
}

/// What the server says of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// It goes on.
    Fine,
    /// It is to be ended, and told how it ended.
    Canceling,
    /// It is over.
    Abort,
    /// Nothing could be heard.
    Failed,
}

/// The part of a token that is shown. Source: `helpers/shorten_token.go`.
pub fn shorten(token: &str) -> String {
    let own = token.strip_prefix("glrt-").unwrap_or(token);
    let kinds = ["t1_", "t2_", "t3_"].iter().find_map(|kind| own.strip_prefix(kind));
    kinds.unwrap_or(own).chars().take(SHOWN).collect()
}

impl Network {
    pub fn new(options: &Options, system: String) -> Self {
        let url = options.url.trim_end_matches('/').trim_end_matches("/ci").trim_end_matches('/');
        let gpus = options.docker.get("docker-gpus").and_then(|gpus| gpus.last());
        let info = json!({
            "name": "gitlab-runner", "version": VERSION, "revision": REVISION, "platform": "linux", "architecture": ARCH,
            "executor": options.executor, "shell": "bash", "config": { "gpus": gpus.cloned().unwrap_or_default() },
            "features": { "variables": true, "trace_reset": true, "trace_checksum": true, "trace_size": true, "cancelable": true,
                "cancel_gracefully": true, "return_exit_code": true, "masking": true, "raw_variables": true },
        });
        Self {
            api: format!("{url}/api/v4"),
            token: options.token.clone(),
            name: options.name.clone(),
            info,
            system,
        }
    }

    pub fn system(&self) -> &str {
        &self.system
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn short(&self) -> String {
        shorten(&self.token)
    }

    /// A line about this runner.
    pub fn entry(&self, message: &str) -> Entry {
        let entry = log::entry(message).with("runner", self.short());
        entry.with("runner_name", self.name.clone())
    }

    async fn send(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> (Option<Answer>, String) {
        let url = format!("{}/{path}", self.api);
        let agent = format!("gitlab-runner {VERSION} (18-6-stable; go1.24.6; linux/{ARCH})");
        let mut headers = vec![("user-agent", agent.as_str())];
        headers.extend(more);
        match send(method, &url, &headers, body).await {
            Ok(answer) => {
                let reason = answer
                    .head
                    .lines()
                    .next()
                    .and_then(|line| line.split_once(' '))
                    .map_or("", |(_, rest)| rest);
                let text = format!("{method} {url}: {reason}");
                (Some(answer), text)
            }
            Err(error) => (None, format!("couldn't execute {method} against {url}: {error:#}")),
        }
    }

    /// Asks for work.
    pub async fn request(&self) -> Asked {
        let body = json!({ "info": self.info, "token": self.token, "system_id": self.system }).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json"),
            ("runner-token", self.token.as_str()),
        ];
        let (answer, text) = self.send("POST", "jobs/request", &headers, &body).await;
        let pace = answer.as_ref().map_or(Pace(None), Pace::of);
        let entry = self.entry("Checking for jobs...").with("correlation_id", correlation());
        let warn = |what: &str| entry.saying(format!("Checking for jobs... {what}")).with("status", text.clone());
        match answer.as_ref().map(|answer| answer.status) {
            Some(201) => {
                let body = answer.map(|answer| answer.body).unwrap_or_default();
                let job: Value = serde_json::from_str(&body).unwrap_or_default();
                let url = job["git_info"]["repo_url"].as_str().unwrap_or_default();
                let clean = url
                    .split_once('@')
                    .map_or_else(|| url.to_owned(), |(_, rest)| format!("http://{rest}"));
                entry
                    .saying("Checking for jobs... received")
                    .with("job", job["id"].clone())
                    .with("repo_url", clean)
                    .write(Level::Info);
                return Asked::Job(Box::new(job), pace);
            }
            Some(204) => {}
            Some(403) => {
                warn("forbidden").write(Level::Error);
                return Asked::Unhealthy;
            }
            Some(503) => warn("GitLab instance currently unavailable").write(Level::Warning),
            _ => warn("failed").write(Level::Warning),
        }
        Asked::Nothing(pace)
    }

    /// Tells how a job goes, or how it went.
    pub async fn update(&self, job: &Credentials, mut said: Value, log: &str) -> Remote {
        let (checksum, size) = if log.is_empty() {
            (String::new(), 0)
        } else {
            (checksum(log), log.len())
        };
        let entry = self
            .entry("Updating job...")
            .with("job", job.id)
            .with("checksum", checksum.clone())
            .with("bytesize", size)
            .with("correlation_id", correlation());
        entry.clone().write(Level::Info);
        said["info"] = self.info.clone();
        said["token"] = json!(job.token);
        said["checksum"] = json!(checksum);
        said["output"] = json!({ "checksum": checksum, "bytesize": size });
        let headers = [("content-type", "application/json"), ("job-token", job.token.as_str())];
        let (answer, text) = self.send("PUT", &format!("jobs/{}", job.id), &headers, &said.to_string()).await;
        let (code, remote) = (code(answer.as_ref()), remote(answer.as_ref()));
        let told = |what: &str| detail(entry.saying(format!("Submitting job to coordinator...{what}")), answer.as_ref());
        match (remote, code) {
            (Remote::Abort, _) => told(" job failed").with("status", text).write(Level::Warning),
            (_, 200) => told("ok").write(Level::Info),
            (_, 202) => told("accepted, but not yet completed").write(Level::Info),
            (_, 412) => told("trace validation failed").write(Level::Info),
            (_, 404) => {
                told(" not found").with("status", text).write(Level::Warning);
                return Remote::Abort;
            }
            _ => told(" failed").with("status", text).write(Level::Warning),
        }
        if remote == Remote::Fine && code != 200 {
            Remote::Failed
        } else {
            remote
        }
    }

    /// Sends a piece of a job's log that begins at `from`: up to where the server has it, and what it says of the job.
    pub async fn append(&self, job: &Credentials, from: usize, piece: &str) -> (usize, Remote) {
        let range = format!("{from}-{}", from + piece.len() - 1);
        let headers = [
            ("content-type", "text/plain"),
            ("job-token", job.token.as_str()),
            ("content-range", range.as_str()),
        ];
        let path = format!("jobs/{}/trace?debug_trace=false", job.id);
        let (answer, text) = self.send("PATCH", &path, &headers, piece).await;
        let (code, remote) = (code(answer.as_ref()), remote(answer.as_ref()));
        let known = answer
            .as_ref()
            .and_then(|answer| answer.header("range"))
            .unwrap_or_default()
            .to_owned();
        let told = |what: &str| {
            let entry = self.entry(&format!("Appending trace to coordinator...{what}")).with("job", job.id);
            let entry = entry
                .with("sent-log", range.clone())
                .with("job-log", known.clone())
                .with("status", text.clone());
            detail(entry.with("correlation_id", correlation()), answer.as_ref())
        };
        match (remote, code) {
            (Remote::Abort, _) => told(" job failed").write(Level::Warning),
            (_, 202) => {
                told("ok").write(Level::Info);
                return (from + piece.len(), remote);
            }
            (_, 416) => {
                told(" range mismatch").write(Level::Warning);
                let end = known.rsplit('-').next().and_then(|end| end.parse().ok());
                return (end.unwrap_or(from), remote);
            }
            (_, 404) => {
                told(" not-found").write(Level::Warning);
                return (from, Remote::Abort);
            }
            _ => told(" failed").write(Level::Warning),
        }
        (from, if remote == Remote::Fine { Remote::Failed } else { remote })
    }
}

fn code(answer: Option<&Answer>) -> i32 {
    answer.map_or(-1, |answer| answer.status.into())
}

/// What the server's answer says of the job. Source: `network/remote_job_state_response.go`.
fn remote(answer: Option<&Answer>) -> Remote {
    match (
        answer.map(|answer| answer.status),
        answer.and_then(|answer| answer.header("job-status")),
    ) {
        (_, Some("canceled" | "failed")) | (Some(403), _) => Remote::Abort,
        (_, Some("canceling")) => Remote::Canceling,
        (Some(_), _) => Remote::Fine,
        (None, _) => Remote::Failed,
    }
}

/// What is told of every answer.
fn detail(entry: Entry, answer: Option<&Answer>) -> Entry {
    let header = |name: &str| answer.and_then(|answer| answer.header(name)).unwrap_or_default();
    let interval: u64 = header("x-gitlab-trace-update-interval").parse().unwrap_or_default();
    // Go writes a duration in nanoseconds.
    let interval = Duration::from_secs(interval).as_nanos();
    entry
        .with("code", code(answer))
        .with("job-status", header("job-status"))
        .with("update-interval", u64::try_from(interval).unwrap_or_default())
}

/// The IEEE CRC-32 of a log.
fn checksum(log: &str) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(log.as_bytes());
    format!("crc32:{:08x}", crc.sum())
}

/// A word that is in the server's log as well.
fn correlation() -> String {
    let now = jiff::Timestamp::now().as_nanosecond();
    crate::standin::sha256(now.to_string().as_bytes())
        .chars()
        .take(26)
        .collect::<String>()
        .to_uppercase()
}
