#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use common::error::Report;
use common::spec::{CloudKind, ForgeKind};
use common::timeout::Timeout;
use proptest::prelude::*;

use super::{Invocation, Parsed, parse};
use crate::options::LaunchOptions;

fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(|word| (*word).to_owned()).collect()
}

fn try_parse(line: &[&str], env: &[(&str, &str)]) -> Result<Parsed, String> {
    match parse(&words(line), &vars(env)) {
        Ok(Invocation::Launch(parsed)) => Ok(*parsed),
        Ok(Invocation::Print(text)) => Err(format!("printed: {text}")),
        Ok(Invocation::Fleet(command, _)) => Err(format!("{command:?}")),
        Err(error) => Err(Report(&error).to_string()),
    }
}

/// The options of `cml runner …`.
fn options(line: &[&str], env: &[(&str, &str)]) -> LaunchOptions {
    let line: Vec<&str> = ["cml", "runner"].iter().chain(line).copied().collect();
    try_parse(&line, env).unwrap_or_else(|error| panic!("{line:?}: {error}")).options
}

/// The options of the command's published reference (<https://cml.dev/doc/ref/runner>), each with a value.
const DOCUMENTED: [(&str, &str); 22] = [
    ("labels", "cml,gpu"),
    ("name", "my-runner"),
    ("idle-timeout", "-1"),
    ("no-retry", ""),
    ("single", ""),
    ("reuse", ""),
    ("cloud", "aws"),
    ("cloud-type", "m+k80"),
    ("cloud-gpu", "tesla"),
    ("cloud-hdd-size", "100"),
    ("cloud-spot", ""),
    ("cloud-spot-price", "0.5"),
    ("cloud-region", "us-west"),
    ("cloud-permission-set", "arn:aws:iam::1234567890:instance-profile/dvc-s3-access"),
    ("cloud-metadata", "key=value"),
    ("cloud-startup-script", "IyEvYmluL2Jhc2gKCmVjaG8gImhlbGxvIHdvcmxkIgo="),
    (
        "cloud-ssh-private",
        "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----",
    ),
    ("cloud-aws-security-group", "sg-1"),
    ("cloud-aws-subnet", "subnet-1"),
    ("docker-volumes", "/var/run/docker.sock:/var/run/docker.sock"),
    ("token", "t"),
    ("repo", "https://github.com/octo/train"),
];

/// The old tool's hidden options, aliases and generic options.
const UNDOCUMENTED: [(&str, &str); 17] = [
    ("reuse-idle", ""),
    ("workdir", "/tmp/x"),
    ("path", "/tmp/x"),
    ("cloud-image", "ami-1"),
    ("cloud-kubernetes-node-selector", "a=b"),
    ("cloud-aws-subnet-id", "subnet-1"),
    ("tpi-version", ">= 0.9.10"),
    ("cml-version", "0.20.0"),
    ("tf-resource", "e30="),
    ("tf_resource", "e30="),
    ("destroy-delay", "10"),
    ("gcp-access-token", "x"),
    ("runner-path", "/x"),
    ("driver-token", "t"),
    ("driver", "github"),
    ("log", "debug"),
    ("output", "json"),
];

/// The clouds that make the option legal.
fn with_cloud(option: &str) -> Vec<&'static str> {
    match option {
        "cloud" => vec![],
        "cloud-kubernetes-node-selector" => vec!["--cloud=kubernetes"],
        _ => vec!["--cloud=aws"],
    }
}

fn camel(option: &str) -> String {
    let mut parts = option.split('-');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| name + &part[..1].to_uppercase() + &part[1..])
}

