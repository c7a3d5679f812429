//! What a page on a GitLab is, and where its API is. A GitLab may live below a path (`https://HOST/gitlab/…`), and a path of two parts may
//! be a project or a group in a group: only the server knows, so that it is asked.

use std::fmt;

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::GitLab;
use crate::error::{Class, Failure};
use crate::forge::page;

/// The path of the API below the server's own address. Source: <https://docs.gitlab.com/api/rest/>
const API: &str = "/api/v4";
/// A GitLab that lives below more path segments than this is not looked for.
const MAX_PREFIX: usize = 2;

/// A project, a group or a whole GitLab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The server's own address, with the path that it lives below and without a slash at its end.
    pub server: String,
    pub kind: Kind,
}

/// What runners are registered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Its id and path.
    Project(u64, String),
    /// Its id and path.
    Group(u64, String),
    Instance,
}

impl Scope {
    /// The address of something of the API.
    pub fn api(&self, path: &str) -> String {
        format!("{}{API}{path}", self.server)
    }

    /// The path of the list of its runners.
    pub fn runners(&self) -> String {
        match &self.kind {
            Kind::Project(id, _) => format!("/projects/{id}/runners"),
            Kind::Group(id, _) => format!("/groups/{id}/runners"),
            Kind::Instance => "/runners/all".into(),
        }
    }

    /// GitLab's word for its runners.
    pub const fn runner_type(&self) -> &'static str {
        match self.kind {
            Kind::Project(..) => "project_type",
            Kind::Group(..) => "group_type",
            Kind::Instance => "instance_type",
        }
    }

    /// The path of the project that a job names: our own one, or one of the group. `None` for another's.
    pub fn project(&self, named: &str) -> Option<String> {
        let inside = |group: &str| {
            let (start, rest) = named.split_at_checked(group.len())?;
            (start.eq_ignore_ascii_case(group) && rest.starts_with('/')).then_some(())
        };
        match &self.kind {
            // Not the name that the job tells: the project may have been moved meanwhile.
            Kind::Project(id, _) => return Some(format!("/projects/{id}")),
            Kind::Group(_, path) => inside(path)?,
            // Every project is in a namespace. A name without one (`..`) could lead to another part of the API.
            Kind::Instance => named.contains('/').then_some(())?,
        }
        Some(format!("/projects/{}", encoded(named)))
    }

    /// What shows the registration token of the project or group, to those who may manage its runners.
    pub fn registration_token(&self) -> Option<String> {
        match &self.kind {
            Kind::Project(id, _) => Some(format!("/projects/{id}")),
            Kind::Group(id, _) => Some(format!("/groups/{id}?with_projects=false")),
            Kind::Instance => None,
        }
    }

    /// What a token needs to register runners here, in GitLab's words.
    pub const fn runner_permission(&self) -> &'static str {
        match self.kind {
            Kind::Project(..) => "the scope `api`, and at least the role Maintainer in the project",
            Kind::Group(..) => "the scope `api`, and the role Owner in the group",
            Kind::Instance => "the scope `api`, and an administrator as its owner",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Project(_, path) => write!(f, "project `{path}`"),
            Kind::Group(_, path) => write!(f, "group `{path}`"),
            Kind::Instance => write!(f, "GitLab at {}", self.server),
        }
    }
}

/// A path as one segment of an address.
fn encoded(path: &str) -> String {
    url::form_urlencoded::byte_serialize(path.as_bytes()).collect()
}

/// Asks what a page is: the shortest path below which a GitLab answers counts.
pub async fn find(gitlab: &GitLab) -> Result<Scope> {
    let page = &gitlab.page;
    let mut barred = None;
    let parts = page::parts(page);
    for cut in 0..=parts.len().min(MAX_PREFIX) {
        let (prefix, path) = parts.split_at(cut);
        let mut server = page.origin().ascii_serialization();
        for part in prefix {
            server = server + "/" + part;
        }
        if let Some(kind) = below(gitlab, &server, &path.join("/"), &mut barred).await? {
            return Ok(Scope { server, kind });
        }
    }
    Err(barred.unwrap_or_else(|| {
        let message = format!("there is no project or group {}, or the token cannot see it", page::shown(page));
        let hint = "check `--repo`; the token needs the scope `api`";
        Failure::new(Class::Access, message).hint(hint).into()
    }))
}

/// Asks what the rest of the page's path is to a GitLab that lives here, if one does; else `barred` may tell what else is in the way.
async fn below(gitlab: &GitLab, server: &str, path: &str, barred: &mut Option<anyhow::Error>) -> Result<Option<Kind>> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "version")]
        _version: String,
    }
    #[derive(Deserialize)]
    struct Known {
        id: u64,
        #[serde(alias = "path_with_namespace")]
        full_path: String,
    }
    if path.is_empty() {
        let found: Option<Version> = ask(gitlab, &format!("{server}{API}/version"), barred).await?;
        return Ok(found.map(|_| Kind::Instance));
    }
    let project: Option<Known> = ask(gitlab, &format!("{server}{API}/projects/{}", encoded(path)), barred).await?;
    if let Some(known) = project {
        return Ok(Some(Kind::Project(known.id, known.full_path)));
    }
    let group = format!("{server}{API}/groups/{}?with_projects=false", encoded(path));
    let group: Option<Known> = ask(gitlab, &group, barred).await?;
    Ok(group.map(|known| Kind::Group(known.id, known.full_path)))
}

/// Asks for one thing; `None` where there is no such thing, or no GitLab: some answer what they do not know with a page for people.
async fn ask<T: for<'a> Deserialize<'a>>(gitlab: &GitLab, address: &str, barred: &mut Option<anyhow::Error>) -> Result<Option<T>> {
    let request = gitlab.api.request(Method::GET, address);
    let answer = gitlab.api.fetch(request).await?;
    if !matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(answer.json().ok());
    }
    let refusal = gitlab.refused(&answer);
    if answer.json::<serde_json::Map<String, serde_json::Value>>().is_ok() {
        return Err(refusal);
    }
    // Not GitLab's word: something that has the rest of the host to itself, or that stands before all of it.
    barred.get_or_insert(refusal);
    Ok(None)
}
