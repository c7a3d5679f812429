//! Requests to a server on loopback, and nothing more.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than a poll is held.
const PATIENCE: Duration = Duration::from_mins(1);

/// Posts JSON; returns the status and the body.
pub async fn post(server: &str, path: &str, body: &Value) -> Result<(u16, String)> {
    timeout(PATIENCE, exchange(server, path, body)).await.context("no answer in time")?
}

async fn exchange(server: &str, path: &str, body: &Value) -> Result<(u16, String)> {
    let host = server.strip_prefix("http://").context("the server is not on http://")?;
    let mut stream = TcpStream::connect(host)
        .await
        .with_context(|| format!("Connection refused ({host})"))?;
    let body = body.to_string();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("the connection was closed")?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok((status, body.unwrap_or_default()))
}
