//! Requests to a server on loopback, and nothing more.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than a poll is held.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Everything above the body.
    pub head: String,
    /// The body, with what is not UTF-8 replaced.
    pub body: String,
}

impl Answer {
    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.lines().filter_map(|line| line.split_once(": "));
        pairs
            .into_iter()
            .find(|(one, _)| one.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Sends one request to `http://HOST:PORT/PATH`, on a connection of its own.
///
/// # Errors
/// When there is no answer: the connection is refused, or closed, or the server is silent for a minute.
pub async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    timeout(PATIENCE, exchange(method, url, headers, body))
        .await
        .context("no answer in time")?
}

/// Posts JSON; returns the status and the body.
pub(super) async fn post(server: &str, path: &str, body: &Value) -> Result<(u16, String)> {
    let headers = [("content-type", "application/json")];
    let answer = send("POST", &format!("{server}{path}"), &headers, &body.to_string()).await?;
    Ok((answer.status, answer.body))
}

async fn exchange(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    let rest = url.strip_prefix("http://").context("the server is not on http://")?;
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    let mut stream = TcpStream::connect(host)
        .await
        .with_context(|| format!("Connection refused ({host})"))?;
    let headers = headers
        .iter()
        .fold(String::new(), |text, (name, value)| text + name + ": " + value + "\r\n");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("the connection was closed")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.context("that is not HTTP")?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
