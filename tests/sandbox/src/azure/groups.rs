//! Resource groups, and the networks in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::answers::{Answer, Refusal};
use super::front::Call;
use super::{Azure, Group, SUBSCRIPTION, check, lock, operations, roles};
use crate::events::Source;
use crate::fleet::State;

/// How long a group is seen to go, at least; in earnest it is a minute. The console of its machine can be read meanwhile.
const DELETION: Duration = Duration::from_secs(3);
/// Regions that there are.
const REGIONS: [&str; 7] = [
    "eastus",
    "eastus2",
    "westus2",
    "westus3",
    "westeurope",
    "northeurope",
    "usgovvirginia",
];

pub fn missing(name: &str) -> Refusal {
    Refusal(404, "ResourceGroupNotFound", format!("Resource group '{name}' could not be found."))
}

/// Forgets the groups that have gone: what was in them has ended.
pub fn sweep(azure: &Azure) {
    let mut state = lock(&azure.0.state);
    let is_over = |name: &str| {
        let instance = azure.0.fleet.instance(name);
        instance.is_none_or(|instance| instance.state == State::Ended)
    };
    let is_due = |group: &Group| {
        group
            .deleting
            .is_some_and(|since| since.elapsed().is_ok_and(|time| time > DELETION))
    };
    let gone: Vec<String> = state
        .groups
        .values()
        .filter(|group| is_due(group) && is_over(&group.name))
        .map(|group| group.name.clone())
        .collect();
    for name in gone {
        state.groups.remove(&name.to_ascii_lowercase());
        azure.0.events.push(Source::Cloud, "group-deleted", name, "");
    }
}

fn view(group: &Group) -> Value {
    let state = if group.deleting.is_some() { "Deleting" } else { "Succeeded" };
    json!({
        "id": format!("/subscriptions/{SUBSCRIPTION}/resourceGroups/{}", group.name),
        "name": group.name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": group.location,
        "tags": group.tags,
        "properties": { "provisioningState": state },
    })
}

/// One group a page, so that nobody forgets that there are pages.
pub fn list(call: &Call) -> Result<Answer, Refusal> {
    let filter = call.parameter("$filter").unwrap_or_default();
    let tag = filter.strip_prefix("tagName eq '").and_then(|rest| rest.strip_suffix('\''));
    if tag.is_none() && !filter.is_empty() {
        return Err(Refusal(
            400,
            "InvalidFilterInQueryString",
            format!("Invalid $filter '{filter}' specified in the query string."),
        ));
    }
    let state = lock(&call.azure.0.state);
    let found: Vec<&Group> = state
        .groups
        .values()
        .filter(|group| tag.is_none_or(|tag| group.tags.contains_key(tag)))
        .collect();
    let skip: usize = call.parameter("$skiptoken").and_then(|token| token.parse().ok()).unwrap_or(0);
    let mut body = json!({ "value": found.iter().skip(skip).take(1).map(|group| view(group)).collect::<Vec<_>>() });
    if found.len() > skip + 1 {
        let filter = match filter.replace(' ', "%20").replace('\'', "%27") {
            none if none.is_empty() => none,
            filter => format!("&%24filter={filter}"),
        };
        body["nextLink"] = json!(format!(
            "{}/subscriptions/{SUBSCRIPTION}/resourcegroups?api-version=2021-04-01{filter}&%24skiptoken={}",
            call.azure.url(),
            skip + 1
        ));
    }
    Ok(Answer::ok(body))
}

pub fn put(call: &Call) -> Result<Answer, Refusal> {
    check::fields(&call.body, &["location", "tags"])?;
    let name = call.parts[1];
    let location = call.body["location"].as_str().unwrap_or_default();
    if !REGIONS.contains(&location) {
        let words = format!("The provided location '{location}' is not available for resource group.");
        return Err(Refusal(400, "LocationNotAvailableForResourceGroup", words));
    }
    let tags = check::tags(&call.body["tags"])?;
    let mut state = lock(&call.azure.0.state);
    let key = name.to_ascii_lowercase();
    if let Some(group) = state.groups.get_mut(&key) {
        if group.deleting.is_some() {
            return Err(being_deleted(name));
        }
        group.tags = tags;
        return Ok(Answer::ok(view(group)));
    }
    let group = Group {
        name: name.to_owned(),
        location: location.to_owned(),
        tags,
        deleting: None,
        network: None,
        machine: None,
        identities: BTreeMap::new(),
        contributors: BTreeSet::new(),
    };
    let body = view(&group);
    state.groups.insert(key, group);
    Ok(Answer(201, Vec::new(), body))
}