#[test]
fn every_option_of_the_old_tool_is_accepted_in_every_spelling() {
    for (option, value) in DOCUMENTED.iter().chain(&UNDOCUMENTED) {
        let cloud = with_cloud(option);
        let debug = |line: &[String], env: &[(&str, &str)]| {
            let line: Vec<&str> = cloud.iter().copied().chain(line.iter().map(String::as_str)).collect();
            format!("{:?}", options(&line, env))
        };
        let variable = format!("CML_RUNNER_{}", option.replace('-', "_").to_uppercase());
        let plain = debug(&[], &[]);
        let forms = if value.is_empty() {
            vec![
                debug(&[format!("--{option}")], &[]),
                debug(&[format!("--{option}=true")], &[]),
                debug(&[format!("--{option}"), "true".into()], &[]),
                debug(&[format!("--{}", camel(option))], &[]),
                debug(&[], &[(&variable, "true")]),
            ]
        } else {
            vec![
                debug(&[format!("--{option}={value}")], &[]),
                debug(&[format!("--{option}"), (*value).into()], &[]),
                debug(&[format!("--{}={value}", camel(option))], &[]),
                debug(&[], &[(&variable, value)]),
            ]
        };
        assert!(forms.iter().all(|form| *form == forms[0]), "{option}: {forms:#?}");
        let is_default = *option == "cloud-region";
        assert!(is_default || forms[0] != plain, "--{option} changes nothing");
    }
}

#[test]
fn switches() {
    for (line, expected) in [
        (&["--no-retry"][..], true),
        (&["--no-retry=true"], true),
        (&["--no-retry", "true"], true),
        (&["--noRetry"], true),
        (&["--no-retry=false"], false),
        (&["--no-retry", "false"], false),
        (&["--no-no-retry"], false),
        (&["--no-retry", "--no-retry=false"], false),
        (&["--no-retry=0"], false),
        (&["--no-retry", "launch"], true),
        (&[], false),
    ] {
        assert_eq!(options(line, &[]).runner.no_retry, expected, "{line:?}");
    }
    assert!(!options(&["--single", "--no-single"], &[]).runner.single);
    assert!(options(&["--noSingle=false"], &[]).runner.single);
    // A switch that is off conflicts with nothing: the old tool refused by presence.
    let parsed = options(&["--reuse"], &[("CML_RUNNER_SINGLE", "false")]);
    assert!(parsed.decision.reuse && !parsed.runner.single);
    assert!(options(&["--reuse=false", "--single"], &[]).runner.single);
}

#[test]
fn values_end_at_the_next_option_or_the_command() {
    let given = options(
        &[
            "--cloud=aws",
            "--cloud-metadata",
            "a=1",
            "b=2=3",
            "--single",
            "--cloud-metadata=c",
            "d=4",
        ],
        &[],
    );
    assert_eq!(given.cloud.cloud_metadata, ["a=1", "b=2=3", "c", "d=4"]);
    assert!(given.runner.single);
    let line = [
        "cml",
        "--cloud=aws",
        "--cloud-metadata",
        "a=1",
        "runner",
        "--cloud-metadata",
        "b=2",
        "launch",
    ];
    assert_eq!(try_parse(&line, &[]).unwrap().options.cloud.cloud_metadata, ["a=1", "b=2"]);
}

#[test]
fn the_last_of_a_repeated_value_wins() {
    assert_eq!(options(&["--name=a", "--name", "b"], &[]).decision.name.as_deref(), Some("b"));
    assert_eq!(
        options(&["--idle-timeout", "-1", "--idle-timeout=60"], &[]).runner.idle_timeout,
        Timeout::secs(60)
    );
    assert_eq!(options(&["--labels=a, b", "--labels", "c,,A"], &[]).runner.labels, ["a", "b", "c"]);
}

#[test]
fn the_defaults_are_those_of_the_document() {
    let default = options(&[], &[]);
    assert_eq!(default.runner.labels, ["cml"]);
    assert_eq!(default.runner.idle_timeout, Timeout::secs(300));
    assert_eq!(default.runner.job_time_limit.duration(), Some(Duration::from_hours(72)));
    assert_eq!(
        (default.cloud.cloud_type.as_str(), default.cloud.cloud_region.as_str()),
        ("m", "us-west")
    );
    assert_eq!((default.cloud.cloud_hdd_size, default.cloud.cloud), (35, None));
    assert!(default.cloud.cloud_spot_price < 0.0);
}

