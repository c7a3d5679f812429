//! What is sent for an order, and what is refused before anything is.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use common::error::{Class, Report};

use super::manifest::{Manifest, resumed};
use super::{names, supports};
use crate::cli::{self, Invocation};
use crate::cloud::Order;
use crate::options::CloudOptions;

fn options(more: &[&str]) -> CloudOptions {
    let fixed = ["cml", "runner", "--cloud=kubernetes", "--cloud-region=us-west"];
    let argv: Vec<String> = fixed.iter().chain(more).map(|word| (*word).to_owned()).collect();
    let Invocation::Launch(parsed) = cli::parse(&argv, &BTreeMap::new()).unwrap() else {
        panic!("not a launch");
    };
    parsed.options.cloud
}

fn order(name: &str, more: &[&str]) -> Order {
    let tags = [
        ("cml", "0.1.0"),
        ("cml-launch-id", "cml-0123456789abcdefGHIJ"),
        ("cml-repo", "https://github.com/octo/train"),
    ];
    Order {
        launch_id: "cml-0123456789abcdefGHIJ".into(),
        name: name.into(),
        options: options(more),
        startup_data: "#!/bin/sh\necho 'canary'\n".into(),
        tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        lifetime: None,
    }
}

#[test]
fn an_order_is_a_job_and_its_secret() {
    let order = order("train on T4", &[]);
    let manifest = Manifest::of(&order).unwrap();
    insta::assert_json_snapshot!("job", manifest.job());
    insta::assert_json_snapshot!("secret", manifest.secret(&order, "uid-1"));
    insta::assert_json_snapshot!("resumed", resumed());
    assert!(
        !manifest.job().to_string().contains("canary"),
        "only the Secret holds the credential"
    );
}

#[test]
fn every_option_is_in_the_job() {
    let mut order = order(
        "gpu",
        &[
            "--cloud-type=m+t4",
            "--cloud-region=pool=ci",
            "--cloud-kubernetes-node-selector=cloud.google.com/gke-accelerator=infer",
            "--cloud-permission-set=trainer",
            "--cloud-image=registry.example/train:1",
            "--cloud-hdd-size=100",
        ],
    );
    order.lifetime = Some(Duration::from_hours(2));
    insta::assert_json_snapshot!("job-with-every-option", Manifest::of(&order).unwrap().job());
}

#[test]
fn a_name_is_legal_unique_and_the_same_for_the_same_order() {
    for (name, expected) in [
        ("cml-abc", "cml-abc-89abcdefghij"),
        ("Train_on GPU!", "train-on-gpu-89abcdefghij"),
        ("--", "cml-89abcdefghij"),
        ("ß", "cml-89abcdefghij"),
        ("", "cml-89abcdefghij"),
    ] {
        assert_eq!(names::of(&order(name, &[])), expected, "{name}");
    }
    let long = names::of(&order(&"x".repeat(200), &[]));
    assert_eq!(long.len(), 63);
    let mut other = order("cml-abc", &[]);
    other.launch_id = "cml-0123456789abcdefGHIK".into();
    assert_ne!(names::of(&other), names::of(&order("cml-abc", &[])));
}

#[test]
fn what_cannot_be_written_down_is_refused_by_name() {
    supports(&options(&["--cloud-metadata=team=ml", "--cloud-permission-set=ci.trainer"])).unwrap();
    for (option, said) in [
        ("--cloud-kubernetes-node-selector=pool", "`pool` selects no node"),
        (
            "--cloud-kubernetes-node-selector=kubernetes.io/arch=arm64",
            "kubernetes.io/arch=arm64",
        ),
        ("--cloud-region=kubernetes.io/os=windows", "kubernetes.io/os=windows"),
        ("--cloud-metadata=a b=c", "`--cloud-metadata=a b=c`"),
        (
            "--cloud-permission-set=arn:aws:iam::1:x",
            "`--cloud-permission-set=arn:aws:iam::1:x`",
        ),
    ] {
        let error = supports(&options(&[option])).unwrap_err();
        assert_eq!(Report(&error).class(), Class::Usage, "{option}");
        assert!(
            error.to_string().contains(said) && Report(&error).hint().is_some(),
            "{option}: {error}"
        );
    }
}
