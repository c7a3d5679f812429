#![allow(clippy::unwrap_used)]

use common::spec::CloudKind;

use super::{Launched, Record};
use crate::launch::Outcome;
use crate::launch::tests::world::{instance, request, runner};

#[test]
fn the_record_is_an_interface() {
    let request = request(&[
        "--labels=gpu,big",
        "--cloud-metadata=team=ml",
        "--cloud-spot",
        "--cloud-aws-security-group=sg-1",
        "--idle-timeout=1h",
        "--cloud-gpu=t4",
    ]);
    let instance = instance();
    let record = Record::of(&request, CloudKind::Aws, &instance).unwrap();
    insta::assert_snapshot!("record", serde_json::to_string_pretty(&record).unwrap());
}

#[test]
fn what_is_told_of_a_launch() {
    let request = request(&["--labels=gpu, big"]);
    let outcome = Outcome::Launched(instance());
    let result = Launched::of(&request, &outcome);
    insta::assert_snapshot!(
        "launched",
        [
            result.text(),
            serde_json::to_string_pretty(&result).unwrap(),
            result.outputs(),
            result.summary()
        ]
        .join("\n")
    );
}

#[test]
fn what_is_told_of_a_runner_that_was_there() {
    let request = request(&[]);
    let outcome = Outcome::Reused(runner("there", true));
    let result = Launched::of(&request, &outcome);
    insta::assert_snapshot!("reused", [result.text(), result.outputs(), result.summary()].join("\n"));
}

#[test]
fn a_value_cannot_forge_an_output_or_a_row() {
    let request = request(&[]);
    let mut runner = runner("there", true);
    runner.labels = vec!["cml\ninstance-ip=6.6.6.6\ncml | <b>".into()];
    let outcome = Outcome::Reused(runner);
    let result = Launched::of(&request, &outcome);
    let outputs = result.outputs();
    let (_, labels) = outputs.split_once("labels<<").unwrap();
    let (end, value) = labels.split_once('\n').unwrap();
    assert!(value.ends_with(&format!("cml | <b>\n{end}\n")), "{outputs}");
    assert!(value.lines().filter(|line| *line == end).count() == 1, "{outputs}");
    assert!(
        !result.summary().contains("<b>") && result.summary().contains("\\u000a"),
        "{}",
        result.summary()
    );
    assert!(!result.text().contains("\ninstance-ip"), "{}", result.text());
}
