//! Options from the environment: `CML_RUNNER_<OPTION>`, then `CML_<OPTION>` for the generic ones, then the old tool's older names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::argv::boolean;
use super::names::{Kind, Names, Opt, PREFIX};
use super::{Setting, Warning};

/// What a command line says only for itself: where its token is, and what it prints.
const ONCE: [&str; 12] = [
    "token",
    "token_file",
    "app_id",
    "app_private_key",
    "export",
    "state_dir",
    "reuse",
    "reuse_idle",
    "dry_run",
    "output",
    "agent_url",
    "agent_sha256",
];

/// The settings of every option that `done` does not name. An empty variable counts as unset.
pub fn read(names: &Names, vars: &BTreeMap<String, String>, done: &BTreeSet<String>) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for opt in names.0.iter().filter(|opt| !done.contains(&opt.id)) {
        let found = opt.variables().into_iter().find_map(|(name, _)| {
            let value = vars.get(&name).filter(|value| !value.trim().is_empty())?;
            Some((name, value))
        });
        let Some((source, value)) = found else { continue };
        let mut push = |value: &str| {
            settings.push(Setting {
                id: opt.id.clone(),
                value: value.to_owned(),
                source: source.clone(),
            });
        };
        match opt.kind {
            Kind::Switch => push(if boolean(value, &source)? { "true" } else { "false" }),
            // One value a line: a value may hold spaces.
            Kind::Words => value.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(push),
            Kind::One | Kind::List => push(value.trim()),
        }
    }
    Ok(settings)
}

/// The settings as the variables that say the same: without secrets, nor what is only of this once.
pub fn write(names: &Names, settings: &[Setting]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let lasts = |opt: &&Opt| !opt.ignored && !ONCE.contains(&opt.id.as_str()) && !opt.id.starts_with("cloud");
    for opt in names.0.iter().filter(lasts) {
        let values = settings
            .iter()
            .filter(|setting| setting.id == opt.id)
            .map(|setting| setting.value.as_str());
        let values: Vec<&str> = values.collect();
        let (Some(last), Some((variable, _))) = (values.last(), opt.variables().into_iter().next()) else {
            continue;
        };
        let value = match opt.kind {
            Kind::Switch | Kind::One => (*last).to_owned(),
            Kind::List => values.join(","),
            Kind::Words => values.join("\n"),
        };
        variables.insert(variable, value);
    }
    variables
}

/// A warning for each variable that looks like an option and is none.
pub fn unknown(names: &Names, vars: &BTreeMap<String, String>, suggest: impl Fn(&str) -> Option<String>) -> Vec<Warning> {
    let known: BTreeSet<String> = names
        .0
        .iter()
        .flat_map(|opt| opt.variables().into_iter().map(|(name, _)| name))
        .collect();
    let strangers = vars.keys().filter(|name| !known.contains(*name));
    strangers
        .filter_map(|name| Some((name, name.strip_prefix(PREFIX)?)))
        .map(|(name, own)| {
            let flag = format!("--{}", own.to_ascii_lowercase().replace('_', "-"));
            let meant = suggest(&flag).map(|flag| super::names::upper_snake(flag.trim_start_matches('-')));
            let meant = meant.map_or_else(String::new, |option| format!(": did you mean {PREFIX}{option}?"));
            Warning(format!("the environment variable {name} is no option{meant}"))
        })
        .collect()
}
