//! The Java that the runner needs. It is the machine's: a runtime that is downloaded in passing would be nobody's to keep safe.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use common::error::{Class, Failure};

use crate::runner::program::Program;
use crate::supervise::{self, CommandLine};

/// The oldest that will do. Source: <https://support.atlassian.com/bitbucket-cloud/docs/set-up-runners-for-linux-shell/>
const OLDEST: u32 = 11;
/// How long it may take to say its version.
const BUDGET: Duration = Duration::from_secs(30);
const HINT: &str =
    "install it in the image, or in --cloud-startup-script: `apt-get update && apt-get install -y openjdk-21-jre-headless git`";

/// Where it may be: in `JAVA_HOME`, which the runner inherits, else on the search path.
pub fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    let of_home = home.map(|home| PathBuf::from(home).join("bin/java"));
    of_home.into_iter().chain(supervise::find_program("java")).collect()
}

/// The first that is there, if it is new enough, which it says itself.
pub async fn find(places: &[PathBuf], program: &Program) -> Result<PathBuf> {
    let Some(java) = places.iter().find(|java| java.is_file()) else {
        return Err(missing("Bitbucket's runner needs Java, which is not on this machine".into()));
    };
    let mut said = None;
    let command = CommandLine {
        program: java.clone(),
        args: vec!["-version".into()],
        // The runner's own directory may not be there yet.
        dir: "/".into(),
        ..program.command("", &[])
    };
    supervise::run(&command, BUDGET, |line| said = said.take().or_else(|| major(&line))).await?;
    match said {
        Some(version) if version >= OLDEST => Ok(java.clone()),
        Some(version) => Err(missing(format!(
            "Bitbucket's runner needs Java {OLDEST} or newer, and {} is Java {version}",
            java.display()
        ))),
        None => Err(missing(format!("{} does not say which Java it is", java.display()))),
    }
}

fn missing(message: String) -> anyhow::Error {
    Failure::new(Class::NotOnline, message).hint(HINT).into()
}

/// The version in `openjdk version "17.0.15" 2025-04-15`; up to Java 8 it was `"1.8.0_402"`.
fn major(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once(" version \"")?;
    let mut parts = rest.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    match parts.next()?? {
        1 => parts.next()?,
        version => Some(version),
    }
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn each_kind_of_version() {
        for (line, version) in [
            ("openjdk version \"17.0.15\" 2025-04-15", Some(17)),
            ("openjdk version \"21\" 2023-09-19", Some(21)),
            ("java version \"1.8.0_402\"", Some(8)),
            ("openjdk version \"25-ea\" 2025-09-16", Some(25)),
            ("Picked up JAVA_TOOL_OPTIONS: -Xmx1g", None),
            ("openjdk version \"x\"", None),
        ] {
            assert_eq!(major(line), version, "{line}");
        }
    }
}
