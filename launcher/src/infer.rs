//! What the user need not say: repository, forge, token and the job that launches, from the git checkout and the CI's own variables.
//!
//! Pure: [`Surroundings`] is all that it looks at.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::secret::Secret;
use common::spec::{ForgeKind, LaunchJob};
use url::Url;
use zeroize::Zeroizing;

use crate::options::GenericOptions;

/// The forges' own addresses, where nothing else is said.
const SERVERS: [(ForgeKind, &str); 3] = [
    (ForgeKind::GitHub, "https://github.com"),
    (ForgeKind::GitLab, "https://gitlab.com"),
    (ForgeKind::Bitbucket, "https://bitbucket.org"),
];

/// Holds a token for any forge; the second is the old tool's other spelling.
const TOKENS: [&str; 2] = ["REPO_TOKEN", "repo_token"];

/// How many random characters follow `cml-`.
const ID_LENGTH: usize = 10;

/// GitHub's limit on the length of a runner's name.
const NAME_LIMIT: usize = 64;

/// All that is looked at.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The environment.
    pub vars: BTreeMap<String, String>,
    /// `remote.origin.url` of the checkout in the working directory.
    pub remote: Option<String>,
}

/// Whom the launch speaks to.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Which forge.
    pub forge: ForgeKind,
    /// Repository, organisation or group page.
    pub repo: Url,
    /// The job that this launcher runs in, if it is one of `repo`.
    pub launch_job: Option<LaunchJob>,
}

/// The variable that holds a forge's own token.
pub const fn token_variable(forge: ForgeKind) -> &'static str {
    match forge {
        ForgeKind::GitHub => "GITHUB_TOKEN",
        ForgeKind::GitLab => "GITLAB_TOKEN",
        ForgeKind::Bitbucket => "BITBUCKET_TOKEN",
    }
}

/// Every variable that may hold a token or a key, our own options' included: none of them goes on to another program.
pub fn token_variables() -> impl Iterator<Item = &'static str> {
    let own = [
        "CML_RUNNER_APP_PRIVATE_KEY",
        "CML_APP_PRIVATE_KEY",
        "CML_RUNNER_TOKEN",
        "CML_RUNNER_DRIVER_TOKEN",
        "CML_TOKEN",
        "CML_DRIVER_TOKEN",
        "CML_RUNNER_CLOUD_SSH_PRIVATE",
    ];
    TOKENS.into_iter().chain(SERVERS.map(|(forge, _)| token_variable(forge))).chain(own)
}

/// Infers what the options leave open; `repo_source` is the flag or the variable that names the repository, if one does.
pub fn target(options: &GenericOptions, repo_source: Option<&str>, around: &Surroundings) -> Result<Target> {
    let repo = around.repo(options, repo_source.unwrap_or("--repo"))?;
    let forge = around.forge(options.driver, &repo)?;
    check_path(forge, &repo)?;
    Ok(Target {
        forge,
        launch_job: around.launch_job(forge, &repo),
        repo,
    })
}

/// The runner's name: the user's, checked, else `cml-` and ten random characters.
pub fn name(given: Option<&str>) -> Result<String> {
    let Some(name) = given.map(str::trim) else {
        let random = |_| {
            if fastrand::bool() {
                fastrand::lowercase()
            } else {
                fastrand::digit(10)
            }
        };
        return Ok(format!("cml-{}", (0..ID_LENGTH).map(random).collect::<String>()));
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let valid = name.len() <= NAME_LIMIT && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain);
    if valid {
        return Ok(name.to_owned());
    }
    Err(Failure::new(Class::Usage, format!("`{name}` cannot be a runner's name"))
        .hint(format!(
            "at most {NAME_LIMIT} letters, digits, `-`, `_` and `.`, of which the first is a letter or a digit"
        ))
        .into())
}

/// This host's name, as far as a runner can be called so.
pub fn host_name() -> Option<String> {
    let host = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let host = host.split('.').next().unwrap_or_default();
    (!host.is_empty()).then(|| host.to_owned())
}

