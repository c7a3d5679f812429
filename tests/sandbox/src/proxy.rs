//! A network's way out: an HTTP proxy that tells what went through it. It may open what is encrypted, in the name of an authority of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// A proxy of a world.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What all of its connections know.
struct Shared {
    authority: CertifiedIssuer<'static, KeyPair>,
    /// `USER:PASSWORD`, if it asks who is there.
    credentials: Option<String>,
    /// Servers that only it can find: their names, and where they are. What is encrypted for them is opened.
    hosts: BTreeMap<String, SocketAddr>,
    seen: Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts one, which asks for these credentials, if any, and knows these servers besides those that everybody can find.
    pub async fn start(credentials: Option<&str>, hosts: &[(&str, SocketAddr)]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "The proxy's authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let shared = Arc::new(Shared {
            authority: CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?,
            credentials: credentials.map(str::to_owned),
            hosts: hosts.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect(),
            seen: Mutex::default(),
        });
        let address = listener.local_addr()?;
        let own = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = Arc::clone(&own);
                tokio::spawn(async move {
                    // Who was cut off has an error of its own.
                    let _ = own.serve(stream).await;
                });
            }
        });
        Ok(Self { address, shared, task })
    }

    /// Its address, with the credentials that it asks for.
    pub fn url(&self) -> String {
        let who = self.shared.credentials.as_ref().map(|who| format!("{who}@"));
        format!("http://{}{}", who.unwrap_or_default(), self.address)
    }

    /// The certificate of its authority, as PEM.
    pub fn certificate(&self) -> String {
        self.shared.authority.pem()
    }

    /// What went through it so far: `METHOD URL`, or `CONNECT HOST:PORT`; and `refused` for who did not say the right words.
    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The head of a request.
struct Head {
    method: String,
    target: String,
    /// Its headers, and what came after them.
    headers: Vec<String>,
    rest: Vec<u8>,
}

impl Head {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if bytes.len() > MAX_HEAD || stream.read_buf(&mut bytes).await? == 0 {
                bail!("no request");
            }
        };
        let rest = bytes.split_off(end + 4);
        let text = String::from_utf8(bytes)?;
        let mut lines = text.lines().map(str::to_owned);
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        Ok(Self {
            method,
            target,
            headers: lines.filter(|line| !line.is_empty()).collect(),
            rest,
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut pairs = self.headers.iter().filter_map(|line| line.split_once(": "));
        pairs.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Passes it on, as the only request of its connection, and then whatever follows on either side.
    async fn forward(&self, path: &str, mut client: impl AsyncRead + AsyncWrite + Unpin, address: SocketAddr) -> Result<()> {
        let mut server = TcpStream::connect(address).await?;
        let is_own = |line: &&String| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            !matches!(name.as_str(), "connection" | "proxy-connection" | "proxy-authorization")
        };
        let first = format!("{} {path} HTTP/1.1", self.method);
        let mut lines = vec![first.as_str()];
        lines.extend(self.headers.iter().filter(is_own).map(String::as_str));
        lines.extend(["Connection: close", "\r\n"]);
        let head = lines.join("\r\n");
        server.write_all(head.as_bytes()).await?;
        server.write_all(&self.rest).await?;
        copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }
}

impl Shared {
    fn tell(&self, what: String) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Where a server is: `HOST:PORT`.
    async fn find(&self, authority: &str) -> Result<SocketAddr> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        if let Some(known) = self.hosts.get(host) {
            return Ok(*known);
        }
        let found = tokio::net::lookup_host(authority).await?.next();
        found
            .filter(|address| address.ip().is_loopback())
            .context("nothing but loopback is reached")
    }

    async fn serve(&self, mut client: TcpStream) -> Result<()> {
        let head = Head::read(&mut client).await?;
        if let Some(who) = &self.credentials {
            let expected = format!("Basic {}", STANDARD.encode(who));
            if head.header("proxy-authorization") != Some(&expected) {
                self.tell(format!("refused {} {}", head.method, head.target));
                let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                return Ok(client.write_all(answer.as_bytes()).await?);
            }
        }
        self.tell(format!("{} {}", head.method, head.target));
        if head.method == "CONNECT" {
            return self.tunnel(&head.target, client).await;
        }
        let rest = head.target.strip_prefix("http://").context("that is no proxy's request")?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address = self.find(&with_port(authority)).await?;
        head.forward(path, client, address).await
    }

    async fn tunnel(&self, target: &str, mut client: TcpStream) -> Result<()> {
        let address = self.find(target).await?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        if !self.hosts.contains_key(host) {
            let mut server = TcpStream::connect(address).await?;
            copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
        let mut client = TlsAcceptor::from(Arc::new(self.identity(host)?)).accept(client).await?;
        let head = Head::read(&mut client).await?;
        self.tell(format!("{} https://{host}{}", head.method, head.target));
        head.forward(&head.target, client, address).await
    }

    /// Who it says that it is.
    fn identity(&self, host: &str) -> Result<ServerConfig> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &self.authority)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        Ok(config.with_single_cert(vec![certificate.der().clone()], key)?)
    }
}

/// A server in clear whose port is not said.
fn with_port(authority: &str) -> String {
    if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    }
}
