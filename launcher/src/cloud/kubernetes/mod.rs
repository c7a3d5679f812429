//! Kubernetes: one Job of one pod, and a Secret that is the Job's own.

mod connect;
mod manifest;
mod names;
mod refusal;
mod state;
#[cfg(test)]
mod tests;

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use common::error::{Class, Failure};
use common::spec::CloudKind;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, Request};
use kube::{Api, Client, Resource as _};

use super::{Cloud, Instance, LEGACY, Offer, Order, Prices, Search};
use crate::catalog;
use crate::options::{CloudOptions, metadata};
use connect::patiently;
use manifest::{LAUNCH_ID, Manifest, OURS};

/// The last part of a pod's log is what counts, in lines: a day's log is too much to ask for.
const LOG: i64 = 2000;

/// A namespace of a cluster.
pub struct Kubernetes {
    client: Client,
    namespace: String,
}

impl Kubernetes {
    /// Finds the cluster and the credentials; nothing is asked of it yet.
    pub async fn open(_: &CloudOptions) -> Result<Self> {
        let client = connect::connect().await?;
        Ok(Self {
            namespace: client.default_namespace().to_owned(),
            client,
        })
    }

    fn api(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    fn jobs(&self) -> Api<DynamicObject> {
        self.api("batch", "v1", "Job")
    }

    fn pods(&self) -> Api<DynamicObject> {
        self.api("", "v1", "Pod")
    }

    /// Makes the Job, suspended. One that is there already is that of this very launch: the answer to the first try was lost.
    async fn make_job(&self, manifest: &Manifest, order: &Order) -> Result<DynamicObject> {
        let (jobs, call) = (self.jobs(), "create the Job");
        let wanted: DynamicObject = serde_json::from_value(manifest.job().clone()).context("writing the Job")?;
        let parameters = PostParams::default();
        let found = match patiently(call, || jobs.create(&parameters, &wanted)).await {
            Err(error) if refusal::is_taken(&error) => patiently("get the Job", || jobs.get(&manifest.name)).await,
            answer => answer,
        };
        let found = found.map_err(|error| refusal::of(call, error))?;
        if state::launch_of(&found) != Some(&order.launch_id) {
            return Err(
                Failure::new(Class::NameInUse, format!("another launch has a Job of the name {}", manifest.name))
                    .hint("launch again, or give another `--name`")
                    .into(),
            );
        }
        Ok(found)
    }

    async fn make_secret(&self, manifest: &Manifest, order: &Order, uid: &str) -> Result<()> {
        let (secrets, call) = (self.api("", "v1", "Secret"), "create the Secret");
        let wanted: DynamicObject = serde_json::from_value(manifest.secret(order, uid)).context("writing the Secret")?;
        let parameters = PostParams::default();
        match patiently(call, || secrets.create(&parameters, &wanted)).await {
            // Its name has the launch's id: it is ours, and the answer was lost.
            Err(error) if refusal::is_taken(&error) => Ok(()),
            answer => answer.map(drop).map_err(|error| refusal::of(call, error)),
        }
    }

    async fn resume(&self, manifest: &Manifest) -> Result<DynamicObject> {
        let (jobs, parameters, patch) = (self.jobs(), PatchParams::default(), Patch::Merge(manifest::resumed()));
        let resumed = patiently("resume the Job", || jobs.patch(&manifest.name, &parameters, &patch)).await;
        resumed.map_err(|error| refusal::of("resume the Job", error))
    }

    async fn labelled(&self, api: &Api<DynamicObject>, what: &str, selector: &str) -> Result<Vec<DynamicObject>> {
        let call = format!("list the {what}");
        let parameters = ListParams::default().labels(selector);
        let found = patiently(&call, || api.list(&parameters)).await;
        Ok(found.map_err(|error| refusal::of(&call, error))?.items)
    }

    /// What its container has written; nothing before it has begun.
    async fn log(&self, pod: &str) -> Result<Option<String>> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
        let path = DynamicObject::url_path(&resource, Some(&self.namespace));
        let parameters = LogParams {
            tail_lines: Some(LOG),
            ..LogParams::default()
        };
        let request = || Request::new(&path).logs(pod, &parameters).map_err(kube::Error::BuildRequest);
        let log = patiently("read the log of the pod", || async { self.client.request_text(request()?).await }).await;
        match log {
            Ok(text) => Ok(Some(text)),
            // "container … is waiting to start".
            Err(kube::Error::Api(status)) if status.code == 400 => Ok(None),
            Err(error) => Err(refusal::of("read the log of the pod", error)),
        }
    }

