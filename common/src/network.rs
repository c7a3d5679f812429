//! The network that a program lives in: its proxy, and whom it trusts.
//!
//! Both are variables of the environment, because that is where every client of ours looks, those of the clouds' own crates too, and every
//! program that is started: the user's script, the forge's runner, its jobs, `az`, a kubeconfig's helper.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::secret::Secret;

/// By which programs find a proxy; some know only one spelling. curl, for one, does not know `HTTP_PROXY`.
const PROXY: [&str; 4] = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];
/// The same of a proxy for everything, which is not set by us.
const ANY_PROXY: [&str; 2] = ["all_proxy", "ALL_PROXY"];
/// By which they find what is asked without one.
const DIRECT: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// By which they find whom to trust: one file that holds everybody. Only Node's adds to what it knows.
///
/// [OpenSSL, Go, .NET, Python, our own](https://docs.openssl.org/3.0/man3/SSL_CTX_load_verify_locations/),
/// [curl](https://curl.se/docs/sslcerts.html), [git](https://git-scm.com/docs/git-config#Documentation/git-config.txt-httpsslCAInfo),
/// [Python's requests](https://requests.readthedocs.io/en/latest/user/advanced/#ssl-cert-verification), and with it pip and `az`,
/// [AWS](https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html),
/// [Node](https://nodejs.org/api/cli.html#node_extra_ca_certsfile).
const TRUST: [&str; 6] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
];

/// Every variable of this kind: what a machine's owner sets for all programs that use the network.
pub const VARIABLES: [&str; 15] = [
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
];

/// The services of a machine's own cloud, which no proxy may speak for: it would tell its own identity. Not every program reads `169.254.0.0/16`.
///
/// EC2's in [both families](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html), of
/// [ECS and EKS](https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html),
/// [Google's](https://docs.cloud.google.com/compute/docs/metadata/querying-metadata), and
/// [Azure's](https://learn.microsoft.com/en-us/azure/virtual-network/what-is-ip-address-168-63-129-16).
const CLOUDS_OWN: [&str; 6] = [
    "169.254.169.254",
    "fd00:ec2::254",
    "169.254.170.2",
    "169.254.170.23",
    "metadata.google.internal",
    "168.63.129.16",
];

/// What a job asks of its own machine.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The address of a proxy. It may hold a password, and shows none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proxy {
    whole: Secret,
    shown: String,
}

impl Proxy {
    /// The address, password and all: for an environment, a spec or a start-up script.
    pub fn expose(&self) -> &str {
        self.whole.expose()
    }

    /// Who we are to it, `USER:PASSWORD` as in the address, if it wants to know.
    pub fn credentials(&self) -> Option<Secret> {
        let (_, rest) = self.expose().split_once("://")?;
        rest.rsplit_once('@').map(|(who, _)| Secret::new(who))
    }

