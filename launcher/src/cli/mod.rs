//! The command line and the environment → options. Pure: whoever calls it passes both in.
//!
//! [`argv`] accepts every spelling that the old tool accepted, [`environment`] adds what the command line does not say, and clap reads
//! the canonical form of the two. An error names the flag or the variable that the user wrote.

mod argv;
mod environment;
pub mod names;
mod refusal;
pub mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command, CommandFactory as _, FromArgMatches as _};
use common::error::{Class, Failure};
use common::spec::{Executor, JobDocker, JobMetadata};

use crate::fleet;
use crate::options::{Cli, Command as Chosen, LaunchOptions};
use names::{GENERIC, Kind, Names};

/// Help is not drawn wider than this many columns.
const WIDEST: usize = 110;

/// The command's name in the old tool's container and its busybox link.
const RUNNER: &str = "runner";

const USAGE: &str = "cml runner [launch] [OPTIONS]
       cml runner list|reap [OPTIONS]
       cml runner logs NAME [OPTIONS]
       cml runner terminate NAME... [OPTIONS]";

const AFTER_HELP: &str = "Each option can be given as CML_RUNNER_<OPTION> too, for example CML_RUNNER_IDLE_TIMEOUT; the command line wins.
Give the token as REPO_TOKEN rather than as --token: every user of a machine can read its command lines.
All options, defaults, environment names and exit codes: docs/reference.md";

/// What to do.
#[derive(Debug)]
pub enum Invocation {
    /// Print this and exit 0.
    Print(StyledStr),
    /// Launch.
    Launch(Box<Parsed>),
    /// Look after the machines that were launched.
    Fleet(fleet::Command, Box<Parsed>),
}

/// A command line that makes sense.
#[derive(Debug)]
pub struct Parsed {
    /// The options, defaults filled in.
    pub options: LaunchOptions,
    /// Which of them were given, and how.
    pub given: Given,
    /// What the user should know before the launch.
    pub warnings: Vec<Warning>,
}

/// Something accepted that has not the effect that the user may expect.
#[derive(Debug, PartialEq, Eq)]
pub struct Warning(pub String);

/// One option as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// clap's id of the option.
    pub id: String,
    /// The value; of a switch `true` or `false`.
    pub value: String,
    /// The flag or the variable, as the user wrote it.
    pub source: String,
}

/// The options that were given: id → flag or variable. A switch that was given as false is not among them.
#[derive(Default)]
pub struct Given {
    sources: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
}

impl std::fmt::Debug for Given {
    /// A value may hold a secret: only what was given is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Given").field(&self.sources).finish()
    }
}

impl Given {
    fn new(settings: &[Setting], names: &Names) -> Self {
        let mut sources = BTreeMap::new();
        for setting in settings {
            // `false` of a switch, and the price that is no price, say what is so anyway.
            let is_switch = names.get(&setting.id).is_some_and(|opt| opt.kind == Kind::Switch);
            let is_no_price = setting.id == "cloud_spot_price" && setting.value.starts_with('-');
            if (is_switch && setting.value == "false") || is_no_price {
                sources.remove(&setting.id);
            } else {
                sources.insert(setting.id.clone(), setting.source.clone());
            }
        }
        let variables = environment::write(names, settings);
        Self { sources, variables }
    }

    /// The same as variables of the environment, without what a service of this host does not need.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// How an option was given, if it was.
    pub fn source(&self, id: &str) -> Option<&str> {
        self.sources.get(id).map(String::as_str)
    }

    /// Every option that was given, and how.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources.iter().map(|(id, source)| (id.as_str(), source.as_str()))
    }

    /// What the user wrote for clap's `--flag <VALUE>`.
    fn written(&self, names: &Names, arg: &str) -> String {
        let opt = names.get(refusal::flag(arg));
        opt.and_then(|opt| self.source(&opt.id))
            .map_or_else(|| arg.to_owned(), str::to_owned)
    }
}

/// The commands as clap knows them, headings put right.
pub fn command() -> Command {
    let mut command = Cli::command().max_term_width(WIDEST).mut_subcommand(RUNNER, |runner| {
        runner
            .override_usage(USAGE)
            .after_help(AFTER_HELP)
            .max_term_width(WIDEST)
            .next_line_help(true)
            .mut_arg("cloud_startup_script", |arg| {
                arg.help_heading("Cloud options").display_order(usize::MAX)
            })
            .disable_help_flag(true)
            .arg(answer("help", 'h', "Print this").help_heading(GENERIC))
            .arg(answer("version", 'V', "Print the version").help_heading(GENERIC))
    });
    command.build();
    command
}

