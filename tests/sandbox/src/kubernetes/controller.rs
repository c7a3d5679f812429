//! The controllers: a Job that is not suspended gets its pod, ends with it, and is forgotten some time later, with all that it owns.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::objects::{self, Job};
use super::{Cluster, Obstacle, lock, node};
use crate::events::Source;
use crate::fleet::State;

/// Brings every Job up to what has become of its pod.
pub fn reconcile(cluster: &Cluster) {
    let mut gone = Vec::new();
    lock(&cluster.0.jobs).retain_mut(|job| {
        let is_over = end(cluster, job);
        let kept = Duration::from_secs(job.spec()["ttlSecondsAfterFinished"].as_u64().unwrap_or(u64::MAX));
        let expired = |at: &SystemTime| at.elapsed().unwrap_or_default() > kept;
        let is_forgotten = is_over && (job.is_deleted || job.ended.as_ref().is_some_and(|(_, _, at)| expired(at)));
        if is_forgotten {
            gone.push(job.object["metadata"]["uid"].clone());
        }
        !is_forgotten
    });
    // The garbage collector: what is owned goes with its owner.
    lock(&cluster.0.secrets).retain(|secret| !gone.contains(&secret["metadata"]["ownerReferences"][0]["uid"]));
}

/// Whether its pod runs no more, or never did; then it has ended.
fn end(cluster: &Cluster, job: &mut Job) -> bool {
    let Some(instance) = cluster.0.fleet.instance(job.name()) else {
        return job.begun.is_none() || job.obstacle.is_some();
    };
    if instance.state != State::Ended {
        return false;
    }
    if job.ended.is_none() {
        let ended = match (instance.reason.as_str(), node::exit_code(cluster, job.name())) {
            (node::EXIT, Some(0)) => ("Complete", String::new()),
            ("DeadlineExceeded", _) => ("Failed", "DeadlineExceeded".to_owned()),
            _ => ("Failed", "BackoffLimitExceeded".to_owned()),
        };
        job.ended = Some((ended.0, ended.1, SystemTime::now()));
    }
    true
}

/// Takes a Job in.
pub fn add(cluster: &Cluster, object: Value) -> Value {
    let mut jobs = lock(&cluster.0.jobs);
    let number = lock(&cluster.0.log).len();
    let mut job = Job {
        object: objects::made(object, number),
        begun: None,
        ended: None,
        is_deleted: false,
        obstacle: None,
        events: Vec::new(),
    };
    begin(cluster, &mut job);
    let shown = job.shown();
    jobs.push(job);
    shown
}

/// Gives a Job its pod, unless it is suspended or has one.
pub fn begin(cluster: &Cluster, job: &mut Job) {
    if job.spec()["suspend"] == true || job.begun.is_some() {
        return;
    }
    let now = SystemTime::now();
    job.begun = Some(now);
    job.obstacle.clone_from(&lock(&cluster.0.obstacle));
    match &job.obstacle {
        None => node::run(cluster, job),
        Some(Obstacle::Unschedulable(why)) => job.events.push(("FailedScheduling".into(), why.clone(), now)),
        Some(Obstacle::Waiting(reason, why)) => job.events.push((reason.clone(), why.clone(), now)),
        Some(Obstacle::Refused(why)) => job.events.push(("FailedCreate".into(), why.clone(), now)),
    }
    if let Some(deadline) = job.spec()["activeDeadlineSeconds"].as_u64() {
        let (of, name) = (cluster.clone(), job.name().to_owned());
        lock(&cluster.0.tasks).spawn(async move {
            tokio::time::sleep(Duration::from_secs(deadline)).await;
            node::end_pod(&of, &name, Duration::ZERO, "DeadlineExceeded");
        });
    }
}

/// Deletes a Job in the foreground: it goes when its pod has gone.
pub fn delete(cluster: &Cluster, name: &str) -> Option<Value> {
    let (shown, grace) = {
        let mut jobs = lock(&cluster.0.jobs);
        let job = jobs.iter_mut().find(|job| job.name() == name)?;
        job.is_deleted = true;
        let grace = job.pod_spec()["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        (job.shown(), Duration::from_secs(grace))
    };
    cluster.0.events.push(Source::Cloud, "job-deleted", name, "");
    node::end_pod(cluster, name, grace, "Killing");
    Some(shown)
}

/// The pod of a Job, if it has one.
pub fn pod(cluster: &Cluster, job: &Job) -> Option<Value> {
    job.begun?;
    let waiting = |reason: &str, message: &str| {
        let state = json!({ "waiting": { "reason": reason, "message": message } });
        json!({ "phase": "Pending", "containerStatuses": [{ "name": "runner", "ready": false, "state": state }] })
    };
    let status = match &job.obstacle {
        Some(Obstacle::Refused(_)) => return None,
        Some(Obstacle::Unschedulable(why)) => json!({
            "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why }],
        }),
        Some(Obstacle::Waiting(reason, why)) => waiting(reason, why),
        None => match cluster.0.fleet.instance(job.name())?.state {
            State::Pending => waiting("ContainerCreating", ""),
            State::Running | State::Ending | State::Stopped => json!({
                "phase": "Running",
                "podIP": "10.1.0.10",
                "containerStatuses": [{ "name": "runner", "ready": true, "state": { "running": {} } }],
            }),
            State::Ended => {
                let code = node::exit_code(cluster, job.name()).unwrap_or(137);
                let (phase, reason) = if code == 0 {
                    ("Succeeded", "Completed")
                } else {
                    ("Failed", "Error")
                };
                let state = json!({ "terminated": { "reason": reason, "exitCode": code } });
                json!({ "phase": phase, "podIP": "10.1.0.10", "containerStatuses": [{ "name": "runner", "state": state }] })
            }
        },
    };
    Some(job.pod(&status))
}
