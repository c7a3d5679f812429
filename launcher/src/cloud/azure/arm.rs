//! Resource Manager: requests, refusals, and operations that take their time.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};
use common::http::{self, Answer, Retry};
use common::log::escape;
use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use super::credential::Credential;
use super::endpoint::Endpoints;

/// How long to wait before asking how far an operation is, where Azure does not say.
const PAUSE: Duration = Duration::from_secs(2);
/// Never more often than this, whatever it says.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest text of Azure's that is shown, in characters.
const WORDS: usize = 600;

/// One subscription.
pub struct Arm {
    http: Client,
    base: String,
    /// Where prices are asked for.
    pub prices: String,
    subscription: String,
    credential: Credential,
    retry: Retry,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum Error {
    /// Azure answered no.
    Refused(Refusal),
    /// It did not answer, or not as expected.
    Other(anyhow::Error),
}

/// A refusal in Azure's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status; 200 for an operation that failed later.
    pub status: u16,
    /// Its code: `SkuNotAvailable`.
    pub code: String,
    /// All codes, the inner ones too.
    pub codes: Vec<String>,
    /// Its words, escaped and cut.
    pub message: String,
}

impl Refusal {
    /// Whether one of the codes is this one.
    pub fn is(&self, code: &str) -> bool {
        self.codes.iter().any(|own| own.eq_ignore_ascii_case(code))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Azure's [form of errors][form].
///
/// [form]: https://github.com/microsoft/api-guidelines/blob/vNext/azure/Guidelines.md#handling-errors
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Words {
    code: String,
    message: String,
    details: Vec<Words>,
}

#[derive(Debug, Deserialize)]
struct Failed {
    error: Words,
}

/// What an operation says of itself.
#[derive(Debug, Deserialize)]
struct Operation {
    status: String,
    #[serde(default)]
    error: Option<Words>,
}

impl Words {
    fn refusal(self, status: u16) -> Refusal {
        let mut codes = vec![self.code.clone()];
        codes.extend(self.details.iter().map(|inner| inner.code.clone()));
        let inner = self.details.iter().map(|inner| inner.message.as_str());
        let words: Vec<&str> = std::iter::once(self.message.as_str())
            .chain(inner)
            .filter(|words| !words.is_empty())
            .collect();
        let message: String = words.join(" ").chars().take(WORDS).collect();
        Refusal {
            status,
            code: escape(&self.code),
            codes,
            message: escape(&message),
        }
    }
}

impl Arm {
    /// Of the subscription that the environment names; nothing is asked yet.
    pub fn open() -> Result<Self> {
        let endpoints = Endpoints::from_environment()?;
        let subscription = std::env::var("AZURE_SUBSCRIPTION_ID").unwrap_or_default().trim().to_owned();
        if subscription.is_empty() || !subscription.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            return Err(Failure::new(Class::Usage, "AZURE_SUBSCRIPTION_ID is no subscription's id")
                .hint("set it to what `az account show --query id` prints")
                .into());
        }
        let http = http::client()?;
        Ok(Self {
            credential: Credential::from_environment(&endpoints, &http)?,
            http,
            base: endpoints.manager,
            prices: endpoints.prices,
            subscription,
            retry: Retry::API,
        })
    }

    /// `/subscriptions/ID` and what follows.
    pub fn path(&self, rest: &str) -> String {
        format!("/subscriptions/{}{rest}", self.subscription)
    }

    /// Reads; none where there is no such thing.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<T>, Error> {
        let answer = self.send(Method::GET, path, query, None::<&()>).await?;
        match answer {
            Ok(answer) => Ok(Some(answer.json()?)),
            Err(refusal) if is_missing(&refusal) => Ok(None),
            Err(refusal) => Err(Error::Refused(refusal)),
        }
    }

    /// Reads the next page of a list; it must be the same server's.
    pub async fn next<T: DeserializeOwned>(&self, link: &str) -> Result<T, Error> {
        Ok(self.follow(link).await?.json()?)
    }

    /// Makes, or makes again: Azure takes the same request twice without harm.
    pub async fn put<T: Serialize>(&self, path: &str, version: &str, body: &T) -> Result<Answer, Error> {
        let answer = self.send(Method::PUT, path, &[("api-version", version)], Some(body)).await?;
        answer.map_err(Error::Refused)
    }

