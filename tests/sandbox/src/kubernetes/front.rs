//! What every request passes: its path, the token, faults, the log; and what is answered.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::resume_unwind;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::refusal::{Refusal, not_found};
use super::{Cluster, NAMESPACE, check, controller, lock, objects};
use crate::faults::Effect;

/// What a request asks for.
struct Call {
    /// `create`, `get`, `list`, `patch`, `delete`, `log`
    verb: &'static str,
    /// `jobs`
    resource: String,
    name: String,
    query: BTreeMap<String, String>,
    body: Value,
}

pub fn app(cluster: &Cluster) -> Router {
    Router::new().fallback(front).with_state(cluster.clone())
}

async fn front(State(cluster): State<Cluster>, method: Method, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let Some(call) = Call::read(&method, &uri, &body) else {
        let refusal = Refusal(404, "NotFound", "the server could not find the requested resource".into());
        return answer(404, &refusal.body());
    };
    let action = format!("{} {}", call.verb, call.resource);
    lock(&cluster.0.log).push((action.clone(), call.body.clone()));
    if let Some(file) = cluster.0.record.as_ref().filter(|_| call.verb == "create") {
        let _ = lock(file).write_all(format!("{}\n", call.body).as_bytes());
    }
    let mut lose = false;
    match cluster.0.faults.strike(&action) {
        None => {}
        Some(Effect::Reset) => hang_up(),
        Some(Effect::LoseAnswer) => lose = true,
        Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
        Some(Effect::Hold(gate)) => gate.pass().await,
        Some(Effect::Answer { status, body, .. }) => {
            return answer(status, &serde_json::from_str(&body).unwrap_or_default());
        }
    }
    let done = if is_ours(&cluster, &headers) {
        act(&cluster, call)
    } else {
        Err(Refusal(401, "Unauthorized", "Unauthorized".into()))
    };
    if lose {
        hang_up();
    }
    match done {
        Ok((status, Value::String(text))) => (StatusCode::from_u16(status).unwrap_or_default(), text).into_response(),
        Ok((status, body)) => answer(status, &body),
        Err(refusal) => answer(refusal.0, &refusal.body()),
    }
}

/// Closes the connection without a word; unwinding skips the panic hook, and ends only the connection's own task.
fn hang_up() -> ! {
    resume_unwind(Box::new("the connection is closed on purpose"))
}

fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}

fn is_ours(cluster: &Cluster, headers: &HeaderMap) -> bool {
    let said = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let token = lock(&cluster.0.token);
    !token.is_empty() && said == format!("Bearer {token}")
}

