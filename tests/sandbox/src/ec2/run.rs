//! Instances: launched, described, terminated, read.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::answers::{self, Refusal, group, items, text};
use super::check::{self, refuse};
use super::{Ec2, Form, Launched, lock, names};
use crate::faults::matches;
use crate::fleet::{Launch, Off, Ready, State};
use crate::imds::{self, Metadata};
use crate::instance::user_data;

/// EC2 gives the last part of the console only.
const CONSOLE: usize = 64 << 10;

/// Where a machine is that no request asked for.
const ZONE: &str = "us-west-1a";

/// `NAME.1`, `NAME.2`, …
pub fn list(form: &Form, name: &str) -> Vec<String> {
    (1..).map_while(|number| form.get(&format!("{name}.{number}")).cloned()).collect()
}

/// `Filter.N.Name` and its values.
pub fn filters(form: &Form) -> BTreeMap<String, Vec<String>> {
    let one = |number: usize| {
        let name = form.get(&format!("Filter.{number}.Name"))?.clone();
        Some((name, list(form, &format!("Filter.{number}.Value"))))
    };
    (1..).map_while(one).collect()
}

/// The tags that a launch gives to a kind of resource.
pub fn tags(form: &Form, kind: &str) -> BTreeMap<String, String> {
    let specification = (1..).take_while(|number| form.contains_key(&format!("TagSpecification.{number}.ResourceType")));
    let mut found = BTreeMap::new();
    for number in specification.filter(|number| form[&format!("TagSpecification.{number}.ResourceType")] == kind) {
        let tag = |tag: usize| {
            let part = |part: &str| form.get(&format!("TagSpecification.{number}.Tag.{tag}.{part}")).cloned();
            Some((part("Key")?, part("Value").unwrap_or_default()))
        };
        found.extend((1..).map_while(tag));
    }
    found
}

pub fn is_spot(form: &Form) -> bool {
    form.get("InstanceMarketOptions.MarketType").is_some_and(|kind| kind == "spot")
}

pub fn run(ec2: &Ec2, form: &Form, region: &str) -> Result<String, Refusal> {
    let zone = check::launch(form, region)?;
    let token = form.get("ClientToken").filter(|token| !token.is_empty());
    let mut launches = lock(&ec2.0.launches);
    if let Some(known) = launches
        .iter()
        .find(|launched| token.is_some() && launched.form.get("ClientToken") == token)
    {
        if known.form != *form {
            return refuse(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            );
        }
        return Ok(reservation(ec2, known));
    }
    check::capacity(&lock(&ec2.0.full), form, &zone)?;
    Ok(reservation(ec2, &add(ec2, &mut launches, form.clone(), zone)))
}

/// A machine that no request asked for: tagged as the tool did that came before.
pub fn foreign(ec2: &Ec2, name: &str) {
    let form = [
        ("InstanceType", "t3.small"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.1.Tag.1.Key", "Name"),
        ("TagSpecification.1.Tag.1.Value", name),
        ("TagSpecification.1.Tag.2.Key", "Id"),
        ("TagSpecification.1.Tag.2.Value", name),
    ];
    add(
        ec2,
        &mut lock(&ec2.0.launches),
        form.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ZONE.to_owned(),
    );
}

fn add(ec2: &Ec2, launches: &mut Vec<Launched>, form: Form, zone: String) -> Launched {
    let id = format!("i-{:017x}", 0x0e00 + launches.len() + 1);
    let new = Launched {
        metadata: Metadata::new(&id, &zone, &form),
        id,
        form,
        zone,
    };
    ec2.0.fleet.launch(launch(&new));
    launches.push(new.clone());
    new
}

/// What a launch means for the instance.
fn launch(launched: &Launched) -> Launch {
    let Launched { id, form, zone, metadata } = launched.clone();
    let stays = form
        .get("InstanceInitiatedShutdownBehavior")
        .is_none_or(|behaviour| behaviour != "terminate")
        && !is_spot(&form);
    let tags = tags(&form, "instance");
    Launch {
        id,
        name: tags.get("Name").cloned().unwrap_or_default(),
        kind: form.get("InstanceType").cloned().unwrap_or_default(),
        zone,
        spot: is_spot(&form),
        tags,
        off: Off {
            reason: "Client.InstanceInitiatedShutdown",
            stays,
        },
        boot: Box::pin(async move {
            let service = imds::serve(metadata).await?;
            Ok(Ready {
                script: user_data(form.get("UserData").map(String::as_str).unwrap_or_default())?,
                env: vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url())],
                metadata: Some(service.address()),
                keep: Box::new(service),
            })
        }),
    }
}