    /// Does something with a resource.
    pub async fn post(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, Error> {
        let answer = self.send(Method::POST, path, query, None::<&()>).await?;
        answer.map_err(Error::Refused)
    }

    /// Deletes; none where there is no such thing, or it is being deleted already.
    pub async fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<Answer>, Error> {
        match self.send(Method::DELETE, path, query, None::<&()>).await? {
            Ok(answer) => Ok(Some(answer)),
            Err(refusal) if is_missing(&refusal) || refusal.is("ResourceGroupBeingDeleted") => Ok(None),
            Err(refusal) => Err(Error::Refused(refusal)),
        }
    }

    /// Waits until what a request began has ended ([how]).
    ///
    /// [how]: https://learn.microsoft.com/en-us/azure/azure-resource-manager/management/async-operations
    pub async fn settle(&self, begun: Answer) -> Result<(), Error> {
        let (by_status, link) = match (begun.header("azure-asyncoperation"), begun.header("location")) {
            (Some(link), _) => (true, link.to_owned()),
            (None, Some(link)) if begun.status == StatusCode::ACCEPTED => (false, link.to_owned()),
            _ => return Ok(()),
        };
        let mut last = begun;
        loop {
            tokio::time::sleep(pause(&last)).await;
            last = self.follow(&link).await?;
            if !by_status {
                if last.status == StatusCode::ACCEPTED {
                    continue;
                }
                return Ok(());
            }
            let operation: Operation = last.json()?;
            match operation.status.to_ascii_lowercase().as_str() {
                "succeeded" => return Ok(()),
                "failed" | "canceled" => {
                    let words = operation.error.unwrap_or_default();
                    return Err(Error::Refused(words.refusal(StatusCode::OK.as_u16())));
                }
                // There are many words for "not yet".
                _ => {}
            }
        }
    }

    /// Reads an address outside of Resource Manager, without a token: what it may is in the address, which is therefore never shown.
    pub async fn outside(&self, address: &str) -> Result<Answer> {
        http::fetch(self.http.get(address), &self.retry).await
    }

    async fn follow(&self, link: &str) -> Result<Answer, Error> {
        let is_ours = |link: &Url| Url::parse(&self.base).is_ok_and(|base| base.origin() == link.origin());
        let url = Url::parse(link).ok().filter(is_ours);
        let url = url.with_context(|| format!("Azure refers to another server: {}", escape(link)))?;
        let answer = self.request(Method::GET, url.as_str(), None::<&()>).await?;
        answer.map_err(Error::Refused)
    }

    async fn send<T: Serialize>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&T>,
    ) -> Result<std::result::Result<Answer, Refusal>> {
        let mut url = Url::parse(&format!("{}{path}", self.base)).context("building an address of Resource Manager")?;
        url.query_pairs_mut().extend_pairs(query);
        self.request(method, url.as_str(), body).await
    }

    async fn request<T: Serialize>(&self, method: Method, url: &str, body: Option<&T>) -> Result<std::result::Result<Answer, Refusal>> {
        let token = self.credential.token().await?;
        let authorization = http::authorization(&format!("Bearer {}", token.expose()))?;
        let mut request = self.http.request(method, url).header(reqwest::header::AUTHORIZATION, authorization);
        request = match body {
            Some(body) => request.json(body),
            None => request.header(reqwest::header::CONTENT_LENGTH, "0"),
        };
        let answer = http::fetch(request, &self.retry).await?;
        if answer.status.is_success() {
            return Ok(Ok(answer));
        }
        let status = answer.status.as_u16();
        let words = answer.json::<Failed>().map(|failed| failed.error).unwrap_or_default();
        let words = if words.code.is_empty() {
            Words {
                code: format!("HTTP {status}"),
                ..words
            }
        } else {
            words
        };
        Ok(Err(words.refusal(status)))
    }
}

fn is_missing(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::NOT_FOUND.as_u16() && !refusal.is("SubscriptionNotFound")
}

fn pause(answer: &Answer) -> Duration {
    let said = answer.header("retry-after").and_then(|after| after.trim().parse().ok());
    said.map_or(PAUSE, Duration::from_secs).max(SHORTEST)
}
