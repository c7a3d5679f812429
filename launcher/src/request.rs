//! What a launch starts from: the parsed command line, and what was inferred from the surroundings.

use common::certificates::Certificates;
use common::network::Proxy;
use common::secret::Secret;
use common::spec::{CA_CERTIFICATES, Credential, ForgeKind, LaunchJob, RunnerSpec, SPEC_VERSION};
use url::Url;

use crate::access::Access;
use crate::options::LaunchOptions;

/// One launch. Everything is checked as far as it can be without asking anyone.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which forge serves `repo`.
    pub forge: ForgeKind,
    /// Repository, organisation or group page, without credentials and without `.git`.
    pub repo: Url,
    /// What the forge is spoken to with.
    pub access: Access,
    /// The options as given, defaults filled in.
    pub options: LaunchOptions,
    /// What `--ca-certificates` holds.
    pub certificates: Option<Certificates>,
    /// The runner's name: the user's, else `cml-` and ten random characters.
    pub name: String,
    /// Whether the user gave the name; a made one cannot be in use.
    pub named_by_user: bool,
    /// The job of a run of `repo` in which this launcher runs, if it does.
    pub launch_job: Option<LaunchJob>,
}

impl Request {
    /// The same with asterisks for the token and the proxy's credentials, to show what would be written.
    pub fn masked(&self) -> Self {
        let mut masked = self.clone();
        if let Access::Token(token) = &mut masked.access {
            *token = Secret::new(Secret::default().to_string());
        }
        masked.options.runner.proxy = self.options.runner.proxy.as_ref().map(Proxy::masked);
        masked
    }

    /// What the agent is told when it holds `credential`.
    pub fn spec(&self, credential: Credential) -> RunnerSpec {
        let mut options = self.options.runner.clone();
        if self.options.cloud.cloud.is_some() && self.certificates.is_some() {
            options.ca_certificates = Some(CA_CERTIFICATES.into());
        }
        RunnerSpec {
            version: SPEC_VERSION,
            name: self.name.clone(),
            forge: self.forge,
            repo: self.repo.clone(),
            cloud: self.options.cloud.cloud,
            credential,
            launch: self.launch_job.clone(),
            log: self.options.generic.log,
            options,
        }
    }
}
