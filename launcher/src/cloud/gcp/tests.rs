#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use common::error::{Class, Report};

use super::body::Found;
use super::machine::Machine;
use super::place::Target;
use super::{Kind, Life, error, life, parts, refusal, request, utc};
use crate::cli::{self, Invocation};
use crate::cloud::Order;

fn order(options: &[&str], lifetime: Option<Duration>) -> Order {
    let argv = ["cml", "runner", "--cloud=gcp"]
        .iter()
        .chain(options)
        .map(|word| (*word).to_owned());
    let Invocation::Launch(parsed) = cli::parse(&argv.collect::<Vec<_>>(), &BTreeMap::new()).unwrap() else {
        panic!("not a launch");
    };
    let tags = [
        ("cml", "0.1.0"),
        ("Name", "Trainer"),
        ("cml-launch-id", "cml-AbCdEfGhIjKlMnOpQrSt"),
        ("cml-repo", "https://github.com/octo/train"),
        ("team", "ml"),
    ];
    Order {
        launch_id: "cml-AbCdEfGhIjKlMnOpQrSt".into(),
        name: "Trainer".into(),
        options: parsed.options.cloud,
        startup_data: "#!/bin/sh\necho secret\n".into(),
        tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        lifetime,
    }
}

fn target(native: &str) -> Target {
    Target {
        machine: Machine::read(native).unwrap(),
        zone: "us-west1-b".into(),
        image: "https://www.googleapis.com/compute/v1/projects/ubuntu-os-cloud/global/images/ubuntu-2404-noble-amd64-v20261001".into(),
        image_gb: 50,
    }
}

/// Each is checked against Google's own schema by tests/contract/gcp, too.
#[test]
fn the_request_is_all_of_the_machine() {
    let plain = request::insert(&order(&[], None), &target("e2-standard-8"), "trainer", 0);
    insta::assert_json_snapshot!("plain", plain.unwrap());
    let options = [
        "--cloud-spot",
        "--cloud-metadata=team=ml",
        "--cloud-hdd-size=100",
        "--cloud-permission-set=ci@p.iam.gserviceaccount.com,scopes=storage-rw,compute-rw",
        "--cloud-gcp-network=projects/host/regions/us-west1/subnetworks/ci,no-external-ip",
    ];
    let order = order(&options, Some(Duration::from_hours(2)));
    let gpus = request::insert(&order, &target("custom-8-53248+nvidia-tesla-t4*2"), "trainer", 3);
    insta::assert_json_snapshot!("spot_gpus", gpus.unwrap());
    let own = request::insert(&order, &target("g2-standard-8"), "trainer", 0).unwrap();
    assert!(own.guest_accelerators.is_empty(), "it has its own");
    assert!(!format!("{own:?}").contains("secret"));
}

#[test]
fn a_machine_lives_no_longer_than_google_takes_and_no_shorter() {
    let life = |lifetime| request::life(&order(&[], lifetime)).as_secs();
    assert_eq!(life(None), 35 * 24 * 3600);
    assert_eq!(life(Some(Duration::from_secs(1))), 30);
    assert_eq!(life(Some(Duration::from_hours(24_000))), 120 * 24 * 3600);
}

#[test]
fn what_is_found_is_what_was_made() {
    for (status, expected) in [
        ("PROVISIONING", Life::Live),
        ("STAGING", Life::Live),
        ("RUNNING", Life::Live),
        ("REPAIRING", Life::Live),
        ("STOPPING", Life::Stopped),
        ("TERMINATED", Life::Stopped),
        ("SUSPENDED", Life::Stopped),
        ("DEPROVISIONING", Life::Gone),
    ] {
        assert_eq!(life(status), expected, "{status}");
    }
    assert_eq!(utc("2026-03-04T05:06:07.123-08:00"), "2026-03-04T13:06:07Z");
    assert_eq!(utc("soon"), "soon");
    assert_eq!(parts("us-west1-b/vm").unwrap(), ("us-west1-b", "vm"));
    assert!(parts("vm").is_err());
    // All of it may be missing.
    assert!(serde_json::from_str::<Found>("{}").is_ok());
}

#[test]
fn a_refusal_says_what_to_do() {
    let said = |status, code: &str, message: &str| {
        let refused = error::Refused {
            status,
            code: code.into(),
            message: message.into(),
        };
        let error = refusal::of("instances.insert", error::Error::Refused(refused));
        (Report(&error).class(), Report(&error).to_string())
    };
    let cases = [
        (
            Some(403),
            "forbidden",
            "Required 'compute.subnetworks.useExternalIp' permission for 'projects/p/x'",
        ),
        (
            Some(403),
            "accessNotConfigured",
            "Compute Engine API has not been used in project 1 before or it is disabled.",
        ),
        (
            Some(403),
            "forbidden",
            "The user does not have access to service account 'ci@p'. Ask a project owner to grant iam.serviceAccountUser",
        ),
        (Some(401), "authError", "Invalid Credentials"),
        (None, "QUOTA_EXCEEDED", "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally."),
        (
            Some(412),
            "conditionNotMet",
            "Constraint constraints/compute.vmExternalIpAccess violated for project p.",
        ),
        (
            Some(400),
            "invalid",
            "Invalid value for field 'resource.networkInterfaces[0].network': 'global/networks/default'. The referenced network resource cannot be found.",
        ),
        (Some(404), "notFound", "Failed to find project q"),
        (
            None,
            "INTERNAL_ERROR",
            "Internal error. Please try again or contact Google Support.",
        ),
    ];
    let said: Vec<(Class, String)> = cases.iter().map(|(status, code, message)| said(*status, code, message)).collect();
    let classes: Vec<i32> = said.iter().map(|(class, _)| class.exit_code()).collect();
    assert_eq!(classes, [3, 3, 3, 3, 4, 2, 2, 2, 1]);
    insta::assert_snapshot!("refusals", said.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n\n"));
}

#[test]
fn the_error_of_an_operation_that_says_most_counts() {
    let operation = r#"{"name": "o", "status": "DONE", "httpErrorStatusCode": 503, "error": {"errors": [
        {"code": "SOMETHING", "message": "x"}, {"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "y"}]}}"#;
    let error = error::Error::of_operation(&serde_json::from_str(operation).unwrap()).unwrap();
    assert_eq!(error.kind(), Kind::Capacity);
    let done = r#"{"name": "o", "status": "DONE"}"#;
    assert!(error::Error::of_operation(&serde_json::from_str(done).unwrap()).is_none());
    let wordless = r#"{"name": "o", "status": "DONE", "httpErrorStatusCode": 500, "error": {}}"#;
    let error = error::Error::of_operation(&serde_json::from_str(wordless).unwrap()).unwrap();
    assert_eq!(error.kind(), Kind::Other);
}
