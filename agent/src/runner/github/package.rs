//! Which runner is wanted, whether one that is there will do, and where else it comes from.

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::{Forge, Platform};
use common::spec::RunnerOptions;
use url::Url;

use crate::archive::Source;

/// GitHub lets no older runner register. Source: <https://docs.github.com/en/actions/reference/runners/self-hosted-runners>
const FLOOR: [u32; 3] = [2, 329, 0];
/// Where every version is.
const RELEASES: &str = "https://github.com/actions/runner/releases/download/v{version}/actions-runner-{os}-{arch}-{version}.tar.gz";

/// A runner that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// What version it says it is, if it does.
    pub version: Option<String>,
    /// The `--runner-url` that we got it with.
    pub url: Option<String>,
}

/// Whether a runner that is there is the one that is wanted. Any that GitHub still takes will do unless the user names one: it updates itself.
pub fn fits(present: &Present, options: &RunnerOptions) -> bool {
    if options.runner_version.is_some() {
        return present.version == options.runner_version;
    }
    if options.runner_url.is_some() {
        return present.url == options.runner_url;
    }
    present.version.as_deref().and_then(numbers).is_some_and(|version| version >= FLOOR)
}

/// `2.336.0` as numbers.
pub fn numbers(version: &str) -> Option<[u32; 3]> {
    let parts: Vec<u32> = version.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// A runner to download.
#[derive(Debug)]
pub struct Package {
    pub source: Source,
    /// What version it is, if that is known.
    pub version: Option<String>,
}

/// Finds the wanted one: asks the forge only for what the user does not say.
pub async fn find(options: &RunnerOptions, forge: &dyn Forge, platform: Platform) -> Result<Package> {
    let template = options.runner_url.as_deref();
    let pinned = options.runner_version.as_deref();
    let (mut version, mut sha256) = (pinned.map(str::to_owned), options.runner_sha256.clone());
    if let Some(template) = template
        && (pinned.is_some() || !template.contains("{version}"))
    {
        return package(template, version, sha256, platform);
    }
    if pinned.is_some() {
        return package(RELEASES, version, sha256, platform);
    }
    let offered = forge.package(platform).await.context("asking the forge for its runner")?;
    version = version_of(&offered.url);
    // A mirror has the same file.
    sha256 = sha256.or(offered.sha256);
    if let Some(template) = template {
        return package(template, version, sha256, platform);
    }
    let source = Source {
        url: offered.url,
        sha256,
        token: offered.token,
    };
    Ok(Package { source, version })
}

fn package(template: &str, version: Option<String>, sha256: Option<String>, platform: Platform) -> Result<Package> {
    let wrong = |why: &str| Failure::new(Class::Usage, format!("the runner cannot be had from `{template}`: {why}"));
    if template.contains("{version}") && version.is_none() {
        return Err(wrong("the forge does not say its version")
            .hint("say it with --runner-version")
            .into());
    }
    let filled = template
        .replace("{version}", version.as_deref().unwrap_or_default())
        .replace("{os}", "linux")
        .replace("{arch}", platform.github());
    let url: Url = filled
        .parse()
        .with_context(|| wrong("it is no address").hint("--runner-url takes https://HOST/PATH with {version}, {os} and {arch}"))?;
    let version = version.or_else(|| version_of(&url));
    let source = Source { url, sha256, token: None };
    Ok(Package { source, version })
}

/// The version in `…/actions-runner-linux-x64-2.336.0.tar.gz`.
fn version_of(url: &Url) -> Option<String> {
    let file = url.path_segments()?.next_back()?;
    let version = file.strip_suffix(".tar.gz")?.rsplit('-').next()?;
    numbers(version).map(|_| version.to_owned())
}
