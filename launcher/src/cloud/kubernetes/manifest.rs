//! The two objects of a launch, as they are sent: a Job, and a Secret that is its own. Pure.
//!
//! The Job is made first, suspended: no pod of it exists, so that nothing is waited for or paid. Then the Secret, whose owner is the Job, so that it goes
//! with it. Then the Job is resumed. A launcher that is killed anywhere in between leaves a Job that costs nothing and has our tags.
//!
//! Fields: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/> and `…/pod-v1/`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::spec::CloudKind;
use serde_json::{Value, json};

use super::names;
use crate::catalog::kubernetes::Shape;
use crate::catalog::{self, Candidate};
use crate::cloud::{LONGEST_LIFE, Order};

/// The label that tells what a launch made.
pub const LAUNCH_ID: &str = "cml-launch-id";
/// The label of everything that is ours.
pub const OURS: &str = "cml";

/// How long a Job that has ended, and the log of its pod, is kept: as long as EC2 remembers an instance. Without it, a launcher could not tell why it ended,
/// nor `reap` run again what it could not.
const KEPT: Duration = Duration::from_hours(1);

/// How long a pod that is evicted may take to leave: what AWS leaves a spot machine. A node that is itself taken away may leave less.
const GRACE: Duration = Duration::from_mins(2);

/// Where the start-up script is in the pod. Jobs, which are not root, cannot read it.
const DIRECTORY: &str = "/run/cml";
const SCRIPT: &str = "start";
/// Only for root.
const MODE: u16 = 0o400;

/// The resource that nodes with NVIDIA's device plugin have.
/// <https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/>
const GPU: &str = "nvidia.com/gpu";
/// What keeps autoscalers from moving a pod to save a node: its job would run twice. Sources:
/// <https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md>, <https://karpenter.sh/docs/concepts/disruption/>
const STAYS: [(&str, &str); 2] = [
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ("karpenter.sh/do-not-disrupt", "true"),
];

/// What an order is made of.
#[derive(Debug)]
pub struct Manifest {
    /// The name of both objects.
    pub name: String,
    labels: Value,
    job: Value,
}

impl Manifest {
    /// Of an order.
    ///
    /// # Errors
    /// The order's options name something that cannot be.
    pub fn of(order: &Order) -> Result<Self> {
        let options = &order.options;
        let candidates = catalog::resolve(CloudKind::Kubernetes, &options.cloud_type, options.cloud_gpu.as_deref())?;
        let candidate = candidates.first().context("the machine type has no candidates")?;
        let name = names::of(order);
        let labels = json!({ OURS: order.tags.get(OURS), LAUNCH_ID: order.launch_id });
        let lifetime = order.lifetime.unwrap_or(LONGEST_LIFE).as_secs().max(1);
        let stays = STAYS.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let kept: BTreeMap<String, String> = order.tags.clone().into_iter().chain(stays).collect();
        let job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": name, "labels": labels, "annotations": order.tags },
            "spec": {
                "suspend": true,
                "parallelism": 1,
                "completions": 1,
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": KEPT.as_secs(),
                "activeDeadlineSeconds": lifetime,
                "template": {
                    "metadata": { "labels": labels, "annotations": kept },
                    "spec": pod(order, candidate, &name)?,
                },
            },
        });
        Ok(Self { name, labels, job })
    }

    /// The Job.
    pub const fn job(&self) -> &Value {
        &self.job
    }

    /// The Secret of the Job with this unique id.
    pub fn secret(&self, order: &Order, uid: &str) -> Value {
        let owner = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": self.name, "uid": uid }]);
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": self.name, "labels": self.labels, "ownerReferences": owner },
            "type": "Opaque",
            "immutable": true,
            "stringData": { SCRIPT: order.startup_data },
        })
    }
}

/// What lets a Job begin.
pub fn resumed() -> Value {
    json!({ "spec": { "suspend": false } })
}

fn pod(order: &Order, candidate: &Candidate, name: &str) -> Result<Value> {
    let options = &order.options;
    let shape = Shape::read(&candidate.native).with_context(|| format!("`{}` is no size", candidate.native))?;
    let gpu = shape.gpu.as_ref();
    let region = catalog::region(CloudKind::Kubernetes, &options.cloud_region)?.region;
    let mut nodes = names::node_selector(
        &region,
        &options.cloud_kubernetes_node_selector,
        gpu.map(|(model, _)| model.as_str()),
    )?;
    // The agent is built for one processor and system.
    nodes.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    nodes.insert("kubernetes.io/arch".to_owned(), "amd64".to_owned());
    let limits = limits(&shape, options.cloud_hdd_size);
    // Nodes with GPUs are commonly kept for pods that need them.
    let tolerations = gpu.map(|_| json!([{ "key": GPU, "operator": "Exists", "effect": "NoSchedule" }]));
    let spec = json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE.as_secs(),
        "serviceAccountName": options.cloud_permission_set,
        "automountServiceAccountToken": options.cloud_permission_set.is_some(),
        "enableServiceLinks": false,
        "nodeSelector": nodes,
        "tolerations": tolerations,
        "containers": [{
            "name": "runner",
            "image": image(order, gpu.is_some(), candidate)?,
            "command": ["/bin/sh", format!("{DIRECTORY}/{SCRIPT}")],
            "env": [
                // A pod's log is its console.
                { "name": "CML_CONSOLE", "value": "/proc/self/fd/1" },
                { "name": "CML_GRACE_SECONDS", "value": GRACE.as_secs().to_string() },
            ],
            // A pod that asks for as much as it may use is the last to be evicted when its node runs out of memory.
            "resources": { "requests": limits, "limits": limits },
            // The agent keeps its credential from jobs by being another user than they are.
            "securityContext": { "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false },
            "volumeMounts": [{ "name": "start", "mountPath": DIRECTORY, "readOnly": true }],
        }],
        "volumes": [{ "name": "start", "secret": { "secretName": name, "defaultMode": MODE } }],
    });
    Ok(without_nulls(spec))
}

/// Fields that are not asked for are not sent.
fn without_nulls(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

fn limits(shape: &Shape, disk: u32) -> BTreeMap<&'static str, String> {
    let mut limits = BTreeMap::from([
        ("cpu", shape.cpu.to_string()),
        ("memory", format!("{}M", shape.memory)),
        ("ephemeral-storage", format!("{disk}G")),
    ]);
    if let Some((_, count)) = &shape.gpu {
        limits.insert(GPU, count.to_string());
    }
    limits
}

/// The user's image as it is, else the catalog's.
fn image(order: &Order, gpu: bool, candidate: &Candidate) -> Result<String> {
    if let Some(image) = &order.options.cloud_image {
        return Ok(image.trim().to_owned());
    }
    let query = catalog::image(CloudKind::Kubernetes, gpu)?;
    Ok(format!("{}/{}", query.owner, query.pattern(candidate.arch)))
}
