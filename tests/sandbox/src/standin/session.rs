//! What a configured runner knows, and how it speaks to the service.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::http::post;
use super::{VERSION, complain, say, stamp};

/// How long it waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(500);

/// What `config.sh` or a just-in-time configuration left.
#[derive(Clone)]
pub struct Settings {
    pub root: PathBuf,
    pub id: u64,
    pub server: String,
    secret: String,
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
            root: root.to_owned(),
            id: runner["agentId"].as_u64().context("no agentId")?,
            server: text(&runner["serverUrl"]),
            secret: text(&credentials["data"]["clientId"]),
            work: text(&runner["workFolder"]),
            ephemeral: runner["ephemeral"].as_bool().unwrap_or_default(),
        })
    }

    /// Says something to the service, as this runner.
    pub async fn tell(&self, what: &str, more: &Value) -> Result<(u16, String)> {
        let mut body = json!({ "id": self.id, "secret": self.secret });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        post(&self.server, &format!("/_runner/{what}"), &body).await
    }

    /// Ends the session.
    pub async fn leave(&self) {
        // Whatever comes of it, the program ends.
        let _ = self.tell("leave", &json!({})).await;
    }
}

/// Writes one file of the configuration, for its owner only.
pub fn write(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// Removes the local configuration.
pub fn forget(root: &Path) {
    for name in [".credentials_rsaparams", ".credentials", ".runner"] {
        if fs::remove_file(root.join(name)).is_ok() && name != ".credentials_rsaparams" {
            say(&format!("√ Removed {name}"));
        }
    }
}

/// The environment of jobs: ours, less what was input for us, and what `.env` says instead. Source: `Program.cs`, `CommandSettings.cs`.
pub fn environment(root: &Path) -> BTreeMap<String, String> {
    let own = std::env::vars().filter(|(name, _)| !name.starts_with("ACTIONS_RUNNER_INPUT_"));
    let text = fs::read_to_string(root.join(".env")).unwrap_or_default();
    let said = text.lines().filter_map(|line| line.split_once('='));
    own.chain(said.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect()
}

/// How the service answered the wish for a session.
pub enum Session {
    Open,
    Deleted,
    Conflict,
}

/// Opens the session, however long it takes. Source: `BrokerMessageListener.cs`.
pub async fn open(settings: &Settings) -> Session {
    /// The real one tries every 30 s for 4 min.
    const CONFLICTS: u32 = 8;
    let mut connection = Connection::default();
    let mut conflicts = 0;
    loop {
        match settings.tell("session", &json!({ "version": VERSION })).await {
            Ok((200, _)) => return Session::Open,
            Ok((404, _)) => return Session::Deleted,
            Ok((409, _)) => {
                complain("A session for this runner already exists.");
                conflicts += 1;
                if conflicts == CONFLICTS {
                    return Session::Conflict;
                }
                tokio::time::sleep(RECONNECT).await;
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

/// Whether the service was reached last time: each loss and each return is told once.
#[derive(Default)]
pub struct Connection {
    is_lost: bool,
}

impl Connection {
    /// Says so, the first time, and waits.
    pub async fn lost(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_lost, true) {
            complain(&format!("{}: Runner connect error: {why}. Retrying until reconnected.", stamp()));
        }
        tokio::time::sleep(RECONNECT).await;
    }

    /// Says so, if it was lost.
    pub fn is_back(&mut self) {
        if std::mem::take(&mut self.is_lost) {
            say(&format!("{}: Runner reconnected.", stamp()));
        }
    }
}
