//! The machine seen from inside: when it will be taken away, and how to make it go away.

mod attention;
mod aws;
mod azure;
mod bare;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gcp;
mod kubernetes;
mod metadata;
mod silence;
mod ticks;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use common::error::{Class, Failure};
use common::spec::{CloudKind, JobMetadata};

/// One per cloud, and one for a user's own host.
#[async_trait]
pub trait Host: Send + Sync {
    /// Waits until the machine is about to be taken away, or, unless `advised` already, until the cloud advises to take no more jobs.
    /// Never returns on a host that has no such notice.
    async fn next_interruption(&self, advised: bool) -> Interruption;

    /// Whether a job runs now, which a notice must reach in time: then it is looked for more often.
    fn attend(&self, busy: bool);

    /// Keeps everybody but root from what the cloud tells this machine, its user data among it, but for what jobs may ask.
    ///
    /// # Errors
    /// It cannot be kept: then jobs can read what is in the user data.
    async fn guard_metadata(&self, reach: JobMetadata) -> Result<()>;

    /// Makes the machine go away, and keeps of it what its will says. On a user's own host: does nothing and says so.
    async fn terminate(&self, will: &Will) -> Result<()>;
}

/// What must outlive the machine, for its launcher and for whoever cleans up. A cloud that keeps the console of a machine that is gone keeps both anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Will {
    /// How long the console must stay readable: the launcher may not have seen yet whether the runner was online, or why it was not.
    pub linger: Duration,
    /// The job that could not be run again: a [`common::forge::Pending`] as JSON.
    pub pending: Option<String>,
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// The cloud's words: `spot instance-action terminate`.
    pub reason: String,
    /// How long is left.
    pub left: Duration,
    /// Only advice (AWS rebalance): finish the job, take no other.
    pub advice: bool,
}

impl Will {
    /// Stays until the launcher has read the console, where that goes with the machine.
    async fn read(&self) {
        if !self.linger.is_zero() {
            let seconds = self.linger.as_secs_f64();
            tracing::info!("staying for {seconds:.0} s: the console goes with this machine, and its launcher may not have read it yet");
            tokio::time::sleep(self.linger).await;
        }
    }
}

/// Opens the host that the spec says we are on.
pub fn open(cloud: Option<CloudKind>) -> Result<Arc<dyn Host>> {
    match cloud {
        None => Ok(Arc::new(bare::Bare)),
        Some(CloudKind::Aws) => Ok(Arc::new(aws::Aws::new()?)),
        Some(CloudKind::Kubernetes) => Ok(Arc::new(kubernetes::Kubernetes)),
        Some(CloudKind::Azure) => Ok(Arc::new(azure::Azure::new()?)),
        Some(CloudKind::Gcp) => Ok(Arc::new(gcp::Gcp::new()?)),
    }
}

/// The notice that a signal is on this cloud; none where it is only a signal.
pub fn notice(cloud: Option<CloudKind>, signal: i32) -> Option<Interruption> {
    match cloud {
        Some(CloudKind::Kubernetes) => kubernetes::notice(signal),
        None | Some(CloudKind::Aws | CloudKind::Azure | CloudKind::Gcp) => None,
    }
}

/// How long the machine has from a notice on that does not say it: what the launcher asked the cloud for, else what is usual there.
fn grace(usual: Duration) -> Duration {
    let told = std::env::var("CML_GRACE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    told.map_or(usual, Duration::from_secs)
}

/// The ways to power off, best first; found on the PATH, so that a container or a test has its own.
const POWER_OFF: [(&str, &[&str]); 3] = [("systemctl", &["poweroff"]), ("poweroff", &[]), ("shutdown", &["-h", "now"])];

/// How long one of them may take: a service manager that hangs is no reason to stay.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether systemd is restarting the machine: what stops the agent then is no reason to power it off.
pub async fn restarts() -> bool {
    let mut command = tokio::process::Command::new("systemctl");
    let asked = command.args(["list-jobs", "--plain", "--no-legend"]).stdin(Stdio::null()).output();
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).lines().any(is_restart),
        _ => false,
    }
}

/// `42 reboot.target start waiting`
fn is_restart(job: &str) -> bool {
    let mut words = job.split_whitespace().skip(1);
    matches!(
        (words.next(), words.next()),
        (Some("reboot.target" | "kexec.target"), Some("start"))
    )
}

/// Powers the machine off by the first way that works. Not `halt`, which stops the processor and keeps the bill running.
async fn power_off() -> Result<()> {
    for (program, args) in POWER_OFF {
        let words = [&[program], args].concat().join(" ");
        let mut command = tokio::process::Command::new(program);
        let ran = command.args(args).stdin(Stdio::null()).status();
        match tokio::time::timeout(PATIENCE, ran).await {
            Ok(Ok(status)) if status.success() => {
                tracing::info!("powering off: {words}");
                return Ok(());
            }
            Ok(Ok(status)) => tracing::warn!("`{words}` failed: {status}"),
            Ok(Err(error)) => tracing::debug!("`{words}` cannot be run: {error}"),
            Err(_) => tracing::warn!("`{words}` does not end"),
        }
    }
    Err(Failure::new(Class::Unexpected, "the machine cannot be powered off")
        .hint("terminate the instance by hand: nothing on it can")
        .into())
}
