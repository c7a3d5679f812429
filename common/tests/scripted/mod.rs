//! A server on loopback that answers by a script, faults of the connection included, and remembers what it was asked.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod golden;
pub mod pipeline;
pub mod run;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::forge::{Interrupted, Rerun};
use common::http::Retry;
use common::spec::LaunchJob;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Patient enough for a loaded machine, with waits that nobody notices.
pub const QUICK: Retry = Retry {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(5),
    unsaid_limit: Duration::from_millis(2),
    budget: Duration::from_secs(30),
    repeatable: true,
};

/// What one request is answered with.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The request is read, and the connection ends without a word.
    Reset,
    /// The answer promises more than comes.
    CutShort,
    /// The request is read, and nothing comes.
    Silence,
}

/// A JSON answer.
pub fn answer(status: u16, body: &Value) -> Reply {
    Reply::Answer(status, Vec::new(), body.to_string().into_bytes())
}

/// An answer without a body.
pub fn empty(status: u16) -> Reply {
    Reply::Answer(status, Vec::new(), Vec::new())
}

/// How forges refuse: a status and a message.
pub fn refused(status: u16, message: &str) -> Reply {
    answer(status, &json!({ "message": message }))
}

impl Reply {
    /// Adds a header.
    pub fn with(self, name: &'static str, value: impl fmt::Display) -> Self {
        match self {
            Self::Answer(status, mut headers, body) => {
                headers.push((name, format!("{value}")));
                Self::Answer(status, headers, body)
            }
            other => other,
        }
    }
}

/// A request to run a job again that nobody launched a machine for, with time enough.
pub fn rerun_of(job: Interrupted) -> Rerun {
    Rerun {
        job,
        runner: "cml-a".into(),
        launch: None,
        max_attempts: 3,
        patience: Duration::from_mins(1),
        budget: Duration::from_mins(1),
    }
}

/// The same by a machine that this job of this run launched.
pub fn launched(request: Rerun, run: &str, job: &str) -> Rerun {
    let launch = LaunchJob {
        run: run.into(),
        attempt: 1,
        runner: job.into(),
    };
    Rerun {
        launch: Some(launch),
        ..request
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `METHOD /path`
    pub line: String,
    pub query: String,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

#[derive(Default)]
struct Script {
    replies: BTreeMap<String, VecDeque<Reply>>,
    otherwise: Option<Reply>,
    requests: Vec<Request>,
}

/// The server; it ends with the test's runtime.
pub struct Server {
    pub url: String,
    script: Arc<Mutex<Script>>,
}

impl Server {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::<Mutex<Script>>::default();
        let shared = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, script }
    }

    /// Answers `METHOD /path` with these in turn; the last one answers for ever.
    pub fn on(&self, line: &str, replies: impl IntoIterator<Item = Reply>) {
        self.script
            .lock()
            .unwrap()
            .replies
            .insert(line.into(), replies.into_iter().collect());
    }

    /// Answers everything else with this one, instead of with 404.
    pub fn otherwise(&self, reply: Reply) {
        self.script.lock().unwrap().otherwise = Some(reply);
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.script.lock().unwrap().requests.clone()
    }

    /// How often `METHOD /path` was asked.
    pub fn count(&self, line: &str) -> usize {
        self.requests().iter().filter(|request| request.line == line).count()
    }

    /// All requests that change something, in order.
    pub fn posts(&self) -> Vec<String> {
        let lines = self.requests().into_iter().map(|request| request.line);
        lines.filter(|line| !line.starts_with("GET ")).collect()
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>) {
    let Some(request) = read(&mut stream).await else { return };
    let reply = {
        let mut script = script.lock().unwrap();
        let otherwise = script.otherwise.clone();
        let unknown = || otherwise.unwrap_or_else(|| refused(404, "Not Found"));
        let reply = script.replies.get_mut(&request.line).map_or_else(unknown, |replies| {
            let last = replies.len() == 1;
            if last { replies[0].clone() } else { replies.pop_front().unwrap() }
        });
        script.requests.push(request);
        reply
    };
    let bytes = match reply {
        Reply::Reset => return,
        Reply::Silence => return std::future::pending().await,
        Reply::CutShort => b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n{".to_vec(),
        Reply::Answer(status, headers, body) => {
            let length = body.len();
            let mut head = format!("HTTP/1.1 {status} Scripted\r\nconnection: close\r\ncontent-length: {length}\r\n");
            for (name, value) in headers {
                write!(head, "{name}: {value}\r\n").unwrap();
            }
            head.push_str("\r\n");
            [head.into_bytes(), body].concat()
        }
    };
    // The client may hang up before it has read all of a large one.
    let _ = stream.write_all(&bytes).await;
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut start = lines.next()?.split(' ');
    let (method, target) = (start.next()?, start.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request {
        line: format!("{method} {path}"),
        query: query.to_owned(),
        headers,
        body: serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default(),
    })
}
