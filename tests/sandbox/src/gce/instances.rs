//! Instances: inserted, told of, deleted, read.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde_json::{Value, json};

use super::answers::{Refusal, missing};
use super::front::MACHINE_TOKEN;
use super::metadata::{self, Metadata};
use super::{Gce, Machine, PROJECT, check, lock, offers, operations};
use crate::fleet::{Launch, Off, Ready, State};

/// The console's last megabyte.
const CONSOLE: usize = 1 << 20;
/// The first id of an instance.
const FIRST: u64 = 4_600_000_000_000_000_001;
const CALIFORNIA: Offset = Offset::constant(-8);
/// Where every machine is reached from outside, and from inside.
const ADDRESSES: (&str, &str) = ("192.0.2.10", "10.138.0.10");

/// Where a machine is that no request asked for.
const ZONE: &str = "us-west1-b";

/// The last part of an address.
fn last(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

fn text<'a>(body: &'a Value, path: &str) -> &'a str {
    body.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn is_spot(body: &Value) -> bool {
    text(body, "/scheduling/provisioningModel") == "SPOT"
}

/// The metadata items of an instance.
fn items(body: &Value) -> BTreeMap<String, String> {
    let items = body.pointer("/metadata/items").and_then(Value::as_array);
    let item = |item: &Value| Some((item["key"].as_str()?.to_owned(), item["value"].as_str()?.to_owned()));
    items.into_iter().flatten().filter_map(item).collect()
}

pub fn insert(gce: &Gce, zone: &str, request: &str, body: &Value) -> Result<Value, Refusal> {
    check::insert(zone, body, &gce.url())?;
    check::request_id(request)?;
    let name = text(body, "/name");
    if let Some(known) = operations::of_request(gce, request, name) {
        return known;
    }
    if gce.machine(zone, name).is_some() {
        let message = format!("The resource 'projects/{PROJECT}/zones/{zone}/instances/{name}' already exists");
        return Err(Refusal(409, "alreadyExists", message));
    }
    let code = failure(gce, zone, last(text(body, "/machineType")));
    if code.is_none() {
        launch(gce, zone, body);
    }
    Ok(operations::begin(gce, "insert", zone, name, Some(request), code))
}

/// What the operation will end with.
fn failure(gce: &Gce, zone: &str, machine: &str) -> Option<String> {
    let full = lock(&gce.0.full);
    if full.contains(zone) || full.contains(machine) {
        return Some("ZONE_RESOURCE_POOL_EXHAUSTED".into());
    }
    let mut failing = lock(&gce.0.failing);
    let (code, times) = failing.iter_mut().find(|(_, times)| *times > 0)?;
    *times -= 1;
    Some(code.clone())
}

/// A machine that no request asked for.
pub fn foreign(gce: &Gce, name: &str) {
    let machine = format!("zones/{ZONE}/machineTypes/e2-small");
    let body = json!({"name": name, "machineType": machine, "labels": {}, "metadata": {"items": []}, "scheduling": {}});
    launch(gce, ZONE, &body);
}

fn launch(gce: &Gce, zone: &str, body: &Value) {
    let mut machines = lock(&gce.0.machines);
    let id = (FIRST + machines.len() as u64).to_string();
    let machine = Machine {
        metadata: Metadata::new(values(&id, zone, body)),
        id: id.clone(),
        name: text(body, "/name").to_owned(),
        zone: zone.to_owned(),
        body: body.clone(),
    };
    let items = items(body);
    let (metadata, url) = (machine.metadata.clone(), gce.url());
    gce.0.fleet.launch(Launch {
        id: id.clone(),
        name: machine.name.clone(),
        kind: last(text(body, "/machineType")).to_owned(),
        zone: zone.to_owned(),
        spot: is_spot(body),
        tags: items
            .iter()
            .filter(|(key, _)| *key != "startup-script")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        // Whoever powers off a machine from inside only stops it.
        off: Off {
            reason: "the guest powered off",
            stays: true,
        },
        boot: Box::pin(async move {
            let service = metadata::serve(metadata).await?;
            Ok(Ready {
                script: items.get("startup-script").cloned().unwrap_or_default(),
                env: vec![
                    ("GCE_METADATA_HOST", service.host()),
                    ("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", url),
                ],
                metadata: Some(service.address()),
                keep: Box::new(service),
            })
        }),
    });
    let life = text(body, "/scheduling/maxRunDuration/seconds").parse().map(Duration::from_secs);
    if let Ok(life) = life {
        let fleet = gce.0.fleet.clone();
        lock(&gce.0.tasks).spawn(async move {
            tokio::time::sleep(life).await;
            // Stopping clears the time of the end.
            if fleet.instance(&id).is_some_and(|instance| instance.state != State::Stopped) {
                fleet.end(&id, "the maximum run duration is over");
            }
        });
    }
    machines.push(machine);
}