/// The token in a file, or on standard input.
pub fn token_of(file: &Path) -> Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    let failure = |what: &str| Failure::new(Class::Usage, format!("`--token-file={}` {what}", file.display()));
    read.map_err(|error| anyhow::anyhow!(error).context(failure("cannot be read")))?;
    let token = Secret::new(text.trim());
    if token.is_empty() {
        return Err(failure("is empty").hint("it holds nothing but the token").into());
    }
    Ok(token)
}

impl Surroundings {
    /// A variable that is set and not empty.
    fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The server of a forge: the CI's own, else the public one.
    fn server(&self, forge: ForgeKind) -> &str {
        let own = match forge {
            ForgeKind::GitHub => self.var("GITHUB_SERVER_URL"),
            ForgeKind::GitLab => self.var("CI_SERVER_URL"),
            ForgeKind::Bitbucket => None,
        };
        own.unwrap_or_else(|| SERVERS.iter().find(|(kind, _)| *kind == forge).map_or("", |(_, server)| server))
    }

    /// The repository whose CI this is.
    fn ci_repo(&self, forge: ForgeKind) -> Option<String> {
        match forge {
            ForgeKind::GitHub => Some(format!("{}/{}", self.server(forge), self.var("GITHUB_REPOSITORY")?)),
            ForgeKind::GitLab => Some(self.var("CI_PROJECT_URL")?.to_owned()),
            ForgeKind::Bitbucket => Some(self.var("BITBUCKET_GIT_HTTP_ORIGIN")?.to_owned()),
        }
    }

    /// The forge whose CI this is.
    fn ci_forge(&self) -> Option<ForgeKind> {
        let is_bitbucket = || self.var("BITBUCKET_REPO_UUID").map(|_| ForgeKind::Bitbucket);
        let mut kinds = SERVERS.into_iter().map(|(kind, _)| kind);
        kinds.find(|kind| self.ci_repo(*kind).is_some()).or_else(is_bitbucket)
    }

    fn repo(&self, options: &GenericOptions, source: &str) -> Result<Url> {
        if let Some(given) = &options.repo {
            let slug_server = || self.server(options.driver.or_else(|| self.ci_forge()).unwrap_or(ForgeKind::GitHub));
            return page(given, Some(slug_server())).with_context(|| bad_repo(&format!("`{source}`")));
        }
        if let Some(remote) = &self.remote {
            return page(remote, None).with_context(|| bad_repo("the git remote `origin`"));
        }
        let ci = options.driver.or_else(|| self.ci_forge()).and_then(|forge| self.ci_repo(forge));
        let ci = ci.ok_or_else(|| {
            Failure::new(Class::Usage, "no repository is known").hint(
                "this is neither a git checkout with a remote `origin` nor a CI job: give `--repo=https://github.com/OWNER/REPO`, or `--repo=OWNER/REPO`",
            )
        })?;
        page(&ci, None).with_context(|| bad_repo("the CI's variables"))
    }

    fn forge(&self, driver: Option<ForgeKind>, repo: &Url) -> Result<ForgeKind> {
        let host = repo.host_str().unwrap_or_default();
        let by_host = match host {
            "github.com" => Some(ForgeKind::GitHub),
            // Enterprise Cloud with data residency: https://docs.github.com/en/enterprise-cloud@latest/admin/data-residency
            host if host.ends_with(".ghe.com") => Some(ForgeKind::GitHub),
            "gitlab.com" => Some(ForgeKind::GitLab),
            "bitbucket.org" | "bitbucket.com" => Some(ForgeKind::Bitbucket),
            _ => None,
        };
        driver.or(by_host).or_else(|| self.ci_forge()).ok_or_else(|| {
            Failure::new(Class::Usage, format!("which forge serves {host} is not known"))
                .hint("give `--driver=github`, `--driver=gitlab` or `--driver=bitbucket`")
                .into()
        })
    }

    /// The token: the given one, else that of the surroundings. Another forge's token is never taken: it would be sent to a host that must not see it.
    pub fn token(&self, given: Option<&Secret>, forge: ForgeKind) -> Result<Secret> {
        let given = given.filter(|token| !token.is_empty()).cloned();
        let own = token_variable(forge);
        let mut variables = TOKENS.into_iter().chain([own]);
        given
            .or_else(|| variables.find_map(|name| self.var(name)).map(Secret::new))
            .ok_or_else(|| {
                Failure::new(Class::Usage, format!("no token for {forge} is given"))
                    .hint(format!(
                        "set REPO_TOKEN or {own} to a personal access token that may manage runners"
                    ))
                    .into()
            })
    }

