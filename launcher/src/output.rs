//! What a launch tells: the result on standard output, the record that the old tool's users parse, and GitHub Actions' outputs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use common::spec::CloudKind;
use serde::Serialize;

use crate::cloud::Instance;
use crate::launch::Outcome;
use crate::options::{Output, metadata};
use crate::request::Request;

/// Reports a launch everywhere where somebody reads it. The runner is online by now: only standard output can still fail.
pub fn report(request: &Request, outcome: &Outcome) -> Result<()> {
    let result = Launched::of(request, outcome);
    if let (Outcome::Launched(instance), Some(cloud)) = (outcome, request.options.cloud.cloud) {
        tracing::info!(
            "{}",
            serde_json::to_string(&Record::of(request, cloud, instance)?).context("writing the record")?
        );
    }
    for (variable, text) in [("GITHUB_OUTPUT", result.outputs()), ("GITHUB_STEP_SUMMARY", result.summary())] {
        let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
            continue;
        };
        if let Err(error) = append(Path::new(&path), &text) {
            tracing::warn!("writing to the file of {variable}: {error:#}");
        }
    }
    let text = match request.options.decision.output {
        Output::Text => result.text(),
        Output::Json => serde_json::to_string(&result).context("writing the result")? + "\n",
    };
    crate::write_out(text.as_bytes())
}

fn append(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// The result of a launch.
#[derive(Debug, Serialize)]
struct Launched<'a> {
    /// The runner's name in the forge.
    name: &'a str,
    /// Whether it was there already.
    reused: bool,
    labels: Vec<&'a str>,
    repo: &'a str,
    /// None for a runner on a user's own host.
    cloud: Option<CloudKind>,
    /// None for a runner that was there already.
    instance: Option<&'a Instance>,
}

impl<'a> Launched<'a> {
    fn of(request: &'a Request, outcome: &'a Outcome) -> Self {
        let (name, labels, instance) = match outcome {
            Outcome::Launched(instance) => (&request.name, &request.options.runner.labels, Some(instance)),
            Outcome::Reused(runner) => (&runner.name, &runner.labels, None),
        };
        Self {
            name,
            reused: instance.is_none(),
            labels: labels.iter().map(|label| label.trim()).filter(|label| !label.is_empty()).collect(),
            repo: request.repo.as_str(),
            cloud: request.options.cloud.cloud,
            instance,
        }
    }

    /// What the outputs and the table are made of.
    fn fields(&self) -> [(&'static str, String); 6] {
        let of = |field: fn(&Instance) -> Option<&str>| self.instance.and_then(field).unwrap_or_default().to_owned();
        [
            ("name", self.name.to_owned()),
            ("instance-id", of(|instance| Some(&instance.id))),
            ("instance-ip", of(|instance| instance.ip.as_deref())),
            ("instance-type", of(|instance| Some(&instance.kind))),
            ("region", of(|instance| Some(&instance.region))),
            ("labels", self.labels.join(",")),
        ]
    }

    fn text(&self) -> String {
        let status = if self.reused { "online already, reused" } else { "online" };
        let mut text = format!("status         {status}\n");
        for (name, value) in self.fields().into_iter().filter(|(_, value)| !value.is_empty()) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<14} {}", common::log::escape(&value));
        }
        text
    }

    /// The format of [multiline outputs] where there is more than one line, with an end that the value does not hold.
    ///
    /// [multiline outputs]: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands#multiline-strings
    fn outputs(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.fields() {
            let _ = if value.contains(['\n', '\r']) {
                let mut end = "cml".to_owned();
                while value.contains(&end) {
                    end.push(fastrand::alphanumeric());
                }
                writeln!(text, "{name}<<{end}\n{value}\n{end}")
            } else {
                writeln!(text, "{name}={value}")
            };
        }
        text
    }

    fn summary(&self) -> String {
        let title = if self.reused { "Runner reused" } else { "Runner launched" };
        let mut text = format!("### {title}\n\n| | |\n|---|---|\n");
        for (name, value) in self.fields().into_iter().filter(|(_, value)| !value.is_empty()) {
            let cell = common::log::escape(&value).replace('|', "\\|").replace('<', "&lt;");
            let _ = writeln!(text, "| {name} | {cell} |");
        }
        text
    }
}

/// The old tool's record, its fields in its order; `instanceId` is ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    aws_security_group: Option<&'a str>,
    aws_subnet_id: Option<&'a str>,
    cloud: CloudKind,
    driver: String,
    id: &'a str,
    idle_timeout: Option<u64>,
    image: &'a str,
    instance_gpu: Option<&'a str>,
    instance_hdd_size: u32,
    instance_ip: Option<&'a str>,
    instance_launch_time: &'a str,
    instance_type: &'a str,
    instance_permission_set: Option<&'a str>,
    labels: String,
    cml_version: &'static str,
    metadata: BTreeMap<&'a str, &'a str>,
    name: &'a str,
    region: &'a str,
    repo: &'a str,
    single: bool,
    spot: bool,
    spot_price: f64,
    timeouts: Option<()>,
    kubernetes_node_selector: BTreeMap<&'a str, &'a str>,
    instance_id: &'a str,
}

impl<'a> Record<'a> {
    fn of(request: &'a Request, cloud: CloudKind, instance: &'a Instance) -> Result<Self> {
        let (options, runner) = (&request.options.cloud, &request.options.runner);
        let pairs = options.cloud_metadata.iter().map(|pair| metadata(pair));
        let selectors = &options.cloud_kubernetes_node_selector;
        Ok(Self {
            aws_security_group: options.cloud_aws_security_group.as_deref(),
            aws_subnet_id: options.cloud_aws_subnet.as_deref(),
            cloud,
            driver: request.forge.to_string(),
            id: &request.name,
            idle_timeout: runner.idle_timeout.duration().map(|timeout| timeout.as_secs()),
            image: &instance.image,
            instance_gpu: options.cloud_gpu.as_deref(),
            instance_hdd_size: options.cloud_hdd_size,
            instance_ip: instance.ip.as_deref(),
            instance_launch_time: &instance.launched_at,
            instance_type: &instance.kind,
            instance_permission_set: options.cloud_permission_set.as_deref(),
            labels: runner.labels.join(","),
            cml_version: env!("CARGO_PKG_VERSION"),
            metadata: pairs.collect::<Result<_>>()?,
            name: &request.name,
            region: &instance.region,
            repo: request.repo.as_str(),
            single: runner.single,
            spot: instance.spot,
            spot_price: options.cloud_spot_price,
            timeouts: None,
            kubernetes_node_selector: selectors.iter().filter_map(|pair| pair.split_once('=')).collect(),
            instance_id: &instance.id,
        })
    }
}

#[cfg(test)]
mod tests;
