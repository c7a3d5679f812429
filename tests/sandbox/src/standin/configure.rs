//! `config.sh`: registers the runner, or removes it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::http::post;
use super::session::{Settings, forget, write};
use super::{ARCH, complain, say};

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
                complain(&format!(
                    "Unrecognized command-line input arguments for command {}: '{name}'. For usage refer to: .\\config.cmd --help",
                    input.command
                ));
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

/// `config.sh …`
pub async fn configure(root: &Path, input: &Input) -> Result<()> {
    say(
        "\n--------------------------------------------------------------------------------\n|       Self-hosted runner registration                                        |",
    );
    say("--------------------------------------------------------------------------------\n\n# Authentication\n");
    if root.join(".runner").exists() {
        bail!(
            "Cannot configure the runner because it is already configured. To reconfigure the runner, run 'config.cmd remove' or './config.sh remove' first."
        );
    }
    let server = server(input.get("url").context("Invalid configuration provided for url.")?)?;
    let token = input.get("token").context("Invalid configuration provided for token.")?;
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".into());
    let name = input.get("name").unwrap_or(&host);
    let body = json!({
        "token": token, "name": name, "labels": labels(input)?, "ephemeral": input.has("ephemeral"), "replace": input.has("replace"),
        "work": input.get("work").unwrap_or("_work"),
    });
    let (status, answer) = post(&server, "/_runner/register", &body).await?;
    match status {
        200 => {}
        409 => bail!("A runner exists with the same name {name}."),
        status => bail!("Http response code: {status} from 'POST {server}/api/v3/actions/runner-registration'"),
    }
    let answer: Value = serde_json::from_str(&answer)?;
    let done = if answer["new"] == true {
        "√ Runner successfully added"
    } else {
        "√ Successfully replaced the runner"
    };
    say(&format!("√ Connected to GitHub\n\n# Runner Registration\n\n{done}\n"));
    for file in answer["files"].as_array().into_iter().flatten() {
        write(root, file[0].as_str().unwrap_or_default(), file[1].as_str().unwrap_or_default())?;
    }
    write(root, ".credentials_rsaparams", "{}")?;
    say("# Runner settings\n\n\n√ Settings Saved.\n");
    Ok(())
}

fn labels(input: &Input) -> Result<Vec<String>> {
    let given = input.get("labels").unwrap_or_default().split(',').map(str::trim);
    let given: Vec<String> = given.filter(|label| !label.is_empty()).map(str::to_owned).collect();
    if !input.has("no-default-labels") {
        let own = ["self-hosted", "Linux", ARCH].map(str::to_owned);
        return Ok(own.into_iter().chain(given).collect());
    }
    if given.is_empty() {
        bail!("You must specify at least one label when using --no-default-labels.");
    }
    Ok(given)
}

/// `config.sh remove --token …`
pub async fn remove(root: &Path, input: &Input) -> Result<()> {
    say("\n# Runner removal\n");
    if !input.has("local") {
        let settings = Settings::read(root).context("Runner is not configured.")?;
        let body = json!({ "token": input.get("token").unwrap_or_default(), "id": settings.id });
        match post(&settings.server, "/_runner/remove", &body).await? {
            (200, _) => say("\n√ Runner removed successfully"),
            (422, _) => bail!("Failed: Removing runner from the server\nThe runner is still running a job"),
            (status, _) => bail!("Failed: Removing runner from the server\nHttp response code: {status}"),
        }
    }
    forget(root);
    Ok(())
}

/// `http://HOST:PORT` of a page.
fn server(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").context("only http:// here")?;
    let host = rest.split('/').next().unwrap_or_default();
    Ok(format!("http://{host}"))
}