    fn launch_job(&self, forge: ForgeKind, repo: &Url) -> Option<LaunchJob> {
        let here = page(&self.ci_repo(forge)?, None).ok()?;
        let same = here.host() == repo.host() && here.port() == repo.port() && here.path().eq_ignore_ascii_case(repo.path());
        let (run, attempt, runner) = match forge {
            ForgeKind::GitHub => ("GITHUB_RUN_ID", self.var("GITHUB_RUN_ATTEMPT"), "RUNNER_NAME"),
            ForgeKind::GitLab => ("CI_PIPELINE_ID", None, "CI_JOB_ID"),
            ForgeKind::Bitbucket => ("BITBUCKET_PIPELINE_UUID", None, "BITBUCKET_STEP_UUID"),
        };
        let job = LaunchJob {
            run: self.var(run)?.to_owned(),
            attempt: attempt.and_then(|attempt| attempt.parse().ok()).unwrap_or(1),
            runner: self.var(runner)?.to_owned(),
        };
        same.then_some(job)
    }
}

fn bad_repo(origin: &str) -> Failure {
    Failure::new(Class::Usage, format!("{origin} does not name a repository"))
        .hint("write it as `--repo=https://HOST/OWNER/REPO`, or `--repo=OWNER/REPO`")
}

/// The page of a repository from any of its addresses: URL, `git@host:path`, or a slug on `slug_server`.
///
/// Credentials, `.git`, query and trailing slashes are cut, and https takes the place of what is not http on this host: a token is never
/// sent in clear.
fn page(address: &str, slug_server: Option<&str>) -> Result<Url> {
    let address = address.trim();
    let full = if address.contains("://") {
        address.to_owned()
    } else if let Some((host, path)) = address.split_once(':') {
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        anyhow::ensure!(!host.contains('/'), "a local path is no repository that a forge knows");
        format!("https://{host}/{}", path.trim_start_matches('/'))
    } else {
        let path = address.trim_matches('/');
        let mut segments = path.split('/');
        let has_host = segments.next().is_some_and(|first| first.contains('.')) && segments.count() >= 2;
        if has_host {
            format!("https://{path}")
        } else {
            let server = slug_server.context("a local path is no repository that a forge knows")?;
            format!("{}/{path}", server.trim_end_matches('/'))
        }
    };
    let parsed = Url::parse(&full).context("not a URL")?;
    clean(&parsed)
}

fn clean(url: &Url) -> Result<Url> {
    let host = url.host_str().filter(|host| !host.is_empty()).context("the address has no host")?;
    let is_loopback = matches!(url.host(), Some(url::Host::Ipv4(ip)) if ip.is_loopback())
        || matches!(url.host(), Some(url::Host::Ipv6(ip)) if ip.is_loopback())
        || host == "localhost";
    let (scheme, port) = match url.scheme() {
        "http" if is_loopback => ("http", url.port()),
        "https" => ("https", url.port()),
        // Their ports are not https's.
        "http" | "ssh" | "git" | "git+ssh" => ("https", None),
        other => anyhow::bail!("`{other}:` is not how a forge is spoken to"),
    };
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let path = url.path().trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/');
    Url::parse(&format!("{scheme}://{host}{port}/{path}")).context("not a URL")
}

/// One path segment is an organisation, two are a repository. GitLab's groups nest, and a whole GitLab has runners too.
fn check_path(forge: ForgeKind, repo: &Url) -> Result<()> {
    let segments = repo.path().split('/').filter(|part| !part.is_empty()).count();
    if (1..=2).contains(&segments) || forge == ForgeKind::GitLab {
        return Ok(());
    }
    Err(
        Failure::new(Class::Usage, format!("{repo} is neither a repository nor an organisation"))
            .hint(format!("{forge} addresses are https://HOST/OWNER/REPO and https://HOST/OWNER"))
            .into(),
    )
}

#[cfg(test)]
mod tests;
