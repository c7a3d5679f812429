//! A GitHub App: who proves to be it has tokens made, which may do what they were asked for, in the repositories that they were asked for, and
//! which end.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rsa::{KeyPair, PublicKeyComponents};
use ring::signature::RSA_PKCS1_2048_8192_SHA256;
use serde::Deserialize;
use serde_json::{Value, json};

use super::rest::{Answer, Refusal, Scope, nothing, read_any, refuse, say};
use super::{GitHub, Own, answers};
use crate::ci::Asked;
use crate::shared::lock;
use crate::standin;

/// Its private key. Of no other App, anywhere: it is published with this code.
pub const KEY: &str = include_str!("app.pem");
/// Its client id.
pub const CLIENT_ID: &str = "Iv1.sandbox0app";
/// Its number.
pub const NUMBER: u64 = 271;
/// What GitHub's addresses call it.
const SLUG: &str = "cml-sandbox";
/// Its one installation.
const INSTALLATION: u64 = 314;
/// A proof may not be good for longer.
const LONGEST_PROOF: i64 = 600;
/// How far in GitHub's future a proof may have been made: the clocks of one machine do not differ.
const DRIFT: i64 = 5;

/// How an App is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether it is installed.
    pub installed: bool,
    /// Whether its installation is suspended.
    pub suspended: bool,
    /// What it was granted.
    pub permissions: BTreeMap<String, String>,
    /// How long its tokens live (an hour on GitHub).
    pub token_life: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            installed: true,
            suspended: false,
            permissions: grants(&["administration", "organization_self_hosted_runners", "actions"]),
            token_life: Duration::from_hours(1),
        }
    }
}

/// These permissions, to write; and what every App has.
pub fn grants(names: &[&str]) -> BTreeMap<String, String> {
    let write = names.iter().map(|name| ((*name).to_owned(), "write".to_owned()));
    write.chain([("metadata".into(), "read".into())]).collect()
}

/// A token that was made.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// The repositories that it is limited to; all of the installation's where there are none.
    pub repositories: Vec<String>,
    /// What it may do.
    pub permissions: BTreeMap<String, String>,
    ends: SystemTime,
}

/// Whether only an App itself may ask for it.
pub fn is_for_apps(path: &str) -> bool {
    path.starts_with("/app/") || path.ends_with("/installation")
}

/// Whether a request may be looked at that is not the user's.
pub fn check(own: &Own, asked: &Asked, token: &str) -> Result<(), Refusal> {
    if is_for_apps(&asked.path) {
        return prove(token);
    }
    let minted = lock(&own.minted).iter().find(|minted| minted.token == token).cloned();
    let Some(minted) = minted.filter(|minted| SystemTime::now() < minted.ends) else {
        return refuse(401, "Bad credentials");
    };
    minted.may(asked)
}

impl Minted {
    fn may(&self, asked: &Asked) -> Result<(), Refusal> {
        let parts: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        let (needed, repository) = match parts.as_slice() {
            ["repos", _, repo, "actions", "runners", ..] => ("administration", Some(repo)),
            ["orgs", _, "actions", "runners", ..] => ("organization_self_hosted_runners", None),
            ["repos", _, repo, "actions", ..] => ("actions", Some(repo)),
            _ => return nothing(),
        };
        if repository
            .is_some_and(|repo| !self.repositories.is_empty() && !self.repositories.iter().any(|own| own.eq_ignore_ascii_case(repo)))
        {
            return nothing();
        }
        match self.permissions.get(needed).map(String::as_str) {
            Some("write") => Ok(()),
            Some("read") if asked.method == "GET" => Ok(()),
            _ => refuse(403, "Resource not accessible by integration"),
        }
    }
}

