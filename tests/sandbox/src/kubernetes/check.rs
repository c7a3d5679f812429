//! What the API server would refuse: unknown fields, illegal names, Jobs that could not run. Stricter than a real one, which only warns of unknown fields.

use serde_json::Value;

use super::NAMESPACE;
use super::refusal::{Refusal, invalid};

/// Every field of a Job that is known here. `*` is any key of a map; elements of lists have no name of their own.
/// <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/>
const JOB: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.labels.*",
    "metadata.annotations.*",
    "spec.suspend",
    "spec.parallelism",
    "spec.completions",
    "spec.backoffLimit",
    "spec.ttlSecondsAfterFinished",
    "spec.activeDeadlineSeconds",
    "spec.template.metadata.labels.*",
    "spec.template.metadata.annotations.*",
    "spec.template.spec.restartPolicy",
    "spec.template.spec.terminationGracePeriodSeconds",
    "spec.template.spec.automountServiceAccountToken",
    "spec.template.spec.serviceAccountName",
    "spec.template.spec.enableServiceLinks",
    "spec.template.spec.nodeSelector.*",
    "spec.template.spec.tolerations.key",
    "spec.template.spec.tolerations.operator",
    "spec.template.spec.tolerations.effect",
    "spec.template.spec.containers.name",
    "spec.template.spec.containers.image",
    "spec.template.spec.containers.command",
    "spec.template.spec.containers.env.name",
    "spec.template.spec.containers.env.value",
    "spec.template.spec.containers.resources.requests.*",
    "spec.template.spec.containers.resources.limits.*",
    "spec.template.spec.containers.securityContext.runAsUser",
    "spec.template.spec.containers.securityContext.runAsGroup",
    "spec.template.spec.containers.securityContext.runAsNonRoot",
    "spec.template.spec.containers.volumeMounts.name",
    "spec.template.spec.containers.volumeMounts.mountPath",
    "spec.template.spec.containers.volumeMounts.readOnly",
    "spec.template.spec.volumes.name",
    "spec.template.spec.volumes.secret.secretName",
    "spec.template.spec.volumes.secret.defaultMode",
];

/// The same of a Secret.
const SECRET: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.labels.*",
    "metadata.ownerReferences.apiVersion",
    "metadata.ownerReferences.kind",
    "metadata.ownerReferences.name",
    "metadata.ownerReferences.uid",
    "type",
    "immutable",
    "stringData.*",
];

/// How long a name, and the value of a label, may be.
const LONGEST: usize = 63;
/// How large a Secret may be, in bytes.
const LARGEST: usize = 1 << 20;

/// Whether a Job can be made so.
pub fn job(body: &Value) -> Result<(), Refusal> {
    header(body, "batch/v1", "Job", JOB)?;
    let refuse = |why: &str| Err(invalid("Job.batch", why));
    let spec = &body["spec"];
    for field in [
        "parallelism",
        "completions",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "activeDeadlineSeconds",
    ] {
        if !spec[field].is_null() && !spec[field].is_u64() {
            return refuse(&format!("spec.{field}: Invalid value: must be a number greater than or equal to 0"));
        }
    }
    let pod = &spec["template"]["spec"];
    if !["Never", "OnFailure"].iter().any(|policy| pod["restartPolicy"] == *policy) {
        return refuse("spec.template.spec.restartPolicy: Unsupported value: supported values: \"OnFailure\", \"Never\"");
    }
    let containers = pod["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [container] = containers else {
        return refuse("spec.template.spec.containers: Required value");
    };
    for field in ["name", "image"] {
        if container[field].as_str().is_none_or(str::is_empty) {
            return refuse(&format!("spec.template.spec.containers[0].{field}: Required value"));
        }
    }
    let resources = &container["resources"];
    for (name, amount) in resources["limits"].as_object().into_iter().flatten() {
        if quantity(amount).is_none() {
            return refuse(&format!(
                "spec.template.spec.containers[0].resources.limits[{name}]: must match a quantity"
            ));
        }
        if name.contains('/') && resources["requests"][name] != *amount {
            return refuse(&format!(
                "spec.template.spec.containers[0].resources.requests: Invalid value: must be equal to {name} limit"
            ));
        }
    }
    if resources["requests"] != resources["limits"] {
        return refuse("this sandbox takes only pods whose requests are their limits");
    }
    let volumes = pod["volumes"].as_array().into_iter().flatten();
    let names: Vec<&Value> = volumes.map(|volume| &volume["name"]).collect();
    let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
    if mounts.any(|mount| !names.contains(&&mount["name"])) {
        return refuse("spec.template.spec.containers[0].volumeMounts[0].name: Not found");
    }
    labels(&spec["template"]["metadata"]["labels"])?;
    labels(&pod["nodeSelector"])
}

