//! What Resource Manager refuses in a body: members that it does not know, and values that it does not take.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::answers::Refusal;

/// Limits of tags, in characters; <https://learn.microsoft.com/en-us/azure/azure-resource-manager/management/tag-resources#limitations>
const TAGS: usize = 50;
const TAG_KEY: usize = 512;
const TAG_VALUE: usize = 256;
/// The start-up data, in bytes: <https://learn.microsoft.com/en-us/azure/virtual-machines/custom-data>
const CUSTOM_DATA: usize = 64 << 10;
/// The longest name of a machine with Linux.
const NAME: usize = 64;

/// Every member that a machine may have here; `[]` is any element of a list.
const MACHINE: [&str; 40] = [
    "location",
    "tags",
    "zones[]",
    "identity.type",
    "identity.userAssignedIdentities",
    "properties.priority",
    "properties.evictionPolicy",
    "properties.billingProfile.maxPrice",
    "properties.hardwareProfile.vmSize",
    "properties.storageProfile.imageReference.publisher",
    "properties.storageProfile.imageReference.offer",
    "properties.storageProfile.imageReference.sku",
    "properties.storageProfile.imageReference.version",
    "properties.storageProfile.imageReference.id",
    "properties.storageProfile.osDisk.name",
    "properties.storageProfile.osDisk.createOption",
    "properties.storageProfile.osDisk.deleteOption",
    "properties.storageProfile.osDisk.diskSizeGB",
    "properties.storageProfile.osDisk.managedDisk.storageAccountType",
    "properties.osProfile.computerName",
    "properties.osProfile.adminUsername",
    "properties.osProfile.customData",
    "properties.osProfile.linuxConfiguration.disablePasswordAuthentication",
    "properties.osProfile.linuxConfiguration.ssh.publicKeys[].path",
    "properties.osProfile.linuxConfiguration.ssh.publicKeys[].keyData",
    "properties.networkProfile.networkApiVersion",
    "properties.networkProfile.networkInterfaceConfigurations[].name",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.primary",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.deleteOption",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].name",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].properties.primary",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].properties.subnet.id",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].properties.publicIPAddressConfiguration.name",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].properties.publicIPAddressConfiguration.sku.name",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].properties.publicIPAddressConfiguration.sku.tier",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].properties.publicIPAddressConfiguration.properties.deleteOption",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].properties.publicIPAddressConfiguration.properties.publicIPAllocationMethod",
    "properties.networkProfile.networkInterfaceConfigurations[].properties.ipConfigurations[].properties.publicIPAddressConfiguration.properties.publicIPAddressVersion",
    "properties.diagnosticsProfile.bootDiagnostics.enabled",
    "properties.licenseType",
];

pub fn invalid(code: &'static str, words: &str) -> Refusal {
    Refusal(400, code, words.to_owned())
}

/// Refuses what is not in this list; what is below tags and identities is free.
pub fn fields(body: &Value, known: &[&str]) -> Result<(), Refusal> {
    let mut found = Vec::new();
    flatten(body, String::new(), &mut found);
    let is_free = |path: &str| {
        path.starts_with("tags.") || path.starts_with("properties.tags.") || path.starts_with("identity.userAssignedIdentities")
    };
    match found.iter().find(|path| !is_free(path) && !known.contains(&path.as_str())) {
        None => Ok(()),
        Some(path) => {
            let words = format!("Could not find member '{path}' on object of this type.");
            Err(Refusal(400, "InvalidRequestContent", words))
        }
    }
}

fn flatten(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(member, below, found);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|element| flatten(element, format!("{path}[]"), found)),
        _ => found.push(path),
    }
}

/// Reads tags.
pub fn tags(value: &Value) -> Result<BTreeMap<String, String>, Refusal> {
    let tags: BTreeMap<String, String> =
        serde_json::from_value(value.clone()).map_err(|_| invalid("InvalidRequestContent", "The tags are no strings."))?;
    let mut keys: Vec<String> = tags.keys().map(|key| key.to_ascii_lowercase()).collect();
    keys.sort();
    keys.dedup();
    let is_bad = |(key, value): (&String, &String)| {
        let lower = key.to_ascii_lowercase();
        key.is_empty()
            || key.chars().count() > TAG_KEY
            || key.contains(['<', '>', '%', '&', '\\', '?', '/'])
            || ["microsoft", "azure", "windows"].iter().any(|prefix| lower.starts_with(prefix))
            || value.chars().count() > TAG_VALUE
    };
    if tags.len() > TAGS || keys.len() < tags.len() || tags.iter().any(is_bad) {
        return Err(invalid("InvalidTagNameCharacters", "The tag names or values are invalid."));
    }
    Ok(tags)
}

