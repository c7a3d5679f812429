//! Any values in the start-up script.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::time::Duration;

use common::network::Network;
use common::spec::CloudKind;

use super::{AZURE, Bootstrap, Login, SCRIPT, placeholder, unit};

/// Values, apart by NUL, which none of them can hold: a shell reads each of them as it is, and the rest of the script is as it was written.
pub fn bootstrap(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut values = text.split('\0');
    let mut value = || values.next().unwrap_or_default().to_owned();
    let mut boot = Bootstrap {
        cloud: CloudKind::Aws,
        spec: value(),
        version: value(),
        agent_urls: vec![value(), value()],
        agent_sha256: value(),
        launch_id: value(),
        boot_budget: Duration::from_mins(11),
        boot_deadline: 1_790_000_660,
        lifetime: None,
        private_tmp: text.len().is_multiple_of(2),
        login: Some(Login {
            user: value(),
            public_key: value(),
        }),
        network: Network {
            proxy: value().parse().ok(),
            no_proxy: vec![value()],
            trusted: None,
        },
        certificates: None,
    };
    for cloud in [CloudKind::Aws, CloudKind::Azure, CloudKind::Gcp, CloudKind::Kubernetes] {
        boot.cloud = cloud;
        boot.lifetime = (cloud == CloudKind::Aws).then(|| Duration::from_hours(24));
        let script = boot.render();
        let rest = read(&boot, SCRIPT, &script);
        assert_eq!(rest, "", "the script has an end that nobody wrote");
    }
}

/// Reads what came of a part of the script, up to its end; the rest.
fn read<'a>(boot: &Bootstrap, mut written: &str, mut script: &'a str) -> &'a str {
    while let Some((before, name, after)) = placeholder(written) {
        script = script.strip_prefix(before).unwrap();
        script = match name {
            "budget" | "deadline" | "lifetime" | "linger" => script.trim_start_matches(|c: char| c.is_ascii_digit()),
            "farewell" if boot.cloud == CloudKind::Azure => read(boot, AZURE, script),
            "farewell" => script,
            "network" => exports(boot, script),
            name => {
                let (value, rest) = word(script);
                assert_eq!(value, meant(boot, name), "{name}");
                rest
            }
        };
        written = after;
    }
    script.strip_prefix(written).unwrap()
}

/// The command that makes the proxy known, if there is one; what follows it.
fn exports<'a>(boot: &Bootstrap, script: &'a str) -> &'a str {
    let variables = boot.network.variables(|_| None);
    let mut rest = if variables.is_empty() {
        script
    } else {
        script.strip_prefix("export").unwrap()
    };
    for (name, value) in variables {
        let (found, after) = word(rest.strip_prefix(&format!(" {name}=")).unwrap());
        assert_eq!(found, value, "{name}");
        rest = after;
    }
    rest
}

fn meant(boot: &Bootstrap, name: &str) -> String {
    let login = boot.login.as_ref().unwrap();
    match name {
        "version" => boot.version.clone(),
        "urls" => boot.agent_urls.join(" "),
        "sha256" => boot.agent_sha256.clone(),
        "login" => login.user.clone(),
        "public_key" => login.public_key.clone(),
        "spec" => boot.spec.clone(),
        "group" => boot.launch_id.to_ascii_lowercase(),
        "unit" => unit(boot.private_tmp),
        "pod" if boot.cloud == CloudKind::Kubernetes => "yes".into(),
        "pod" | "certificates" => String::new(),
        other => panic!("nobody knows what {other} is"),
    }
}

/// One word as [POSIX] reads it, where only single quotes and escaped ones are in it; and what follows it.
///
/// [POSIX]: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_02
fn word(mut script: &str) -> (String, &str) {
    let mut value = String::new();
    loop {
        if let Some((quoted, rest)) = script.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) {
            value += quoted;
            script = rest;
        } else if let Some(rest) = script.strip_prefix("\\'") {
            value.push('\'');
            script = rest;
        } else {
            return (value, script);
        }
    }
}