/// Whether a Secret can be made so.
pub fn secret(body: &Value) -> Result<(), Refusal> {
    header(body, "v1", "Secret", SECRET)?;
    let texts = body["stringData"].as_object().into_iter().flatten();
    let size: usize = texts.filter_map(|(_, text)| text.as_str()).map(str::len).sum();
    if size > LARGEST {
        return Err(invalid("Secret", "data: Too long: must have at most 1048576 bytes"));
    }
    Ok(())
}

/// Whether a Job can be changed so: only begun, or held back.
pub fn patch(body: &Value) -> Result<bool, Refusal> {
    unknown(body, "", &["spec.suspend"])?;
    body["spec"]["suspend"]
        .as_bool()
        .ok_or_else(|| Refusal(422, "Invalid", "spec.suspend: Invalid value: must be a boolean".into()))
}

fn header(body: &Value, version: &str, kind: &str, known: &[&str]) -> Result<(), Refusal> {
    if body["apiVersion"] != version || body["kind"] != kind {
        return Err(Refusal(400, "BadRequest", format!("the object is no {kind} of {version}")));
    }
    unknown(body, "", known)?;
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let legal = name.chars().all(|c| ends(c) || c == '-') && name.starts_with(ends) && name.ends_with(ends);
    if !legal || name.len() > LONGEST {
        return Err(invalid(
            kind,
            "metadata.name: Invalid value: a lowercase RFC 1123 subdomain must consist of …",
        ));
    }
    labels(&body["metadata"]["labels"])
}

fn labels(labels: &Value) -> Result<(), Refusal> {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let is_value = |text: &str| {
        let legal = text.chars().all(|c| ends(c) || "-_.".contains(c));
        text.is_empty() || (legal && text.len() <= LONGEST && text.starts_with(ends) && text.ends_with(ends))
    };
    for (key, value) in labels.as_object().into_iter().flatten() {
        if !value.as_str().is_some_and(is_value) {
            return Err(invalid("metadata.labels", &format!("{key}: Invalid value: {value}")));
        }
    }
    Ok(())
}

/// A number with a decimal or a binary suffix.
fn quantity(value: &Value) -> Option<u64> {
    let text = value.as_str()?;
    text.trim_end_matches(['M', 'G', 'i', 'K']).parse().ok()
}

fn unknown(value: &Value, path: &str, known: &[&str]) -> Result<(), Refusal> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            let map = format!("{path}*");
            let path = if known.contains(&map.as_str()) {
                map
            } else {
                format!("{path}{key}")
            };
            let inside = format!("{path}.");
            if known.contains(&path.as_str()) && !value.is_object() {
                return Ok(());
            }
            if known.iter().any(|known| known.starts_with(&inside)) {
                return unknown(value, &inside, known);
            }
            Err(Refusal(
                400,
                "BadRequest",
                format!("strict decoding error: unknown field \"{path}\" in {NAMESPACE}"),
            ))
        }),
        Value::Array(items) => items.iter().try_for_each(|item| unknown(item, path, known)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{job, patch, secret};

    fn minimal() -> Value {
        let container = json!({ "name": "x", "image": "x" });
        let spec = json!({ "backoffLimit": 0, "template": { "spec": { "restartPolicy": "Never", "containers": [container] } } });
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "x" }, "spec": spec })
    }

    fn broken(pointer: &str, value: Value) -> u16 {
        let mut body = minimal();
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        body.pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .map(|object| object.insert(key.into(), value));
        job(&body).map_or_else(|refusal| refusal.0, |()| 200)
    }

    #[test]
    fn what_a_real_server_would_not_take_or_would_drop_is_refused() {
        assert!(job(&minimal()).is_ok());
        for (pointer, value, status) in [
            ("/spec/backofLimit", json!(0), 400),
            ("/spec/template/spec/restartpolicy", json!("Never"), 400),
            ("/kind", json!("Pod"), 400),
            ("/metadata/name", json!("Not_legal"), 422),
            ("/metadata/labels", json!({ "x": "no label" }), 422),
            ("/spec/backoffLimit", json!("0"), 422),
            ("/spec/template/spec/restartPolicy", json!("Always"), 422),
            ("/spec/template/spec/containers", json!([]), 422),
            ("/spec/template/spec/nodeSelector", json!({ "x": 1 }), 422),
        ] {
            assert_eq!(broken(pointer, value), status, "{pointer}");
        }
        assert!(patch(&json!({ "spec": { "suspend": false } })).is_ok_and(|held| !held));
        assert!(patch(&json!({ "spec": { "template": {} } })).is_err());
        let large = "x".repeat((1 << 20) + 1);
        let body = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "x" }, "stringData": { "start": large } });
        assert!(secret(&body).is_err());
    }
}
