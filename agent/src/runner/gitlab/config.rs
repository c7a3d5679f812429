//! The runner's configuration file. Source: <https://docs.gitlab.com/runner/configuration/advanced-configuration/>

use anyhow::Result;
use common::forge::gitlab::RunnerConfig;
use common::network;
use common::spec::RunnerOptions;
use serde_json::Value;

use crate::runner::docker::Place;
use crate::runner::program::Program;

/// Its name in the runner's directory.
const NAME: &str = "config.toml";

/// Writes it, for whom the runner runs as; returns its path. A job in a shell is the same user and can read it; one in a container cannot.
pub fn write(program: &Program, name: &str, options: &RunnerOptions, runner: &RunnerConfig, place: Place) -> Result<String> {
    let text = text(program, name, options, runner, place);
    let path = program.write_private(NAME, &text)?;
    Ok(path.display().to_string())
}

/// A text or a list of texts. JSON's are TOML's too, but for one character that TOML wants escaped.
fn toml(value: impl Into<Value>) -> String {
    value.into().to_string().replace('\u{7f}', "\\u007f")
}

fn text(program: &Program, name: &str, options: &RunnerOptions, runner: &RunnerConfig, place: Place) -> String {
    let dir = |name: &str| toml(program.dir.join(name).display().to_string());
    let mut lines = vec![
        "concurrent = 1".to_owned(),
        "[[runners]]".to_owned(),
        format!("name = {}", toml(name)),
        format!("url = {}", toml(runner.server.as_str())),
        format!("token = {}", toml(runner.token.expose())),
    ];
    if let Place::Containers { gpus } = place {
        lines.push("executor = \"docker\"".into());
        // A job in a shell inherits it. Source: <https://docs.gitlab.com/runner/configuration/proxy/>
        let env = program.command("", &[]).env;
        let proxy: Vec<String> = network::of_proxy(&env).map(|(name, value)| format!("{name}={value}")).collect();
        if !proxy.is_empty() {
            lines.push(format!("environment = {}", toml(proxy)));
        }
        lines.push("[runners.docker]".into());
        lines.push(format!("image = {}", toml(options.docker_image.as_str())));
        lines.push(format!("volumes = {}", toml(options.docker_volumes.as_slice())));
        if gpus {
            lines.push("gpus = \"all\"".into());
        }
    } else {
        lines.push("executor = \"shell\"".into());
        lines.push("shell = \"bash\"".into());
        lines.push(format!("builds_dir = {}", dir("builds")));
        lines.push(format!("cache_dir = {}", dir("cache")));
    }
    lines.join("\n") + "\n"
}
