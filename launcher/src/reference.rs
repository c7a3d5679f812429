//! docs/reference.md, written from clap's own data: a test compares it, `UPDATE_GOLDEN=1` rewrites it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write as _;

use clap::{Arg, ValueEnum as _};
use common::error::Class;
use common::spec::CloudKind;

use crate::cli::names::{Kind, Names, Opt};
use crate::cli::{command, support};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md");

const HEAD: &str = "\
<!-- Generated from the program by `make golden`: edit launcher/src/reference.rs or the options' doc comments instead. -->

# Reference: `cml runner`

```
cml runner [launch] [OPTIONS]
cml runner list|reap [OPTIONS]
cml runner logs NAME [OPTIONS]
cml runner terminate NAME... [OPTIONS]
```

Launches one self-hosted CI runner on a cloud, or without `--cloud` runs it on this host. `cml-runner` is the same command.

The others look after the machines that were launched for the repository, in `--cloud-region` of `--cloud`:

| Command | What it does |
|---|---|
| `list` | shows them with their age and what the forge says of their runners; `--output=json` for programs |
| `logs NAME` | prints the console, also of a machine that is gone, as long as the cloud keeps it (at least an hour on AWS) |
| `terminate NAME...` | destroys them, by name or id, and deletes their registrations; what ran there is not run again |
| `reap` | destroys what is stopped, or is ten minutes past its deadline without an online runner (looking twice); deletes the registrations of machines that are gone; runs jobs again that a dying machine could not. `--dry-run` only says so. Good for a scheduled workflow |

## How options are written

- `--option=value`, `--option value`, and `--camelCase` for `--camel-case`. Options may stand before `launch`.
- A switch takes nothing, or `true` or `false`: `--single`, `--single=false`, `--no-single`.
- An option that is given twice counts the last time; a repeatable one takes several values, each time it is given.
- An empty text value counts as unset, so that a workflow may pass `--cloud-image=${{ inputs.image }}`.
- A duration is seconds (`300`), units (`5min`, `1h30m`, `2 days`), or `never` (also `0` and `-1`).
- What the chosen cloud or forge does not support is refused before anything is created.

The command line wins over the environment. An option has the environment names of its row, the strongest first; an empty variable counts
as unset. A switch is `true` or `false` there too, and a repeatable option holds one value a line. A variable `CML_RUNNER_…` that is no
option is warned of.
";

const INFERENCE: &str = "\
## What need not be said

| What | Taken from, the first that is there |
|---|---|
| repository | `--repo`; the git remote `origin` of the working directory; `GITHUB_SERVER_URL` and `GITHUB_REPOSITORY`; `CI_PROJECT_URL`; `BITBUCKET_GIT_HTTP_ORIGIN` |
| forge | `--driver`; the repository's host (github.com, ghe.com, gitlab.com, bitbucket.org); the CI that it runs in |
| token | `--token`; `REPO_TOKEN`; `repo_token`; the forge's own `GITHUB_TOKEN`, `GITLAB_TOKEN` or `BITBUCKET_TOKEN` |

