//! `config.sh`: registers the runner, or removes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::http::post;

/// What can be given as `--name VALUE` or as `ACTIONS_RUNNER_INPUT_NAME`.
const ARGUMENTS: [&str; 9] = [
    "url",
    "token",
    "pat",
    "name",
    "labels",
    "work",
    "runnergroup",
    "jitconfig",
    "startuptype",
];
const SWITCHES: [&str; 9] = [
    "unattended",
    "ephemeral",
    "replace",
    "disableupdate",
    "no-default-labels",
    "once",
    "local",
    "check",
    "runasservice",
];

/// The command line of the program.
pub struct Input {
    /// `configure`, `remove`, `run`
    pub command: String,
    values: BTreeMap<String, String>,
    switches: Vec<String>,
}

impl Input {
    /// Reads the arguments; what is not known is complained of, and ignored.
    pub fn read(arguments: &[String]) -> Self {
        let mut input = Self {
            command: arguments.first().cloned().unwrap_or_default(),
            values: BTreeMap::new(),
            switches: Vec::new(),
        };
        for name in ARGUMENTS {
            let variable = format!("ACTIONS_RUNNER_INPUT_{}", name.to_uppercase());
            if let Some(value) = std::env::var(variable).ok().filter(|value| !value.is_empty()) {
                input.values.insert(name.into(), value);
            }
        }
        let mut rest = arguments.iter().skip(1);
        while let Some(argument) = rest.next() {
            let name = argument.trim_start_matches('-');
            if ARGUMENTS.contains(&name) {
                input.values.insert(name.into(), rest.next().cloned().unwrap_or_default());
            } else if SWITCHES.contains(&name) {
                input.switches.push(name.into());
            } else {
                eprintln!(
                    "Unrecognized command-line input arguments for command {}: '{name}'. For usage refer to: .\\config.cmd --help",
                    input.command
                );
            }
        }
        input
    }

    /// A value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn has(&self, switch: &str) -> bool {
        self.switches.iter().any(|one| one == switch)
    }
}

/// `config.sh …`; returns the exit code.
pub async fn configure(root: &Path, input: &Input) -> Result<i32> {
    println!("\n# Authentication\n");
    if root.join(".runner").exists() {
        eprintln!(
            "Cannot configure the runner because it is already configured. To reconfigure the runner, run 'config.cmd remove' or './config.sh remove' first."
        );
        return Ok(1);
    }
    let url = input.get("url").context("Invalid configuration provided for url.")?;
    let server = server(url)?;
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".into());
    let name = input.get("name").unwrap_or(&host);
    let mut labels: Vec<String> = Vec::new();
    if !input.has("no-default-labels") {
        labels.extend(["self-hosted", "Linux", "X64"].map(str::to_owned));
    }
    labels.extend(
        input
            .get("labels")
            .unwrap_or_default()
            .split(',')
            .filter(|label| !label.is_empty())
            .map(str::to_owned),
    );
    let body = json!({
        "token": input.get("token").unwrap_or_default(), "name": name, "labels": labels, "ephemeral": input.has("ephemeral"),
        "work": input.get("work").unwrap_or("_work"),
    });
    let (status, answer) = post(&server, "/_runner/register", &body).await?;
    match status {
        200 => {}
        409 => {
            eprintln!("A runner exists with the same name {name}.");
            return Ok(1);
        }
        status => {
            eprintln!("Http response code: {status} from 'POST {server}/api/v3/actions/runner-registration'");
            return Ok(1);
        }
    }
    println!("√ Connected to GitHub\n\n# Runner Registration\n\n√ Runner successfully added\n");
    let answer: Value = serde_json::from_str(&answer)?;
    for file in answer["files"].as_array().into_iter().flatten() {
        write(root, file[0].as_str().unwrap_or_default(), file[1].as_str().unwrap_or_default())?;
    }
    println!("# Runner settings\n\n\n√ Settings Saved.\n");
    Ok(0)
}

/// `config.sh remove --token …`
pub async fn remove(root: &Path, input: &Input) -> Result<i32> {
    println!("\n# Runner removal\n");
    let settings = super::listener::Settings::read(root)?;
    let body = json!({ "token": input.get("token").unwrap_or_default(), "id": settings.id });
    let (status, _) = post(&settings.server, "/_runner/remove", &body).await?;
    if status != 200 {
        eprintln!("Failed: Removing runner from the server");
        return Ok(1);
    }
    println!("\n√ Runner removed successfully");
    super::listener::forget(root);
    Ok(0)
}

/// Writes one file of the configuration, for its owner only.
pub fn write(root: &Path, name: &str, text: &str) -> Result<()> {
    let path = root.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// `http://HOST:PORT` of a page.
fn server(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").context("only http:// here")?;
    let host = rest.split('/').next().unwrap_or_default();
    Ok(format!("http://{host}"))
}
