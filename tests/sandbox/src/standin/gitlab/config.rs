//! The configuration file of the runner, as far as one runner of it goes. Source: `common/config.go`, `commands/single.go`.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    runners: Vec<Table>,
}

/// What the file says of the runner of this name, as options.
pub fn options(path: &str, name: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("open {path}: {error}"))?;
    let file: File = toml::from_str(&text).map_err(|error| format!("decoding configuration file: {error}"))?;
    let mut runners = file.runners.into_iter();
    let runner = runners.find(|runner| runner.get("name").and_then(Value::as_str) == Some(name));
    let mut runner = runner.ok_or_else(|| format!("no runner with name {name:?} in {path}"))?;
    let docker = runner.remove("docker");
    let own = runner.into_iter().map(|(key, value)| (key.replace('_', "-"), value));
    let docker = docker.and_then(|docker| docker.as_table().cloned()).unwrap_or_default();
    let docker = docker
        .into_iter()
        .map(|(key, value)| (format!("docker-{}", key.replace('_', "-")), value));
    Ok(own.chain(docker).map(|(key, value)| (key, texts(&value))).collect())
}

/// A value as an option says it: a list is said element by element.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        // Numbers and switches, of which we know none.
        _ => Vec::new(),
    }
}