/// An option that is answered before clap reads anything; it only stands in the help.
fn answer(name: &'static str, short: char, help: &'static str) -> Arg {
    Arg::new(name).long(name).short(short).help(help).action(ArgAction::Help)
}

/// Reads the command line (the program's name first) and the environment.
pub fn parse(argv: &[String], vars: &BTreeMap<String, String>) -> Result<Invocation> {
    let mut command = command();
    let Some(names) = command.find_subcommand(RUNNER).map(Names::of) else {
        anyhow::bail!("`{RUNNER}` is not a command");
    };
    let program = argv.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let implied = program == "cml-runner" || program == RUNNER;
    let words = argv::read(argv.get(1..).unwrap_or_default(), &names, |flag| suggestion(&command, flag))?;
    let of_runner = implied || words.positionals.first().is_some_and(|word| word == RUNNER);
    if words.version {
        return Ok(Invocation::Print(command.render_version().into()));
    }
    if words.help {
        let help = match command.find_subcommand_mut(RUNNER).filter(|_| of_runner) {
            Some(runner) => runner.render_help(),
            None => command.render_help(),
        };
        return Ok(Invocation::Print(help));
    }
    let of_fleet = check_words(&words.positionals, implied)?;
    let parsed = Box::new(options(command, &names, words.settings, vars)?);
    Ok(match of_fleet {
        None => Invocation::Launch(parsed),
        Some(of_fleet) => Invocation::Fleet(of_fleet, parsed),
    })
}

/// `[runner] [launch]`, or `[runner]` and what is to be done with the machines that there are; and nothing else.
fn check_words(positionals: &[String], implied: bool) -> Result<Option<fleet::Command>> {
    let mut words = positionals.iter().map(String::as_str).peekable();
    if words.next_if_eq(&RUNNER).is_none() && !implied {
        let failure = words.next().map_or_else(
            || Failure::new(Class::Usage, "no command is given"),
            |word| Failure::new(Class::Usage, format!("unknown command `{word}`")),
        );
        return Err(failure
            .hint("the command is `cml runner`; `cml runner --help` lists its options")
            .into());
    }
    let command = match words.next_if(|word| *word != "launch") {
        Some("list") => Some(fleet::Command::List),
        Some("reap") => Some(fleet::Command::Reap),
        Some("terminate") if words.peek().is_some() => {
            return Ok(Some(fleet::Command::Terminate(words.map(str::to_owned).collect())));
        }
        Some("logs") if words.peek().is_some() => words.next().map(|name| fleet::Command::Logs(name.to_owned())),
        Some(word @ ("terminate" | "logs")) => {
            return Err(
                Failure::new(Class::Usage, format!("`cml runner {word}` needs the name of a machine"))
                    .hint("`cml runner list` shows them")
                    .into(),
            );
        }
        Some(word) => return Err(unexpected(word)),
        None => {
            words.next_if_eq(&"launch");
            None
        }
    };
    words.next().map_or(Ok(command), |word| Err(unexpected(word)))
}

fn unexpected(word: &str) -> anyhow::Error {
    Failure::new(Class::Usage, format!("unexpected word `{word}`"))
        .hint("options start with `--`; put a value with spaces in quotes")
        .into()
}

fn options(command: Command, names: &Names, mut settings: Vec<Setting>, vars: &BTreeMap<String, String>) -> Result<Parsed> {
    // What a workflow leaves empty (`--cloud-image=${{ inputs.image }}`) counts as unset where any text is a value.
    settings.retain(|setting| !setting.value.trim().is_empty() || !takes_any_text(&command, &setting.id));
    let done: BTreeSet<String> = settings.iter().map(|setting| setting.id.clone()).collect();
    settings.extend(environment::read(names, vars, &done)?);
    let given = Given::new(&settings, names);

    let mut warnings = environment::unknown(names, vars, |flag| suggestion(&command, flag));
    warnings.extend(old_names(names, &given));
    let matches = command
        .try_get_matches_from(canonical(names, &settings))
        .map_err(|error| refusal::explain(&error, names, &given))?;
    let Cli {
        command: Chosen::Runner(runner),
    } = Cli::from_arg_matches(&matches).map_err(|error| refusal::explain(&error, names, &given))?;
    let mut options = runner.launch;
    options.runner.job_metadata = Some(job_metadata(&options)?);
    if options.runner.docker == JobDocker::Never {
        options.runner.executor = without_docker(options.runner.executor)?;
    }
    support::check_app(&options.generic, &given)?;
    warnings.extend(support::check_cloud(options.cloud.cloud, &given)?);
    options.runner.labels = labels(&options.runner.labels, given.source("labels").unwrap_or("--labels"))?;
    Ok(Parsed { options, given, warnings })
}

