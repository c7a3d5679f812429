//! What the runner is configured with, by a file that its token is in, and how it is started.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::error::{Class, Report};
use common::forge::gitlab::RunnerConfig;
use common::forge::{Enrollment, RunnerId};
use common::secret::Secret;
use common::spec::{Executor, RunnerOptions};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{RUNNER, gitlab, nowhere, served, spec};
use crate::runner::docker::{Docker, Place};
use crate::runner::fixtures::options;
use crate::runner::gitlab::{GitLab, RELEASE, config};
use crate::runner::program::Program;
use crate::runner::{Ready, Runner as _};
use crate::user::User;

const SERVER: &str = "https://gitlab.example.com/gitlab";

fn enrollment() -> Enrollment {
    let config = RunnerConfig {
        server: SERVER.into(),
        token: Secret::new("glrt-canary"),
    };
    Enrollment::Made {
        id: RunnerId::from(7),
        config: Secret::new(serde_json::to_string(&config).unwrap()),
    }
}

/// What the runner is configured with, and how it is started.
async fn configured(runner: &GitLab) -> (toml::Table, Ready) {
    fs::create_dir_all(&runner.program.dir).unwrap();
    let ready = runner.configure(&enrollment()).await.unwrap();
    let text = fs::read_to_string(runner.program.dir.join("config.toml")).unwrap();
    (text.parse().unwrap(), ready)
}

/// The one runner in it.
fn only(config: &toml::Table) -> &toml::Table {
    let runners = config["runners"].as_array().unwrap();
    assert_eq!(runners.len(), 1);
    runners[0].as_table().unwrap()
}

#[tokio::test]
async fn its_token_is_in_a_private_file_and_nowhere_else() {
    let dir = TempDir::new().unwrap();
    let runner = gitlab(&spec(), dir.path(), None, None);
    let root = dir.path().join("runner");
    fs::create_dir_all(&root).unwrap();
    // A job of an earlier life may have left a link there.
    fs::write(dir.path().join("victim"), "").unwrap();
    symlink(dir.path().join("victim"), root.join("config.toml")).unwrap();
    let (config, ready) = configured(&runner).await;
    assert_eq!(fs::read_to_string(dir.path().join("victim")).unwrap(), "");
    let path = root.join("config.toml");
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(config["concurrent"].as_integer(), Some(1));
    let text = |name: &str| only(&config)[name].as_str().unwrap().to_owned();
    assert_eq!(
        ["name", "url", "token", "executor", "shell"].map(text),
        ["cml-abc", SERVER, "glrt-canary", "shell", "bash"]
    );
    assert_eq!(Path::new(&text("builds_dir")), root.join("builds"));
    assert_eq!(ready.id, RunnerId::from(7));
    let command = ready.command;
    assert_eq!((command.program, command.dir), (root.join("gitlab-runner"), root));
    let path = path.display().to_string();
    let args = [
        "--log-format",
        "json",
        "run-single",
        "--config",
        path.as_str(),
        "--runner",
        "cml-abc",
    ];
    assert_eq!(command.args, args);
    let env = command.env;
    assert!(
        !env.iter().any(|(name, value)| value.contains("canary") || name.starts_with("CML_")),
        "{env:?}"
    );
}

#[tokio::test]
async fn a_runner_of_one_job_is_told_so() {
    let dir = TempDir::new().unwrap();
    let mut spec = spec();
    spec.options.single = true;
    let (_, ready) = configured(&gitlab(&spec, dir.path(), None, None)).await;
    assert_eq!(ready.command.args[7..], ["--max-builds", "1"]);
}

#[tokio::test]
async fn as_a_job_user_it_owns_its_program_and_its_configuration() {
    if !nix::unistd::Uid::effective().is_root() {
        crate::user::skip("as_a_job_user_it_owns_its_program_and_its_configuration", "needs root");
        return;
    }
    let (_server, package) = served(None, "v18.6.0").await;
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let user = User {
        name: "nobody-has-this-name".into(),
        uid: 61_237,
        gid: 61_237,
        home: dir.path().into(),
    };
    let runner = gitlab(&spec(), dir.path(), Some(user.clone()), Some(package));
    runner.install().await.unwrap();
    let (_, ready) = configured(&runner).await;
    for (file, mode) in [("gitlab-runner", 0o755), ("config.toml", 0o600)] {
        let found = fs::metadata(dir.path().join("runner").join(file)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (61_237, 61_237, mode), "{file}");
    }
    assert_eq!(ready.command.user, Some(user));
}

