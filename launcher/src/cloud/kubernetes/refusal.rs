//! What the API server's refusals mean to a user: the class, and what to do.

use std::time::Duration;

use common::error::{Class, Failure};
use kube::Error;
use kube::core::Status;

/// Statuses of a server, or of what stands in front of it, that has no time now. Source:
/// <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#http-status-codes>
const BUSY: [u16; 5] = [429, 500, 502, 503, 504];

/// The failure that an error of a call means. What the server may have acted on is unexpected: then the caller sweeps.
pub fn of(call: &str, error: Error) -> anyhow::Error {
    let failure = match &error {
        Error::Api(status) => refused(call, status),
        Error::Auth(_) => Failure::new(Class::Access, "the kubeconfig's credentials cannot be used").hint(
            "a kubeconfig of EKS, GKE or AKS names a program (`aws`, `gke-gcloud-auth-plugin`, `kubelogin`) that must be installed and logged in where `cml` runs",
        ),
        Error::SerdeError(_) => Failure::new(Class::Unexpected, format!("the cluster did not answer as expected when asked to {call}")),
        _ => Failure::new(Class::Unexpected, format!("the cluster did not answer when asked to {call}"))
            .hint("check the network, the proxy, and the `server` and the certificates of the kubeconfig; where it has none, `--ca-certificates`"),
    };
    match error {
        // Without the crate's own words, which say everything twice.
        Error::Api(status) => anyhow::Error::new(*status).context(failure),
        error => anyhow::Error::new(error).context(failure),
    }
}

fn refused(call: &str, status: &Status) -> Failure {
    let Status { code, message, reason, .. } = status;
    match code {
        401 => Failure::new(Class::Access, format!("the cluster refused the credentials ({reason})"))
            .hint("check that the kubeconfig's token or certificate has not expired"),
        403 if message.contains("exceeded quota") => {
            Failure::new(Class::Capacity, format!("a quota of the namespace is used up: {message}"))
                .hint("ask for more, or try a smaller `--cloud-type` or `--cloud-hdd-size`")
        }
        403 if message.contains("violates PodSecurity") => {
            Failure::new(Class::Usage, format!("the namespace's pod security refuses the pod: {message}"))
                .hint("the agent keeps its credential from jobs by being root in its container: use a namespace of the level `baseline`")
        }
        403 => Failure::new(Class::Access, format!("the cluster does not allow to {call} ({reason})"))
            .hint("docs/clouds/kubernetes.md has the role with all permissions that are needed"),
        404 => Failure::new(
            Class::Usage,
            format!("the cluster does not know what it takes to {call} ({reason})"),
        )
        .hint("check the namespace of the kubeconfig's context"),
        400 | 422 => Failure::new(Class::Usage, format!("the cluster refused to {call} ({reason})")),
        409 => Failure::new(Class::Unexpected, format!("the cluster refused to {call} ({reason})")),
        429 => Failure::new(
            Class::Capacity,
            format!("the cluster still answers that there were too many requests ({reason})"),
        )
        .hint("try again later"),
        _ => Failure::new(
            Class::Unexpected,
            format!("the cluster did not answer as expected when asked to {call} ({code} {reason})"),
        ),
    }
}

/// Whether a call that failed in this way may be made again: it did not reach the server, its answer was lost, or the server had no time.
pub fn passes(error: &Error) -> bool {
    match error {
        Error::Api(status) => BUSY.contains(&status.code),
        Error::HyperError(_) => true,
        Error::Service(inner) => !is_certificate(&**inner),
        _ => false,
    }
}

/// How long the server said to wait.
pub fn asked_to_wait(error: &Error) -> Duration {
    let Error::Api(status) = error else { return Duration::ZERO };
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    Duration::from_secs(seconds.into())
}

/// Whether there is no such object.
pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// Whether there is one of that name already.
pub fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// Whether it is TLS itself that failed: the server will not become another one.
fn is_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut link = Some(error);
    while let Some(error) = link {
        if error.to_string().contains("certificate") {
            return true;
        }
        link = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use common::error::{Class, Report};
    use kube::Error;
    use kube::core::Status;

    use super::{is_not_found, is_taken, of, passes};

    fn api(code: u16, reason: &str, message: &str) -> Error {
        Error::Api(Box::new(Status {
            code,
            reason: reason.into(),
            message: message.into(),
            ..Status::default()
        }))
    }

    #[test]
    fn every_refusal_has_its_class_and_what_to_do() {
        let exceeded = "pods \"x\" is forbidden: exceeded quota: compute, requested: cpu=8, used: cpu=0, limited: cpu=4";
        let insecure = "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true";
        let mut told = Vec::new();
        for (error, class) in [
            (api(401, "Unauthorized", "Unauthorized"), Class::Access),
            (
                api(403, "Forbidden", "jobs.batch is forbidden: User \"me\" cannot create"),
                Class::Access,
            ),
            (api(403, "Forbidden", exceeded), Class::Capacity),
            (api(403, "Forbidden", insecure), Class::Usage),
            (api(404, "NotFound", "namespaces \"ci\" not found"), Class::Usage),
            (api(422, "Invalid", "Job.batch \"x\" is invalid: spec"), Class::Usage),
            (api(429, "TooManyRequests", ""), Class::Capacity),
            (api(500, "InternalError", ""), Class::Unexpected),
        ] {
            let error = of("create the Job", error);
            assert_eq!(Report(&error).class(), class, "{error:#}");
            told.push(format!("{}", Report(&error)));
        }
        insta::assert_snapshot!("told", told.join("\n"));
    }

    #[test]
    fn only_what_may_pass_is_asked_for_again() {
        assert!(passes(&api(429, "", "")) && passes(&api(503, "", "")) && passes(&Error::Service("connection reset".into())));
        assert!(!passes(&api(403, "", "")) && !passes(&Error::Service("invalid peer certificate: UnknownIssuer".into())));
        assert!(
            is_not_found(&api(404, "NotFound", "")) && is_taken(&api(409, "AlreadyExists", "")) && !is_taken(&api(409, "Conflict", ""))
        );
    }
}