fn being_deleted(name: &str) -> Refusal {
    let words = format!("The resource group '{name}' is in deprovisioning state and cannot perform this operation.");
    Refusal(409, "ResourceGroupBeingDeleted", words)
}

pub fn get(call: &Call) -> Result<Answer, Refusal> {
    let state = lock(&call.azure.0.state);
    let group = state.groups.get(&call.parts[1].to_ascii_lowercase());
    Ok(Answer::ok(view(group.ok_or_else(|| missing(call.parts[1]))?)))
}

pub fn delete(call: &Call) -> Result<Answer, Refusal> {
    let name = call.parts[1].to_ascii_lowercase();
    let mut state = lock(&call.azure.0.state);
    if !state.groups.contains_key(&name) {
        return Err(missing(call.parts[1]));
    }
    roles::check(&mut state, &call.who, &name)?;
    let Some(group) = state.groups.get_mut(&name).filter(|group| group.deleting.is_none()) else {
        return Err(being_deleted(call.parts[1]));
    };
    group.deleting = Some(SystemTime::now());
    let headers = operations::begin(call.azure, &mut state, None);
    drop(state);
    call.azure.0.fleet.end(&name, "its group was deleted");
    Ok(Answer(
        202,
        headers.into_iter().map(|(_, link)| ("location", link)).take(1).collect(),
        Value::Null,
    ))
}

/// Adds tags to a group's.
pub fn merge_tags(call: &Call) -> Result<Answer, Refusal> {
    check::fields(&call.body, &["operation", "properties.tags"])?;
    if call.body["operation"] != "Merge" {
        return Err(check::invalid("InvalidRequestContent", "The sandbox only merges tags."));
    }
    let more = check::tags(&call.body["properties"]["tags"])?;
    let mut state = lock(&call.azure.0.state);
    roles::check(&mut state, &call.who, &call.parts[1].to_ascii_lowercase())?;
    let group = open(&mut state.groups, call.parts[1])?;
    let mut tags = group.tags.clone();
    tags.extend(more);
    group.tags = check::tags(&json!(tags))?;
    Ok(Answer::ok(
        json!({ "name": "default", "type": "Microsoft.Resources/tags", "properties": { "tags": group.tags } }),
    ))
}

/// A group that may be changed.
pub fn open<'a>(groups: &'a mut BTreeMap<String, Group>, name: &str) -> Result<&'a mut Group, Refusal> {
    match groups.get_mut(&name.to_ascii_lowercase()) {
        None => Err(missing(name)),
        Some(group) if group.deleting.is_some() => Err(being_deleted(name)),
        Some(group) => Ok(group),
    }
}

pub fn put_network(call: &Call) -> Result<Answer, Refusal> {
    check::fields(
        &call.body,
        &[
            "location",
            "tags",
            "properties.addressSpace.addressPrefixes[]",
            "properties.subnets[].name",
            "properties.subnets[].properties.addressPrefix",
            "properties.subnets[].properties.defaultOutboundAccess",
        ],
    )?;
    let mut state = lock(&call.azure.0.state);
    let group = open(&mut state.groups, call.parts[1])?;
    if call.body["location"] != json!(group.location) {
        return Err(check::invalid("InvalidResourceLocation", "The network is not where its group is."));
    }
    let id = format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{}/providers/Microsoft.Network/virtualNetworks/{}",
        group.name, call.parts[5]
    );
    let mut body = call.body.clone();
    body["id"] = json!(id);
    body["properties"]["provisioningState"] = json!("Updating");
    group.network = Some(body.clone());
    let headers = operations::begin(call.azure, &mut state, None);
    Ok(Answer(201, headers, body))
}

/// A machine that runs has one.
pub fn addresses(call: &Call) -> Result<Answer, Refusal> {
    let state = lock(&call.azure.0.state);
    let group = state
        .groups
        .get(&call.parts[1].to_ascii_lowercase())
        .ok_or_else(|| missing(call.parts[1]))?;
    let runs = call
        .azure
        .0
        .fleet
        .instance(&group.name)
        .is_some_and(|instance| instance.state == State::Running);
    let address = json!({ "name": "runner", "properties": { "provisioningState": "Succeeded", "ipAddress": "192.0.2.10" } });
    Ok(Answer::ok(json!({ "value": if runs { vec![address] } else { Vec::new() } })))
}
