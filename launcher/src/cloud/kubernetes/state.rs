//! What a Job and its pods say of an instance. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use common::phase::{Phase, State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use serde_json::Value;

use super::manifest::LAUNCH_ID;
use crate::catalog::kubernetes::Shape;
use crate::cloud::{Instance, Life};

/// The label by which a pod says whose it is: since Kubernetes 1.27 with the prefix, and before that without.
const OF_JOB: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// The conditions of a Job that has ended, or is about to.
const ENDS: [&str; 4] = ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"];
/// How many of a pod's last events are told.
const EVENTS: usize = 5;

/// The pod of a Job, the newest if there were several.
pub fn pod_of<'a>(job: &str, pods: &'a [DynamicObject]) -> Option<&'a DynamicObject> {
    let own = pods.iter().filter(|pod| {
        let labels = pod.metadata.labels.as_ref();
        OF_JOB
            .iter()
            .any(|key| labels.and_then(|labels| labels.get(*key)).is_some_and(|name| name == job))
    });
    own.max_by_key(|pod| created(&pod.metadata))
}

/// The name of an object; every one has one.
pub fn name(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// The launch that an object is of.
pub fn launch_of(object: &DynamicObject) -> Option<&str> {
    object.metadata.labels.as_ref()?.get(LAUNCH_ID).map(String::as_str)
}

/// A Job as an instance.
pub fn instance(job: &DynamicObject, pod: Option<&DynamicObject>, namespace: &str) -> Instance {
    let spec = at(&job.data, "/spec/template/spec");
    let container = at(spec, "/containers/0");
    let (state, life) = state(job, pod);
    Instance {
        id: name(job).to_owned(),
        ip: pod.and_then(|pod| text(at(&pod.data, "/status/podIP"))),
        kind: shape(at(container, "/resources/limits"), at(spec, "/nodeSelector")),
        region: namespace.to_owned(),
        zone: None,
        image: text(at(container, "/image")).unwrap_or_default(),
        spot: false,
        launched_at: created(&job.metadata),
        state,
        life,
        tags: job.metadata.annotations.clone().unwrap_or_default(),
    }
}

/// What a machine's console would show before it boots: the last events of the pod, or of the Job that has none, and as a phase what is waited for.
pub fn waiting(pod: Option<&DynamicObject>, events: &[DynamicObject]) -> String {
    let mut out = String::new();
    let mut events: Vec<&DynamicObject> = events.iter().collect();
    events.sort_by_key(|event| last_seen(event));
    let told: Vec<String> = events
        .iter()
        .skip(events.len().saturating_sub(EVENTS))
        .map(|event| format!("{}: {}", words(at(&event.data, "/reason")), words(at(&event.data, "/message"))))
        .collect();
    for event in &told {
        let _ = writeln!(out, "event {event}");
    }
    let waits: Vec<String> = match (pod, told.last()) {
        (Some(pod), _) => reasons(pod)
            .into_iter()
            .map(|(reason, message)| format!("{reason}: {message}"))
            .collect(),
        // A quota of pods, or the namespace's pod security.
        (None, Some(event)) => vec![format!("the Job has no pod yet: {event}")],
        (None, None) => vec!["the Job has no pod yet".to_owned()],
    };
    let phase = Phase {
        name: "pod".to_owned(),
        state: State::Begin,
        after: Duration::ZERO,
        detail: waits.join("; "),
    };
    let _ = writeln!(out, "{phase}");
    out
}

/// Why a pod does not run, in the cluster's words: not placed on a node, or its container not started.
fn reasons(pod: &DynamicObject) -> Vec<(String, String)> {
    let status = at(&pod.data, "/status");
    let conditions = at(status, "/conditions").as_array().into_iter().flatten();
    let unplaced = conditions.filter(|condition| at(condition, "/type") == "PodScheduled" && at(condition, "/status") == "False");
    let containers = at(status, "/containerStatuses").as_array().into_iter().flatten();
    let unstarted = containers
        .map(|container| at(container, "/state/waiting"))
        .filter(|waiting| waiting.is_object());
    let told = |what: &Value| Some((text(at(what, "/reason"))?, text(at(what, "/message")).unwrap_or_default()));
    unplaced.chain(unstarted).filter_map(told).collect()
}

/// The word for a Job's state, and what it means.
fn state(job: &DynamicObject, pod: Option<&DynamicObject>) -> (String, Life) {
    let conditions = at(&job.data, "/status/conditions").as_array().into_iter().flatten();
    let ended = conditions
        .filter(|condition| at(condition, "/status") == "True")
        .find(|condition| ENDS.iter().any(|end| at(condition, "/type") == *end));
    if let Some(end) = ended {
        let word = text(at(end, "/type")).unwrap_or_default();
        let why = text(at(end, "/reason")).map(|reason| format!(" ({reason})")).unwrap_or_default();
        return (format!("{word}{why}{}", exit(pod)), Life::Gone);
    }
    if job.metadata.deletion_timestamp.is_some() {
        return ("Terminating".to_owned(), Life::Gone);
    }
    if *at(&job.data, "/spec/suspend") == true {
        return ("Suspended".to_owned(), Life::Live);
    }
    let Some(pod) = pod else {
        return ("Pending".to_owned(), Life::Live);
    };
    let phase = text(at(&pod.data, "/status/phase")).unwrap_or_else(|| "Pending".to_owned());
    match phase.as_str() {
        // The Job hears of it in a moment.
        "Succeeded" | "Failed" => (format!("{phase}{}", exit(Some(pod))), Life::Gone),
        _ => match reasons(pod).first() {
            Some((reason, _)) => (format!("{phase} ({reason})"), Life::Live),
            None => (phase, Life::Live),
        },
    }
}

/// What a container that has ended left: why, and its code.
fn exit(pod: Option<&DynamicObject>) -> String {
    let ended = pod.map(|pod| at(&pod.data, "/status/containerStatuses/0/state/terminated"));
    let Some(ended) = ended.filter(|ended| ended.is_object()) else {
        return String::new();
    };
    let reason = text(at(ended, "/reason")).unwrap_or_default();
    format!(": the container ended with {reason}, exit code {}", at(ended, "/exitCode"))
}

/// As the user would write it; other containers' resources are not ours to read.
fn shape(limits: &Value, nodes: &Value) -> String {
    let number = |name: &str| -> Option<u32> { limits.get(name)?.as_str()?.trim_end_matches('M').parse().ok() };
    let gpu = number("nvidia.com/gpu").map(|count| (text(at(nodes, "/accelerator")).unwrap_or_else(|| "nvidia".to_owned()), count));
    let shape = number("cpu").zip(number("memory")).map(|(cpu, memory)| Shape { cpu, memory, gpu });
    shape.map(|shape| shape.to_string()).unwrap_or_default()
}

/// What is at a path (RFC 6901); null where nothing is.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// RFC 3339.
fn created(metadata: &ObjectMeta) -> String {
    let time = metadata.creation_timestamp.as_ref();
    time.map(|time| format!("{:.0}", time.0)).unwrap_or_default()
}

/// Old and new servers keep it in different fields.
fn last_seen(event: &DynamicObject) -> String {
    let fields = ["/lastTimestamp", "/eventTime", "/firstTimestamp"];
    let found = fields.iter().find_map(|field| text(at(&event.data, field)));
    found.unwrap_or_else(|| created(&event.metadata))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kube::core::DynamicObject;
    use serde_json::{Value, json};

    use super::{instance, pod_of, waiting};
    use crate::cloud::Life;

    fn object(mut value: Value) -> DynamicObject {
        value["metadata"]["creationTimestamp"] = json!("2026-03-04T05:06:07Z");
        serde_json::from_value(value).unwrap()
    }

    fn job(spec: &Value, status: &Value) -> DynamicObject {
        let container = json!({ "image": "ubuntu", "resources": { "limits": { "cpu": "4", "memory": "16000M", "nvidia.com/gpu": "1" } } });
        let mut spec = spec.clone();
        spec["template"] = json!({ "spec": { "containers": [container], "nodeSelector": { "accelerator": "nvidia-tesla-t4" } } });
        object(json!({ "metadata": { "name": "job", "annotations": { "cml-repo": "r" } }, "spec": spec, "status": status }))
    }

    fn pod(status: &Value) -> DynamicObject {
        object(json!({ "metadata": { "name": "job-x", "labels": { "job-name": "job" } }, "status": status }))
    }

    #[test]
    fn a_job_is_an_instance() {
        let running = pod(&json!({ "phase": "Running", "podIP": "10.1.2.3" }));
        let found = instance(&job(&json!({ "suspend": false }), &json!({})), Some(&running), "ci");
        assert_eq!(
            (found.id.as_str(), found.region.as_str(), found.kind.as_str()),
            ("job", "ci", "4-16000+nvidia-tesla-t4*1")
        );
        assert_eq!(
            (found.ip.as_deref(), found.launched_at.as_str()),
            (Some("10.1.2.3"), "2026-03-04T05:06:07Z")
        );
        assert_eq!(found.tags["cml-repo"], "r");
        let others = [
            object(json!({ "metadata": { "name": "other-x", "labels": { "job-name": "other" } } })),
            running,
        ];
        assert_eq!(pod_of("job", &others).unwrap().metadata.name.as_deref(), Some("job-x"));
        assert!(pod_of("none", &others).is_none());
    }

    #[test]
    fn every_state_is_live_or_gone() {
        let unplaced = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes" }] });
        let unpulled = json!({ "phase": "Pending", "containerStatuses": [{ "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } }] });
        let ended =
            json!({ "phase": "Failed", "containerStatuses": [{ "state": { "terminated": { "reason": "OOMKilled", "exitCode": 137 } } }] });
        let failed = json!({ "conditions": [{ "type": "Failed", "status": "True", "reason": "DeadlineExceeded" }] });
        let complete = json!({ "conditions": [{ "type": "Suspended", "status": "False" }, { "type": "Complete", "status": "True" }] });
        let told: Vec<(String, Life)> = [
            (json!({ "suspend": true }), json!({}), None),
            (json!({}), json!({}), None),
            (json!({}), json!({}), Some(unplaced)),
            (json!({}), json!({}), Some(unpulled)),
            (json!({}), json!({}), Some(json!({ "phase": "Running" }))),
            (json!({}), json!({}), Some(ended)),
            (json!({}), failed, None),
            (json!({}), complete, Some(json!({ "phase": "Succeeded" }))),
        ]
        .into_iter()
        .map(|(spec, status, of_pod)| {
            let pod = of_pod.map(|status| pod(&status));
            let found = instance(&job(&spec, &status), pod.as_ref(), "ci");
            (found.state, found.life)
        })
        .collect();
        insta::assert_debug_snapshot!("states", told);
    }

    #[test]
    fn what_a_pod_waits_for_is_told_with_its_last_events() {
        let unpulled =
            pod(&json!({ "containerStatuses": [{ "state": { "waiting": { "reason": "ErrImagePull", "message": "not found" } } }] }));
        let event = |time: &str, reason: &str| object(json!({ "metadata": {}, "lastTimestamp": time, "reason": reason, "message": "m" }));
        let events: Vec<DynamicObject> = (0..7)
            .rev()
            .map(|n| event(&format!("2026-01-01T00:00:0{n}Z"), &format!("R{n}")))
            .collect();
        let told = waiting(Some(&unpulled), &events);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[4]), (6, "event R2: m", "event R6: m"));
        assert_eq!(lines[5], "cml-phase name=pod state=begin after=0 detail=ErrImagePull: not found");
        assert!(waiting(None, &[]).ends_with("detail=the Job has no pod yet\n"));
    }
}
