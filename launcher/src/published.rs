//! What is published besides the program and says what its options are: the action, completions, the man page. A test compares them,
//! `UPDATE_GOLDEN=1` rewrites them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;

use clap_complete::Shell;

use crate::cli::command;
use crate::reference::{Row, rows};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What an action of GitHub's begins with.
const HEAD: &str = "\
# Generated from the program by `make golden`: edit launcher/src/published.rs or the options' doc comments instead.
name: cml runner
description: Launches a self-hosted runner on a cloud, and waits until it is online; it goes away by itself
branding:
  icon: cpu
  color: purple
inputs:
  cml-url:
    description: 'Where to download the launcher from, a folder with SHA256SUMS in it; `{version}` is replaced [default: the release of this action]'
";

/// What a launch tells, as launcher/src/output.rs writes it.
const OUTPUTS: [(&str, &str); 6] = [
    ("name", "The runner's name"),
    (
        "instance-id",
        "The cloud's id of the machine; empty for a runner that was there already",
    ),
    ("instance-ip", "Its public address, if it has one"),
    ("instance-type", "Its native type"),
    ("region", "Its native region"),
    ("labels", "The runner's labels, separated by commas"),
];

/// Options that a workflow has no use for: what they print is not its outputs, or they are for a host of one's own.
const LEFT_OUT: [&str; 4] = ["dry_run", "output", "export", "state_dir"];

/// One line of YAML, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''").replace('\n', " "))
}

fn options(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter()
        .filter(|row| !row.opt.ignored && !LEFT_OUT.contains(&row.opt.id.as_str()))
}

fn action() -> String {
    let rows = rows();
    let mut text = HEAD.to_owned();
    for row in options(&rows) {
        let described = format!("{} [default: {}]", row.meaning, row.default);
        write!(text, "  {}:\n    description: {}\n", row.opt.long, quoted(&described)).unwrap();
    }
    text += "outputs:\n";
    for (name, meaning) in OUTPUTS {
        write!(
            text,
            "  {name}:\n    description: {}\n    value: ${{{{ steps.launch.outputs.{name} }}}}\n",
            quoted(meaning)
        )
        .unwrap();
    }
    text += "runs:\n  using: composite\n  steps:\n    - id: launch\n      shell: bash\n";
    // Not by the options' own variables: an input that is not given is empty, and would hide what the workflow says by a variable.
    text += "      run: '\"$GITHUB_ACTION_PATH/tools/action\"'\n      env:\n";
    let version = env!("CARGO_PKG_VERSION");
    write!(
        text,
        "        CML_ACTION_VERSION: {version}\n        CML_ACTION_URL: ${{{{ inputs.cml-url }}}}\n"
    )
    .unwrap();
    for row in options(&rows) {
        let variable = row.opt.long.to_uppercase().replace('-', "_");
        writeln!(text, "        CML_INPUT_{variable}: ${{{{ inputs.{} }}}}", row.opt.long).unwrap();
    }
    text
}

/// What completes words: of the commands and of the options by their first spelling.
fn completion(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "cml", &mut text);
    String::from_utf8(text).unwrap()
}

/// The page of `cml runner`.
fn manual() -> String {
    let command = command();
    let runner = command.find_subcommand("runner").unwrap().clone().name("cml-runner");
    let mut text = Vec::new();
    clap_mangen::Man::new(runner.version(env!("CARGO_PKG_VERSION")))
        .title("cml-runner")
        .date("")
        .render(&mut text)
        .unwrap();
    String::from_utf8(text).unwrap()
}

#[track_caller]
fn is_kept(path: &str, text: &str) {
    let file = std::path::Path::new(ROOT).join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == text, "{path} is not what the program says: run `make golden`");
}

#[test]
fn the_action_has_every_option_and_every_output() {
    is_kept("action.yml", &action());
    let tells = include_str!("output.rs");
    for (name, _) in OUTPUTS {
        assert!(tells.contains(&format!("(\"{name}\", ")), "a launch does not tell {name}");
    }
}

#[test]
fn the_completions_have_every_option() {
    for (shell, file) in [(Shell::Bash, "cml.bash"), (Shell::Fish, "cml.fish"), (Shell::Zsh, "_cml")] {
        let text = completion(shell);
        for row in options(&rows()) {
            assert!(text.contains(&row.opt.long), "{shell} does not complete --{}", row.opt.long);
        }
        is_kept(&format!("docs/completions/{file}"), &text);
    }
}

#[test]
fn the_man_page_has_every_option() {
    let text = manual();
    for row in options(&rows()) {
        let shown = row.opt.long.replace('-', "\\-");
        assert!(text.contains(&shown), "the page does not have --{}", row.opt.long);
    }
    is_kept("docs/man/cml-runner.1", &text);
}
