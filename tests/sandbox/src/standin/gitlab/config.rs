//! The configuration file. Source: `common/config.go`, `commands/internal/configfile`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::cli::Options;
use super::single;

/// What this machine calls itself, beside the configuration file.
const SYSTEM: &str = ".runner_system_id";

/// As far as we read it: what else stands there is no business of ours.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    runners: Vec<Runner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Runner {
    name: String,
    url: String,
    token: String,
    executor: String,
    builds_dir: Option<PathBuf>,
    pre_build_script: String,
    environment: Vec<String>,
    docker: BTreeMap<String, Value>,
}

/// Replaces the options of the command line by those of a runner in a file, as the real one does; what is wrong with it.
pub fn read(path: &Path, name: &str, options: &Options) -> Result<Options, String> {
    let failed = |error: &dyn std::fmt::Display| format!("Error loading config: {error}");
    let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
    let config: Config = toml::from_str(&text).map_err(|error| failed(&error))?;
    let found = config.runners.into_iter().find(|runner| runner.name == name);
    let runner = found.ok_or_else(|| format!("Error loading runner by name: could not find a runner with the name '{name}'"))?;
    Ok(Options {
        url: runner.url,
        token: runner.token,
        executor: runner.executor,
        name: runner.name,
        builds_dir: runner.builds_dir,
        pre_build_script: runner.pre_build_script,
        env: runner.environment,
        docker: docker(&runner.docker),
        system: Some(system(path)),
        wait_timeout: options.wait_timeout,
        max_builds: options.max_builds,
    })
}

/// As the command line's options of the same names.
fn docker(table: &BTreeMap<String, Value>) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let all = |value: &Value| match value {
        Value::Array(items) => items.iter().map(text).collect(),
        one => vec![text(one)],
    };
    let named = table
        .iter()
        .map(|(name, value)| (format!("docker-{}", name.replace('_', "-")), all(value)));
    named.collect()
}

/// The name that was given once, and is kept.
fn system(config: &Path) -> String {
    let path = config.with_file_name(SYSTEM);
    if let Ok(known) = fs::read_to_string(&path) {
        return known.trim().to_owned();
    }
    let fresh = format!("s_{}", single::random());
    // A machine that cannot write it has another name next time.
    let _ = fs::write(path, &fresh);
    fresh
}
