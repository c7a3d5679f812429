//! The options by their names, read from clap's own data: flags, aliases, and what kind of value each takes.

use std::any::TypeId;

use clap::{Arg, ArgAction, Command};
use common::network::Proxy;
use common::secret::Secret;
use common::spec::Script;

/// The heading of the options that every command has; they may also be given as `CML_<OPTION>`.
pub const GENERIC: &str = "Generic options";

/// The old tool's variables that had no `CML_`: <https://cml.dev/doc/ref/runner>.
const LEGACY: [(&str, &str); 8] = [
    ("idle_timeout", "RUNNER_IDLE_TIMEOUT"),
    ("labels", "RUNNER_LABELS"),
    ("single", "RUNNER_SINGLE"),
    ("reuse", "RUNNER_REUSE"),
    ("no_retry", "RUNNER_NO_RETRY"),
    ("driver", "RUNNER_DRIVER"),
    ("repo", "RUNNER_REPO"),
    ("workdir", "RUNNER_PATH"),
];

/// The start of every option's own environment name.
pub const PREFIX: &str = "CML_RUNNER_";

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or a yes or no.
    Switch,
    /// One value; the last one given wins.
    One,
    /// One value each time; all of them count.
    List,
    /// Values until the next option; all of them count.
    Words,
}

/// One option.
#[derive(Debug, Clone)]
pub struct Opt {
    /// clap's id: the field's name.
    pub id: String,
    /// `cloud-type`
    pub long: String,
    /// Other spellings, still accepted.
    pub aliases: Vec<String>,
    /// What it takes.
    pub kind: Kind,
    /// Accepted without effect.
    pub ignored: bool,
    /// Whether every command has it.
    pub generic: bool,
    /// Whether its value must not be shown.
    pub secret: bool,
}

impl Opt {
    fn new(arg: &Arg) -> Option<Self> {
        let kind = match arg.get_action() {
            ArgAction::SetTrue => Kind::Switch,
            ArgAction::Set => Kind::One,
            ArgAction::Append if arg.get_num_args().is_some_and(|range| range.max_values() > 1) => Kind::Words,
            ArgAction::Append => Kind::List,
            _ => return None,
        };
        let value = arg.get_value_parser().type_id();
        Some(Self {
            id: arg.get_id().to_string(),
            long: arg.get_long()?.to_owned(),
            aliases: arg.get_all_aliases().into_iter().flatten().map(str::to_owned).collect(),
            kind,
            ignored: arg.is_hide_set(),
            generic: arg.get_help_heading() == Some(GENERIC),
            secret: value == TypeId::of::<Secret>() || value == TypeId::of::<Script>() || value == TypeId::of::<Proxy>(),
        })
    }

    /// Its environment names, the strongest first; the flag says which spelling each stands for.
    pub fn variables(&self) -> Vec<(String, &str)> {
        let flags = || std::iter::once(self.long.as_str()).chain(self.aliases.iter().map(String::as_str));
        let mut variables: Vec<(String, &str)> = flags().map(|flag| (format!("{PREFIX}{}", upper_snake(flag)), flag)).collect();
        if self.generic {
            variables.extend(flags().map(|flag| (format!("CML_{}", upper_snake(flag)), flag)));
        }
        let legacy = LEGACY.iter().filter(|(id, _)| *id == self.id);
        variables.extend(legacy.map(|(_, name)| ((*name).to_owned(), self.long.as_str())));
        variables
    }
}

/// Every option of `cml runner`.
#[derive(Debug)]
pub struct Names(pub Vec<Opt>);

impl Names {
    /// Of a command that is built.
    pub fn of(runner: &Command) -> Self {
        Self(runner.get_arguments().filter_map(Opt::new).collect())
    }

    /// By flag, alias or id.
    pub fn get(&self, name: &str) -> Option<&Opt> {
        self.0
            .iter()
            .find(|opt| opt.long == name || opt.id == name || opt.aliases.iter().any(|alias| alias == name))
    }

    /// By what a user wrote after `--`: kebab or camel case, and switches with `no-`. The boolean says whether it is negated.
    pub fn find(&self, written: &str) -> Option<(&Opt, bool)> {
        let flag = kebab(written);
        let exact = |name: &str| {
            self.0
                .iter()
                .find(|opt| opt.long == name || opt.aliases.iter().any(|alias| alias == name))
        };
        exact(&flag).map(|opt| (opt, false)).or_else(|| {
            let opt = exact(flag.strip_prefix("no-")?)?;
            (opt.kind == Kind::Switch).then_some((opt, true))
        })
    }
}

/// `cloudGpu` → `cloud-gpu`; anything that is not camel case stays.
fn kebab(written: &str) -> String {
    let mut flag = String::with_capacity(written.len() + 4);
    for c in written.chars() {
        if c.is_ascii_uppercase() {
            flag.push('-');
        }
        flag.push(c.to_ascii_lowercase());
    }
    flag
}

/// `cloud-type` → `CLOUD_TYPE`
pub fn upper_snake(flag: &str) -> String {
    flag.replace('-', "_").to_ascii_uppercase()
}
