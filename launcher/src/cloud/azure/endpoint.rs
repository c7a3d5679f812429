//! Where Azure is: the public cloud, a sovereign one, or what the environment says.

use anyhow::{Result, bail};
use common::error::{Class, Failure};
use url::{Host, Url};

/// Which cloud, by the names that Azure's own tools use: `AzureCloud`, `AzureUSGovernment`, `AzureChinaCloud`.
const ENVIRONMENT: &str = "AZURE_ENVIRONMENT";
/// Another Resource Manager, and what its tokens are for; the names are those of [Azure Service Operator][names].
///
/// [names]: https://azure.github.io/azure-service-operator/guide/aso-controller-settings-options/
const MANAGER: &str = "AZURE_RESOURCE_MANAGER_ENDPOINT";
const AUDIENCE: &str = "AZURE_RESOURCE_MANAGER_AUDIENCE";
/// Another authority, as for every Azure SDK.
const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";

/// Another list of prices.
const PRICES: &str = "AZURE_RETAIL_PRICES_ENDPOINT";

/// The servers of one cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Resource Manager, without a `/` at the end.
    pub manager: String,
    /// What a token must be for.
    pub audience: String,
    /// Who gives tokens to service principals.
    pub authority: String,
    /// Who knows what machines cost; it is no secret, and nobody asks who asks.
    pub prices: String,
}

impl Endpoints {
    /// What the environment says, else the public cloud.
    pub fn from_environment() -> Result<Self> {
        Self::read(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let name = get(ENVIRONMENT).unwrap_or_default();
        // Source: <https://learn.microsoft.com/en-us/azure/developer/azure-developer-cli/sovereign-clouds>
        let (manager, authority) = match name.trim().to_ascii_lowercase().as_str() {
            "" | "azurecloud" | "azurepubliccloud" | "public" => ("https://management.azure.com", "https://login.microsoftonline.com"),
            "azureusgovernment" | "azureusgovernmentcloud" | "usgovernment" => {
                ("https://management.usgovcloudapi.net", "https://login.microsoftonline.us")
            }
            "azurechinacloud" | "china" => ("https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
            _ => bail!(
                Failure::new(Class::Usage, format!("`{ENVIRONMENT}={name}` is no cloud of Azure's"))
                    .hint("known: AzureCloud, AzureUSGovernment, AzureChinaCloud")
            ),
        };
        let pick = |variable: &str, default: &str| match get(variable) {
            None => Ok(default.to_owned()),
            Some(given) => checked(variable, &given),
        };
        Ok(Self {
            manager: pick(MANAGER, manager)?,
            authority: pick(AUTHORITY, authority)?,
            prices: pick(PRICES, "https://prices.azure.com")?,
            audience: get(AUDIENCE).map_or_else(|| manager.to_owned(), |given| given.trim().trim_end_matches('/').to_owned()),
        })
    }
}

/// Tokens go there: in clear only to this very machine.
fn checked(variable: &str, given: &str) -> Result<String> {
    let given = given.trim().trim_end_matches('/');
    let is_good = Url::parse(given).is_ok_and(|url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)));
    if is_good {
        return Ok(given.to_owned());
    }
    bail!(Failure::new(Class::Usage, format!("`{variable}={given}` is no https address")).hint("write `https://HOST`"))
}

/// Whether an address is on this very machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Endpoints;

    fn read(pairs: &[(&str, &str)]) -> anyhow::Result<Endpoints> {
        Endpoints::read(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn clouds_are_named_and_addresses_override_them() {
        assert_eq!(read(&[]).unwrap().manager, "https://management.azure.com");
        let government = read(&[("AZURE_ENVIRONMENT", "AzureUSGovernment")]).unwrap();
        assert_eq!(government.authority, "https://login.microsoftonline.us");
        assert_eq!(government.audience, "https://management.usgovcloudapi.net");
        let own = read(&[("AZURE_RESOURCE_MANAGER_ENDPOINT", "http://127.0.0.1:1/")]).unwrap();
        assert_eq!(
            (own.manager.as_str(), own.audience.as_str()),
            ("http://127.0.0.1:1", "https://management.azure.com")
        );
    }

    #[test]
    fn tokens_do_not_travel_in_clear() {
        for pair in [
            ("AZURE_ENVIRONMENT", "mars"),
            ("AZURE_RESOURCE_MANAGER_ENDPOINT", "http://example.com"),
            ("AZURE_AUTHORITY_HOST", "ftp://127.0.0.1"),
            ("AZURE_AUTHORITY_HOST", "login"),
            ("AZURE_RETAIL_PRICES_ENDPOINT", "http://prices.azure.com"),
        ] {
            assert!(read(&[pair]).is_err(), "{pair:?}");
        }
    }
}