impl Call {
    /// `/api/v1/namespaces/NS/RESOURCE[/NAME[/log]]`, or the same below `/apis/batch/v1`.
    fn read(method: &Method, uri: &Uri, body: &str) -> Option<Self> {
        let path = uri.path();
        let (rest, known): (_, &[&str]) = match path.strip_prefix("/apis/batch/v1/namespaces/") {
            Some(rest) => (rest, &["jobs"]),
            None => (path.strip_prefix("/api/v1/namespaces/")?, &["secrets", "pods", "events"]),
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let (resource, name, verb) = match (method.as_str(), parts.as_slice()) {
            ("POST", [NAMESPACE, resource]) => (resource, "", "create"),
            ("GET", [NAMESPACE, resource]) => (resource, "", "list"),
            ("GET", [NAMESPACE, resource, name]) => (resource, *name, "get"),
            ("GET", [NAMESPACE, resource, name, "log"]) => (resource, *name, "log"),
            ("PATCH", [NAMESPACE, resource, name]) => (resource, *name, "patch"),
            ("DELETE", [NAMESPACE, resource, name]) => (resource, *name, "delete"),
            _ => return None,
        };
        known.contains(resource).then(|| Self {
            verb,
            resource: (*resource).to_owned(),
            name: name.to_owned(),
            query: crate::form::parse(uri.query().unwrap_or_default()),
            body: serde_json::from_str(body).unwrap_or_default(),
        })
    }

    fn query(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }
}

fn act(cluster: &Cluster, call: Call) -> Result<(u16, Value), Refusal> {
    controller::reconcile(cluster);
    match (call.verb, call.resource.as_str()) {
        ("create", "jobs") => {
            check::job(&call.body)?;
            if lock(&cluster.0.jobs).iter().any(|job| job.name() == objects::name(&call.body)) {
                return Err(taken("jobs.batch", &call.body));
            }
            Ok((201, controller::add(cluster, call.body)))
        }
        ("create", "secrets") => {
            check::secret(&call.body)?;
            let mut secrets = lock(&cluster.0.secrets);
            if secrets.iter().any(|secret| objects::name(secret) == objects::name(&call.body)) {
                return Err(taken("secrets", &call.body));
            }
            let number = lock(&cluster.0.log).len();
            let made = objects::made(call.body, number);
            secrets.push(made.clone());
            Ok((201, made))
        }
        ("list", "jobs") => {
            let jobs = lock(&cluster.0.jobs);
            let shown = jobs.iter().map(super::objects::Job::shown);
            Ok((200, list("batch/v1", "JobList", &selected(shown, call.query("labelSelector")))))
        }
        ("list", "pods") => {
            let jobs = lock(&cluster.0.jobs);
            let pods = jobs.iter().filter_map(|job| controller::pod(cluster, job));
            Ok((200, list("v1", "PodList", &selected(pods, call.query("labelSelector")))))
        }
        ("list", "events") => Ok((200, list("v1", "EventList", &events(cluster, call.query("fieldSelector"))))),
        ("get", "jobs") => {
            let jobs = lock(&cluster.0.jobs);
            let job = jobs.iter().find(|job| job.name() == call.name);
            Ok((200, job.ok_or_else(|| not_found("jobs.batch", &call.name))?.shown()))
        }
        ("patch", "jobs") => {
            let is_held = check::patch(&call.body)?;
            let mut jobs = lock(&cluster.0.jobs);
            let job = jobs.iter_mut().find(|job| job.name() == call.name);
            let job = job.ok_or_else(|| not_found("jobs.batch", &call.name))?;
            job.object["spec"]["suspend"] = json!(is_held);
            controller::begin(cluster, job);
            Ok((200, job.shown()))
        }
        ("delete", "jobs") => {
            if call.body["propagationPolicy"] != "Foreground" {
                return Err(Refusal(400, "BadRequest", "this sandbox deletes in the foreground only".into()));
            }
            let shown = controller::delete(cluster, &call.name);
            Ok((200, shown.ok_or_else(|| not_found("jobs.batch", &call.name))?))
        }
        ("log", "pods") => log(cluster, &call),
        (verb, resource) => Err(Refusal(405, "MethodNotAllowed", format!("this sandbox does not {verb} {resource}"))),
    }
}

fn taken(resource: &str, body: &Value) -> Refusal {
    Refusal(
        409,
        "AlreadyExists",
        format!("{resource} \"{}\" already exists", objects::name(body)),
    )
}

fn selected(objects: impl Iterator<Item = Value>, selector: &str) -> Vec<Value> {
    objects.filter(|object| objects::is_selected(object, selector)).collect()
}

fn list(version: &str, kind: &str, items: &[Value]) -> Value {
    json!({ "apiVersion": version, "kind": kind, "metadata": { "resourceVersion": "2000" }, "items": items })
}

/// Those of a Job or of its pod; a Job that has a pod tells what is told of the pod.
fn events(cluster: &Cluster, selector: &str) -> Vec<Value> {
    let name = selector.strip_prefix("involvedObject.name=").unwrap_or_default();
    let jobs = lock(&cluster.0.jobs);
    let of = jobs.iter().find(|job| {
        let has_pod = controller::pod(cluster, job).is_some();
        name == if has_pod { job.pod_name() } else { job.name().to_owned() }
    });
    of.map(|job| job.event_list(name)).unwrap_or_default()
}

fn log(cluster: &Cluster, call: &Call) -> Result<(u16, Value), Refusal> {
    let jobs = lock(&cluster.0.jobs);
    let job = jobs.iter().find(|job| job.pod_name() == call.name && job.begun.is_some());
    let job = job.ok_or_else(|| not_found("pods", &call.name))?;
    let is_waiting = controller::pod(cluster, job).is_none_or(|pod| pod["status"]["phase"] == "Pending");
    if is_waiting {
        let message = format!(
            "container \"runner\" in pod \"{}\" is waiting to start: ContainerCreating",
            call.name
        );
        return Err(Refusal(400, "BadRequest", message));
    }
    let console = String::from_utf8_lossy(&cluster.0.fleet.console(job.name())).into_owned();
    let lines: Vec<&str> = console.lines().collect();
    let tail = call.query("tailLines").parse().unwrap_or(usize::MAX);
    let shown = lines[lines.len().saturating_sub(tail)..].join(
        "
",
    ) + "
";
    Ok((200, Value::String(shown)))
}