    /// The same with asterisks for the credentials, to show what would be written.
    #[must_use]
    pub fn masked(&self) -> Self {
        Self {
            whole: Secret::new(self.shown.as_str()),
            shown: self.shown.clone(),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl FromStr for Proxy {
    type Err = String;

    /// The error shows nothing of the text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse =
            || "a proxy is `http://HOST:PORT`, or `http://USER:PASSWORD@HOST:PORT` with what is special in them percent-encoded".to_owned();
        let url = Url::parse(text.trim()).map_err(|_| refuse())?;
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let (Some(host), Some(port), true) = (url.host_str(), url.port_or_known_default(), is_bare) else {
            return Err(refuse());
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse());
        }
        // Always with a port: curl's own default is another one than everybody's.
        let address = |who: &str| format!("{}://{who}{host}:{port}", url.scheme());
        let who = match (url.username(), url.password()) {
            ("", None) => String::new(),
            (user, None) => format!("{user}@"),
            (user, Some(password)) => format!("{user}:{password}@"),
        };
        Ok(Self {
            shown: address(if who.is_empty() { "" } else { "****@" }),
            whole: Secret::new(address(&who)),
        })
    }
}

impl TryFrom<String> for Proxy {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Proxy> for String {
    fn from(proxy: Proxy) -> Self {
        proxy.expose().to_owned()
    }
}

/// What differs in a network from what the environment says of it.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Its proxy, instead of the environment's.
    pub proxy: Option<Proxy>,
    /// What is asked without it, instead of the environment's.
    pub no_proxy: Vec<String>,
    /// A file that holds every certificate that is trusted.
    pub trusted: Option<PathBuf>,
}

impl Network {
    /// The variables that say so, where `own` is the environment. Where there is a proxy, what is a cloud's own is asked without it.
    pub fn variables(&self, own: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
        let mut variables = Vec::new();
        if let Some(proxy) = &self.proxy {
            variables.extend(PROXY.map(|name| (name, proxy.expose().to_owned())));
        }
        if self.proxy.is_some() || has_proxy(&own) {
            let direct = match self.no_proxy.as_slice() {
                [] => DIRECT.iter().find_map(|name| own(name)).unwrap_or_default(),
                given => given.join(","),
            };
            let direct = direct_list(&direct, &CLOUDS_OWN);
            variables.extend(DIRECT.map(|name| (name, direct.clone())));
        }
        if let Some(trusted) = &self.trusted {
            variables.extend(TRUST.map(|name| (name, trusted.display().to_string())));
        }
        variables
    }

    /// Makes them this process's own, and tells what they were before. For `main` alone: it must not have started a thread.
    ///
    /// # Errors
    /// There is another thread: it may be reading the environment.
    pub fn enter(&self) -> Result<Vec<(&'static str, Option<String>)>> {
        let own = |name: &str| std::env::var(name).ok();
        let variables = self.variables(own);
        let before = variables.iter().map(|(name, _)| (*name, own(name))).collect();
        if variables.is_empty() {
            return Ok(before);
        }
        let threads = std::fs::read_dir("/proc/self/task").context("counting the threads")?.count();
        ensure!(
            threads == 1,
            "the environment is changed while {threads} threads run: this is a bug"
        );
        for (name, value) in variables {
            #[allow(
                unsafe_code,
                reason = "clients of other crates have no other way to be told, and nor have their children"
            )]
            // SAFETY: nobody else reads or writes the environment, since this is the only thread.
            unsafe {
                std::env::set_var(name, value);
            }
        }
        Ok(before)
    }
}

/// Whether an environment names a proxy.
fn has_proxy(own: &impl Fn(&str) -> Option<String>) -> bool {
    let named = |name: &&str| own(name).is_some_and(|value| !value.is_empty());
    PROXY.iter().chain(&ANY_PROXY).any(named)
}

/// The environment of jobs: where there is a proxy, they reach their own machine without it.
pub fn spare_loopback(env: &mut Vec<(String, String)>) {
    let own = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    if !has_proxy(&own) {
        return;
    }
    let direct = DIRECT.iter().find_map(|name| own(name)).unwrap_or_default();
    let direct = direct_list(&direct, &LOOPBACK);
    env.retain(|(name, _)| !DIRECT.contains(&name.as_str()));
    env.extend(DIRECT.map(|name| (name.to_owned(), direct.clone())));
}

