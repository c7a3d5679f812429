//! The program: what it asks the daemon, and the signals that it passes on.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::{Answer, Request};
use crate::standin::{complain, say};

/// Where the daemon listens.
fn socket() -> Result<String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let path = host.strip_prefix("unix://").map(str::to_owned);
    path.context("Cannot connect to the Docker daemon")
}

/// Asks, passes on what is said and the signals that come, and returns the exit code.
pub async fn run(words: &[String]) -> Result<i32> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut answers = BufReader::new(ask(words).await?).lines();
    // Of a container in the foreground.
    let name = words.iter().position(|word| word == "--name").map(|at| at + 1);
    let name = name.map_or(words.last(), |at| words.get(at)).cloned().unwrap_or_default();
    loop {
        let line = tokio::select! {
            line = answers.next_line() => line?,
            _ = interrupt.recv() => { pass(&name, "SIGINT").await; continue }
            _ = terminate.recv() => { pass(&name, "SIGTERM").await; continue }
        };
        match serde_json::from_str(&line.context("the daemon has gone")?)? {
            Answer::Line(line) => say(&line),
            Answer::Exit(code) => return Ok(code),
        }
    }
}

async fn ask(words: &[String]) -> Result<UnixStream> {
    let mut request = Request {
        words: words.to_vec(),
        ..Request::default()
    };
    if let Some(at) = words.iter().position(|word| word == "--env-file") {
        let text = std::fs::read_to_string(words.get(at + 1).context("--env-file needs a value")?)?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        request.env = pairs.map(|(name, value)| (name.into(), value.into())).collect();
    }
    let mut stream = UnixStream::connect(socket()?)
        .await
        .context("Cannot connect to the Docker daemon")?;
    stream
        .write_all(format!("{}\n", serde_json::to_string(&request)?).as_bytes())
        .await?;
    Ok(stream)
}

async fn pass(name: &str, signal: &str) {
    let words = ["container", "kill", "--signal", signal, name].map(str::to_owned);
    if let Err(error) = ask(&words).await {
        complain(&format!("passing a signal on: {error:#}"));
    }
}
