//! What a page on GitHub is, and where its API is.

use std::fmt;

use anyhow::Result;
use url::Url;

use crate::error::{Class, Failure};
use crate::forge::page;

/// A repository, organisation or enterprise, with the API that serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    api: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Repository(String, String),
    Organisation(String),
    Enterprise(String),
}

impl Scope {
    /// Reads a page's address: `https://HOST/OWNER/REPO`, `https://HOST/ORG` or `https://HOST/enterprises/NAME`.
    pub fn parse(page: &Url) -> Result<Self> {
        page::check(page)?;
        let kind = match page::parts(page).as_slice() {
            ["enterprises", name] => Kind::Enterprise((*name).into()),
            [owner, repo] => Kind::Repository((*owner).into(), repo.strip_suffix(".git").unwrap_or(repo).into()),
            [organisation] => Kind::Organisation((*organisation).into()),
            _ => {
                let message = format!("`{}` is not a repository, organisation or enterprise", page::shown(page));
                return Err(Failure::new(Class::Usage, message)
                    .hint("expected `https://github.com/OWNER/REPO`")
                    .into());
            }
        };
        let api = api(page);
        Ok(Self { api, kind })
    }

    /// The base address of the API, without a slash at its end.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// The path of everything that belongs to it.
    pub fn path(&self) -> String {
        match &self.kind {
            Kind::Repository(owner, repo) => format!("/repos/{owner}/{repo}"),
            Kind::Organisation(name) => format!("/orgs/{name}"),
            Kind::Enterprise(name) => format!("/enterprises/{name}"),
        }
    }

    /// The path of the repository that a job names: our own one, or one of the organisation or enterprise. `None` for another's.
    pub fn repository(&self, named: &str) -> Option<String> {
        let owner = match &self.kind {
            // Not the name that the job tells: the repository may have been renamed meanwhile, and GitHub follows its old names.
            Kind::Repository(..) => return Some(self.path()),
            Kind::Organisation(name) => Some(name),
            Kind::Enterprise(_) => None,
        };
        let (its_owner, repo) = named.split_once('/')?;
        let ours = owner.is_none_or(|owner| owner.eq_ignore_ascii_case(its_owner));
        (ours && page::is_plain(its_owner) && page::is_plain(repo)).then(|| format!("/repos/{its_owner}/{repo}"))
    }

    /// The same of our own repository, if it is one.
    pub fn own_repository(&self) -> Option<String> {
        matches!(self.kind, Kind::Repository(..)).then(|| self.path())
    }

    /// Whether it is an enterprise.
    pub const fn is_enterprise(&self) -> bool {
        matches!(self.kind, Kind::Enterprise(_))
    }

    /// Which permission a token needs to register runners here, in GitHub's words.
    pub const fn runner_permission(&self) -> &'static str {
        match self.kind {
            Kind::Repository(..) => {
                "the scope `repo` (classic) or the repository permission \"Administration: read and write\" (fine-grained)"
            }
            Kind::Organisation(_) => {
                "the scope `admin:org` (classic) or the organisation permission \"Self-hosted runners: read and write\" (fine-grained)"
            }
            Kind::Enterprise(_) => "the scope `manage_runners:enterprise`",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Repository(owner, repo) => write!(f, "repository `{owner}/{repo}`"),
            Kind::Organisation(name) => write!(f, "organisation `{name}`"),
            Kind::Enterprise(name) => write!(f, "enterprise `{name}`"),
        }
    }
}

/// The API's base as [GitHub's own runner](https://github.com/actions/runner) finds it: a subdomain on GitHub's hosts, a path elsewhere.
fn api(page: &Url) -> String {
    let host = page.host_str().unwrap_or_default();
    match host {
        "github.com" | "www.github.com" => "https://api.github.com".into(),
        _ if host.ends_with(".ghe.com") => format!("https://api.{host}"),
        _ => format!("{}/api/v3", page.origin().ascii_serialization()),
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn pages_and_their_apis() {
        for (page, api, path) in [
            ("https://github.com/octo/train", "https://api.github.com", "/repos/octo/train"),
            ("https://github.com/octo/train.git", "https://api.github.com", "/repos/octo/train"),
            ("https://www.github.com/octo", "https://api.github.com", "/orgs/octo"),
            ("https://octo.ghe.com/octo/train/", "https://api.octo.ghe.com", "/repos/octo/train"),
            (
                "https://git.example.com:8443/octo/train",
                "https://git.example.com:8443/api/v3",
                "/repos/octo/train",
            ),
            ("https://github.com/enterprises/acme", "https://api.github.com", "/enterprises/acme"),
            (
                "http://127.0.0.1:4000/octo/train",
                "http://127.0.0.1:4000/api/v3",
                "/repos/octo/train",
            ),
            ("http://[::1]:4000/octo", "http://[::1]:4000/api/v3", "/orgs/octo"),
        ] {
            let scope = Scope::parse(&page.parse().unwrap()).unwrap();
            assert_eq!((scope.api(), scope.path().as_str()), (api, path), "{page}");
        }
    }

    #[test]
    fn what_is_refused() {
        for page in [
            "http://github.com/octo/train",
            "https://github.com/",
            "https://github.com/a/b/c",
            "http://user:canary@example.com/octo/train",
        ] {
            let error = format!("{:#}", Scope::parse(&page.parse().unwrap()).unwrap_err());
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
