//! The job hooks: scripts of ours that the runner starts in each job, and what they leave for the agent. The job can write there too, so that
//! nothing in it is believed that is not checked.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use common::forge::Job;
use url::Url;

use crate::runner::{Hook, program};
use crate::user::User;

/// The file that a hook leaves: always the last word, replaced at once.
const WORD: &str = "job";
/// More digits than a run id can have (64 bits).
const MAX_DIGITS: usize = 20;
/// GitHub's longest job key and names are shorter, in characters.
const MAX_NAME: usize = 200;

/// The hooks of one runner.
pub struct Hooks {
    /// Of the page: owner and repository, or an organisation alone, or nothing for an enterprise.
    page: Vec<String>,
    state_dir: PathBuf,
    user: Option<User>,
}

impl Hooks {
    pub fn new(page: &Url, state_dir: &Path, user: Option<User>) -> Self {
        let parts: Vec<String> = page.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let enterprise = parts.first().is_some_and(|part| part == "enterprises");
        Self {
            page: if enterprise { Vec::new() } else { parts },
            state_dir: state_dir.into(),
            user,
        }
    }

    /// Where they leave their words.
    fn words(&self) -> PathBuf {
        self.state_dir.join("hooks")
    }

    fn script(&self, name: &str) -> PathBuf {
        self.state_dir.join("hook-scripts").join(format!("{name}.sh"))
    }

    /// The variables that name them to the runner.
    pub fn environment(&self) -> [(String, String); 2] {
        let path = |name| self.script(name).display().to_string();
        [
            ("ACTIONS_RUNNER_HOOK_JOB_STARTED".into(), path("started")),
            ("ACTIONS_RUNNER_HOOK_JOB_COMPLETED".into(), path("completed")),
        ]
    }

    /// Writes the scripts, which the job user can read, and makes the directory that only it (and root) can write to.
    pub fn prepare(&self) -> Result<()> {
        let make = || -> io::Result<()> {
            let scripts = self.state_dir.join("hook-scripts");
            fs::create_dir_all(&scripts)?;
            fs::set_permissions(&scripts, Permissions::from_mode(0o755))?;
            let words = self.words();
            fs::create_dir_all(&words)?;
            fs::set_permissions(&words, Permissions::from_mode(0o700))?;
            if let Some(user) = &self.user {
                chown(&words, Some(user.uid), Some(user.gid))?;
                // The files in it are root's alone; the way through it is for all.
                fs::set_permissions(&self.state_dir, Permissions::from_mode(0o711))?;
            }
            let started = r#"started "$GITHUB_RUN_ID" "$GITHUB_RUN_ATTEMPT" "$GITHUB_REPOSITORY" "$GITHUB_JOB""#;
            for (name, words) in [("started", started), ("completed", "completed")] {
                let script = self.script(name);
                fs::write(&script, self.text(words))?;
                fs::set_permissions(&script, Permissions::from_mode(0o755))?;
            }
            Ok(())
        };
        make().with_context(|| format!("writing the job hooks to {}", self.state_dir.display()))
    }

    /// A hook that fails or hangs fails the job or hangs it: this one writes one small file and always ends well.
    fn text(&self, words: &str) -> String {
        let dir = self.words().display().to_string().replace('\'', r"'\''");
        format!(
            "#!/bin/sh\n\
             # Tells the agent of this machine which job it runs; the job does not depend on it.\n\
             PATH=/usr/bin:/bin\n\
             dir='{dir}'\n\
             {{\n\
             \tumask 077\n\
             \tprintf '%s\\n' {words} >\"$dir/.{WORD}.$$\" && mv -f \"$dir/.{WORD}.$$\" \"$dir/{WORD}\"\n\
             }} </dev/null >/dev/null 2>&1 || :\n\
             exit 0\n"
        )
    }

    /// Takes the last word away and reads it; none if there is no new one, or none that can be believed.
    pub fn take(&self) -> Option<Hook> {
        // Out of the job's reach before it is looked at, and so that a word that comes meanwhile is not lost.
        let taken = self.state_dir.join("hook-word");
        match fs::rename(self.words().join(WORD), &taken) {
            Ok(()) => {}
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("the word of a job hook cannot be taken: {error}");
                }
                return None;
            }
        }
        let word = program::read_small(&taken);
        let removed = fs::remove_file(&taken).or_else(|_| fs::remove_dir_all(&taken));
        if let Err(error) = removed {
            tracing::warn!("{} cannot be removed: {error}", taken.display());
        }
        let hook = word.ok().and_then(|word| self.parse(&word));
        if hook.is_none() {
            tracing::warn!("a job hook left something that cannot be read: it is ignored");
        }
        hook
    }

    /// Reads a word; none that cannot be believed. Pure.
    pub fn parse(&self, word: &str) -> Option<Hook> {
        let lines: Vec<&str> = word.lines().collect();
        match lines.as_slice() {
            ["completed"] => Some(Hook::Completed),
            ["started", run, attempt, repository, key] => {
                let digits = |text: &str| (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
                let attempt = digits(attempt)
                    .then(|| attempt.parse().ok())
                    .flatten()
                    .filter(|attempt| *attempt > 0)?;
                (digits(run) && is_key(key)).then_some(())?;
                Some(Hook::Started(Job {
                    run: (*run).into(),
                    attempt,
                    repository: self.repository(repository)?,
                    key: (*key).into(),
                }))
            }
            _ => None,
        }
    }

    /// The repository of a job: our own whatever it is called today, or one of our organisation or enterprise.
    fn repository(&self, named: &str) -> Option<String> {
        let (owner, name) = named.split_once('/')?;
        let ours = match self.page.as_slice() {
            [owner, name, ..] => return Some(format!("{owner}/{}", name.strip_suffix(".git").unwrap_or(name))),
            [organisation] => organisation.eq_ignore_ascii_case(owner),
            [] => true,
        };
        (ours && is_name(owner) && is_name(name)).then(|| named.into())
    }
}

/// An owner or a repository.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !matches!(text, "" | "." | "..") && text.len() <= MAX_NAME && text.chars().all(allowed)
}

/// A job's key in a workflow file: begins with a letter or `_`, then also digits and `-`.
fn is_key(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && text.len() <= MAX_NAME && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}
