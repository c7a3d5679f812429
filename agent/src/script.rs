//! A script of the user's, run once: in a file that only who runs it can read, under its own `#!` line.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::spec::Script;

use crate::supervise::{self, CommandLine};
use crate::user::User;

/// A script may hold secrets.
const PRIVATE: u32 = 0o700;
/// What runs a script that does not say.
const SHELL: &str = "/bin/sh";

/// Runs it in these surroundings (directory, environment, user) and passes on each line; returns how it ended, or none if the budget ended
/// it. What survives of it: as with [`supervise::run`].
pub async fn run(script: &Script, within: CommandLine, budget: Duration, each: impl FnMut(String)) -> Result<Option<ExitStatus>> {
    // Removed when this returns.
    let dir = tempfile::Builder::new()
        .prefix("cml-script-")
        .permissions(Permissions::from_mode(PRIVATE))
        .tempdir()
        .context("making a directory for the script")?;
    let file = dir.path().join("script");
    write(dir.path(), &file, script.bytes(), within.user.as_ref()).with_context(|| format!("writing the script to {}", file.display()))?;
    let (program, argument) = interpreter(script.bytes());
    let command = CommandLine {
        program,
        args: argument.into_iter().chain([file.display().to_string()]).collect(),
        ..within
    };
    let ended = supervise::run(&command, budget, each).await;
    ended.context("is the program of its first line installed?")
}

fn write(dir: &Path, file: &Path, bytes: &[u8], user: Option<&User>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(PRIVATE).open(file)?.write_all(bytes)?;
    if let Some(user) = user {
        for path in [dir, file] {
            chown(path, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}

/// The program of the `#!` line and its one argument, as the kernel reads them (execve(2)); read here so that the directory may be mounted
/// noexec, and so that a line that was written on Windows works too.
fn interpreter(script: &[u8]) -> (PathBuf, Option<String>) {
    let line = script.strip_prefix(b"#!").and_then(|rest| rest.split(|byte| *byte == b'\n').next());
    let line = String::from_utf8_lossy(line.unwrap_or_default()).trim().to_owned();
    let (program, argument) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
    let program = if program.is_empty() { SHELL } else { program };
    let argument = Some(argument.trim().to_owned()).filter(|argument| !argument.is_empty());
    (program.into(), argument)
}

#[cfg(test)]
mod tests {
    use super::interpreter;

    #[test]
    fn the_first_line_is_read_as_the_kernel_does() {
        let read = |text: &str| {
            let (program, argument) = interpreter(text.as_bytes());
            (program.display().to_string(), argument.unwrap_or_default())
        };
        let pair = |program: &str, argument: &str| (program.to_owned(), argument.to_owned());
        assert_eq!(read("#!/usr/bin/env bash\n"), pair("/usr/bin/env", "bash"));
        assert_eq!(read("#! /usr/bin/env -S python3 -u \r\nx"), pair("/usr/bin/env", "-S python3 -u"));
        assert_eq!(read("#!/bin/bash"), pair("/bin/bash", ""));
        for text in ["echo x", "", "#!", "#!\n/bin/x", " #!/bin/bash"] {
            assert_eq!(read(text), pair("/bin/sh", ""), "{text:?}");
        }
    }
}
