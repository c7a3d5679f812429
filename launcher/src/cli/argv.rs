//! The command line as the old tool read it: any spelling of an option, anywhere.

use std::iter::Peekable;
use std::slice::Iter;

use anyhow::Result;
use common::error::{Class, Failure};

use super::Setting;
use super::names::{Kind, Names, Opt};

/// The words that name a command; a list of values ends before them.
const COMMANDS: [&str; 6] = ["runner", "launch", "list", "terminate", "logs", "reap"];

/// A command line, taken apart.
#[derive(Debug, Default)]
pub struct Words {
    /// The options, in order.
    pub settings: Vec<Setting>,
    /// All else.
    pub positionals: Vec<String>,
    /// `--help` was among them.
    pub help: bool,
    /// `--version` was among them.
    pub version: bool,
}

/// Takes the words after the program's name apart. The `suggest` function finds the option that a wrong one was meant to be.
pub fn read(args: &[String], names: &Names, suggest: impl Fn(&str) -> Option<String>) -> Result<Words> {
    let mut words = Words::default();
    let mut rest = args.iter().peekable();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--" => words.positionals.extend(rest.by_ref().cloned()),
            "--help" | "-h" => words.help = true,
            "--version" | "-V" => words.version = true,
            word if is_option(word) => {
                let (flag, value) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
                let Some((opt, negated)) = flag.strip_prefix("--").and_then(|name| names.find(name)) else {
                    // After an unknown option nothing is certain; but who asks for help gets it.
                    if rest.any(|word| word == "--help" || word == "-h") {
                        words.help = true;
                        return Ok(words);
                    }
                    return Err(unknown(flag, suggest(flag)));
                };
                take(opt, flag, value, negated, &mut rest, &mut words.settings)?;
            }
            word => words.positionals.push(word.to_owned()),
        }
    }
    Ok(words)
}

/// `-1` and a key's `-----BEGIN` are values.
fn is_option(word: &str) -> bool {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
    word == "--" || name.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn unknown(flag: &str, meant: Option<String>) -> anyhow::Error {
    let hint = meant.map_or_else(
        || "`cml runner --help` lists the options".to_owned(),
        |meant| format!("did you mean `{meant}`?"),
    );
    Failure::new(Class::Usage, format!("unknown option `{flag}`")).hint(hint).into()
}

fn take(
    opt: &Opt,
    flag: &str,
    inline: Option<&str>,
    negated: bool,
    rest: &mut Peekable<Iter<'_, String>>,
    settings: &mut Vec<Setting>,
) -> Result<()> {
    let mut push = |value: &str| {
        settings.push(Setting {
            id: opt.id.clone(),
            value: value.to_owned(),
            source: flag.to_owned(),
        });
    };
    if opt.kind == Kind::Switch {
        let value = inline.or_else(|| rest.next_if(|next| matches!(next.as_str(), "true" | "false")).map(String::as_str));
        let on = value.map_or(Ok(true), |value| boolean(value, flag))?;
        push(if on == negated { "false" } else { "true" });
        return Ok(());
    }
    let Some(first) = inline.or_else(|| rest.next_if(|next| !is_option(next)).map(String::as_str)) else {
        return Err(Failure::new(Class::Usage, format!("`{flag}` needs a value"))
            .hint(format!("write it as `{flag}=VALUE`"))
            .into());
    };
    push(first);
    if opt.kind == Kind::Words {
        while let Some(more) = rest.next_if(|next| !is_option(next) && !COMMANDS.contains(&next.as_str())) {
            push(more);
        }
    }
    Ok(())
}

/// What people and YAML write for yes and no.
pub fn boolean(text: &str, source: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Failure::new(Class::Usage, format!("invalid value `{text}` for `{source}`"))
            .hint("write `true` or `false`")
            .into()),
    }
}
