//! Virtual machines: made, read, deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answers::{Answer, Refusal};
use super::front::Call;
use super::groups::{missing, open};
use super::metadata::{self, Metadata};
use super::{Azure, Group, Machine, SUBSCRIPTION, When, check, identities, lock, operations, roles};
use crate::fleet::{Launch, Off, Ready, State};
use crate::instance::user_data;

/// A guest that powers off leaves its machine behind, and the bill.
const OFF: Off = Off {
    reason: "its guest shut it down",
    stays: true,
};

fn no_machine(name: &str) -> Refusal {
    let words = format!("The Resource 'Microsoft.Compute/virtualMachines/{name}' was not found.");
    Refusal(404, "ResourceNotFound", words)
}

pub fn put(call: &Call) -> Result<Answer, Refusal> {
    let name = call.parts[5];
    check::machine(&call.body, name)?;
    let mut guard = lock(&call.azure.0.state);
    let state = &mut *guard;
    identities::check_known(state, &call.body)?;
    let group = open(&mut state.groups, call.parts[1])?;
    let subnet = &call.body["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]["properties"]["ipConfigurations"][0]["properties"]
        ["subnet"]["id"];
    let network = group.network.as_ref().and_then(|network| network["id"].as_str()).unwrap_or("none");
    if !subnet.as_str().is_some_and(|id| {
        id.to_ascii_lowercase()
            .starts_with(&format!("{}/subnets/", network.to_ascii_lowercase()))
    }) {
        return Err(Refusal(
            400,
            "InvalidResourceReference",
            "The subnet that is referenced by the interface was not found.".into(),
        ));
    }
    let size = call.body["properties"]["hardwareProfile"]["vmSize"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if let Some(machine) = &group.machine {
        // The same again is no change.
        if machine.body["properties"]["hardwareProfile"]["vmSize"] != json!(size) {
            return Err(Refusal(
                409,
                "PropertyChangeNotAllowed",
                "Changing property 'vmSize' is not allowed.".into(),
            ));
        }
        let body = view(call.azure, name, machine);
        let headers = operations::begin(call.azure, state, None);
        return Ok(Answer(200, headers, body));
    }
    let failure = match state.full.get(&size) {
        Some(When::AtOnce) => {
            let words = format!(
                "The requested VM size '{size}' is currently not available in location '{}'.",
                group.location
            );
            return Err(Refusal(409, "SkuNotAvailable", words));
        }
        Some(When::Later) => Some("AllocationFailed"),
        None => None,
    };
    let machine = Machine {
        created: SystemTime::now(),
        metadata: Metadata::new(&group.name, name, &call.body),
        body: call.body.clone(),
    };
    let answer = view(call.azure, name, &machine);
    let launch = launch(call.azure, &group.name, &machine, &size, &group.location);
    group.machine = Some(machine);
    let headers = operations::begin(call.azure, state, failure);
    drop(guard);
    if failure.is_none() {
        call.azure.0.fleet.launch(launch);
    }
    Ok(Answer(201, headers, answer))
}

/// A group with a machine that no request asked for.
pub fn foreign(azure: &Azure, name: &str) {
    let (location, size) = ("westus2", "Standard_B2s");
    let body = json!({ "location": location, "properties": { "hardwareProfile": { "vmSize": size } } });
    let machine = Machine {
        created: SystemTime::now(),
        metadata: Metadata::new(name, name, &body),
        body,
    };
    azure.0.fleet.launch(launch(azure, name, &machine, size, location));
    let group = Group {
        name: name.to_owned(),
        location: location.to_owned(),
        tags: BTreeMap::new(),
        deleting: None,
        network: None,
        machine: Some(machine),
        contributors: BTreeSet::new(),
        identities: BTreeMap::new(),
    };
    lock(&azure.0.state).groups.insert(name.to_owned(), group);
}

fn launch(azure: &Azure, group: &str, machine: &Machine, size: &str, location: &str) -> Launch {
    let tags: BTreeMap<String, String> = serde_json::from_value(machine.body["tags"].clone()).unwrap_or_default();
    let data = machine.body["properties"]["osProfile"]["customData"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let (metadata, manager, events) = (machine.metadata.clone(), azure.url(), azure.0.events.clone());
    let zone = machine.body["zones"][0]
        .as_str()
        .map_or_else(|| location.to_owned(), |zone| format!("{location}-{zone}"));
    Launch {
        id: group.to_owned(),
        name: tags.get("Name").cloned().unwrap_or_default(),
        kind: size.to_owned(),
        zone,
        spot: machine.body["properties"]["priority"] == "Spot",
        tags,
        boot: Box::pin(async move {
            let service = metadata::serve(metadata, events).await?;
            Ok(Ready {
                script: user_data(&data)?,
                env: vec![
                    ("AZURE_POD_IDENTITY_AUTHORITY_HOST", service.url()),
                    ("AZURE_RESOURCE_MANAGER_ENDPOINT", manager),
                ],
                metadata: Some(service.address()),
                keep: Box::new(service),
            })
        }),
        off: OFF,
    }
}

/// What Azure tells of a machine: not its start-up data.
fn view(azure: &Azure, name: &str, machine: &Machine) -> Value {
    let mut body = machine.body.clone();
    if let Some(profile) = body["properties"]["osProfile"].as_object_mut() {
        profile.remove("customData");
    }
    body["name"] = json!(name);
    body["id"] = json!(format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}/providers/Microsoft.Compute/virtualMachines/{name}"
    ));
    let created = Timestamp::try_from(machine.created).map(|at| at.to_string()).unwrap_or_default();
    body["properties"]["timeCreated"] = json!(created);
    let state = azure.0.fleet.instance(name).map(|instance| instance.state);
    let (made, power) = match state {
        None => ("Creating", None),
        Some(State::Pending) => ("Creating", Some("starting")),
        Some(State::Running) => ("Succeeded", Some("running")),
        Some(State::Ending | State::Ended) => ("Deleting", None),
        Some(State::Stopped) => ("Succeeded", Some("stopped")),
    };
    body["properties"]["provisioningState"] = json!(made);
    let power = power.map(|power| json!({ "code": format!("PowerState/{power}"), "level": "Info" }));
    let statuses: Vec<Value> = std::iter::once(json!({ "code": "ProvisioningState/succeeded", "level": "Info" }))
        .chain(power)
        .collect();
    body["properties"]["instanceView"] = json!({ "statuses": statuses });
    body
}

pub fn get(call: &Call) -> Result<Answer, Refusal> {
    let name = call.parts[5];
    let state = lock(&call.azure.0.state);
    let group = state
        .groups
        .get(&call.parts[1].to_ascii_lowercase())
        .ok_or_else(|| missing(call.parts[1]))?;
    let machine = group.machine.as_ref().ok_or_else(|| no_machine(name))?;
    // An evicted one leaves nothing but its group.
    if call
        .azure
        .0
        .fleet
        .instance(&group.name)
        .is_some_and(|instance| instance.state == State::Ended)
    {
        return Err(no_machine(name));
    }
    let mut body = view(call.azure, name, machine);
    if call.parameter("$expand") != Some("instanceView")
        && let Some(properties) = body["properties"].as_object_mut()
    {
        properties.remove("instanceView");
    }
    Ok(Answer::ok(body))
}

pub fn delete(call: &Call) -> Result<Answer, Refusal> {
    let mut state = lock(&call.azure.0.state);
    let name = call.parts[1].to_ascii_lowercase();
    roles::check(&mut state, &call.who, &name)?;
    let group = open(&mut state.groups, call.parts[1])?;
    if group.machine.take().is_none() {
        return Ok(Answer(204, Vec::new(), Value::Null));
    }
    let name = group.name.clone();
    let headers = operations::begin(call.azure, &mut state, None);
    drop(state);
    call.azure.0.fleet.end(&name, "it was deleted");
    Ok(Answer(202, headers, Value::Null))
}

pub fn console(call: &Call) -> Result<Answer, Refusal> {
    let state = lock(&call.azure.0.state);
    let group = state
        .groups
        .get(&call.parts[1].to_ascii_lowercase())
        .ok_or_else(|| missing(call.parts[1]))?;
    if group.machine.is_none() || call.azure.0.fleet.instance(&group.name).is_none() {
        return Err(no_machine(call.parts[1]));
    }
    let link = format!("{}/console/{}?sig=sas-canary", call.azure.url(), group.name);
    Ok(Answer::ok(json!({ "serialConsoleLogBlobUri": link })))
}

/// The blob: whoever has the link may read.
pub fn log(azure: &Azure, path: &str) -> Vec<u8> {
    azure.0.fleet.console(path.rsplit('/').next().unwrap_or_default())
}