/// Whether a JSON web token is our App's, and good now. The words are GitHub's.
fn prove(token: &str) -> Result<(), Refusal> {
    let undecodable = || Refusal(401, "A JSON web token could not be decoded".into());
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| undecodable());
    let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).map_err(|_| undecodable());
    let (signed, signature) = token.rsplit_once('.').ok_or_else(undecodable)?;
    let (head, claims) = signed.split_once('.').ok_or_else(undecodable)?;
    let (head, claims) = (json(head)?, json(claims)?);
    let issuer = claims["iss"].as_str().map_or_else(|| claims["iss"].to_string(), str::to_owned);
    if issuer != CLIENT_ID && issuer != NUMBER.to_string() {
        return refuse(404, "Integration not found");
    }
    let signature = decode(signature)?;
    let verified = public_key().and_then(|key| key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature).ok());
    if head["alg"] != "RS256" || verified.is_none() {
        return Err(undecodable());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if claims["iat"].as_i64().is_none_or(|at| at > now + DRIFT) {
        return refuse(
            401,
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        );
    }
    match claims["exp"].as_i64() {
        Some(at) if at > now + LONGEST_PROOF => refuse(401, "'Expiration time' claim ('exp') is too far in the future"),
        Some(at) if at > now => Ok(()),
        _ => refuse(
            401,
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        ),
    }
}

/// Of the key in this folder, which is an RSA key.
fn public_key() -> Option<PublicKeyComponents<Vec<u8>>> {
    let text: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = KeyPair::from_der(&STANDARD.decode(text).ok()?).ok()?;
    Some(pair.public().into())
}

pub(super) async fn installation(Shared(github): Shared<GitHub>, Path(scope): Path<Scope>) -> Answer {
    scope.check(&github)?;
    let options = &github.own().options;
    if !options.app.installed {
        return nothing();
    }
    let api = format!("{}{}", github.url(), super::PREFIX);
    let place = answers::Place {
        api: &api,
        owner: &options.owner,
        repo: &options.repo,
    };
    let time = answers::time(SystemTime::now());
    let suspended = options.app.suspended;
    Ok(say(
        StatusCode::OK,
        json!({
            "id": INSTALLATION, "app_id": NUMBER, "client_id": CLIENT_ID, "app_slug": SLUG, "target_id": 1, "target_type": "Organization",
            "account": place.owner(), "permissions": options.app.permissions, "events": [], "repository_selection": "selected",
            "access_tokens_url": format!("{api}/app/installations/{INSTALLATION}/access_tokens"),
            "repositories_url": format!("{api}/installation/repositories"),
            "html_url": format!("{}/organizations/{}/settings/installations/{INSTALLATION}", github.url(), options.owner),
            "single_file_name": null, "created_at": time, "updated_at": time,
            "suspended_by": suspended.then(|| place.owner()), "suspended_at": suspended.then_some(time),
        }),
    ))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    repositories: Vec<String>,
    permissions: Option<BTreeMap<String, String>>,
}

pub(super) async fn mint(Shared(github): Shared<GitHub>, Path(id): Path<u64>, body: Bytes) -> Answer {
    let options = &github.own().options;
    if id != INSTALLATION || !options.app.installed {
        return nothing();
    }
    let wanted: Wanted = read_any(&body)?;
    if options.app.suspended {
        return refuse(403, "This installation has been suspended");
    }
    if wanted.repositories.iter().any(|name| !name.eq_ignore_ascii_case(&options.repo)) {
        return refuse(
            422,
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
        );
    }
    let granted = &options.app.permissions;
    let mut permissions = wanted.permissions.unwrap_or_else(|| granted.clone());
    let is_granted = |(name, level): (&String, &String)| granted.get(name).is_some_and(|own| own == level || own == "write");
    if !permissions.iter().all(is_granted) {
        return refuse(422, "The permissions requested are not granted to this installation.");
    }
    permissions.insert("metadata".into(), "read".into());
    let mut minted = lock(&github.own().minted);
    let random = standin::sha256(format!("{:?} {} {}", SystemTime::now(), std::process::id(), minted.len()).as_bytes());
    let made = Minted {
        token: format!("ghs_{random}"),
        repositories: wanted.repositories,
        permissions,
        ends: SystemTime::now() + options.app.token_life,
    };
    let selection = if made.repositories.is_empty() { "all" } else { "selected" };
    let answer = json!({
        "token": made.token, "expires_at": answers::time(made.ends), "permissions": made.permissions, "repository_selection": selection,
    });
    minted.push(made);
    Ok(say(StatusCode::CREATED, answer))
}