/// What the metadata service tells.
fn values(id: &str, zone: &str, body: &Value) -> BTreeMap<String, String> {
    let name = text(body, "/name");
    let own = [
        ("project/project-id", PROJECT.to_owned()),
        ("project/numeric-project-id", "1".into()),
        ("instance/id", id.into()),
        ("instance/name", name.into()),
        ("instance/hostname", format!("{name}.c.{PROJECT}.internal")),
        ("instance/zone", format!("projects/1/zones/{zone}")),
        (
            "instance/machine-type",
            format!("projects/1/machineTypes/{}", last(text(body, "/machineType"))),
        ),
        ("instance/image", text(body, "/disks/0/initializeParams/sourceImage").into()),
        (
            "instance/scheduling/preemptible",
            if is_spot(body) { "TRUE" } else { "FALSE" }.into(),
        ),
        ("instance/preempted", "FALSE".into()),
        ("instance/maintenance-event", "NONE".into()),
    ];
    let attributes = items(body)
        .into_iter()
        .map(|(key, value)| (format!("instance/attributes/{key}"), value));
    let mut values: BTreeMap<String, String> = own
        .into_iter()
        .map(|(path, value)| (path.to_owned(), value))
        .chain(attributes)
        .collect();
    if let Some(account) = body.pointer("/serviceAccounts/0") {
        let scopes: Vec<&str> = account["scopes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let token = json!({"access_token": MACHINE_TOKEN, "expires_in": 3599, "token_type": "Bearer"});
        for (path, value) in [
            ("email", text(account, "/email").to_owned()),
            ("scopes", scopes.join("\n") + "\n"),
            ("token", token.to_string()),
        ] {
            values.insert(format!("instance/service-accounts/default/{path}"), value);
        }
    }
    values
}

/// Google's word for a state.
const fn status(state: State) -> &'static str {
    match state {
        State::Pending => "PROVISIONING",
        State::Running => "RUNNING",
        State::Ending | State::Ended => "STOPPING",
        State::Stopped => "TERMINATED",
    }
}

fn describe(gce: &Gce, machine: &Machine, state: State) -> Value {
    let (base, body) = (gce.url(), &machine.body);
    let own = |path: &str| format!("{base}projects/{PROJECT}/zones/{}{path}", machine.zone);
    let made = gce.0.fleet.instance(&machine.id).map(|instance| instance.launched);
    let made = made.and_then(|made| Timestamp::try_from(made).ok()).unwrap_or_default();
    let mut json = json!({
        "kind": "compute#instance",
        "id": machine.id,
        "name": machine.name,
        "zone": own(""),
        "selfLink": own(&format!("/instances/{}", machine.name)),
        "status": status(state),
        // Its clock is California's.
        "creationTimestamp": made.to_zoned(TimeZone::fixed(CALIFORNIA)).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string(),
        "machineType": own(&format!("/machineTypes/{}", last(text(body, "/machineType")))),
        "labels": body["labels"],
        "metadata": body["metadata"],
        "scheduling": body["scheduling"],
        "disks": [{"boot": true, "autoDelete": true, "diskSizeGb": text(body, "/disks/0/initializeParams/diskSizeGb")}],
    });
    let mut interface = json!({"name": "nic0", "networkIP": ADDRESSES.1});
    if state == State::Running && body.pointer("/networkInterfaces/0/accessConfigs/0").is_some() {
        interface["accessConfigs"] = json!([{"type": "ONE_TO_ONE_NAT", "natIP": ADDRESSES.0}]);
    }
    json["networkInterfaces"] = json!([interface]);
    if let Some(accelerators) = body["guestAccelerators"].as_array() {
        let full = accelerators.iter().map(|one| {
            let kind = last(text(one, "/acceleratorType"));
            json!({"acceleratorType": own(&format!("/acceleratorTypes/{kind}")), "acceleratorCount": one["acceleratorCount"]})
        });
        json["guestAccelerators"] = full.collect();
    }
    json
}

