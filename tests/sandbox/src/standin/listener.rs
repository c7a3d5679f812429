//! `Runner.Listener`: waits for jobs and runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::configure::{self, Input};
use super::http::post;
use super::job::{self, End};
use super::{VERSION, stamp};
use crate::github::Message;

/// How long it waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(500);
/// The listener's exit codes. Source: `Constants.cs` of the runner.
const OK: i32 = 0;
const TERMINATED: i32 = 1;

/// What `config.sh` left.
pub struct Settings {
    pub id: u64,
    pub server: String,
    pub secret: String,
    pub work: String,
    pub ephemeral: bool,
}

impl Settings {
    pub fn read(root: &Path) -> Result<Self> {
        let json = |name: &str| -> Result<Value> {
            let text = fs::read_to_string(root.join(name)).with_context(|| format!("reading {name}"))?;
            Ok(serde_json::from_str(text.trim_start_matches('\u{feff}'))?)
        };
        let (runner, credentials) = (json(".runner")?, json(".credentials")?);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            id: runner["agentId"].as_u64().context("no agentId")?,
            server: text(&runner["serverUrl"]),
            secret: text(&credentials["data"]["clientId"]),
            work: text(&runner["workFolder"]),
            ephemeral: runner["ephemeral"].as_bool().unwrap_or_default(),
        })
    }

    /// Who speaks, with more.
    pub fn says(&self, more: &Value) -> Value {
        let mut body = json!({ "id": self.id, "secret": self.secret });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    }
}

/// Removes the local configuration.
pub fn forget(root: &Path) {
    for name in [".credentials", ".runner"] {
        if fs::remove_file(root.join(name)).is_ok() {
            println!("√ Removed {name}");
        }
    }
}

/// The whole program: `ROOT COMMAND [OPTIONS]`; returns its exit code.
pub fn main(arguments: &[String]) -> i32 {
    let Some((root, rest)) = arguments.split_first() else {
        eprintln!("usage: runner-listener ROOT configure|remove|run");
        return TERMINATED;
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("An error occurred: {error}");
            return TERMINATED;
        }
    };
    let code = runtime.block_on(act(&PathBuf::from(root), &Input::read(rest)));
    code.unwrap_or_else(|error| {
        eprintln!("An error occurred: {error:#}");
        TERMINATED
    })
}

async fn act(root: &Path, input: &Input) -> Result<i32> {
    match input.command.as_str() {
        "configure" => configure::configure(root, input).await,
        "remove" => configure::remove(root, input).await,
        "--version" => {
            println!("{VERSION}");
            Ok(OK)
        }
        _ => run(root, input).await,
    }
}

/// The signals that end it.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one. Cancel-safe.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn run(root: &Path, input: &Input) -> Result<i32> {
    let mut signals = Signals::listen()?;
    if let Some(config) = input.get("jitconfig") {
        unpack(root, config)?;
    }
    if !root.join(".runner").exists() {
        eprintln!("Runner is not configured.");
        return Ok(TERMINATED);
    }
    serve(root, &Settings::read(root)?, &mut signals).await
}

fn unpack(root: &Path, config: &str) -> Result<()> {
    let files: Value = serde_json::from_slice(&STANDARD.decode(config.trim())?)?;
    for (name, content) in files.as_object().context("the configuration holds no files")? {
        let text = STANDARD.decode(content.as_str().unwrap_or_default())?;
        configure::write(root, name, &String::from_utf8(text)?)?;
    }
    Ok(())
}

async fn serve(root: &Path, settings: &Settings, signals: &mut Signals) -> Result<i32> {
    if !connect(settings, signals).await? {
        return Ok(TERMINATED);
    }
    println!("\n√ Connected to GitHub\n");
    println!("Current runner version: '{VERSION}'");
    println!("{}: Listening for Jobs", stamp());
    let who = settings.says(&json!({}));
    loop {
        let asked = tokio::select! {
            asked = post(&settings.server, "/_runner/next", &who) => asked,
            () = signals.next() => {
                println!("Exiting...");
                leave(settings).await;
                return Ok(OK);
            }
        };
        match asked {
            Ok((200, body)) => {
                let message: Message = serde_json::from_str(&body)?;
                let end = job::run(root, settings, &message, signals).await?;
                if end == End::Interrupted {
                    leave(settings).await;
                    return Ok(OK);
                }
                if settings.ephemeral {
                    forget(root);
                    return Ok(OK);
                }
            }
            Ok((204, _)) => {}
            Ok((404, _)) => {
                eprintln!("The runner no longer exists on the server. Cleaning up local configuration.");
                forget(root);
                return Ok(OK);
            }
            Ok((status, _)) => retry(&format!("{status}")).await,
            Err(error) => retry(&format!("{error:#}")).await,
        }
    }
}

async fn retry(why: &str) {
    eprintln!("{}: Runner connect error: {why}. Retrying until reconnected.", stamp());
    tokio::time::sleep(RECONNECT).await;
}

/// Opens the session: whether there is one. A signal meanwhile ends the program as one that has not started.
async fn connect(settings: &Settings, signals: &mut Signals) -> Result<bool> {
    let who = settings.says(&json!({}));
    loop {
        let asked = tokio::select! {
            asked = post(&settings.server, "/_runner/session", &who) => asked,
            () = signals.next() => return Ok(false),
        };
        match asked {
            Ok((200, _)) => return Ok(true),
            Ok((404, _)) => {
                eprintln!(
                    "Failed to create a session. The runner registration has been deleted from the server, please re-configure. Runner registrations are automatically deleted for runners that have not connected to the service recently."
                );
                return Ok(false);
            }
            Ok((status, _)) => retry(&format!("{status}")).await,
            Err(error) => retry(&format!("{error:#}")).await,
        }
    }
}

async fn leave(settings: &Settings) {
    let _ = post(&settings.server, "/_runner/leave", &settings.says(&json!({}))).await;
}
