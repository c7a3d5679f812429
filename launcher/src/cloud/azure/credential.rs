//! Who the launcher is to Azure: a service principal, a federated workload, whoever is logged in with the `az` CLI, or the machine itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use azure_core::cloud::CustomConfiguration;
use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, Body, ClientOptions, HttpClient, Method, Request, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use common::error::{Class, Failure};
use common::http::{self, Retry};
use common::secret::Secret;
use url::Url;

use super::endpoint::{Endpoints, is_loopback};

/// How long one source of tokens may take. A metadata service that is not there may not answer at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How patiently an authority is asked.
const RETRY: Retry = Retry::API.within(PATIENCE);

/// Gives tokens for Resource Manager; they are kept until they end.
pub struct Credential {
    /// Tried in order, each with what people call it.
    sources: Vec<(&'static str, Arc<dyn TokenCredential>)>,
    scope: String,
}

impl Credential {
    /// What the environment names: the names are those of every Azure SDK.
    pub fn from_environment(endpoints: &Endpoints, http: &reqwest::Client) -> Result<Self> {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let options = || options(endpoints, http);
        let source: Option<(_, Arc<dyn TokenCredential>)> = match (get("AZURE_TENANT_ID"), get("AZURE_CLIENT_ID")) {
            (Some(tenant), Some(client)) => {
                if let Some(secret) = get("AZURE_CLIENT_SECRET") {
                    let options = ClientSecretCredentialOptions { client_options: options() };
                    let found = ClientSecretCredential::new(&tenant, client, secret.into(), Some(options));
                    Some(("the service principal", found.map_err(unusable)?))
                } else if get("AZURE_FEDERATED_TOKEN_FILE").is_some() {
                    let options = WorkloadIdentityCredentialOptions {
                        credential_options: ClientAssertionCredentialOptions { client_options: options() },
                        ..WorkloadIdentityCredentialOptions::default()
                    };
                    let found = WorkloadIdentityCredential::new(Some(options));
                    Some(("the federated workload identity", found.map_err(unusable)?))
                } else {
                    None
                }
            }
            _ => None,
        };
        let sources = match source {
            Some(source) => vec![source],
            None => ambient(get("AZURE_CLIENT_ID"), options())?,
        };
        Ok(Self {
            sources,
            scope: format!("{}/.default", endpoints.audience),
        })
    }

    /// A token, from the first source that gives one.
    pub async fn token(&self) -> Result<Secret> {
        let mut said = Vec::new();
        for (name, source) in &self.sources {
            match tokio::time::timeout(PATIENCE, source.get_token(&[&self.scope], None)).await {
                Ok(Ok(token)) => return Ok(Secret::new(token.token.secret())),
                Ok(Err(error)) => said.push(format!("{name}: {}", first_line(&error))),
                Err(_) => said.push(format!("{name}: no answer in {} s", PATIENCE.as_secs())),
            }
        }
        Err(anyhow::anyhow!(said.join("; "))).context(no_credentials())
    }
}

/// What is there without being named: a login, or the identity of the machine that the launcher runs on.
fn ambient(client: Option<String>, options: ClientOptions) -> Result<Vec<(&'static str, Arc<dyn TokenCredential>)>> {
    let login = AzureCliCredential::new(None).map_err(unusable)?;
    let identity = ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
        user_assigned_id: client.map(UserAssignedId::ClientId),
        client_options: options,
    }));
    Ok(vec![
        ("the `az` login", login),
        ("this machine's managed identity", identity.map_err(unusable)?),
    ])
}

fn unusable(error: azure_core::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(no_credentials())
}

fn no_credentials() -> Failure {
    Failure::new(Class::Access, "no usable Azure credentials").hint(
        "set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (or AZURE_FEDERATED_TOKEN_FILE), log in with `az login`, or run where there is a managed identity",
    )
}

/// The rest of Azure's words is advice on its SDK.
fn first_line(error: &azure_core::Error) -> String {
    let said = error.to_string();
    common::log::escape(said.lines().next().unwrap_or_default())
}

fn options(endpoints: &Endpoints, http: &reqwest::Client) -> ClientOptions {
    let mut cloud = CustomConfiguration::default();
    // The crate refuses any other scheme; our transport speaks the one that was meant.
    cloud.authority_host = match endpoints.authority.strip_prefix("http://") {
        Some(rest) => format!("https://{rest}"),
        None => endpoints.authority.clone(),
    };
    ClientOptions {
        // Asking again is our client's business.
        retry: RetryOptions::none(),
        transport: Some(Transport::new(Arc::new(OwnClient {
            http: http.clone(),
            in_clear: endpoints.authority.strip_prefix("http://").map(str::to_owned),
        }))),
        cloud: Some(Arc::new(cloud.into())),
        ..ClientOptions::default()
    }
}

/// The one HTTP client, as the crate wants one.
struct OwnClient {
    http: reqwest::Client,
    /// The authority that is spoken to in clear, on this very machine.
    in_clear: Option<String>,
}

impl fmt::Debug for OwnClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnClient")
    }
}

impl OwnClient {
    /// The address that was meant.
    fn address(&self, url: &Url) -> String {
        let authority = url.authority();
        match &self.in_clear {
            Some(clear) if clear == authority && is_loopback(url) => url.as_str().replacen("https://", "http://", 1),
            _ => url.to_string(),
        }
    }

    async fn send(&self, request: &Request) -> Result<AsyncRawResponse> {
        let method = match request.method() {
            Method::Post => reqwest::Method::POST,
            Method::Get => reqwest::Method::GET,
            other => anyhow::bail!("credentials are not asked for with {other:?}"),
        };
        let Body::Bytes(body) = request.body() else {
            anyhow::bail!("credentials are not asked for with a stream");
        };
        let mut sent = self.http.request(method, self.address(request.url())).body(body.clone());
        for (name, value) in request.headers().iter() {
            sent = sent.header(name.as_str(), value.as_str());
        }
        let answer = http::fetch(sent, &RETRY).await?;
        let mut headers = Headers::new();
        for (name, value) in &answer.headers {
            if let Ok(value) = value.to_str() {
                headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(AsyncRawResponse::from_bytes(answer.status.as_u16().into(), headers, answer.body))
    }
}

#[async_trait]
impl HttpClient for OwnClient {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let sent = self.send(request).await;
        sent.map_err(|error| azure_core::Error::with_message(ErrorKind::Io, format!("{error:#}")))
    }
}
