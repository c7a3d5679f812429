//! The command line, as far as `run-single` goes. Source: `common/config.go`, `commands/single.go`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{config, log};

/// The options of `run-single` that take a value, and the variables that give it too.
const VALUES: [(&str, &str); 34] = [
    ("url", "CI_SERVER_URL"),
    ("token", "CI_SERVER_TOKEN"),
    ("executor", "RUNNER_EXECUTOR"),
    ("description", "RUNNER_NAME"),
    ("wait-timeout", ""),
    ("max-builds", ""),
    ("builds-dir", "RUNNER_BUILDS_DIR"),
    ("cache-dir", "RUNNER_CACHE_DIR"),
    ("shell", "RUNNER_SHELL"),
    ("env", "RUNNER_ENV"),
    ("pre-get-sources-script", "RUNNER_PRE_GET_SOURCES_SCRIPT"),
    ("post-get-sources-script", "RUNNER_POST_GET_SOURCES_SCRIPT"),
    ("pre-build-script", "RUNNER_PRE_BUILD_SCRIPT"),
    ("post-build-script", "RUNNER_POST_BUILD_SCRIPT"),
    ("clone-url", "CLONE_URL"),
    ("tls-ca-file", "CI_SERVER_TLS_CA_FILE"),
    ("limit", "RUNNER_LIMIT"),
    ("request-concurrency", "RUNNER_REQUEST_CONCURRENCY"),
    ("output-limit", "RUNNER_OUTPUT_LIMIT"),
    ("config", "CONFIG_FILE"),
    ("runner", ""),
    ("docker-image", "DOCKER_IMAGE"),
    ("docker-volumes", "DOCKER_VOLUMES"),
    ("docker-gpus", "DOCKER_GPUS"),
    ("docker-runtime", "DOCKER_RUNTIME"),
    ("docker-pull-policy", "DOCKER_PULL_POLICY"),
    ("docker-network-mode", "DOCKER_NETWORK_MODE"),
    ("docker-shm-size", "DOCKER_SHM_SIZE"),
    ("docker-memory", "DOCKER_MEMORY"),
    ("docker-cpus", "DOCKER_CPUS"),
    ("docker-host", "DOCKER_HOST"),
    ("docker-user", "DOCKER_USER"),
    ("docker-allowed-images", "DOCKER_ALLOWED_IMAGES"),
    ("docker-helper-image", "DOCKER_HELPER_IMAGE"),
];
const SWITCHES: [(&str, &str); 4] = [
    ("docker-privileged", "DOCKER_PRIVILEGED"),
    ("docker-tlsverify", "DOCKER_TLS_VERIFY"),
    ("docker-disable-cache", "DOCKER_DISABLE_CACHE"),
    ("debug-trace-disabled", "RUNNER_DEBUG_TRACE_DISABLED"),
];
const SHORT: [(&str, &str); 6] = [
    ("u", "url"),
    ("t", "token"),
    ("c", "config"),
    ("r", "runner"),
    ("l", "log-level"),
    ("name", "description"),
];

/// What the program is to do.
pub enum Command {
    Version,
    Single(Box<Options>),
}

/// The options of `run-single`.
pub struct Options {
    pub url: String,
    pub token: String,
    pub executor: String,
    pub name: String,
    /// In seconds; none never ends.
    pub wait_timeout: i64,
    /// None never ends.
    pub max_builds: i64,
    pub builds_dir: Option<PathBuf>,
    pub pre_build_script: String,
    /// `NAME=VALUE`
    pub env: Vec<String>,
    /// Everything that was said about Docker, as it was said.
    pub docker: BTreeMap<String, Vec<String>>,
    /// What this machine calls itself, if it has done so before.
    pub system: Option<String>,
}

/// Reads the arguments; what is wrong with them.
pub fn read(arguments: &[String]) -> Result<Command, String> {
    let mut words = arguments.iter().cloned();
    while let Some(word) = words.next() {
        let Some((name, value)) = flag(&word) else {
            return match word.as_str() {
                "run-single" => single(words).map(|options| Command::Single(Box::new(options))),
                other => Err(format!("Command {other} not found.")),
            };
        };
        match name.as_str() {
            "version" | "v" => return Ok(Command::Version),
            "debug" => log::set_level("debug")?,
            "log-format" => log::set_format(&value.or_else(|| words.next()).unwrap_or_default())?,
            "log-level" => log::set_level(&value.or_else(|| words.next()).unwrap_or_default())?,
            _ => return Err(format!("flag provided but not defined: -{name}")),
        }
    }
    Err("No command.".into())
}

/// The name of an option, and the value that is part of the word.
fn flag(word: &str) -> Option<(String, Option<String>)> {
    let text = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    let (name, value) = text
        .split_once('=')
        .map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
    let long = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
    Some((long.to_owned(), value))
}

fn single(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(word) = words.next() {
        let Some((name, value)) = flag(&word) else { continue };
        if SWITCHES.iter().any(|(known, _)| *known == name) {
            given.entry(name).or_default().push(value.unwrap_or_else(|| "true".into()));
        } else if VALUES.iter().any(|(known, _)| *known == name) {
            let value = value.or_else(|| words.next());
            let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
            given.entry(name).or_default().push(value);
        } else {
            return Err(format!("flag provided but not defined: -{name}"));
        }
    }
    for (name, variable) in VALUES.iter().chain(&SWITCHES) {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
        if let (false, Some(value)) = (given.contains_key(*name), value) {
            given.insert((*name).into(), vec![value]);
        }
    }
    let one = |name: &str| given.get(name).and_then(|values| values.last()).cloned();
    let number = |name: &str| match one(name) {
        None => Ok(0),
        Some(text) => text
            .parse()
            .map_err(|_| format!("invalid value \"{text}\" for flag -{name}: parse error")),
    };
    let (runner, file) = (one("runner"), one("config"));
    let options = Options {
        url: one("url").unwrap_or_default(),
        token: one("token").unwrap_or_default(),
        executor: one("executor").unwrap_or_default(),
        name: one("description").unwrap_or_default(),
        wait_timeout: number("wait-timeout")?,
        max_builds: number("max-builds")?,
        builds_dir: one("builds-dir").map(PathBuf::from),
        pre_build_script: one("pre-build-script").unwrap_or_default(),
        env: given.get("env").cloned().unwrap_or_default(),
        docker: given.into_iter().filter(|(name, _)| name.starts_with("docker-")).collect(),
        system: None,
    };
    match (runner, file) {
        (Some(runner), file) => config::read(Path::new(&file.unwrap_or_default()), &runner, &options),
        (None, _) => Ok(options),
    }
}