/// What jobs run in that may not start containers.
fn without_docker(executor: Executor) -> Result<Executor> {
    match executor {
        Executor::Auto | Executor::Shell => Ok(Executor::Shell),
        Executor::Docker => Err(
            Failure::new(Class::Usage, "`--docker=never` leaves nothing to run `--executor=docker` with")
                .hint("leave one of the two out")
                .into(),
        ),
    }
}

/// Whoever gives the machine a role gives it to its jobs, unless they say no.
fn job_metadata(options: &LaunchOptions) -> Result<JobMetadata> {
    let has_role = options.cloud.cloud_permission_set.is_some();
    match options.runner.job_metadata {
        Some(JobMetadata::Role) if !has_role => Err(Failure::new(Class::Usage, "`--job-metadata=role`: the machine is given no role")
            .hint("name one with `--cloud-permission-set`")
            .into()),
        Some(reach) => Ok(reach),
        None if has_role => Ok(JobMetadata::Role),
        None => Ok(JobMetadata::None),
    }
}

/// The one form that clap reads: `--flag` for a switch that is on, `--flag=value` for all else.
fn canonical(names: &Names, settings: &[Setting]) -> Vec<String> {
    let mut argv = vec!["cml".to_owned(), RUNNER.to_owned()];
    for opt in &names.0 {
        let mut values = settings.iter().filter(|setting| setting.id == opt.id).map(|setting| &setting.value);
        match opt.kind {
            Kind::Switch => argv.extend(
                values
                    .next_back()
                    .filter(|value| *value == "true")
                    .map(|_| format!("--{}", opt.long)),
            ),
            Kind::One => argv.extend(values.next_back().map(|value| format!("--{}={value}", opt.long))),
            Kind::List | Kind::Words => argv.extend(values.map(|value| format!("--{}={value}", opt.long))),
        }
    }
    argv
}

fn takes_any_text(command: &Command, id: &str) -> bool {
    use std::any::TypeId;
    let any = [
        TypeId::of::<String>(),
        TypeId::of::<std::path::PathBuf>(),
        TypeId::of::<common::secret::Secret>(),
        TypeId::of::<common::spec::Script>(),
        TypeId::of::<common::network::Proxy>(),
    ];
    let arg = command
        .find_subcommand(RUNNER)
        .and_then(|runner| runner.get_arguments().find(|arg| arg.get_id() == id));
    arg.is_some_and(|arg| any.iter().any(|text| arg.get_value_parser().type_id() == *text))
}

/// The option that a wrong one was meant to be.
fn suggestion(command: &Command, flag: &str) -> Option<String> {
    let error = command.clone().try_get_matches_from(["cml", RUNNER, flag]).err()?;
    match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(meant) => Some(meant.split(' ').next().unwrap_or(meant).to_owned()),
        _ => None,
    }
}

/// Warns of options without effect, and of names that have a newer one.
fn old_names(names: &Names, given: &Given) -> Vec<Warning> {
    let warn = |(id, source): (&str, &str)| {
        let opt = names.get(id)?;
        if opt.ignored {
            return Some(Warning(format!("`{source}` has no effect any more")));
        }
        let is_alias =
            |name: &&String| source.trim_start_matches('-') == *name || source.ends_with(&format!("_{}", names::upper_snake(name)));
        // The old tool's documents call the token by both names.
        let old = opt.id != "token" && opt.aliases.iter().any(|alias| is_alias(&alias));
        old.then(|| Warning(format!("`{source}` is an old name of `--{}`", opt.long)))
    };
    given.sources().filter_map(warn).collect()
}

/// Trims labels and drops empty and repeated ones.
fn labels(given: &[String], source: &str) -> Result<Vec<String>> {
    let mut labels: Vec<String> = Vec::new();
    for label in given.iter().map(|label| label.trim()).filter(|label| !label.is_empty()) {
        if !labels.iter().any(|known| known.eq_ignore_ascii_case(label)) {
            labels.push(label.to_owned());
        }
    }
    if labels.is_empty() {
        return Err(Failure::new(Class::Usage, format!("`{source}` names no label"))
            .hint("give at least one, such as `--labels=cml`")
            .into());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests;
