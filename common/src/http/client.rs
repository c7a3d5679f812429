//! How a client is made.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::{Client, ClientBuilder, redirect};

/// A connection that is not made in this time will not be made.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that says nothing for this long has gone.
const READ: Duration = Duration::from_secs(30);
/// Builds the one client; call once per process and clone. Proxies are the environment's (`HTTPS_PROXY`, `NO_PROXY`, …), and so are
/// the trusted certificates (`SSL_CERT_FILE`, else the system's); a host without any trusts Mozilla's.
pub fn client() -> Result<Client> {
    // Another part of the program may have installed it already: it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match builder().build() {
        Ok(client) => Ok(client),
        Err(error) => {
            tracing::debug!("no certificates on this host ({error:?}); trusting Mozilla's");
            builder()
                .tls_backend_preconfigured(mozilla_roots())
                .build()
                .context("building the HTTP client")
        }
    }
}

/// Builds a client for a server of this very machine (the metadata service): never through a proxy, every request within `patience`.
pub fn local(patience: Duration) -> Result<Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .tls_backend_preconfigured(mozilla_roots())
        .no_proxy()
        .timeout(patience);
    client.build().context("building the local HTTP client")
}

fn builder() -> ClientBuilder {
    Client::builder()
        .user_agent(user_agent())
        .connect_timeout(CONNECT)
        .read_timeout(READ)
        .redirect(redirect::Policy::custom(|attempt| {
            let from_https = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
            if from_https && attempt.url().scheme() != "https" {
                attempt.error("redirected from https to a connection in clear")
            } else {
                redirect::Policy::default().redirect(attempt)
            }
        }))
}

/// `PROGRAM/VERSION`, so that a forge's audit log tells the launcher from the agent.
fn user_agent() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(|path| path.file_name()?.to_str()).unwrap_or("cml");
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    format!("{name}/{}", env!("CARGO_PKG_VERSION"))
}

fn mozilla_roots() -> rustls::ClientConfig {
    let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<rustls::RootCertStore>();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}
