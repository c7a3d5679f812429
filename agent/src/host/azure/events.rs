//! Scheduled events: what Azure is about to do to this machine.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::host::Interruption;

/// What a notice leaves when it does not say: the shortest, an [eviction][docs].
///
/// [docs]: https://learn.microsoft.com/en-us/azure/virtual-machines/linux/scheduled-events#event-scheduling
const NOTICE: Duration = Duration::from_secs(30);

/// The answer of the service.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Events {
    #[serde(deserialize_with = "or_empty")]
    events: Vec<Event>,
}

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Event {
    /// Names it in an acknowledgement.
    #[serde(rename = "EventId", deserialize_with = "or_empty")]
    pub id: String,
    #[serde(rename = "EventType", deserialize_with = "or_empty")]
    kind: String,
    #[serde(deserialize_with = "or_empty")]
    resources: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    not_before: String,
}

/// Nothing may be written as `null`.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Events {
    /// The first that ends what runs on this machine. A pause of seconds (`Freeze`) ends nothing. Where the name is not known, any event may be ours.
    pub fn ending(self, name: &str) -> Option<Event> {
        self.events.into_iter().find(|event| {
            let is_ours = name.is_empty() || event.resources.iter().any(|other| other.eq_ignore_ascii_case(name));
            is_ours && matches!(event.kind.as_str(), "Preempt" | "Terminate" | "Reboot" | "Redeploy")
        })
    }
}

impl Event {
    /// As a notice.
    pub fn interruption(&self, now: Timestamp) -> Interruption {
        let kind: String = self.kind.chars().filter(char::is_ascii_alphanumeric).collect();
        // One that has started has no time; one whose time cannot be read may come at once, but that nobody can act on.
        let left = match self.not_before.trim() {
            "" => Duration::ZERO,
            text => jiff::fmt::rfc2822::parse(text).map_or(NOTICE, |at| {
                Duration::try_from(at.timestamp().duration_since(now)).unwrap_or(Duration::ZERO)
            }),
        };
        Interruption {
            reason: format!("scheduled event {kind}"),
            left,
            advice: false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Events;

    fn ending(text: &str, name: &str) -> Option<(String, u64)> {
        let events: Events = serde_json::from_str(text).unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let notice = events.ending(name)?.interruption(now);
        Some((notice.reason, notice.left.as_secs()))
    }

    fn event(kind: &str, resources: &str, not_before: &str) -> String {
        format!(
            r#"{{"DocumentIncarnation":2,"Events":[{{"EventId":"E","EventType":"{kind}","ResourceType":"VirtualMachine","Resources":{resources},"EventStatus":"Scheduled","NotBefore":"{not_before}","Description":"","EventSource":"Platform","DurationInSeconds":-1}}]}}"#
        )
    }

    #[test]
    fn what_ends_this_machine_is_a_notice() {
        let at = "Thu, 01 Jan 2026 00:00:30 GMT";
        for kind in ["Preempt", "Terminate", "Reboot", "Redeploy"] {
            assert_eq!(
                ending(&event(kind, r#"["VM"]"#, at), "vm"),
                Some((format!("scheduled event {kind}"), 30))
            );
        }
        assert_eq!(ending(&event("Freeze", r#"["vm"]"#, at), "vm"), None, "a pause ends nothing");
        assert_eq!(ending(&event("Preempt", r#"["other"]"#, at), "vm"), None, "somebody else's machine");
        assert!(
            ending(&event("Preempt", r#"["other"]"#, at), "").is_some(),
            "who we are is not known"
        );
        assert_eq!(ending(&event("Preempt", r#"["vm"]"#, ""), "vm").unwrap().1, 0, "it has started");
        assert_eq!(ending(&event("Preempt", r#"["vm"]"#, "soon"), "vm").unwrap().1, 30);
        assert_eq!(ending(r#"{"DocumentIncarnation":1,"Events":[]}"#, "vm"), None);
        assert_eq!(ending(r#"{"DocumentIncarnation":1,"Events":null}"#, "vm"), None);
        assert_eq!(
            ending(r#"{"Events":[{"EventType":"Preempt","Resources":null,"NotBefore":null}]}"#, "vm"),
            None
        );
    }
}