/// What of an environment names a proxy, as another program is told: containers inherit nothing, and certificates are files that they do not have.
pub fn of_proxy(env: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    let is_of_proxy = |name: &str| PROXY.contains(&name) || DIRECT.contains(&name);
    env.iter()
        .filter(move |(name, _)| is_of_proxy(name))
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

/// A list and more, each once.
fn direct_list(list: &str, more: &[&str]) -> String {
    let mut seen = BTreeSet::new();
    let all = list.split(',').map(str::trim).chain(more.iter().copied());
    all.filter(|item| !item.is_empty() && seen.insert(*item))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::{ANY_PROXY, DIRECT, Network, PROXY, Proxy, TRUST, VARIABLES, spare_loopback};

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn value<'a>(variables: &'a [(&str, String)], name: &str) -> Option<&'a str> {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_proxy_shows_no_credentials_and_has_a_port() {
        let proxy: Proxy = "http://me:can%40ary@proxy.example.com:3128/".parse().unwrap();
        assert_eq!(proxy.expose(), "http://me:can%40ary@proxy.example.com:3128");
        assert_eq!(format!("{proxy:?}"), "http://****@proxy.example.com:3128");
        assert_eq!(proxy.masked().expose(), "http://****@proxy.example.com:3128");
        assert_eq!(proxy.credentials().unwrap().expose(), "me:can%40ary");
        let plain: Proxy = "http://proxy".parse().unwrap();
        assert_eq!(plain.expose(), "http://proxy:80");
        assert!(plain.credentials().is_none());
        assert_eq!("https://[::1]".parse::<Proxy>().unwrap().expose(), "https://[::1]:443");
        for bad in [
            "proxy:3128",
            "socks5://proxy:1",
            "http://me:canary@",
            "http://proxy/canary",
            "http://proxy?canary",
            "",
        ] {
            let error = bad.parse::<Proxy>().unwrap_err();
            assert!(!error.contains("canary"), "{bad}: {error}");
        }
    }

    #[test]
    fn every_spelling_is_set_and_the_clouds_own_services_are_spared() {
        let network = Network {
            proxy: Some("http://proxy:3128".parse().unwrap()),
            no_proxy: vec!["example.com".into(), " .corp".into()],
            trusted: Some("/etc/trusted.pem".into()),
        };
        let variables = network.variables(|name| (name == "NO_PROXY").then(|| "elsewhere".to_owned()));
        for name in PROXY {
            assert_eq!(value(&variables, name), Some("http://proxy:3128"), "{name}");
        }
        for name in DIRECT {
            let direct = value(&variables, name).unwrap();
            assert!(direct.starts_with("example.com,.corp,169.254.169.254,"), "{direct}");
            assert!(!direct.contains("127.0.0.1"), "{direct}");
        }
        for name in TRUST {
            assert_eq!(value(&variables, name), Some("/etc/trusted.pem"), "{name}");
        }
        let all = [&PROXY[..], &ANY_PROXY, &DIRECT, &TRUST].concat();
        assert!(all.iter().all(|name| VARIABLES.contains(name)));
    }

    #[test]
    fn the_environments_proxy_stays_and_spares_them_too() {
        let own = |name: &str| match name {
            "https_proxy" => Some("http://theirs:1".to_owned()),
            "no_proxy" => Some("a, 169.254.169.254".to_owned()),
            _ => None,
        };
        let variables = Network::default().variables(own);
        assert_eq!(variables.len(), DIRECT.len());
        let direct = value(&variables, "NO_PROXY").unwrap();
        assert!(direct.starts_with("a,169.254.169.254,fd00:ec2::254,"), "{direct}");
        assert_eq!(direct.matches("169.254.169.254").count(), 1);
        assert!(Network::default().variables(nothing).is_empty());
    }

    #[test]
    fn jobs_reach_their_own_machine_without_the_proxy() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut env = vec![pair("https_proxy", "http://proxy:1"), pair("NO_PROXY", "a"), pair("PATH", "/bin")];
        spare_loopback(&mut env);
        env.sort();
        let direct = "a,localhost,127.0.0.1,::1";
        assert_eq!(
            env,
            [
                pair("NO_PROXY", direct),
                pair("PATH", "/bin"),
                pair("https_proxy", "http://proxy:1"),
                pair("no_proxy", direct)
            ]
        );
        let mut env = vec![pair("PATH", "/bin")];
        spare_loopback(&mut env);
        assert_eq!(env, [pair("PATH", "/bin")]);
    }
}
