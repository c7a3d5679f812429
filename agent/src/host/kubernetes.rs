//! A pod from inside: SIGTERM is the notice, and the end of its first process, which is the agent, is the end of the machine.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use nix::libc::SIGTERM;

use common::spec::JobMetadata;

use super::{Host, Interruption, Will, grace};

/// What a cluster leaves a pod that asked for nothing else. Source:
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>
const USUAL_GRACE: Duration = Duration::from_secs(30);

/// A pod.
pub struct Kubernetes;

/// What a signal means: the cluster takes a pod away, for whatever reason, by SIGTERM.
pub fn notice(signal: i32) -> Option<Interruption> {
    (signal == SIGTERM).then(|| Interruption {
        reason: "pod eviction SIGTERM".into(),
        left: grace(USUAL_GRACE),
        advice: false,
    })
}

#[async_trait]
impl Host for Kubernetes {
    async fn next_interruption(&self, _: bool) -> Interruption {
        // It comes as a signal: nobody need be asked.
        std::future::pending().await
    }

    fn attend(&self, _: bool) {
        // Nobody is asked here.
    }

    async fn guard_metadata(&self, _: JobMetadata) -> Result<()> {
        // What a pod is told is in files of its own. The service of its node has nothing of ours, and no pod can close it for its own jobs.
        tracing::info!("whether jobs reach the metadata service of the node is the cluster's business: a NetworkPolicy keeps them from it");
        Ok(())
    }

    async fn terminate(&self, _: &Will) -> Result<()> {
        tracing::info!("the pod ends with its agent");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::libc::{SIGINT, SIGTERM};

    use super::notice;

    #[test]
    fn only_sigterm_is_an_eviction_and_leaves_what_was_asked_for() {
        assert_eq!(notice(SIGINT), None);
        let notice = notice(SIGTERM).map(|notice| (notice.left, notice.advice));
        assert_eq!(notice, Some((Duration::from_secs(30), false)));
    }
}