#[test]
fn the_command_has_three_names() {
    for line in [
        &["/usr/bin/cml", "runner", "--single"][..],
        &["cml", "runner", "launch", "--single"],
        &["cml", "runner", "--single", "launch"],
        &["cml", "--single", "runner", "launch"],
        &["/usr/bin/cml-runner", "--single"],
        &["cml-runner", "launch", "--single"],
        &["cml-runner", "--single", "launch"],
        &["cml-runner", "runner", "launch", "--single"],
    ] {
        assert!(try_parse(line, &[]).unwrap().options.runner.single, "{line:?}");
    }
    // The old tool wanted at least one dash.
    assert!(
        try_parse(&["cml", "runner"], &[("CML_RUNNER_SINGLE", "1")])
            .unwrap()
            .options
            .runner
            .single
    );
}

#[test]
fn the_command_line_wins_then_the_stronger_name() {
    let all = [
        ("CML_RUNNER_REPO", "o/own"),
        ("CML_REPO", "o/generic"),
        ("RUNNER_REPO", "o/legacy"),
        ("RUNNER_IDLE_TIMEOUT", "7"),
        ("RUNNER_LABELS", "old"),
        ("RUNNER_NAME", "GitHub Actions 3"),
        ("CML_DRIVER", "gitlab"),
        ("CML_RUNNER_DRIVER", " "),
    ];
    let repo = |line: &[&str], env: &[(&str, &str)]| options(line, env).generic.repo.unwrap();
    assert_eq!(repo(&["--repo=o/flag"], &all), "o/flag");
    assert_eq!(repo(&["--repo="], &all), "o/own");
    assert_eq!(repo(&[], &all), "o/own");
    assert_eq!(repo(&[], &all[1..]), "o/generic");
    assert_eq!(repo(&[], &all[2..]), "o/legacy");
    let rest = options(&[], &all);
    assert_eq!(rest.runner.idle_timeout, Timeout::secs(7));
    assert_eq!(rest.runner.labels, ["old"]);
    assert_eq!(rest.decision.name, None, "every runner of GitHub sets RUNNER_NAME");
    assert_eq!(rest.generic.driver, Some(ForgeKind::GitLab), "an empty variable counts as unset");
    let token = options(&[], &[("CML_TOKEN", "a"), ("CML_RUNNER_DRIVER_TOKEN", "b")])
        .generic
        .token
        .unwrap();
    assert_eq!(token.expose(), "b");
    let lines = options(&["--cloud=aws"], &[("CML_RUNNER_CLOUD_METADATA", "a=x y\n\nb=2\n")]);
    assert_eq!(lines.cloud.cloud_metadata, ["a=x y", "b=2"]);
}

#[test]
fn what_has_not_the_expected_effect_is_warned_of() {
    let warnings = |line: &[&str], env: &[(&str, &str)]| -> Vec<String> {
        let line: Vec<&str> = ["cml", "runner"].iter().chain(line).copied().collect();
        try_parse(&line, env)
            .unwrap()
            .warnings
            .into_iter()
            .map(|warning| warning.0)
            .collect()
    };
    assert_eq!(warnings(&["--cloud=aws", "--driver-token=x"], &[("REPO_TOKEN", "y")]), [""; 0]);
    for (line, env, expected) in [
        (&["--tpi-version=1"][..], &[][..], "`--tpi-version` has no effect any more"),
        (&["--path=/x"], &[], "`--path` is an old name of `--workdir`"),
        (&[], &[("CML_RUNNER_PATH", "/x")], "`CML_RUNNER_PATH` is an old name of `--workdir`"),
        (
            &["--cloudType=m"],
            &[],
            "`--cloudType` has no effect without `--cloud`: the runner runs on this host",
        ),
        (
            &["--cloud=aws", "--cloud-spot-price=1"],
            &[],
            "`--cloud-spot-price` has no effect without `--cloud-spot`",
        ),
        (
            &[],
            &[("CML_RUNNER_IDLE_TIMEUOT", "3")],
            "the environment variable CML_RUNNER_IDLE_TIMEUOT is no option: did you mean CML_RUNNER_IDLE_TIMEOUT?",
        ),
        (
            &[],
            &[("CML_RUNNER_QUUX", "3")],
            "the environment variable CML_RUNNER_QUUX is no option",
        ),
    ] {
        assert_eq!(warnings(line, env), [expected]);
    }
}