#[tokio::test]
async fn jobs_run_in_containers_where_a_docker_answers_and_else_only_if_it_need_not() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let there = Docker::at(&format!("unix://{}", socket.display()));
    let remote = Docker::at("tcp://127.0.0.1:1");
    let none = nowhere(dir.path());
    for (docker, executor, is_docker) in [
        (&there, Executor::Auto, Some(true)),
        (&there, Executor::Docker, Some(true)),
        (&there, Executor::Shell, Some(false)),
        (&none, Executor::Auto, Some(false)),
        (&none, Executor::Docker, None),
        (&none, Executor::Shell, Some(false)),
        (&remote, Executor::Auto, Some(true)),
    ] {
        let mut spec = spec();
        spec.options.executor = executor;
        let runner = GitLab {
            docker: docker.clone(),
            ..gitlab(&spec, dir.path(), None, None)
        };
        let Some(is_docker) = is_docker else {
            fs::write(runner.program.dir.join("gitlab-runner"), RUNNER).unwrap();
            fs::write(runner.program.dir.join(".cml-package"), "18.6.0\n\n").unwrap();
            for error in [
                runner.install().await.unwrap_err(),
                runner.configure(&enrollment()).await.unwrap_err(),
            ] {
                assert_eq!(Report(&error).class(), Class::NotOnline);
                assert!(Report(&error).hint().unwrap().contains("--executor=shell"), "{error:#}");
            }
            continue;
        };
        let (config, _) = configured(&runner).await;
        let runner = only(&config);
        assert_eq!(runner["executor"].as_str(), Some(if is_docker { "docker" } else { "shell" }));
        assert_eq!(runner.contains_key("docker"), is_docker);
    }
}

#[tokio::test]
async fn a_registration_token_is_not_what_it_was_asked_for() {
    let dir = TempDir::new().unwrap();
    let runner = gitlab(&spec(), dir.path(), None, None);
    runner.configure(&Enrollment::Token(Secret::new("t"))).await.unwrap_err();
    let strange = Enrollment::Made {
        id: RunnerId::from(7),
        config: Secret::new("jit-canary"),
    };
    let error = runner.configure(&strange).await.unwrap_err();
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}

proptest! {
    #[test]
    fn whatever_the_user_gives_is_kept_as_data(name in any::<String>(), image in any::<String>(), volumes: Vec<String>, gpus: bool, token in "[ -~]+") {
        let dir = TempDir::new().unwrap();
        let spec = spec();
        let program = Program::new(&spec, dir.path(), None, &RELEASE).unwrap();
        fs::create_dir_all(&program.dir).unwrap();
        let options = RunnerOptions { docker_image: image.clone(), docker_volumes: volumes.clone(), ..options() };
        let runner = RunnerConfig { server: "https://h".into(), token: Secret::new(token.clone()) };
        let path = config::write(&program, &name, &options, &runner, Place::Containers { gpus }).unwrap();
        let config: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        let runner = only(&config);
        prop_assert_eq!(runner["name"].as_str(), Some(name.as_str()));
        prop_assert_eq!(runner["token"].as_str(), Some(token.as_str()));
        let docker = runner["docker"].as_table().unwrap();
        prop_assert_eq!(docker["image"].as_str(), Some(image.as_str()));
        prop_assert_eq!(docker.get("gpus").and_then(toml::Value::as_str), gpus.then_some("all"));
        let kept: Vec<_> = docker["volumes"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
        prop_assert_eq!(kept, volumes);
    }
}

#[tokio::test]
async fn quotes_lines_and_characters_that_toml_refuses_start_no_other_setting() {
    let dir = TempDir::new().unwrap();
    let hostile = "a\"\nprivileged = true\n[runners.docker]\u{7f}\u{1}\\u0041\u{2028}'''";
    let mut spec = spec();
    spec.name = hostile.into();
    spec.options.docker_volumes = vec![hostile.into(), "/a:/b".into()];
    spec.options.docker_image = hostile.into();
    let runner = GitLab {
        docker: Docker::at("tcp://elsewhere"),
        ..gitlab(&spec, dir.path(), None, None)
    };
    let (config, ready) = configured(&runner).await;
    let kept = only(&config);
    assert_eq!(kept["name"].as_str(), Some(hostile));
    let docker = kept["docker"].as_table().unwrap();
    assert_eq!(docker["image"].as_str(), Some(hostile));
    assert_eq!(docker["volumes"].as_array().unwrap()[0].as_str(), Some(hostile));
    assert!(!docker.contains_key("privileged"));
    assert_eq!(ready.command.args[6], hostile, "one argument");
}
