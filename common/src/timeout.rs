//! A duration that users write: seconds, units, or never.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A time limit, or none.
///
/// Written as whole seconds (`300`), with units (`5min`, `1h30m`, `2 days`, `500ms`), or as `never`. `0`, `-1` and any other negative
/// number mean never too, as in the old tool. Anything else is refused (the old tool took it for "forever").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Timeout {
    /// No limit.
    Never,
    /// After this time.
    After(Duration),
}

impl Timeout {
    /// A limit in whole seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self::After(Duration::from_secs(seconds))
    }

    /// One that can be added to any time without meeting the end of it.
    fn bounded(duration: Duration) -> Result<Self, String> {
        if duration <= LONGEST {
            Ok(Self::After(duration))
        } else {
            Err(format!("{} s are longer than ten years: write `never`", duration.as_secs()))
        }
    }

    /// The duration, if there is a limit.
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(duration) => Some(duration),
        }
    }
}

/// No machine lives longer.
const LONGEST: Duration = Duration::from_hours(24 * 365 * 10);

/// Longest first, so that `min` is not read as `m`.
const UNITS: &[(&[&str], u64)] = &[
    (&["milliseconds", "millisecond", "ms"], 1),
    (&["seconds", "second", "secs", "sec", "s"], 1_000),
    (&["minutes", "minute", "mins", "min", "m"], 60_000),
    (&["hours", "hour", "hrs", "hr", "h"], 3_600_000),
    (&["days", "day", "d"], 86_400_000),
    (&["weeks", "week", "w"], 604_800_000),
];

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || format!("`{text}` is not a duration: write seconds (`300`), units (`5min`, `1h30m`) or `never`");
        let lower = text.trim().to_ascii_lowercase();
        if lower == "never" {
            return Ok(Self::Never);
        }
        if let Ok(seconds) = lower.parse::<i64>() {
            let limit = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
            return limit.map_or(Ok(Self::Never), |seconds| Self::bounded(Duration::from_secs(seconds)));
        }
        let mut rest = lower.as_str();
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
            let (number, unit) = rest.split_at_checked(digits).ok_or_else(refuse)?;
            let number: u64 = number.parse().map_err(|_| refuse())?;
            let unit = unit.trim_start();
            let letters = unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit.len());
            let (unit, after) = unit.split_at_checked(letters).ok_or_else(refuse)?;
            let (_, scale) = UNITS.iter().find(|(names, _)| names.contains(&unit)).ok_or_else(refuse)?;
            total = number.checked_mul(*scale).and_then(|ms| total.checked_add(ms)).ok_or_else(refuse)?;
            rest = after.trim_start_matches([' ', ',']);
        }
        match total {
            0 if text.trim().is_empty() => Err(refuse()),
            0 => Ok(Self::Never),
            ms => Self::bounded(Duration::from_millis(ms)),
        }
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::After(duration) if duration.subsec_millis() == 0 => write!(f, "{}s", duration.as_secs()),
            Self::After(duration) => write!(f, "{}ms", duration.as_millis()),
        }
    }
}

impl TryFrom<String> for Timeout {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Timeout> for String {
    fn from(timeout: Timeout) -> Self {
        timeout.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::Timeout;

    #[test]
    fn what_users_write() {
        for (text, seconds) in [
            ("300", 300),
            ("5 minutes", 300),
            ("5min", 300),
            ("1h30m", 5400),
            ("2 days", 172_800),
            ("1 week", 604_800),
            ("1h, 5 s", 3605),
        ] {
            assert_eq!(text.parse(), Ok(Timeout::secs(seconds)), "{text}");
        }
        assert_eq!("250ms".parse(), Ok(Timeout::After(Duration::from_millis(250))));
        for text in ["never", "-1", "0", "-5", "0s"] {
            assert_eq!(text.parse(), Ok(Timeout::Never), "{text}");
        }
        assert_eq!("3650 days".parse(), Ok(Timeout::secs(3650 * 86_400)));
        // What is added to a time must not meet its end.
        for text in ["3651 days", "9223372036854775807", "99999999999h"] {
            assert!(text.parse::<Timeout>().unwrap_err().contains("never"), "{text}");
        }
        for text in ["", " ", "soon", "10 bananas", "5x", "1h30", "1.5h", "99999999999999999999w", "m"] {
            assert!(text.parse::<Timeout>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_it_prints_it_reads(ms in 1u64..10_000_000_000) {
            let timeout = Timeout::After(Duration::from_millis(ms));
            prop_assert_eq!(timeout.to_string().parse::<Timeout>(), Ok(timeout));
        }
    }
}