pub fn get(gce: &Gce, zone: &str, name: &str) -> Result<Value, Refusal> {
    let (machine, state) = gce
        .machine(zone, name)
        .ok_or_else(|| missing(&format!("zones/{zone}/instances/{name}")))?;
    Ok(describe(gce, &machine, state))
}

pub fn delete(gce: &Gce, zone: &str, name: &str) -> Result<Value, Refusal> {
    let (machine, _) = gce
        .machine(zone, name)
        .ok_or_else(|| missing(&format!("zones/{zone}/instances/{name}")))?;
    gce.0.fleet.end(&machine.id, "it was deleted");
    Ok(operations::begin(gce, "delete", zone, name, None, None))
}

pub fn console(gce: &Gce, zone: &str, name: &str) -> Result<Value, Refusal> {
    let (machine, _) = gce
        .machine(zone, name)
        .ok_or_else(|| missing(&format!("zones/{zone}/instances/{name}")))?;
    let bytes = gce.0.fleet.console(&machine.id);
    let tail = &bytes[bytes.len().saturating_sub(CONSOLE)..];
    Ok(json!({
        "kind": "compute#serialPortOutput",
        "contents": String::from_utf8_lossy(tail),
        "start": (bytes.len() - tail.len()).to_string(),
        "next": bytes.len().to_string(),
    }))
}

/// Which instances are wanted.
enum Filter<'a> {
    /// Those that have this label, with this value if one is given.
    Label(&'a str, Option<&'a str>),
    /// Those whose name begins so.
    Names(Vec<&'a str>),
}

impl<'a> Filter<'a> {
    fn read(text: &'a str) -> Option<Self> {
        if let Some(names) = text.strip_prefix("name eq \"(") {
            return Some(Self::Names(names.strip_suffix(").*\"")?.split('|').collect()));
        }
        let label = text.strip_prefix("labels.")?;
        Some(match label.split_once(" = ") {
            Some((key, value)) => Self::Label(key, Some(value.trim_matches('"'))),
            None => Self::Label(label.strip_suffix(":*")?, None),
        })
    }

    fn means(&self, machine: &Machine) -> bool {
        match self {
            Self::Label(key, wanted) => {
                let own = machine.body["labels"][key].as_str();
                own.is_some_and(|own| wanted.is_none_or(|wanted| wanted == own))
            }
            Self::Names(names) => names.iter().any(|name| machine.name.starts_with(name)),
        }
    }
}

/// All zones' instances that the filter means.
pub fn aggregated(gce: &Gce, filter: &str) -> Result<Value, Refusal> {
    let refuse = || {
        Refusal(
            400,
            "invalid",
            format!("Invalid value for field 'filter': '{filter}'. Invalid list filter expression."),
        )
    };
    let filter = Filter::read(filter).ok_or_else(refuse)?;
    let machines = lock(&gce.0.machines).clone();
    let mut zones: BTreeMap<String, Vec<Value>> = offers::all_zones().into_iter().map(|zone| (zone, Vec::new())).collect();
    for machine in machines {
        let state = gce.0.fleet.instance(&machine.id).map(|instance| instance.state);
        if let Some(state) = state.filter(|state| filter.means(&machine) && *state != State::Ended) {
            zones.entry(machine.zone.clone()).or_default().push(describe(gce, &machine, state));
        }
    }
    let scopes = zones.into_iter().map(|(zone, found)| {
        let scope = if found.is_empty() {
            offers::empty(&zone)
        } else {
            json!({"instances": found})
        };
        (format!("zones/{zone}"), scope)
    });
    Ok(json!({"kind": "compute#instanceAggregatedList", "items": scopes.collect::<serde_json::Map<_, _>>()}))
}
