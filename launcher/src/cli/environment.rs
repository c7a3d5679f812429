//! Options from the environment: `CML_RUNNER_<OPTION>`, then `CML_<OPTION>` for the generic ones, then the old tool's older names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::argv::boolean;
use super::names::{Kind, Names, PREFIX};
use super::{Setting, Warning};

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
