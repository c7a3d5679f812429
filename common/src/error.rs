//! Failures that a person reads at 3 a.m.: what failed, why, what to do; and the exit code that a script reads.
//!
//! Inside, errors are `anyhow` with a context per action. A [`Failure`] is put into the chain only where the exit code or the
//! hint is known; [`Report`] finds it there and prints the chain once, at the top.

use std::fmt;

use crate::log::escape;

/// What kind of failure it was; the launcher's exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A bug, or something that nobody foresaw.
    Unexpected,
    /// The command line, the environment or the repository's settings are wrong.
    Usage,
    /// The forge or the cloud refused the credentials or a permission.
    Access,
    /// No machine could be had: capacity, quota or price.
    Capacity,
    /// The machine was made, but its runner did not come online; everything was rolled back.
    NotOnline,
    /// Another runner has that name.
    NameInUse,
    /// Stopped by a signal (its number); everything was rolled back.
    Signal(i32),
}

impl Class {
    /// The process exit code: 128 + n for signal n, as shells do.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Access => 3,
            Self::Capacity => 4,
            Self::NotOnline => 5,
            Self::NameInUse => 6,
            Self::Signal(number) => 128 + number,
        }
    }
}

/// One link of an error chain that knows its [`Class`] and what the user can do.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub class: Class,
    /// A lowercase fragment: what failed.
    pub message: String,
    /// What to do about it: the flag, permission or setting to change.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// How an error chain is shown: `error:`, its causes, a hint.
pub struct Report<'a>(pub &'a anyhow::Error);

impl Report<'_> {
    /// The class of the outermost [`Failure`] in the chain.
    pub fn class(&self) -> Class {
        self.failure().map_or(Class::Unexpected, |failure| failure.class)
    }

    /// The hint of the outermost [`Failure`] that has one.
    pub fn hint(&self) -> Option<&str> {
        self.failure().and_then(|failure| failure.hint.as_deref())
    }

    fn failure(&self) -> Option<&Failure> {
        self.0.downcast_ref::<Failure>()
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", Lines(self.0))?;
        for cause in self.0.chain().skip(1) {
            write!(f, "\n  caused by: {}", Lines(cause))?;
        }
        if let Some(hint) = self.hint() {
            write!(f, "\n\nhint: {}", Lines(hint))?;
        }
        Ok(())
    }
}

/// A text of one or more lines that does nothing else to a terminal: it may be the words of a forge, a cloud or a job.
struct Lines<T>(T);

impl<T: fmt::Display> fmt::Display for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let lines: Vec<String> = text.split('\n').map(escape).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::{Class, Failure, Report};

    #[test]
    fn what_others_said_does_not_reach_the_terminal() {
        let failure = Failure::new(Class::Usage, "GitHub said \u{1b}[2Jno").hint("one\rtwo");
        let error = anyhow::anyhow!("two\nlines\u{202e}").context(failure);
        assert_eq!(
            Report(&error).to_string(),
            "error: GitHub said \\u001b[2Jno\n  caused by: two\nlines\\u202e\n\nhint: one\\u000dtwo"
        );
    }

    #[test]
    fn the_class_and_the_hint_are_found_under_any_context() {
        let failure = Failure::new(Class::Access, "the token was refused").hint("create a new token");
        let error = Err::<(), _>(anyhow::anyhow!("401 Unauthorized").context(failure))
            .context("checking access")
            .context("launching")
            .unwrap_err();
        let report = Report(&error);
        assert_eq!(report.class().exit_code(), 3);
        assert_eq!(
            report.to_string(),
            "error: launching\n  caused by: checking access\n  caused by: the token was refused\n  caused by: 401 Unauthorized\n\nhint: create a new token"
        );
    }
}
