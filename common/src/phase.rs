//! The phases of a launch, as one machine-readable line each on the instance's console.
//!
//! The bootstrap script and the agent write them, the launcher reads them back from the console to say in which phase a launch died.

use std::fmt;
use std::time::Duration;

/// Where a phase stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has begun.
    Begin,
    /// It ended well.
    Ok,
    /// It failed; the detail says why.
    Fail,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Ok => "ok",
            Self::Fail => "fail",
        }
    }
}

/// One line: `cml-phase name=startup-script state=fail after=12 detail=exit status 7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// `boot`, `agent`, `startup-script`, `install-runner`, `register`, `online`; at the end [`RERUN`].
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Whole seconds since the bootstrap script (its phases) or the agent (its own) began.
    pub after: Duration,
    /// The rest of the line: free text, one line.
    pub detail: String,
}

/// The phase in which a dying machine runs its job again; its detail is the [`Pending`](crate::forge::Pending) job as JSON.
pub const RERUN: &str = "rerun";

/// How each line begins.
pub const PREFIX: &str = "cml-phase ";

/// The longest time between two looks of a launcher at the console of a machine whose runner is not online yet…
const LOOK: Duration = Duration::from_secs(30);
/// … and the part of its own limit that it is otherwise, so that a rehearsal does not wait as in earnest.
const LOOK_PART: u32 = 20;

/// How often a launcher with this limit looks at a console.
pub fn look(limit: Duration) -> Duration {
    LOOK.min(limit / LOOK_PART)
}

/// How long the console of a machine must stay readable, so that its launcher has looked in any case.
pub fn readable(limit: Duration) -> Duration {
    look(limit) * 2
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}name={} state={} after={}",
            self.name,
            self.state.name(),
            self.after.as_secs()
        )?;
        if !self.detail.is_empty() {
            write!(f, " detail={}", self.detail.replace(['\n', '\r'], " "))?;
        }
        Ok(())
    }
}

impl Phase {
    /// Reads a console line; whatever stands before the prefix (a kernel time stamp) is ignored.
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(PREFIX)?;
        let (head, detail) = rest.split_once(" detail=").unwrap_or((rest, ""));
        let mut fields = head.split_whitespace();
        let name = fields.next()?.strip_prefix("name=")?.to_owned();
        let state = match fields.next()?.strip_prefix("state=")? {
            "begin" => State::Begin,
            "ok" => State::Ok,
            "fail" => State::Fail,
            _ => return None,
        };
        let after = Duration::from_secs(fields.next()?.strip_prefix("after=")?.parse().ok()?);
        Some(Self {
            name,
            state,
            after,
            detail: detail.trim_end().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Phase, State};
    use std::time::Duration;

    #[test]
    fn a_line_reads_back() {
        let phase = Phase {
            name: "startup-script".into(),
            state: State::Fail,
            after: Duration::from_secs(12),
            detail: "exit status 7\nname=x".into(),
        };
        let line = phase.to_string();
        assert_eq!(
            line,
            "cml-phase name=startup-script state=fail after=12 detail=exit status 7 name=x"
        );
        let read = Phase::parse(&format!("[    1.2] {line}\r")).unwrap();
        assert_eq!((read.state, read.detail.as_str()), (State::Fail, "exit status 7 name=x"));
        assert_eq!(Phase::parse("cml-phase name=x state=maybe after=1"), None);
        assert_eq!(Phase::parse("hello"), None);
    }
}