`--token-file` stands where `--token` does; a GitHub App (`--app-id`, `--app-private-key`) stands in place of all of them: [forges](forges.md#a-github-app). A slug `OWNER/REPO` lies on the CI's own server, else on the public server of `--driver`, else on github.com. Credentials in an address,
`.git` and trailing slashes are cut; a token is never sent in clear, so `http:` becomes `https:` except for addresses on this host.
";

/// Why a launch ended as it did, and whether the same command may fare better.
fn exit(class: Class) -> (&'static str, &'static str) {
    match class {
        Class::Unexpected => ("something nobody foresaw, or a bug", "perhaps; read the message"),
        Class::Usage => (
            "the command line, the environment or a setting is wrong",
            "no: correct what is named",
        ),
        Class::Access => (
            "the forge or the cloud refused the credentials or a permission",
            "no: grant what is named",
        ),
        Class::Capacity => (
            "no machine could be had: capacity, quota or price",
            "yes for capacity, later or in another region; no for a quota",
        ),
        Class::NotOnline => (
            "the runner did not come online in time; everything was rolled back",
            "yes, if the cause shown was a passing one",
        ),
        Class::NameInUse => ("another runner has that name", "no: change `--name`, or give `--reuse`"),
        Class::Signal(_) => ("stopped by a signal, 128 + its number; everything was rolled back", "yes"),
    }
}

/// SIGINT, as an example of a signal.
const INTERRUPT: i32 = 2;

const CLASSES: [Class; 7] = [
    Class::Unexpected,
    Class::Usage,
    Class::Access,
    Class::Capacity,
    Class::NotOnline,
    Class::NameInUse,
    Class::Signal(INTERRUPT),
];

/// An option and what clap says of it.
pub struct Row {
    pub opt: Opt,
    pub heading: String,
    value: String,
    pub default: String,
    pub meaning: String,
}

/// All options.
pub fn rows() -> Vec<Row> {
    let command = command();
    let runner = command.find_subcommand("runner").unwrap();
    let names = Names::of(runner);
    let row = |arg: &Arg| {
        let opt = names.get(arg.get_id().as_str())?.clone();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        // A default that is worked out stands at the end of the doc comment, one that is a value in clap's data.
        let (meaning, computed) = help.split_once(" [default: ").unwrap_or((&help, ""));
        let values: Vec<String> = arg
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        let default = match (opt.kind, computed.strip_suffix(']'), values.join(",")) {
            (_, Some(computed), _) => computed.to_owned(),
            (Kind::Switch, None, _) => "off".to_owned(),
            (_, None, value) if value.is_empty() => "none".to_owned(),
            (_, None, value) => format!("`{value}`"),
        };
        let possible: Vec<String> = arg
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        let mut meaning = meaning.trim_end_matches('.').to_owned();
        if opt.kind != Kind::Switch && !possible.is_empty() {
            write!(meaning, ": {}", possible.join(", ")).unwrap();
        }
        if let Some(limits) = support::limits(&opt.id) {
            meaning = meaning.replace("; only GitLab", "");
            write!(meaning, " (only {limits})").unwrap();
        }
        let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        Some(Row {
            heading: arg.get_help_heading().unwrap_or_default().to_owned(),
            value: value.filter(|_| opt.kind != Kind::Switch).unwrap_or_default(),
            default,
            meaning,
            opt,
        })
    };
    runner.get_arguments().filter_map(row).collect()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn table(rows: &[Row], heading: &str) -> String {
    let mut text = format!("\n## {heading}\n\n| Option | Default | Meaning | Environment |\n|---|---|---|---|\n");
    for row in rows.iter().filter(|row| row.heading == heading && !row.opt.ignored) {
        let value = if row.value.is_empty() {
            String::new()
        } else {
            format!("=<{}>", row.value)
        };
        let mut flags = format!("`--{}{value}`", row.opt.long);
        for alias in &row.opt.aliases {
            write!(flags, ", `--{alias}`").unwrap();
        }
        let variables: Vec<String> = row.opt.variables().iter().map(|(name, _)| format!("`{name}`")).collect();
        let cells = [&flags, &row.default, &row.meaning, &variables.join(", ")].map(|text| cell(text));
        writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    }
    text
}

fn reference() -> String {
    let rows = rows();
    let mut text = HEAD.to_owned();
    for heading in ["Runner options", "Launch options", "Cloud options", "Generic options"] {
        text += &table(&rows, heading);
    }
    let ignored: Vec<String> = rows
        .iter()
        .filter(|row| row.opt.ignored)
        .map(|row| format!("`--{}`", row.opt.long))
        .collect();
    writeln!(
        text,
        "\nThe old tool's hidden options are accepted with a warning and have no effect: {}.\n",
        ignored.join(", ")
    )
    .unwrap();
    text += INFERENCE;
    text += "\n## Exit codes\n\n| Code | Meaning | Does a retry help? |\n|---|---|---|\n";
    text += "| 0 | launched, or an existing runner is reused; without `--cloud`, the agent stopped as intended | |\n";
    for class in CLASSES {
        let code = class.exit_code();
        let code = if matches!(class, Class::Signal(_)) {
            format!("128 + n (SIGINT: {code})")
        } else {
            code.to_string()
        };
        let (meaning, retry) = exit(class);
        writeln!(text, "| {code} | {meaning} | {retry} |").unwrap();
    }
    text
}

/// Which cloud takes which of the cloud options.
fn support_table() -> String {
    let clouds = CloudKind::value_variants();
    let names: Vec<String> = clouds.iter().map(|cloud| format!("`{cloud}`")).collect();
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(clouds.len()));
    for row in rows().iter().filter(|row| row.heading == "Cloud options" && row.opt.id != "cloud") {
        let cell = |cloud: &CloudKind| if support::takes(*cloud, &row.opt.id) { "yes" } else { "refused" };
        let cells: Vec<&str> = clouds.iter().map(cell).collect();
        writeln!(text, "| `--{}` | {} |", row.opt.long, cells.join(" | ")).unwrap();
    }
    text
}

#[test]
fn the_table_of_clouds_is_what_the_program_says() {
    const CLOUDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/clouds.md");
    let (begin, end) = ("by `make golden` -->\n", "<!-- end -->");
    let kept = std::fs::read_to_string(CLOUDS).unwrap();
    let (before, rest) = kept.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let text = format!("{before}{begin}{}{end}{after}", support_table());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(CLOUDS, &text).unwrap();
    }
    let kept = std::fs::read_to_string(CLOUDS).unwrap();
    assert!(kept == text, "docs/clouds.md is not what the program says: run `make golden`");
}

#[test]
fn the_reference_is_what_the_program_says() {
    let text = reference();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(kept == text, "docs/reference.md is not what the program says: run `make golden`");
}

#[test]
fn each_field_has_a_flag_an_environment_name_a_default_and_a_doc_line() {
    let rows = rows();
    for row in &rows {
        let name = &row.opt.long;
        assert!(!row.meaning.is_empty(), "--{name} has no doc line");
        assert!(!row.default.is_empty(), "--{name} has no default, not even `none`");
        assert!(row.opt.ignored || !row.heading.is_empty(), "--{name} stands under no heading");
        let variable = format!("CML_RUNNER_{}", name.to_uppercase().replace('-', "_"));
        assert!(
            row.opt.variables().iter().any(|(known, _)| *known == variable),
            "--{name} has no {variable}"
        );
    }
    // The fields themselves, from what they print as: one that clap skips is in no row.
    let argv = ["cml", "runner"].map(str::to_owned);
    let crate::cli::Invocation::Launch(parsed) = crate::cli::parse(&argv, &std::collections::BTreeMap::new()).unwrap() else {
        panic!("not a launch");
    };
    let options = &parsed.options;
    let mut fields = 0;
    for group in [
        format!("{:#?}", options.runner),
        format!("{:#?}", options.decision),
        format!("{:#?}", options.cloud),
        format!("{:#?}", options.generic),
        format!("{:#?}", options.ignored),
    ] {
        for field in group
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(": "))
            .map(|(name, _)| name)
        {
            if !field.starts_with([' ', '}', ']', ')']) {
                fields += 1;
                assert!(rows.iter().any(|row| row.opt.id == field), "{field} is no option");
            }
        }
    }
    assert_eq!(fields, rows.len(), "an option is no field, or a field no option");
}