fn reservation(ec2: &Ec2, launched: &Launched) -> String {
    text("reservationId", &launched.id.replacen('i', "r", 1))
        + &text("ownerId", "123456789012")
        + "<groupSet/>"
        + &items("instancesSet", [describe_one(ec2, launched)])
}

fn describe_one(ec2: &Ec2, launched: &Launched) -> String {
    let Some(instance) = ec2.0.fleet.instance(&launched.id) else {
        return String::new();
    };
    let get = |name: &str| launched.form.get(name).map(String::as_str).unwrap_or_default();
    let state = |name: &str, state: State| {
        let (code, word) = names(state);
        group(name, &(text("code", &code.to_string()) + &text("name", word)))
    };
    let time = Timestamp::try_from(instance.launched)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default();
    let mut out = [
        text("instanceId", &instance.id),
        text("imageId", get("ImageId")),
        state("instanceState", instance.state),
        text("instanceType", get("InstanceType")),
        text("launchTime", &time),
        group(
            "placement",
            &(text("availabilityZone", &instance.zone) + &text("tenancy", "default")),
        ),
        text("privateIpAddress", "172.31.0.10"),
        text("clientToken", get("ClientToken")),
        answers::tags(&instance.tags),
    ]
    .concat();
    if instance.state == State::Running {
        out += &text("ipAddress", "192.0.2.10");
    }
    if instance.spot {
        out += &text("instanceLifecycle", "spot");
    }
    if !instance.reason.is_empty() {
        out += &text("reason", &instance.reason);
        out += &group(
            "stateReason",
            &(text("code", &instance.reason) + &text("message", &instance.reason)),
        );
    }
    out
}

pub fn describe(ec2: &Ec2, form: &Form) -> Result<String, Refusal> {
    let ids = list(form, "InstanceId");
    let launches = lock(&ec2.0.launches);
    if let Some(unknown) = ids.iter().find(|id| !launches.iter().any(|launched| launched.id == **id)) {
        return refuse("InvalidInstanceID.NotFound", format!("The instance ID '{unknown}' does not exist"));
    }
    let filters = filters(form);
    let wanted = |launched: &&Launched| {
        let tags = tags(&launched.form, "instance");
        let state = ec2.0.fleet.instance(&launched.id).map(|instance| names(instance.state).1);
        let value = |name: &str| match name.strip_prefix("tag:") {
            Some(key) => tags.get(key).cloned(),
            None if name == "instance-state-name" => state.map(str::to_owned),
            None if name == "client-token" => launched.form.get("ClientToken").cloned(),
            None => None,
        };
        (ids.is_empty() || ids.contains(&launched.id))
            && filters
                .iter()
                .all(|(name, allowed)| value(name).is_some_and(|value| allowed.iter().any(|pattern| matches(pattern, &value))))
    };
    let found = launches.iter().filter(wanted);
    Ok(items("reservationSet", found.map(|launched| reservation(ec2, launched))))
}

pub fn terminate(ec2: &Ec2, form: &Form) -> Result<String, Refusal> {
    let mut changes = Vec::new();
    for id in list(form, "InstanceId") {
        let Some((before, after)) = ec2.0.fleet.end(&id, "Client.UserInitiatedShutdown") else {
            return refuse("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"));
        };
        let state = |name: &str, state: State| group(name, &(text("code", &names(state).0.to_string()) + &text("name", names(state).1)));
        changes.push(text("instanceId", &id) + &state("currentState", after) + &state("previousState", before));
    }
    Ok(items("instancesSet", changes))
}

pub fn console(ec2: &Ec2, form: &Form) -> Result<String, Refusal> {
    let id = form.get("InstanceId").cloned().unwrap_or_default();
    if ec2.launched(&id).is_none() {
        return refuse("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"));
    }
    let bytes = ec2.0.fleet.console(&id);
    let tail = &bytes[bytes.len().saturating_sub(CONSOLE)..];
    let now = format!("{:.3}", Timestamp::now());
    Ok(text("instanceId", &id) + &text("timestamp", &now) + &text("output", &STANDARD.encode(tail)))
}
