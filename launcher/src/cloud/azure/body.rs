//! What Resource Manager is asked for. Pure; the names on the wire are Azure's, checked against its published types by `tests/contract/azure`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

/// The private addresses of a group's own network: nobody else is in it.
const ADDRESSES: &str = "10.0.0.0/24";
/// The version of the network's API that an inline interface is written in. Source: the enum `NetworkApiVersion` of the compute API.
const INTERFACE_VERSION: &str = "2022-11-01";
/// The name of everything that a group has one of.
pub const ONE: &str = "runner";

/// A resource group; an identity has no more to say of itself.
#[derive(Debug, Serialize)]
pub struct Group<'a> {
    /// The region.
    pub location: &'a str,
    /// Ours, and the user's.
    pub tags: &'a BTreeMap<String, String>,
}

/// A virtual network with one subnet, whose machines have no way out but their own address.
#[derive(Debug, Serialize)]
pub struct Network<'a> {
    location: &'a str,
    tags: &'a BTreeMap<String, String>,
    properties: Value,
}

impl<'a> Network<'a> {
    /// In this region.
    pub fn new(location: &'a str, tags: &'a BTreeMap<String, String>) -> Self {
        let subnet = json!({ "addressPrefix": ADDRESSES, "defaultOutboundAccess": false });
        Self {
            location,
            tags,
            properties: json!({
                "addressSpace": { "addressPrefixes": [ADDRESSES] },
                "subnets": [{ "name": ONE, "properties": subnet }],
            }),
        }
    }
}

/// Who the machine is to Azure: it deletes its group as this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// One of its own in its group, which the launcher allows to delete the group, and nothing else.
    Own,
    /// The user's, by their resource ids, which may do so already.
    Given(Vec<String>),
}

/// A machine to make.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// Its name, and its host name.
    pub name: &'a str,
    /// The region.
    pub location: &'a str,
    /// The zone's number, where the user named one.
    pub zone: Option<&'a str>,
    /// Native type.
    pub size: &'a str,
    /// `imageReference`.
    pub image: &'a Value,
    /// Size of the disk, in GB.
    pub disk: u32,
    /// The most that a spot machine may cost, in USD an hour, -1 for no cap; none for one that is not spot.
    pub spot: Option<f64>,
    /// The user that Azure insists on.
    pub user: &'a str,
    /// A key that it insists on too.
    pub public_key: &'a str,
    /// The start-up data, packed and in base64.
    pub custom_data: &'a str,
    /// The id of the subnet.
    pub subnet: &'a str,
    /// Who it is: resource ids. None of them is made with it, for a machine must not be there before its right to end itself is.
    pub identities: &'a [String],
    /// Ours, and the user's.
    pub tags: &'a BTreeMap<String, String>,
}

impl Machine<'_> {
    /// The body of its PUT. Whatever is made with it goes with it.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "location": self.location,
            "tags": self.tags,
            "identity": { "type": "UserAssigned", "userAssignedIdentities": self.identities() },
            "properties": {
                "hardwareProfile": { "vmSize": self.size },
                "storageProfile": { "imageReference": self.image, "osDisk": self.disk() },
                "osProfile": self.system(),
                "networkProfile": {
                    "networkApiVersion": INTERFACE_VERSION,
                    "networkInterfaceConfigurations": [self.interface()],
                },
                // No storage account: Azure's own.
                "diagnosticsProfile": { "bootDiagnostics": { "enabled": true } },
            },
        });
        if let (Some(zone), Some(members)) = (self.zone, body.as_object_mut()) {
            members.insert("zones".to_owned(), json!([zone]));
        }
        if let (Some(price), Some(members)) = (self.spot, body.pointer_mut("/properties").and_then(Value::as_object_mut)) {
            members.insert("priority".to_owned(), json!("Spot"));
            members.insert("evictionPolicy".to_owned(), json!("Delete"));
            members.insert("billingProfile".to_owned(), json!({ "maxPrice": price }));
        }
        body
    }

    fn identities(&self) -> Value {
        self.identities.iter().map(|id| (id.clone(), json!({}))).collect()
    }

    fn disk(&self) -> Value {
        json!({
            "name": format!("{}-disk", self.name),
            "createOption": "FromImage",
            "deleteOption": "Delete",
            "diskSizeGB": self.disk,
            // Every type takes one; not every type takes Premium.
            "managedDisk": { "storageAccountType": "StandardSSD_LRS" },
        })
    }

    fn system(&self) -> Value {
        let path = format!("/home/{}/.ssh/authorized_keys", self.user);
        json!({
            "computerName": self.name,
            "adminUsername": self.user,
            "customData": self.custom_data,
            "linuxConfiguration": {
                "disablePasswordAuthentication": true,
                "ssh": { "publicKeys": [{ "path": path, "keyData": self.public_key }] },
            },
        })
    }

    /// With an address of its own. Without a security group, nothing gets in through a Standard one ([docs]).
    ///
    /// [docs]: https://learn.microsoft.com/en-us/azure/virtual-network/ip-services/public-ip-addresses#sku
    fn interface(&self) -> Value {
        let address = json!({
            "name": ONE,
            "sku": { "name": "Standard", "tier": "Regional" },
            "properties": { "deleteOption": "Delete", "publicIPAllocationMethod": "Static", "publicIPAddressVersion": "IPv4" },
        });
        let ip = json!({
            "name": ONE,
            "properties": { "primary": true, "subnet": { "id": self.subnet }, "publicIPAddressConfiguration": address },
        });
        json!({
            "name": ONE,
            "properties": { "primary": true, "deleteOption": "Delete", "ipConfigurations": [ip] },
        })
    }
}

/// Lets an identity do with a group whatever it wants.
pub fn assignment(role: &str, principal: &str) -> Value {
    json!({ "properties": { "roleDefinitionId": role, "principalId": principal, "principalType": "ServicePrincipal" } })
}
