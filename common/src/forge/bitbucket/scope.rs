//! What a page on Bitbucket Cloud is, and where its API is.

use std::fmt;

use anyhow::Result;
use url::Url;

use crate::error::{Class, Failure};
use crate::forge::page;

/// The API of Bitbucket Cloud. Source: <https://developer.atlassian.com/cloud/bitbucket/rest/intro/>
const API: &str = "https://api.bitbucket.org/2.0";
/// The hosts of its pages.
const HOSTS: [&str; 4] = ["bitbucket.org", "www.bitbucket.org", "bitbucket.com", "www.bitbucket.com"];

/// A repository or workspace, with the API that serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    api: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Workspace and repository.
    Repository(String, String),
    Workspace(String),
}

impl Scope {
    /// Reads a page's address: `https://bitbucket.org/WORKSPACE/REPO` or `https://bitbucket.org/WORKSPACE`.
    pub fn parse(page: &Url) -> Result<Self> {
        page::check(page)?;
        let refuse = |what: &str, hint: &str| {
            Err(Failure::new(Class::Usage, format!("`{}` {what}", page::shown(page)))
                .hint(hint)
                .into())
        };
        let kind = match page::parts(page).as_slice() {
            [workspace, repo] => Kind::Repository((*workspace).into(), repo.strip_suffix(".git").unwrap_or(repo).into()),
            [workspace] => Kind::Workspace((*workspace).into()),
            _ => {
                return refuse(
                    "is neither a repository nor a workspace",
                    "expected `https://bitbucket.org/WORKSPACE/REPO`",
                );
            }
        };
        let api = match page.host_str() {
            Some(host) if HOSTS.contains(&host) => API.to_owned(),
            // In clear it can only be this very machine.
            _ if page.scheme() == "http" => format!("{}/2.0", page.origin().ascii_serialization()),
            _ => {
                return refuse(
                    "is not on Bitbucket Cloud",
                    "Bitbucket Data Center has no pipelines, and no runners",
                );
            }
        };
        Ok(Self { api, kind })
    }

    /// The base address of the API, without a slash at its end.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// The path of the repository or workspace itself.
    pub fn path(&self) -> String {
        match &self.kind {
            Kind::Repository(workspace, repo) => format!("/repositories/{workspace}/{repo}"),
            Kind::Workspace(name) => format!("/workspaces/{name}"),
        }
    }

    /// The path of its runners.
    pub fn runners(&self) -> String {
        self.path() + "/pipelines-config/runners"
    }

    /// The path of the repository that a step's runner named, `WORKSPACE/REPO` or `WORKSPACE/{UUID}`: our own one, or one of the
    /// workspace. `None` for another's.
    pub fn repository(&self, named: &str) -> Option<String> {
        let own = match &self.kind {
            // Not the name that was told: the repository may have been renamed meanwhile.
            Kind::Repository(..) => return Some(self.path()),
            Kind::Workspace(name) => name,
        };
        let (workspace, repo) = named.split_once('/')?;
        let known = page::is_plain(repo) || is_uuid(repo);
        (own.eq_ignore_ascii_case(workspace) && known).then(|| format!("/repositories/{own}/{}", encoded(repo)))
    }

    /// What a token needs to register runners here, in Bitbucket's words.
    pub const fn runner_permission(&self) -> &'static str {
        match self.kind {
            Kind::Repository(..) => {
                "the scopes `read:repository:bitbucket`, `read:runner:bitbucket` and `write:runner:bitbucket` (API token) or \
                 `repository`, `runner` and `runner:write` (access token), and its owner the administration of the repository"
            }
            Kind::Workspace(_) => {
                "the scopes `read:workspace:bitbucket`, `read:runner:bitbucket` and `write:runner:bitbucket` (API token) or \
                 `account`, `runner` and `runner:write` (access token), and its owner the administration of the workspace"
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Repository(workspace, repo) => write!(f, "repository `{workspace}/{repo}`"),
            Kind::Workspace(name) => write!(f, "workspace `{name}`"),
        }
    }
}

/// Whether a text is an id as Bitbucket writes it: `{7b54c4fa-…}`, braces included.
pub fn is_uuid(text: &str) -> bool {
    const SHAPE: &[u8] = b"{00000000-0000-0000-0000-000000000000}";
    let fits = |(byte, shape): (u8, &u8)| if *shape == b'0' { byte.is_ascii_hexdigit() } else { byte == *shape };
    text.len() == SHAPE.len() && text.bytes().zip(SHAPE).all(fits)
}

/// An id as a segment of a path.
pub fn encoded(id: &str) -> String {
    id.replace('{', "%7B").replace('}', "%7D")
}

#[cfg(test)]
mod tests {
    use super::Scope;

    fn parse(page: &str) -> anyhow::Result<Scope> {
        Scope::parse(&page.parse().unwrap())
    }

    #[test]
    fn pages_and_their_apis() {
        let cloud = "https://api.bitbucket.org/2.0";
        for (page, api, path) in [
            ("https://bitbucket.org/octo/train", cloud, "/repositories/octo/train"),
            ("https://bitbucket.org/octo/train.git", cloud, "/repositories/octo/train"),
            ("https://bitbucket.com/octo/", cloud, "/workspaces/octo"),
            (
                "http://127.0.0.1:4000/octo/train",
                "http://127.0.0.1:4000/2.0",
                "/repositories/octo/train",
            ),
            ("http://[::1]:4000/octo", "http://[::1]:4000/2.0", "/workspaces/octo"),
        ] {
            let scope = parse(page).unwrap();
            assert_eq!((scope.api(), scope.path().as_str()), (api, path), "{page}");
        }
    }

    #[test]
    fn what_is_refused() {
        for page in [
            "http://bitbucket.org/octo/train",
            "https://bitbucket.org/",
            "https://bitbucket.org/a/b/c",
            "https://bitbucket.example.com/octo/train",
            "https://user:canary@example.com/octo/train",
        ] {
            let error = format!("{:#}", parse(page).unwrap_err());
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_step_leads_to_no_repository_of_others() {
        let repository = parse("https://bitbucket.org/octo/train").unwrap();
        let workspace = parse("https://bitbucket.org/octo").unwrap();
        let uuid = "{7b54c4fa-0000-4000-8000-00000000000a}";
        for (named, of_repository, of_workspace) in [
            (
                "octo/train",
                "/repositories/octo/train",
                Some("/repositories/octo/train".to_owned()),
            ),
            (
                "octo/renamed",
                "/repositories/octo/train",
                Some("/repositories/octo/renamed".to_owned()),
            ),
            (
                &format!("octo/{uuid}"),
                "/repositories/octo/train",
                Some("/repositories/octo/%7B7b54c4fa-0000-4000-8000-00000000000a%7D".to_owned()),
            ),
            ("other/train", "/repositories/octo/train", None),
            ("octo/..", "/repositories/octo/train", None),
            ("octo/train/../../x", "/repositories/octo/train", None),
            ("octo/{train}", "/repositories/octo/train", None),
            ("octo", "/repositories/octo/train", None),
        ] {
            assert_eq!(repository.repository(named).as_deref(), Some(of_repository), "{named}");
            assert_eq!(workspace.repository(named), of_workspace, "{named}");
        }
    }
}
