//! `--export`: what a command line means, so that a service of this host can say it again: for `cml-agent install`.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::installation::Installation;
use common::spec::Executor;
use common::timeout::Timeout;

use crate::cli::{Given, names};
use crate::request::Request;
use crate::session::block_on;

/// What it is.
const WHAT: &str = "a service of this host";

/// What a service waits for jobs.
const FOR_EVER: &str = "never";

/// What an installed runner cannot be told.
const OUT_OF_PLACE: [&str; 4] = ["cloud", "reuse", "reuse_idle", "dry_run"];

/// Checks the token, and writes the file whole or not at all.
pub fn run(file: &Path, request: &Request, given: &Given) -> Result<()> {
    let installation = installation(request, given)?;
    let forge = request.access.open(request.forge, &request.repo)?;
    block_on(forge.check_access())?;
    write(file, &installation).with_context(|| format!("writing {}", file.display()))
}

fn installation(request: &Request, given: &Given) -> Result<Installation> {
    if let Some(source) = OUT_OF_PLACE.iter().find_map(|id| given.source(id)) {
        return Err(Failure::new(
            Class::Usage,
            format!("`{source}` has no place here: the runner is a service of this host"),
        )
        .hint("leave it out")
        .into());
    }
    let mut options = given.variables().clone();
    // They say what the service has to do once and for all, wherever it is started.
    let mut set = |id: &str, value: String| options.insert(format!("{}{}", names::PREFIX, names::upper_snake(id)), value);
    set("name", request.name.clone());
    set("repo", request.repo.to_string());
    set("driver", request.forge.to_string());
    let runner = &request.options.runner;
    match given.source("idle_timeout") {
        Some(source) if runner.idle_timeout != Timeout::Never => {
            return Err(Failure::new(
                Class::Usage,
                format!("`{source}` has no place here: an installed runner waits for jobs for ever"),
            )
            .hint("leave it out, or use `cml runner` for a runner that ends by itself")
            .into());
        }
        _ => set("idle_timeout", FOR_EVER.into()),
    };
    for (id, path) in [("workdir", &runner.workdir), ("ca_certificates", &runner.ca_certificates)] {
        if let Some(path) = path {
            let path = std::path::absolute(path).context("finding the working directory")?;
            set(id, path.display().to_string());
        }
    }
    // Whoever may start containers can become root: here only if its owner says so.
    if runner.executor == Executor::Auto && crate::cli::support::takes_executor(request.forge) {
        set("executor", "shell".into());
    }
    Ok(Installation {
        name: request.name.clone(),
        repo: request.repo.to_string(),
        options,
        token: request.access.token(WHAT)?.clone(),
    })
}

fn write(path: &Path, installation: &Installation) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Such a file is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(installation.to_json()?.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use common::error::Report;
    use common::installation::Installation;
    use common::spec::RunnerOptions;

    use crate::cli::{Given, Invocation, parse};
    use crate::request::Request;

    fn read(line: &[&str], vars: &BTreeMap<String, String>) -> (Request, Given) {
        let words: Vec<String> = ["cml", "runner"].iter().chain(line).map(|word| (*word).to_owned()).collect();
        match parse(&words, vars) {
            Ok(Invocation::Launch(parsed)) => crate::request(*parsed, vars.clone()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn token() -> BTreeMap<String, String> {
        [("REPO_TOKEN".to_owned(), "canary".to_owned())].into()
    }

    fn exported(line: &[&str]) -> Result<Installation, String> {
        let line: Vec<&str> = ["--export=x", "--repo=https://gitlab.com/octo/train"]
            .iter()
            .chain(line)
            .copied()
            .collect();
        let (request, given) = read(&line, &token());
        super::installation(&request, &given).map_err(|error| Report(&error).to_string())
    }

    #[test]
    fn what_is_said_again_means_the_same() {
        let line = [
            "--labels=gpu, big",
            "--labels=gpu",
            "--name=one",
            "--single",
            "--no-retry=false",
            "--docker-volumes",
            "/a b:/c",
            "/d:/e",
            "--executor=docker",
            "--on-interrupt=ZWNobyBoaQo=",
            "--workdir=/data/work",
            "--proxy=http://me:word@proxy.example.com:3128",
            "--no-proxy=example.com",
            "--no-proxy=10.0.0.0/8",
            concat!("--ca-certificates=", env!("CARGO_MANIFEST_DIR"), "/../common/tests/authority.pem"),
            "--max-attempts=5",
            "--log=debug",
            "--cloud-type=xl",
        ];
        let installation = exported(&line).unwrap();
        assert!(
            installation.options.keys().all(|name| name.starts_with("CML_RUNNER_")),
            "{installation:?}"
        );
        assert!(
            !installation.options.values().any(|value| value.contains("canary")) && !format!("{installation:?}").contains("word"),
            "{installation:?}"
        );
        let mut vars = installation.options.clone();
        vars.extend(token());
        let (again, _) = read(&[], &vars);
        let (first, _) = read(&[&["--repo=https://gitlab.com/octo/train"], &line[..]].concat(), &token());
        let expected = RunnerOptions {
            idle_timeout: common::timeout::Timeout::Never,
            ..first.options.runner
        };
        assert_eq!(again.options.runner, expected);
        assert_eq!((again.name.as_str(), again.repo, again.forge), ("one", first.repo, first.forge));
        assert_eq!(again.options.generic.log, first.options.generic.log);
    }

    #[test]
    fn what_is_left_open_is_settled() {
        let installation = exported(&[]).unwrap();
        let option = |name: &str| installation.option(&format!("CML_RUNNER_{name}"));
        assert_eq!((option("IDLE_TIMEOUT"), option("EXECUTOR")), (Some("never"), Some("shell")));
        assert_eq!(option("NAME"), Some(installation.name.as_str()));
        assert!(crate::infer::host_name().is_none_or(|host| host == installation.name));
        assert!(!format!("{installation:?}").contains("canary"));
    }

    #[test]
    fn what_has_no_place_in_a_service_is_refused() {
        for line in ["--idle-timeout=5m", "--cloud=aws", "--reuse", "--reuse-idle", "--dry-run"] {
            let report = exported(&[line]).unwrap_err();
            let flag = line.split('=').next().unwrap();
            assert!(
                report.contains(&format!("`{flag}` has no place here")) && report.contains("hint"),
                "{report}"
            );
        }
        exported(&["--idle-timeout=never", "--reuse=false"]).unwrap();
    }
}