    /// A person's own choice: whoever may not read events is told less.
    async fn events(&self, pod: &str) -> Vec<DynamicObject> {
        let events = self.api("", "v1", "Event");
        let parameters = ListParams::default().fields(&format!("involvedObject.name={pod}"));
        match events.list(&parameters).await {
            Ok(found) => found.items,
            Err(error) => {
                tracing::debug!("listing the events of {pod}: {error}");
                Vec::new()
            }
        }
    }
}

#[async_trait]
impl Prices for Kubernetes {
    /// A cluster does not know what its nodes cost.
    async fn hourly(&self, _: &Offer) -> Result<Option<f64>> {
        Ok(None)
    }
}

#[async_trait]
impl Cloud for Kubernetes {
    fn supports(&self, options: &CloudOptions) -> Result<()> {
        supports(options)
    }

    async fn plan(&self, order: &Order) -> Result<Vec<String>> {
        let manifest = Manifest::of(order)?;
        Ok(vec![
            format!(
                "# {} in the namespace {}: this Job, suspended; then its Secret, with the start-up data; then the Job is resumed",
                manifest.name, self.namespace
            ),
            serde_json::to_string_pretty(manifest.job()).context("showing the Job")?,
        ])
    }

    async fn create(&self, order: &Order) -> Result<Instance> {
        let manifest = Manifest::of(order)?;
        let job = self.make_job(&manifest, order).await?;
        let uid = job.metadata.uid.as_deref().context("the Job has no unique id")?;
        self.make_secret(&manifest, order, uid).await?;
        let job = self.resume(&manifest).await?;
        Ok(state::instance(&job, None, &self.namespace))
    }

    async fn find(&self, search: &Search<'_>) -> Result<Vec<Instance>> {
        let selector = match *search {
            Search::Launch(id) => format!("{LAUNCH_ID}={id}"),
            Search::All => format!("{OURS},{LAUNCH_ID}"),
            Search::Legacy => format!("!{OURS}"),
        };
        let (jobs, pods) = (self.jobs(), self.pods());
        let mut jobs = self.labelled(&jobs, "Jobs", &selector).await?;
        if *search == Search::Legacy {
            jobs.retain(|job| LEGACY.iter().any(|prefix| state::name(job).starts_with(prefix)));
        }
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let pods = self.labelled(&pods, "pods", &selector).await?;
        let instance = |job: &DynamicObject| state::instance(job, state::pod_of(state::name(job), &pods), &self.namespace);
        Ok(jobs.iter().map(instance).collect())
    }

    async fn destroy(&self, instance_id: &str) -> Result<()> {
        // In the foreground: the Job is there, and found, until its pod and its Secret are not.
        let (jobs, parameters) = (self.jobs(), DeleteParams::foreground());
        match patiently("delete the Job", || jobs.delete(instance_id, &parameters)).await {
            Err(error) if refusal::is_not_found(&error) => Ok(()),
            answer => answer.map(drop).map_err(|error| refusal::of("delete the Job", error)),
        }
    }

    async fn console(&self, instance_id: &str) -> Result<String> {
        let pods = self.labelled(&self.pods(), "pods", &format!("job-name={instance_id}")).await?;
        let pod = state::pod_of(instance_id, &pods);
        if let Some(pod) = pod
            && let Some(log) = self.log(state::name(pod)).await?.filter(|log| !log.is_empty())
        {
            return Ok(log);
        }
        let events = match pod {
            Some(pod) => self.events(state::name(pod)).await,
            None => self.events(instance_id).await,
        };
        Ok(state::waiting(pod, &events))
    }
}

/// Refuses what cannot be written down here.
fn supports(options: &CloudOptions) -> Result<()> {
    let selector = &options.cloud_kubernetes_node_selector;
    let region = catalog::region(CloudKind::Kubernetes, &options.cloud_region)?.region;
    let nodes = names::node_selector(&region, selector, None)?;
    for (key, only) in [("kubernetes.io/os", "linux"), ("kubernetes.io/arch", "amd64")] {
        if let Some(other) = nodes.get(key).filter(|value| *value != only) {
            return Err(Failure::new(Class::Usage, format!("nodes with {key}={other} are not supported"))
                .hint(format!("runners on Kubernetes run on nodes with {key}={only}"))
                .into());
        }
    }
    for pair in &options.cloud_metadata {
        let (key, _) = metadata(pair)?;
        if !names::is_key(key) {
            bail!(
                Failure::new(Class::Usage, format!("`--cloud-metadata={pair}` cannot be an annotation"))
                    .hint("a key has letters, digits, `-`, `_` and `.`, at most 63, with or without `DOMAIN/` before it")
            );
        }
    }
    let account = options.cloud_permission_set.as_deref().unwrap_or("default");
    if !names::is_account(account) {
        bail!(
            Failure::new(Class::Usage, format!("`--cloud-permission-set={account}` is no service account"))
                .hint("give the name of a ServiceAccount of the namespace")
        );
    }
    Ok(())
}
