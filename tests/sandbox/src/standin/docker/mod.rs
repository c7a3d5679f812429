//! A stand-in for Docker, as far as Bitbucket's runner goes: a daemon, whose containers are processes of its own and no children of whoever
//! asks for them, and the program that asks it. There is one image, the runner's; any other runs what it is told.

mod client;
mod daemon;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// Tells the runner in a container which service it belongs to: the real one knows only one.
pub const SERVER: &str = "SANDBOX_BITBUCKET";

/// What the program asks of the daemon.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Request {
    words: Vec<String>,
    /// What was in the file of variables.
    env: Vec<(String, String)>,
}

/// What the daemon answers, one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Line(String),
    Exit(i32),
}

/// The whole program; returns its exit code.
pub fn main(words: &[String]) -> i32 {
    let run = || -> Result<i32> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match words {
            [daemon, dir, server] if daemon == "daemon" => runtime.block_on(daemon::serve(Path::new(dir), server)).map(|()| 0),
            _ => runtime.block_on(client::run(words)),
        }
    };
    run().unwrap_or_else(|error| {
        super::complain(&format!("docker: {error:#}"));
        125
    })
}

/// What a container is made of.
#[derive(Debug, Default)]
struct Wanted {
    name: String,
    label: String,
    mounts: Vec<String>,
    env: Vec<(String, String)>,
    image: String,
    command: Vec<String>,
    removes: bool,
}

impl Wanted {
    /// Reads the words after `container create` or `container run`.
    fn read(words: &[String]) -> Result<Self> {
        let mut wanted = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--name" => wanted.name.clone_from(value()?),
                // The key is the one that the agent asks for.
                "--label" => wanted.label = value()?.split_once('=').unwrap_or_default().1.into(),
                "--volume" => wanted.mounts.push(value()?.split(':').next().unwrap_or_default().into()),
                "--env" => {
                    let (name, value) = value()?.split_once('=').context("a variable has a value")?;
                    wanted.env.push((name.into(), value.into()));
                }
                // The program has read it.
                "--env-file" => drop(value()?),
                "--rm" => wanted.removes = true,
                other if other.starts_with("--") => bail!("unknown flag: {other}"),
                image => {
                    wanted.image = image.into();
                    wanted.command = words.by_ref().cloned().collect();
                }
            }
        }
        Ok(wanted)
    }
}
