//! What may be a name, and what may be a label, on Google Cloud.

use std::collections::BTreeMap;

use anyhow::Result;
use common::error::{Class, Failure};

use crate::options::metadata;

/// The longest name of a resource ([RFC 1035][names]), and the longest key and value of a [label], in characters.
///
/// [names]: https://docs.cloud.google.com/compute/docs/naming-resources
/// [label]: https://docs.cloud.google.com/compute/docs/labeling-resources#requirements
const LONGEST: usize = 63;
/// The most labels of a resource; two of them are ours.
const LABELS: usize = 64;
/// How much of a launch's id makes a name one of its own.
const PART: usize = 8;

/// Whether something may have this name.
pub fn is_legal(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= LONGEST && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain) && !name.ends_with('-')
}

/// A name that no other launch's machine has, as like the runner's as may be.
pub fn derived(runner: &str, launch_id: &str) -> String {
    let own = slug(launch_id);
    let own: String = own.chars().skip(own.chars().count().saturating_sub(PART)).collect();
    let mut name = slug(runner).trim_matches('-').to_owned();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, "cml-");
    }
    name.truncate(LONGEST - 1 - PART);
    format!("{}-{own}", name.trim_end_matches('-'))
}

/// A text as the value of a label of ours: what may not stand there becomes a dash.
pub fn slug(text: &str) -> String {
    let legal = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    text.chars().map(legal).take(LONGEST).collect()
}

/// The user's labels.
///
/// # Errors
/// One is not legal: Google would refuse it only when the machine is made.
pub fn labels(pairs: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for pair in pairs {
        let (key, value) = metadata(pair)?;
        let legal = |text: &str| text.chars().count() <= LONGEST && text.chars().all(is_of_label);
        if !legal(key) || !legal(value) || !key.starts_with(char::is_alphabetic) {
            return Err(Failure::new(Class::Usage, format!("`--cloud-metadata={pair}` cannot be a label on Google Cloud"))
                .hint(format!(
                    "keys and values have at most {LONGEST} lower-case letters, digits, dashes and underscores; a key begins with a letter"
                ))
                .into());
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    if labels.len() + 2 > LABELS {
        return Err(Failure::new(Class::Usage, "there are too many `--cloud-metadata`")
            .hint(format!("Google Cloud takes {} of them", LABELS - 2))
            .into());
    }
    Ok(labels)
}

fn is_of_label(c: char) -> bool {
    c == '-' || c == '_' || (c.is_alphanumeric() && !c.is_uppercase())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::{any, prop_assert, proptest};

    use super::{derived, is_legal, labels};

    const ID: &str = "cml-AbCdEfGhIjKlMnOpQrSt";

    #[test]
    fn names_are_kept_or_made_like() {
        for name in ["cml-0a1b2c3d4e", "a", &"a".repeat(63)] {
            assert!(is_legal(name), "{name}");
        }
        for name in ["", "Trainer", "1st", "a_b", "a-", "a.b", &"a".repeat(64)] {
            assert!(!is_legal(name), "{name}");
        }
        assert_eq!(derived("GPU Runner #1", ID), "gpu-runner--1-mnopqrst");
        assert_eq!(derived("1", ID), "cml-1-mnopqrst");
        assert_eq!(derived("läufer", ID), "l-ufer-mnopqrst");
        assert_eq!(derived("", ID), "cml-mnopqrst");
    }

    proptest! {
        #[test]
        fn whatever_is_made_is_legal(name in any::<String>()) {
            prop_assert!(is_legal(&derived(&name, ID)), "{}", derived(&name, ID));
        }
    }

    #[test]
    fn labels_that_google_would_refuse_are_refused_first() {
        let read = |pair: &str| labels(&[pair.to_owned()]);
        for pair in ["team=ml", "flag", "größe=über_1-2", &format!("{0}={0}", "a".repeat(63))] {
            assert_eq!(read(pair).unwrap().len(), 1, "{pair}");
        }
        for pair in [
            "Team=ml",
            "team=ML",
            "1a=b",
            "a.b=c",
            "a=b c",
            "cml-x=1",
            &format!("a={}", "b".repeat(64)),
        ] {
            assert!(read(pair).is_err(), "{pair}");
        }
        let many: Vec<String> = (0..63).map(|number| format!("a{number}=b")).collect();
        assert!(labels(&many).is_err() && labels(&many[..62]).is_ok());
    }
}
