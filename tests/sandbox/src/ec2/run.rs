//! Instances: launched, described, terminated, read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::answers::{self, Refusal, group, items, text};
use super::check::{self, refuse};
use super::{Ec2, Form, Instance, State, lock, machine};
use crate::events::Source;
use crate::faults::matches;
use crate::imds::Metadata;
use crate::instance;

/// EC2 gives the last part of the console only.
const CONSOLE: usize = 64 << 10;

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
    let mut instances = lock(&ec2.0.instances);
    if let Some(known) = instances
        .iter()
        .find(|instance| token.is_some() && instance.form.get("ClientToken") == token)
    {
        if known.form != *form {
            return refuse(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            );
        }
        return Ok(reservation(known));
    }
    check::capacity(&lock(&ec2.0.full), form, &zone)?;
    let id = format!("i-{:017x}", 0x0e00 + instances.len() + 1);
    let name = tags(form, "instance").get("Name").cloned().unwrap_or_default();
    let instance = Instance {
        metadata: Metadata::new(&id, &zone, form),
        id: id.clone(),
        state: State::Pending,
        reason: String::new(),
        form: form.clone(),
        zone,
        launched: SystemTime::now(),
        end: Arc::new(Notify::new()),
    };
    let answer = reservation(&instance);
    let market = if is_spot(form) { "spot" } else { "on-demand" };
    let detail = format!("{} {} in {} ({market})", name, form["InstanceType"], instance.zone);
    instances.push(instance);
    drop(instances);
    ec2.0.events.push(Source::Cloud, "instance-launched", &id, detail);
    machine::start(ec2, &id);
    Ok(answer)
}

fn reservation(instance: &Instance) -> String {
    text("reservationId", &instance.id.replacen('i', "r", 1))
        + &text("ownerId", "123456789012")
        + "<groupSet/>"
        + &items("instancesSet", [describe_one(instance)])
}

fn describe_one(instance: &Instance) -> String {
    let get = |name: &str| instance.form.get(name).map(String::as_str).unwrap_or_default();
    let state = |name: &str, state: State| {
        let (code, word) = state.names();
        group(name, &(text("code", &code.to_string()) + &text("name", word)))
    };
    let launched = Timestamp::try_from(instance.launched)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default();
    let mut out = [
        text("instanceId", &instance.id),
        text("imageId", get("ImageId")),
        state("instanceState", instance.state),
        text("instanceType", get("InstanceType")),
        text("launchTime", &launched),
        group(
            "placement",
            &(text("availabilityZone", &instance.zone) + &text("tenancy", "default")),
        ),
        text("privateIpAddress", "172.31.0.10"),
        text("clientToken", get("ClientToken")),
        answers::tags(&tags(&instance.form, "instance")),
    ]
    .concat();
    if instance.state == State::Running {
        out += &text("ipAddress", "192.0.2.10");
    }
    if is_spot(&instance.form) {
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
    let instances = lock(&ec2.0.instances);
    if let Some(unknown) = ids.iter().find(|id| !instances.iter().any(|instance| instance.id == **id)) {
        return refuse("InvalidInstanceID.NotFound", format!("The instance ID '{unknown}' does not exist"));
    }
    let filters = filters(form);
    let wanted = |instance: &&Instance| {
        let tags = tags(&instance.form, "instance");
        let value = |name: &str| match name.strip_prefix("tag:") {
            Some(key) => tags.get(key).cloned(),
            None if name == "instance-state-name" => Some(instance.state.names().1.to_owned()),
            None if name == "client-token" => instance.form.get("ClientToken").cloned(),
            None => None,
        };
        (ids.is_empty() || ids.contains(&instance.id))
            && filters
                .iter()
                .all(|(name, allowed)| value(name).is_some_and(|value| allowed.iter().any(|pattern| matches(pattern, &value))))
    };
    Ok(items("reservationSet", instances.iter().filter(wanted).map(reservation)))
}

pub fn terminate(ec2: &Ec2, form: &Form) -> Result<String, Refusal> {
    let mut changes = Vec::new();
    for id in list(form, "InstanceId") {
        let Some((before, after)) = ec2.terminate(&id, "Client.UserInitiatedShutdown") else {
            return refuse("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"));
        };
        let state = |name: &str, state: State| group(name, &(text("code", &state.names().0.to_string()) + &text("name", state.names().1)));
        changes.push(text("instanceId", &id) + &state("currentState", after) + &state("previousState", before));
    }
    Ok(items("instancesSet", changes))
}

pub fn console(ec2: &Ec2, form: &Form) -> Result<String, Refusal> {
    let id = form.get("InstanceId").cloned().unwrap_or_default();
    if ec2.with(&id, |_| ()).is_none() {
        return refuse("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"));
    }
    let bytes = std::fs::read(ec2.machine_dir(&id).join(instance::CONSOLE)).unwrap_or_default();
    let tail = &bytes[bytes.len().saturating_sub(CONSOLE)..];
    let now = format!("{:.3}", Timestamp::now());
    Ok(text("instanceId", &id) + &text("timestamp", &now) + &text("output", &STANDARD.encode(tail)))
}
