//! Which runner is wanted, whether one that is there will do, and where else it comes from.

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::forge::{Forge, Platform};
use common::http::{self, Retry};
use common::spec::RunnerOptions;
use reqwest::StatusCode;
use url::Url;

use crate::archive::{Form, Source};

/// How a forge publishes its runner.
#[derive(Debug)]
pub struct Release {
    /// Where every version is; `{version}`, `{os}` and `{arch}` are replaced.
    pub template: &'static str,
    /// What is downloaded.
    pub form: Form,
    /// The program in the runner's directory.
    pub program: &'static str,
    /// The forge's name for a platform.
    pub arch: fn(Platform) -> &'static str,
    /// The version that an address names.
    pub version_of: fn(&Url) -> Option<String>,
    /// The list of checksums that lies beside the download, relative to its address, where there is one.
    pub checksums: Option<&'static str>,
    /// The forge lets no older runner register.
    pub floor: [u32; 3],
}

/// A runner that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// What version it says it is, if it does.
    pub version: Option<String>,
    /// The `--runner-url` that we got it with.
    pub url: Option<String>,
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

impl Release {
    /// Whether a runner that is there is the one that is wanted. Any that the forge still takes will do unless the user names one.
    pub fn fits(&self, present: &Present, options: &RunnerOptions) -> bool {
        if options.runner_version.is_some() {
            return present.version == options.runner_version;
        }
        if options.runner_url.is_some() {
            return present.url == options.runner_url;
        }
        present
            .version
            .as_deref()
            .and_then(numbers)
            .is_some_and(|version| version >= self.floor)
    }

    /// Finds the wanted one: asks the forge only for what the user does not say.
    pub async fn find(&self, options: &RunnerOptions, forge: &dyn Forge, platform: Platform) -> Result<Package> {
        let mut package = self.choose(options, forge, platform).await?;
        if package.source.sha256.is_none()
            && let Some(list) = self.checksums
        {
            package.source.sha256 = published(&package.source.url, list).await?;
        }
        Ok(package)
    }

    async fn choose(&self, options: &RunnerOptions, forge: &dyn Forge, platform: Platform) -> Result<Package> {
        let template = options.runner_url.as_deref();
        let pinned = options.runner_version.as_deref();
        let (mut version, mut sha256) = (pinned.map(str::to_owned), options.runner_sha256.clone());
        if let Some(template) = template
            && (pinned.is_some() || !template.contains("{version}"))
        {
            return self.package(template, version, sha256, platform);
        }
        if pinned.is_some() {
            return self.package(self.template, version, sha256, platform);
        }
        let offered = forge.package(platform).await.context("asking the forge for its runner")?;
        version = (self.version_of)(&offered.url);
        // A mirror has the same file.
        sha256 = sha256.or(offered.sha256);
        if let Some(template) = template {
            return self.package(template, version, sha256, platform);
        }
        let source = Source {
            url: offered.url,
            sha256,
            token: offered.token,
            form: self.form,
        };
        Ok(Package { source, version })
    }

    fn package(&self, template: &str, version: Option<String>, sha256: Option<String>, platform: Platform) -> Result<Package> {
        let wrong = |why: &str| Failure::new(Class::Usage, format!("the runner cannot be had from `{template}`: {why}"));
        if template.contains("{version}") && version.is_none() {
            return Err(wrong("the forge does not say its version")
                .hint("say it with --runner-version")
                .into());
        }
        let filled = template
            .replace("{version}", version.as_deref().unwrap_or_default())
            .replace("{os}", "linux")
            .replace("{arch}", (self.arch)(platform));
        let url: Url = filled
            .parse()
            .with_context(|| wrong("it is no address").hint("--runner-url takes https://HOST/PATH with {version}, {os} and {arch}"))?;
        let version = version.or_else(|| (self.version_of)(&url));
        let (token, form) = (None, self.form);
        let source = Source { url, sha256, token, form };
        Ok(Package { source, version })
    }
}

/// The SHA-256 that the list beside a download has for it. A mirror may have no list; where there is one, the download is in it.
async fn published(download: &Url, list: &str) -> Result<Option<String>> {
    let list = download.join(list).context("finding the list of checksums")?;
    let answer = http::fetch(http::client()?.get(list.clone()), &Retry::API)
        .await
        .context("reading the runner's checksum")?;
    if answer.status != StatusCode::OK {
        tracing::info!("{} does not tell the runner's checksum ({})", shown(&list), answer.status);
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let own = sum_of(&text, download.path());
    let failure = || {
        Failure::new(Class::Unexpected, format!("{} does not have the runner's checksum", shown(&list)))
            .hint("give it with --runner-sha256, or another address with --runner-url")
    };
    own.with_context(failure).map(Some)
}

/// The address without what may be a secret.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// The checksum in a list as sha256sum(1) writes it: the name there is the end of the download's path.
fn sum_of(list: &str, path: &str) -> Option<String> {
    let mut lines = list.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let fits = |name: &str| {
        let name = name.trim_start_matches([' ', '*']).trim_start_matches("./");
        path.strip_suffix(name).is_some_and(|rest| rest.ends_with('/'))
    };
    lines.find(|(_, name)| fits(name)).map(|(sum, _)| sum.to_owned())
}

#[cfg(test)]
mod tests {
    use super::sum_of;

    #[test]
    fn a_list_names_downloads_by_the_end_of_their_path() {
        let list = "aa  binaries/gitlab-runner-linux-amd64\nbb *./binaries/gitlab-runner-linux-arm64\ncc  amd64\n";
        for (path, sum) in [
            ("/v1/binaries/gitlab-runner-linux-amd64", Some("aa")),
            ("/v1/binaries/gitlab-runner-linux-arm64", Some("bb")),
            ("/v1/binaries/gitlab-runner-linux-riscv64", None),
            ("/v1/amd64", Some("cc")),
        ] {
            assert_eq!(sum_of(list, path).as_deref(), sum, "{path}");
        }
    }
}
