//! A node: mounts a pod's Secret, runs its container as the first process of a process namespace where that is possible, and ends it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::objects::{self, Job};
use super::{Cluster, lock};
use crate::events::Source;
use crate::fleet::{Launch, Off, Ready, State};

/// Why an instance ended whose container did.
pub const EXIT: &str = "the container ended";
/// Where, in an instance's directory, its container's exit code is left.
const CODE: &str = "exit-code";
/// How often a Secret that is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What the node does before and after the container's own program, whose words are this script's arguments.
const CONTAINER: &str = r#"
if unshare --pid --fork --mount-proc --kill-child true 2>/dev/null; then set -- unshare --pid --fork --mount-proc --kill-child "$@"; fi
"$@"
echo $? >"$machine/exit-code"
poweroff
"#;

/// Runs the pod of a Job.
pub fn run(cluster: &Cluster, job: &Job) {
    let annotation = |name: &str| job.object["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned();
    let annotations = job.object["metadata"]["annotations"].as_object().into_iter().flatten();
    let limits = &job.pod_spec()["containers"][0]["resources"]["limits"];
    let (cluster, name, pod) = (cluster.clone(), job.name().to_owned(), job.pod_spec().clone());
    let fleet = cluster.0.fleet.clone();
    fleet.launch(Launch {
        id: name.clone(),
        name: annotation("cml-runner-name"),
        kind: format!(
            "{}-{}",
            limits["cpu"].as_str().unwrap_or_default(),
            limits["memory"].as_str().unwrap_or_default()
        ),
        zone: "node-1".into(),
        spot: false,
        tags: annotations
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect::<BTreeMap<_, _>>(),
        off: Off {
            reason: EXIT,
            stays: false,
        },
        boot: Box::pin(async move {
            let files = mounts(&cluster, &pod).await?;
            let machine = cluster.0.fleet.machine_dir(&name).display().to_string();
            Ok(Ready {
                script: script(&pod, &files, &machine)?,
                env: Vec::new(),
                metadata: None,
                keep: Box::new(()),
            })
        }),
    });
}

/// A file of a volume: its path, its mode, its contents.
type File = (String, u64, String);

/// Waits, as a node does, until the Secrets of a pod are there.
async fn mounts(cluster: &Cluster, pod: &Value) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for mount in pod["containers"][0]["volumeMounts"].as_array().into_iter().flatten() {
        let volumes = pod["volumes"].as_array().into_iter().flatten();
        let volume = volumes
            .into_iter()
            .find(|volume| volume["name"] == mount["name"])
            .context("a mount has no volume")?;
        let secret = &volume["secret"];
        let found = loop {
            let found = lock(&cluster.0.secrets)
                .iter()
                .find(|one| secret["secretName"] == objects::name(one))
                .cloned();
            match found {
                Some(found) => break found,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        let mode = secret["defaultMode"].as_u64().unwrap_or(0o644);
        let at = mount["mountPath"].as_str().context("a mount has no path")?;
        for (name, text) in found["stringData"].as_object().into_iter().flatten() {
            files.push((format!("{at}/{name}"), mode, text.as_str().unwrap_or_default().to_owned()));
        }
    }
    Ok(files)
}

/// One script that does what a node would. Without a root of its own, the pod's files are below `$CML_ROOT`.
fn script(pod: &Value, files: &[File], machine: &str) -> Result<String> {
    let container = &pod["containers"][0];
    let mut script = "#!/bin/sh\n".to_owned();
    writeln!(script, "machine={}", quote(machine))?;
    for (path, mode, text) in files {
        writeln!(script, "file=${{CML_ROOT:-}}{}", quote(path))?;
        writeln!(
            script,
            "mkdir -p \"${{file%/*}}\" && printf %s {} | base64 -d >\"$file\" && chmod {mode:o} \"$file\"",
            STANDARD.encode(text)
        )?;
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        let of = |field: &str| variable[field].as_str().unwrap_or_default();
        // What a scaled world says of time counts.
        writeln!(
            script,
            "export {name}=\"${{{name}-{value}}}\"",
            name = of("name"),
            value = of("value")
        )?;
    }
    script.push_str("set --");
    for word in container["command"].as_array().into_iter().flatten() {
        let word = word.as_str().context("a command has words only")?;
        let is_mounted = files.iter().any(|(path, ..)| path == word);
        let root = if is_mounted { "\"${CML_ROOT:-}\"" } else { "" };
        write!(script, " {root}{}", quote(word))?;
    }
    script.push_str(CONTAINER);
    Ok(script)
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The exit code that a container left, if it ended by itself.
pub fn exit_code(cluster: &Cluster, name: &str) -> Option<i64> {
    let file = cluster.0.fleet.machine_dir(name).join(CODE);
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Ends a pod as a node does: SIGTERM to its first process, and SIGKILL after the grace.
pub fn end_pod(cluster: &Cluster, name: &str, grace: Duration, reason: &'static str) {
    let fleet = &cluster.0.fleet;
    if fleet.instance(name).is_none_or(|instance| instance.state.is_over()) {
        return;
    }
    // Before the agent there is only a shell, whose death nobody waits for here.
    let hears = fleet.instance(name).is_some_and(|instance| instance.state == State::Running) && fleet.signal_agent(name).is_ok();
    if hears && !grace.is_zero() {
        cluster.0.events.push(Source::Cloud, "pod-terminating", name, reason);
        fleet.end_after(name, grace, reason);
    } else {
        fleet.end(name, reason);
    }
}
