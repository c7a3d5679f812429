//! What clap refused, in our words: the flag or the variable that the value came from, never a secret.

use std::error::Error as _;
use std::num::ParseIntError;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use common::error::{Class, Failure};

use super::Given;
use super::names::Names;

/// Explains an error of clap's.
pub fn explain(error: &clap::Error, names: &Names, given: &Given) -> anyhow::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let arg = text(ContextKind::InvalidArg).unwrap_or_default();
    let source = given.written(names, arg);
    match error.kind() {
        ErrorKind::ArgumentConflict => {
            let prior = given.written(names, text(ContextKind::PriorArg).unwrap_or_default());
            Failure::new(Class::Usage, format!("`{source}` cannot be used with `{prior}`"))
                .hint("choose one of them")
                .into()
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let secret = names.get(flag(arg)).is_some_and(|opt| opt.secret);
            let value = text(ContextKind::InvalidValue).filter(|_| !secret);
            let message = match value {
                Some("") => format!("`{source}` is empty"),
                Some(value) => format!("invalid value `{value}` for `{source}`"),
                None => format!("invalid value for `{source}`"),
            };
            let failure = Failure::new(Class::Usage, message);
            let failure = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) if !valid.is_empty() => failure.hint(format!("possible values: {}", valid.join(", "))),
                _ => failure,
            };
            match error.source() {
                Some(why) if why.is::<ParseIntError>() => failure.hint("write a whole number").into(),
                Some(why) => anyhow::Error::msg(why.to_string()).context(failure),
                None => failure.into(),
            }
        }
        _ => Failure::new(Class::Usage, error.to_string().trim_start_matches("error: ").trim().to_owned()).into(),
    }
}

/// `--cloud-type <TYPE>` → `cloud-type`
pub fn flag(arg: &str) -> &str {
    arg.split([' ', '=']).next().unwrap_or_default().trim_start_matches('-')
}
