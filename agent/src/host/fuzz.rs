//! What a cloud's metadata service says, and what jobs ask it, given any bytes.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::time::Duration;

use common::spec::CloudKind;
use hyper::Uri;
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::metadata::pass;
use super::{Interruption, aws, azure, gcp};

/// What no job may ask for, nor for anything above it: what was told to the machine, and what proves to others that somebody is this machine.
const SECRET: [&str; 8] = [
    "/latest/user-data",
    "/latest/dynamic/instance-identity/pkcs7",
    "/latest/dynamic/instance-identity/signature",
    "/computemetadata/v1/instance/attributes",
    "/computemetadata/v1/project/attributes",
    "/metadata/instance/compute/userdata",
    "/metadata/instance/compute/customdata",
    "/metadata/attested",
];
/// Above some of it: these list names only, unless a question asks for all.
const FOLDERS: [&str; 2] = ["", "/computemetadata/v1"];

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn is_sound(notice: &Interruption, words: &str) {
    let rest = notice.reason.strip_prefix(words).unwrap();
    assert!(rest.chars().all(|c| c.is_ascii_alphanumeric()), "{notice:?}");
    // The agent adds it to its own time.
    assert!(now().checked_add(notice.left).is_ok(), "{notice:?}");
}

/// AWS's notice: never longer than such a notice is, and its word is a word.
pub fn aws_notice(data: &[u8]) {
    let notice = aws::read_notice(&String::from_utf8_lossy(data), now());
    is_sound(&notice, "spot instance-action ");
    assert!(notice.left <= aws::NOTICE && !notice.advice, "{notice:?}");
}

/// Azure's events: what ends the machine is one of the kinds that do, at a time that there is.
pub fn azure_events(data: &[u8]) {
    for name in ["vm", ""] {
        let events: Result<azure::events::Events, _> = serde_json::from_slice(data);
        let Some(event) = events.ok().and_then(|events| events.ending(name)) else {
            continue;
        };
        let notice = event.interruption(now());
        is_sound(&notice, "scheduled event ");
        assert!(
            !notice.advice && notice.reason.len() <= "scheduled event Terminate".len(),
            "{notice:?}"
        );
    }
}

/// Google's values: each means one thing or nothing.
pub fn gcp_value(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let text = text.trim();
    assert_eq!(gcp::preempted(text).is_some(), text.eq_ignore_ascii_case("true"));
    if let Some(notice) = gcp::maintained(text) {
        assert!(notice.advice && notice.left <= Duration::from_hours(1), "{notice:?}");
    }
    assert!(!gcp::last(text).contains('/'));
}

/// A job's request, as `METHOD TARGET` and lines of headers: what is passed on is what was looked at, and leads to nothing secret, however it is written.
pub fn metadata_request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let Some((method, target)) = lines.next().and_then(|line| line.split_once(' ')) else {
        return;
    };
    let Ok(method) = method.parse::<Method>() else { return };
    // As it comes out of the proxy's own server.
    let Ok(uri) = target.parse::<Uri>() else { return };
    let Some(target) = uri.path_and_query().filter(|_| uri.authority().is_none()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    for cloud in [CloudKind::Aws, CloudKind::Azure, CloudKind::Gcp, CloudKind::Kubernetes] {
        if !pass::passes(cloud, &method, target.as_str(), &headers) {
            continue;
        }
        // As it is asked.
        let asked: Url = format!("http://169.254.169.254{target}").parse().unwrap();
        assert_eq!(
            (asked.host_str(), asked.port(), asked.fragment()),
            (Some("169.254.169.254"), None, None),
            "{asked}"
        );
        // The question may be encoded on the way.
        assert_eq!(
            (asked.path(), asked.query().is_some()),
            (target.path(), target.query().is_some()),
            "{asked}"
        );
        assert!(asked.query().is_none() || cloud != CloudKind::Aws, "{asked}");
        let path = plain(asked.path());
        for secret in SECRET {
            assert!(!path.starts_with(secret), "{asked} is {secret}");
            let is_above = secret.strip_prefix(&path).is_some_and(|rest| rest.starts_with('/'));
            assert!(
                !is_above || (FOLDERS.contains(&&*path) && asked.query().is_none()),
                "{asked} is above {secret}"
            );
        }
    }
}

/// A path as whoever is most forgiving reads it: no empty parts, and no case. What is encoded is passed by nobody.
fn plain(path: &str) -> String {
    assert!(!path.contains(['%', '\\', ';', '\0']), "{path} can be read in another way");
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.flat_map(|part| ["/", part]).collect::<String>().to_ascii_lowercase()
}
