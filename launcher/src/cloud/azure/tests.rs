#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use clap::Parser as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::body::{self, Identity};
use super::place::{Parts, check_tags};
use super::view::{Group, Machine};
use super::{attempts, identity};
use crate::cloud::{Life, Order};
use crate::options::{Cli, Command};

const IDENTITY: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/ender";
const SUBNET: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/runner/subnets/runner";

fn order(more: &[&str]) -> Order {
    let args = ["cml", "runner", "--cloud=azure"].into_iter().chain(more.iter().copied());
    let Command::Runner(command) = Cli::try_parse_from(args).unwrap().command;
    Order {
        launch_id: "cml-AbCdEfGhIjKlMnOpQrSt".into(),
        name: "cml-1".into(),
        options: command.launch.cloud,
        startup_data: "#!/bin/sh\n".into(),
        tags: BTreeMap::from([("cml".to_owned(), "0.1.0".to_owned()), ("Name".to_owned(), "cml-1".to_owned())]),
        lifetime: None,
    }
}

/// The bodies, without what is new each time.
fn bodies(more: &[&str]) -> Vec<Value> {
    let order = order(more);
    let mut parts = Parts::of(&order).unwrap();
    parts.public_key = "ssh-ed25519 AAAA cml".into();
    parts.custom_data = "IyEvYmluL3No".into();
    let identities = match identity(&order).unwrap() {
        Identity::Own => vec![IDENTITY.replace("ender", "runner")],
        Identity::Given(ids) => ids,
    };
    let attempts = attempts(&order, &parts, &identities, SUBNET);
    attempts.into_iter().map(|(_, body)| body).collect()
}

#[test]
fn the_bodies_are_these() {
    let tags = order(&[]).tags;
    let plain = [
        json!(body::Group {
            location: "westus2",
            tags: &tags
        }),
        json!(body::Network::new("westus2", &tags)),
        body::assignment("/subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/r", "principal"),
    ];
    insta::assert_json_snapshot!("group_network_and_role", plain);
    insta::assert_json_snapshot!("machines", bodies(&[]));
    let spot = [
        "--cloud-spot",
        "--cloud-spot-price=0.25",
        "--cloud-region=eastus-2",
        "--cloud-type=m+t4",
    ];
    insta::assert_json_snapshot!("spot_machine", bodies(&spot));
    let given = format!("--cloud-permission-set={IDENTITY}");
    let own = ["--cloud-type=Standard_D2ps_v5", "--cloud-hdd-size=100", &given];
    insta::assert_json_snapshot!("given_identity", bodies(&own));
}

#[test]
fn no_cap_is_minus_one() {
    for price in ["-1", "-7.5"] {
        let body = &bodies(&["--cloud-spot", "--cloud-type=s", &format!("--cloud-spot-price={price}")])[0];
        assert_eq!(body["properties"]["billingProfile"]["maxPrice"], -1.0, "{price}");
    }
}

#[test]
fn identities_are_resource_ids() {
    let given = |text: &str| identity(&order(&[&format!("--cloud-permission-set={text}")]));
    assert_eq!(
        given(&format!("{IDENTITY}, {IDENTITY}2")).unwrap(),
        Identity::Given(vec![IDENTITY.into(), format!("{IDENTITY}2")])
    );
    assert_eq!(identity(&order(&[])).unwrap(), Identity::Own);
    for text in [
        "",
        ",",
        "arn:aws:iam::1:instance-profile/x",
        "ender",
        &format!("{IDENTITY}/"),
        &IDENTITY.replace("/ender", "/"),
    ] {
        assert!(given(text).is_err(), "{text}");
    }
}

#[test]
fn tags_that_azure_refuses_are_refused_before() {
    let check = |pair: &str| check_tags(&order(&[&format!("--cloud-metadata={pair}")]).options);
    for good in ["team=ml", "cost centre=4 2", "Name=own", "url=https://x/?a&b"] {
        check(good).unwrap();
    }
    for bad in [
        "a/b=1",
        "a?=1",
        "microsoftish=1",
        "AzureX=1",
        "name=1",
        "CML-run=1",
        &format!("a={}", "x".repeat(257)),
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
}

fn group(name: &str, state: &str, tags: &Value) -> Group {
    serde_json::from_value(json!({ "name": name, "location": "westus2", "tags": tags, "properties": { "provisioningState": state } }))
        .unwrap()
}

fn machine(made: &str, power: Option<&str>) -> Machine {
    let power = power.map(|power| json!({ "code": format!("PowerState/{power}") }));
    let statuses: Vec<Value> = [Some(json!({ "code": "ProvisioningState/succeeded" })), power]
        .into_iter()
        .flatten()
        .collect();
    let properties = json!({ "provisioningState": made, "hardwareProfile": { "vmSize": "S" }, "instanceView": { "statuses": statuses } });
    serde_json::from_value(json!({ "properties": properties })).unwrap()
}

#[test]
fn what_still_costs_money_is_not_gone() {
    let (before, after): (Timestamp, Timestamp) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-02T00:00:00Z".parse().unwrap());
    let tags = json!({ "cml-launch-id": "cml-A", "cml-deadline": "2026-01-01T12:00:00Z" });
    let life = |state: &str, machine: Option<&Machine>, now| group("cml-a", state, &tags).instance(machine, None, now).life;
    for (power, expected) in [
        (Some("starting"), Life::Live),
        (Some("running"), Life::Live),
        (None, Life::Live),
        (Some("stopping"), Life::Off),
        (Some("stopped"), Life::Off),
        (Some("deallocated"), Life::Stopped),
    ] {
        assert_eq!(life("Succeeded", Some(&machine("Succeeded", power)), after), expected, "{power:?}");
    }
    assert_eq!(life("Succeeded", Some(&machine("Deleting", None)), after), Life::Stopped);
    assert_eq!(life("Deleting", None, after), Life::Gone);
    assert_eq!(life("Succeeded", None, before), Life::Live, "its machine may be coming");
    assert_eq!(
        life("Succeeded", None, after),
        Life::Stopped,
        "it was evicted, and its group is left"
    );
}

#[test]
fn what_a_machine_left_to_be_done_is_read_from_its_group() {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let tags =
        json!({ "cml-launch-id": "cml-A", "cml-deadline": "2026-01-01T12:00:00Z", "cml-pending-0": "{\"job\"", "cml-pending-1": ":1}" });
    let left = group("cml-a", "Succeeded", &tags);
    assert_eq!(
        left.last_words().unwrap(),
        "cml-phase name=rerun state=fail after=0 detail={\"job\":1}\n"
    );
    assert_eq!(left.instance(None, None, now).life, Life::Stopped, "its machine does not come");
}

#[test]
fn only_a_group_that_a_launch_made_is_ours() {
    assert!(group("cml-a", "Succeeded", &json!({ "cml": "1", "cml-launch-id": "cml-A" })).is_ours());
    for (name, tags) in [
        ("production", json!({ "cml": "1", "cml-launch-id": "cml-A" })),
        ("cml-a", json!({ "cml": "1" })),
    ] {
        assert!(!group(name, "Succeeded", &tags).is_ours(), "{name}");
    }
}