#[test]
fn the_cloud_and_the_forge_must_support_what_is_given() {
    let parsed = try_parse(&["cml", "runner", "--docker-volumes=/a:/b"], &[]).unwrap();
    assert!(super::support::check_forge(ForgeKind::GitLab, &parsed.given).is_ok());
    let error = super::support::check_forge(ForgeKind::GitHub, &parsed.given).unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        "error: `--docker-volumes` is not supported with `--driver=github`\n\nhint: it is supported with `--driver=gitlab`"
    );
    for cloud in ["azure", "gcp", "kubernetes"] {
        let error = try_parse(&["cml", "runner", &format!("--cloud={cloud}"), "--cloud-aws-subnet=x"], &[]).unwrap_err();
        assert!(error.contains("`--cloud=aws`"), "{error}");
    }
    let parsed = options(&["--cloud=kubernetes"], &[]);
    assert_eq!(parsed.cloud.cloud, Some(CloudKind::Kubernetes), "a default is not taken for a wish");
}

#[test]
fn an_error_never_shows_a_secret() {
    for line in [
        &["cml", "runner", "--cloud-startup-script=canary!", "--cloud=aws"][..],
        &["cml", "runner", "--tokn=canary"],
        &["cml", "runner", "--token", "canary", "--single=x"],
    ] {
        let error = try_parse(line, &[("CML_RUNNER_CLOUD_SSH_PRIVATE", "canary")]).unwrap_err();
        assert!(!error.contains("canary"), "{error}");
    }
}

proptest! {
    /// Whatever is typed: an answer, not a panic; and a flag that is in no error was understood.
    #[test]
    fn any_words_are_read(words in proptest::collection::vec(
        prop_oneof![
            Just("runner".to_owned()), Just("launch".to_owned()), Just("--".to_owned()), Just("--single".to_owned()),
            Just("--cloudMetadata".to_owned()), Just("--no-".to_owned()), "--?[a-zA-Z-]{0,12}(=.{0,6})?", ".{0,8}",
        ], 0..8)) {
        let mut line = vec!["cml".to_owned()];
        line.extend(words);
        if let Err(error) = parse(&line, &BTreeMap::new()) {
            prop_assert_eq!(Report(&error).class().exit_code(), 2, "{:?}: {}", line, error);
        }
    }

    /// Values reach the options as they are, however the flag is spelt and whatever they look like.
    #[test]
    fn a_value_stays_what_it_is(value in "[^ \t\r\n\u{b}\u{c}\u{85}\u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}]{1,20}") {
        let given = options(&[&format!("--cloudImage={value}"), &format!("--cloud-metadata={value}"), "--cloud=aws"], &[]);
        prop_assert_eq!(given.cloud.cloud_image.as_deref(), Some(value.as_str()));
        prop_assert_eq!(&given.cloud.cloud_metadata, std::slice::from_ref(&value));
    }
}

#[test]
fn machines_are_looked_after_by_their_names() {
    for (line, read) in [
        (&["cml", "runner", "list", "--cloud=aws"][..], "List"),
        (&["cml-runner", "--cloud-metadata", "a=b", "reap"], "Reap"),
        (&["cml", "runner", "logs", "--cloud", "aws", "trainer"], "Logs(\"trainer\")"),
        (&["cml", "runner", "terminate", "a", "b"], "Terminate([\"a\", \"b\"])"),
        // One that has the name of a command.
        (&["cml", "runner", "terminate", "list"], "Terminate([\"list\"])"),
    ] {
        assert_eq!(try_parse(line, &[]).unwrap_err(), read, "{line:?}");
    }
    for (line, says) in [
        (&["cml", "runner", "terminate"][..], "needs the name"),
        (&["cml", "runner", "logs"], "needs the name"),
        (&["cml", "runner", "logs", "a", "b"], "unexpected word `b`"),
        (&["cml", "runner", "list", "launch"], "unexpected word `launch`"),
    ] {
        let error = try_parse(line, &[]).unwrap_err();
        assert!(error.contains(says), "{line:?}: {error}");
    }
}
