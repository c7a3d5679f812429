//! `Runner.Listener`: waits for jobs and has them run.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::signal::unix::{self, SignalKind};

use super::configure::{self, Input};
use super::dispatch::{self, End};
use super::session::{self, Connection, Session, Settings};
use super::{VERSION, complain, say, stamp, worker};
use crate::github::{Order, Work};

/// Its exit codes. Source: `Constants.cs`.
mod code {
    pub const OK: i32 = 0;
    pub const TERMINATED: i32 = 1;
    pub const RETRYABLE: i32 = 2;
    pub const UPDATING: i32 = 3;
    pub const ONCE_UPDATING: i32 = 4;
    pub const SESSION_CONFLICT: i32 = 5;
    pub const DEPRECATED: i32 = 7;
}

/// The variable that tells it to say so when its version is too old.
const RETURN_DEPRECATED: &str = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";

/// The whole program: `configure|remove|run [OPTIONS]`; returns its exit code. The runner's root is above the directory that it is in.
pub fn main(arguments: &[String]) -> i32 {
    match start(arguments) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("An error occurred: {error:#}"));
            code::RETRYABLE
        }
    }
}

fn start(arguments: &[String]) -> Result<i32> {
    let program = std::env::current_exe().context("finding the program")?;
    let root = program.ancestors().nth(2).context("the program is in no runner")?.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let input = Input::read(arguments);
    runtime.block_on(async {
        match input.command.as_str() {
            "configure" | "remove" => Ok(configure(&root, &input).await),
            worker::COMMAND => worker::main(&root).await,
            "--version" => {
                say(VERSION);
                Ok(code::OK)
            }
            _ => run(&root, &input).await,
        }
    })
}

async fn configure(root: &Path, input: &Input) -> i32 {
    let act = async {
        if input.command == "remove" {
            configure::remove(root, input).await
        } else {
            configure::configure(root, input).await
        }
    };
    let result = tokio::select! {
        result = act => result,
        _ = tokio::signal::ctrl_c() => return code::TERMINATED,
    };
    match result {
        Ok(()) => code::OK,
        Err(error) => {
            complain(&format!("{error:#}"));
            code::TERMINATED
        }
    }
}

/// The signals that end it.
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one: whether it was SIGTERM. Cancel-safe.
    pub async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => true,
        }
    }
}

async fn run(root: &Path, input: &Input) -> Result<i32> {
    let mut signals = Signals::listen()?;
    if let Some(config) = input.get("jitconfig")
        && let Err(error) = unpack(root, config)
    {
        complain(&format!("{error:#}"));
        return Ok(code::TERMINATED);
    }
    if !root.join(".runner").exists() {
        complain("Runner is not configured.");
        return Ok(code::TERMINATED);
    }
    let settings = Settings::read(root)?;
    let session = tokio::select! {
        session = session::open(&settings) => session,
        _ = signals.next() => {
            say("Exiting...");
            return Ok(code::OK);
        }
    };
    match session {
        Session::Open => serve(&settings, &mut signals).await,
        Session::Deleted => {
            complain(
                "Failed to create a session. The runner registration has been deleted from the server, please re-configure. Runner registrations are automatically deleted for runners that have not connected to the service recently.",
            );
            Ok(code::TERMINATED)
        }
        Session::Conflict => {
            complain("Stop retry on SessionConflictException after retried for 240 seconds.");
            Ok(code::SESSION_CONFLICT)
        }
    }
}

fn unpack(root: &Path, config: &str) -> Result<()> {
    let files: Value = serde_json::from_slice(&STANDARD.decode(config.trim())?)?;
    for (name, content) in files.as_object().context("the configuration holds no files")? {
        let text = STANDARD.decode(content.as_str().unwrap_or_default())?;
        session::write(root, name, &String::from_utf8(text)?)?;
    }
    Ok(())
}

async fn serve(settings: &Settings, signals: &mut Signals) -> Result<i32> {
    say("\n√ Connected to GitHub\n");
    say(&format!("Current runner version: '{VERSION}'"));
    say(&format!("{}: Listening for Jobs", stamp()));
    let mut connection = Connection::default();
    let nothing = json!({});
    loop {
        let asked = tokio::select! {
            asked = settings.tell("next", &nothing) => asked,
            _ = signals.next() => {
                say("Exiting...");
                settings.leave().await;
                return Ok(code::OK);
            }
        };
        match asked {
            Ok((200, body)) => {
                connection.is_back();
                let code = match serde_json::from_str(&body)? {
                    Work::Job(message) => work(settings, &message, signals).await?,
                    Work::Order(order) => obey(settings, order).await?,
                };
                if let Some(code) = code {
                    return Ok(code);
                }
            }
            Ok((204, _)) => connection.is_back(),
            Ok((404, _)) => {
                complain("The runner no longer exists on the server. Cleaning up local configuration.");
                session::forget(&settings.root);
                return Ok(code::OK);
            }
            Ok((status, _)) => {
                connection
                    .lost(&format!("Response status code does not indicate success: {status}."))
                    .await;
            }
            Err(error) => connection.lost(&format!("{error:#}")).await,
        }
    }
}

/// Has a job run; the exit code, if the program is to end after it.
async fn work(settings: &Settings, message: &crate::ci::Message, signals: &mut Signals) -> Result<Option<i32>> {
    let end = dispatch::run(settings, message, signals).await?;
    if settings.ephemeral {
        settings.leave().await;
        session::forget(&settings.root);
        return Ok(Some(code::OK));
    }
    if end == End::Interrupted {
        settings.leave().await;
        return Ok(Some(code::OK));
    }
    Ok(None)
}

/// Does what the service says; the exit code, if the program is to end.
async fn obey(settings: &Settings, order: Order) -> Result<Option<i32>> {
    match order {
        Order::Refresh => {
            say(&format!("{}: Listening for Jobs", stamp()));
            Ok(None)
        }
        Order::Deprecated => {
            settings.leave().await;
            complain(&format!(
                "An error occurred: Runner version v{VERSION} is deprecated and cannot receive messages."
            ));
            let is_asked = std::env::var(RETURN_DEPRECATED).is_ok_and(|value| ["1", "true"].contains(&value.to_lowercase().as_str()));
            Ok(Some(if is_asked { code::DEPRECATED } else { code::TERMINATED }))
        }
        Order::Update => {
            update(&settings.root)?;
            settings.leave().await;
            Ok(Some(if settings.ephemeral { code::ONCE_UPDATING } else { code::UPDATING }))
        }
    }
}

/// Starts the script that takes over when this program has ended, and then says that it is through. Source: `SelfUpdaterV2.cs`.
fn update(root: &Path) -> Result<()> {
    for line in [
        "Runner update in progress, do not shutdown runner.",
        &format!("Downloading {VERSION} runner"),
        "Waiting for current job finish running.",
        "Generate and execute update script.",
        "Runner will exit shortly for update, should be back online within 10 seconds.",
    ] {
        say(line);
    }
    let script = "while kill -0 \"$1\" 2>/dev/null; do sleep 0.05; done; touch update.finished";
    Command::new("bash")
        .args(["-c", script, "_update.sh", &std::process::id().to_string()])
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the update script")?;
    Ok(())
}