/// Refuses a machine that Azure would; what depends on the rest of the group is the caller's.
pub fn machine(body: &Value, name: &str) -> Result<(), Refusal> {
    fields(body, &MACHINE)?;
    tags(&body["tags"])?;
    let properties = &body["properties"];
    let parameter = |good: bool, words: &str| if good { Ok(()) } else { Err(invalid("InvalidParameter", words)) };
    let is_name = name.len() <= NAME && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    parameter(
        is_name && properties["osProfile"]["computerName"] == name,
        "The computer name is not valid.",
    )?;
    let size = properties["hardwareProfile"]["vmSize"].as_str().unwrap_or_default();
    parameter(size.starts_with("Standard_"), "The value of parameter vmSize is invalid.")?;
    let disk = &properties["storageProfile"]["osDisk"];
    parameter(
        disk["createOption"] == "FromImage" && disk["deleteOption"] == "Delete" && disk["diskSizeGB"].is_u64(),
        "Required parameter 'osDisk' is missing, or not what the sandbox wants: it would be left behind.",
    )?;
    system(&properties["osProfile"])?;
    network(&properties["networkProfile"])?;
    let is_spot = properties["priority"] == "Spot";
    parameter(
        is_spot || (properties["priority"].is_null() && properties["evictionPolicy"].is_null() && properties["billingProfile"].is_null()),
        "Eviction policy and billing profile can be set only on Azure Spot Virtual Machines.",
    )?;
    let price = properties["billingProfile"]["maxPrice"].as_f64();
    if is_spot && !price.is_none_or(|price| (price + 1.0).abs() < f64::EPSILON || price > 0.0) {
        return Err(invalid("MaxPriceValueInvalid", "Max price must be -1 or greater than 0."));
    }
    identity(&body["identity"])
}

fn system(profile: &Value) -> Result<(), Refusal> {
    let user = profile["adminUsername"].as_str().unwrap_or_default();
    if user.is_empty() || ["root", "admin", "administrator", "user", "test"].contains(&user) {
        return Err(invalid("InvalidParameter", "The Admin Username specified is not allowed."));
    }
    let key = &profile["linuxConfiguration"]["ssh"]["publicKeys"][0];
    let data = key["keyData"].as_str().unwrap_or_default();
    let is_key = data.starts_with("ssh-ed25519 ") || data.starts_with("ssh-rsa ");
    if profile["linuxConfiguration"]["disablePasswordAuthentication"] != true
        || !is_key
        || key["path"] != format!("/home/{user}/.ssh/authorized_keys")
    {
        return Err(invalid(
            "InvalidParameter",
            "The value of parameter linuxConfiguration.ssh.publicKeys is invalid.",
        ));
    }
    let data = STANDARD.decode(profile["customData"].as_str().unwrap_or_default());
    match data {
        Ok(data) if data.len() < CUSTOM_DATA => Ok(()),
        _ => Err(invalid(
            "InvalidParameter",
            "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.",
        )),
    }
}

fn network(profile: &Value) -> Result<(), Refusal> {
    let interface = &profile["networkInterfaceConfigurations"][0]["properties"];
    let address = &interface["ipConfigurations"][0]["properties"]["publicIPAddressConfiguration"];
    let is_good = ["2020-11-01", "2022-11-01"]
        .iter()
        .any(|version| profile["networkApiVersion"] == *version)
        && interface["deleteOption"] == "Delete"
        && address["properties"]["deleteOption"] == "Delete"
        && address["sku"]["name"] == "Standard"
        && address["properties"]["publicIPAllocationMethod"] == "Static";
    if is_good {
        return Ok(());
    }
    // Basic ones are retired; and without an address there is no way out.
    Err(invalid(
        "InvalidRequestFormat",
        "The network profile is not valid, or leaves something behind.",
    ))
}

fn identity(identity: &Value) -> Result<(), Refusal> {
    let given = identity["userAssignedIdentities"].as_object().map_or(0, serde_json::Map::len);
    match (identity["type"].as_str(), given) {
        // Azure takes others too, but a machine with one of its own would be there before its right to end itself is.
        (Some("UserAssigned"), 1..) => Ok(()),
        _ => Err(invalid(
            "InvalidIdentityType",
            "The identity type and the identities do not fit together, or are not what the sandbox wants.",
        )),
    }
}
