//! Jobs as they are kept, and their pods as they are shown.

use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Obstacle;

/// A Job.
pub struct Job {
    /// As it was made, with what the server adds.
    pub object: Value,
    /// When its pod was made, if it was.
    pub begun: Option<SystemTime>,
    /// The condition that it ended with, why, and when.
    pub ended: Option<(&'static str, String, SystemTime)>,
    /// It goes, with all that is its own, when its pod has gone.
    pub is_deleted: bool,
    /// What kept its pod from starting.
    pub obstacle: Option<Obstacle>,
    /// What is told of its pod: reason, message, when.
    pub events: Vec<(String, String, SystemTime)>,
}

/// The name of any object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// RFC 3339, as the server writes times.
pub fn time(at: SystemTime) -> String {
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.0}"))
}

/// An object with what the server adds: `number` is unique.
pub fn made(mut object: Value, number: usize) -> Value {
    let metadata = &mut object["metadata"];
    metadata["uid"] = json!(format!("00000000-0000-4000-8000-{number:012}"));
    metadata["resourceVersion"] = json!((1000 + number).to_string());
    metadata["creationTimestamp"] = json!(time(SystemTime::now()));
    metadata["namespace"] = json!(super::NAMESPACE);
    object
}

impl Job {
    pub fn name(&self) -> &str {
        name(&self.object)
    }

    pub fn spec(&self) -> &Value {
        &self.object["spec"]
    }

    /// Its pod's.
    pub fn pod_spec(&self) -> &Value {
        &self.spec()["template"]["spec"]
    }

    pub fn pod_name(&self) -> String {
        format!("{}-x7k2p", self.name())
    }

    /// As it is shown.
    pub fn shown(&self) -> Value {
        let mut shown = self.object.clone();
        if self.is_deleted {
            shown["metadata"]["deletionTimestamp"] = json!(time(SystemTime::now()));
            shown["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
        }
        let mut conditions = Vec::new();
        if shown["spec"]["suspend"] == true {
            conditions.push(json!({ "type": "Suspended", "status": "True", "reason": "JobSuspended" }));
        }
        if let Some((kind, reason, at)) = &self.ended {
            let mut condition = json!({ "type": kind, "status": "True", "lastTransitionTime": time(*at) });
            if !reason.is_empty() {
                condition["reason"] = json!(reason);
            }
            conditions.push(condition);
        }
        shown["status"] = json!({ "conditions": conditions });
        if let Some(begun) = self.begun {
            shown["status"]["startTime"] = json!(time(begun));
        }
        shown
    }

    /// Its pod, with this status.
    pub fn pod(&self, status: &Value) -> Value {
        let template = &self.spec()["template"];
        let mut labels = template["metadata"]["labels"].clone();
        for key in ["job-name", "batch.kubernetes.io/job-name"] {
            labels[key] = json!(self.name());
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.pod_name(),
                "namespace": super::NAMESPACE,
                "creationTimestamp": self.begun.map(time),
                "labels": labels,
                "annotations": template["metadata"]["annotations"],
            },
            "spec": template["spec"],
            "status": status,
        })
    }

    /// What is told of it.
    pub fn event_list(&self, of: &str) -> Vec<Value> {
        let event = |(number, (reason, message, at)): (usize, &(String, String, SystemTime))| {
            json!({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": { "name": format!("{of}.{number}"), "namespace": super::NAMESPACE },
                "involvedObject": { "name": of, "namespace": super::NAMESPACE },
                "reason": reason,
                "message": message,
                "type": "Warning",
                "lastTimestamp": time(*at),
            })
        };
        self.events.iter().enumerate().map(event).collect()
    }
}

/// Whether an object has what a label selector asks for: `KEY`, `!KEY` or `KEY=VALUE`, separated by commas.
pub fn is_selected(object: &Value, selector: &str) -> bool {
    let labels = &object["metadata"]["labels"];
    let holds = |term: &str| match (term.split_once('='), term.strip_prefix('!')) {
        (Some((key, value)), _) => labels[key] == value,
        (None, Some(key)) => !labels[key].is_string(),
        (None, None) => labels[term].is_string(),
    };
    selector.split(',').filter(|term| !term.is_empty()).all(holds)
}
