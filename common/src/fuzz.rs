//! Fuzz targets: each gives any bytes to code that reads what others wrote, and panics where that code breaks a promise. `fuzz/` runs them for long, the
//! tests for a moment.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::collections::BTreeMap;

pub use crate::forge::fuzz::forge_answer;
use crate::last_words;
use crate::log::capture::written;
use crate::log::{Level, Shape, escape};
use crate::phase::{PREFIX, Phase};
use crate::secret::Secret;
use crate::spec::{Credential, RunnerSpec};

/// What of a text could reach a terminal: it would move a cursor, end a line or turn text around.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A line of a console: what is read is written and read again as the same.
pub fn console_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in text.lines() {
        let Some(phase) = Phase::parse(line) else { continue };
        assert!(!phase.name.contains(char::is_whitespace), "{phase:?}");
        let written = phase.to_string();
        assert!(written.starts_with(PREFIX) && !written.contains(['\n', '\r']), "{written:?}");
        let again = Phase::parse(&written).unwrap();
        let plain = phase.detail.replace('\r', " ");
        assert_eq!((&again.name, again.state, again.after), (&phase.name, phase.state, phase.after));
        assert_eq!(again.detail, plain.trim_end());
    }
}

/// A machine's last words: they read back, whatever they are and whatever other tags it has, and fit into tags.
pub fn last_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut tags = last_words::split(&text);
    assert!(tags.values().all(|value| (1..=256).contains(&value.chars().count())));
    let others: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    // Tags that somebody else wrote.
    let _ = last_words::join(&others);
    tags.extend(others.into_iter().filter(|(name, _)| !name.starts_with("cml-pending-")));
    assert_eq!(last_words::join(&tags), (!text.is_empty()).then(|| text.into_owned()));
}

/// What is logged, as a message and as a value: one line, which does nothing to a terminal, and out of whose JSON the text comes as it was.
pub fn log_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert!(!escape(&text).contains(is_harmful));
    let written = |shape| written(Level::Info, shape, || tracing::info!(job = &*text, "{text}"));
    let json = written(Shape::Json);
    let record = json.strip_suffix('\n').unwrap();
    assert!(!record.contains(is_harmful), "{record:?}");
    let read: BTreeMap<String, String> = serde_json::from_str(record).unwrap();
    assert_eq!((read["job"].as_str(), read["message"].as_str()), (&*text, &*text));
    let terminal = written(Shape::Terminal);
    let plain = terminal.replace("\u{1b}[32minfo\u{1b}[39m", "info");
    assert!(!plain.strip_suffix('\n').unwrap().contains(is_harmful), "{plain:?}");
}

/// A spec: what is read is written and read again as the same, shows nothing of its credential, and half of it names none either.
pub fn spec(data: &[u8]) {
    const CANARY: &str = "canary-c9a1d2";
    let text = String::from_utf8_lossy(data);
    let Ok(mut spec) = RunnerSpec::from_json(&text) else { return };
    let written = spec.to_json().unwrap();
    let again = RunnerSpec::from_json(&written).unwrap();
    assert_eq!((&again.options, &again.launch), (&spec.options, &spec.launch));
    assert_eq!(again.to_json().unwrap(), written);
    let secret = |text: &str| Secret::new(text);
    let shown = format!("{spec:?}");
    spec.credential = match spec.credential {
        Credential::Token(_) => Credential::Token(secret(CANARY)),
        Credential::Jit(_) => Credential::Jit(secret(CANARY)),
    };
    assert_eq!(format!("{spec:?}"), shown, "the secret is a part of what is shown");
    let written = spec.to_json().unwrap();
    let at = data
        .iter()
        .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)))
        % written.len();
    if let Some(half) = written.get(..at)
        && !text.contains(CANARY)
        && let Err(error) = RunnerSpec::from_json(half)
    {
        assert!(!format!("{error:#} {error:?}").contains(CANARY), "{error:#}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_target_finds_anything_in_a_moment() {
        use super::{console_line, forge_answer, last_words, log_line, spec};
        let targets: [fuzzed::Target; 5] = [
            ("console_line", console_line),
            ("forge_answer", forge_answer),
            ("last_words", last_words),
            ("log_line", log_line),
            ("spec", spec),
        ];
        fuzzed::run("common", &targets);
    }
}
