//! Answers jobs in the metadata service's stead: asks it what they may ask ([`super::pass`]), and refuses all else.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::http;
use common::spec::CloudKind;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use reqwest::Client;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::pass;

/// The web's port, where the services answer.
const PORT: u16 = 80;
/// How many may wait to be heard.
const BACKLOG: u32 = 128;
/// How many are answered at a time: a job that asks more often only holds up itself.
const CONNECTIONS: usize = 32;
/// How long an asker may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a connection may live: longer than the longest answer.
const LIFE: Duration = Duration::from_mins(2);
/// How long the service may take to answer. Google's holds a question for as long as it is told to, at most until then.
const ANSWER: Duration = Duration::from_secs(70);
/// No answer that jobs get is larger: they cannot fill our memory.
const LARGEST: usize = 1 << 20;
/// The pause after a connection that could not be taken: too many files are open.
const PAUSE: Duration = Duration::from_millis(100);
/// Headers of answers that are passed back.
const BACK: [HeaderName; 3] = [
    CONTENT_TYPE,
    HeaderName::from_static("metadata-flavor"),
    HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"),
];
const REFUSED: &str = "refused by cml-agent: jobs are told of their role and of the kind of machine that this is, and of nothing else \
                       (--job-metadata=all lets them ask for everything, the start-up data and its token included)\n";

/// Takes the place of the service's address, which this machine does not have: answers come from it all the same.
pub fn listen(address: &str) -> Result<TcpListener> {
    let address: Ipv4Addr = address.parse().context("not an address")?;
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket2::SockRef::from(&socket).set_ip_transparent_v4(true)?;
    socket.bind(SocketAddr::from((address, PORT)))?;
    Ok(socket.listen(BACKLOG)?)
}

/// What asks the service.
struct Asker {
    client: Client,
    service: String,
    cloud: CloudKind,
}

/// Answers until the agent ends. With it, the answers do: nobody is let through to the service.
pub fn serve(listener: TcpListener, service: String, cloud: CloudKind) -> Result<impl Future<Output = ()>> {
    let client = http::local(ANSWER)?;
    let asker = Arc::new(Asker { client, service, cloud });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    Ok(async move {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let asker = Arc::clone(&asker);
                    tokio::spawn(async move {
                        let _ = timeout(LIFE, talk(stream, asker)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!("a job's question is not heard: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

async fn talk(stream: TcpStream, asker: Arc<Asker>) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    let service = service_fn(move |request| {
        let asker = Arc::clone(&asker);
        async move { Ok::<_, Infallible>(asker.answer(&request).await) }
    });
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!("a job's question to the metadata service: {error}");
    }
}

impl Asker {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        // In full (`http://…`) it is how proxies are asked, which we are not.
        let target = request.uri().path_and_query().filter(|_| request.uri().authority().is_none());
        let target = target.map_or("", |target| target.as_str());
        if !pass::passes(self.cloud, request.method(), target, request.headers()) {
            return said(StatusCode::FORBIDDEN, REFUSED);
        }
        match self.ask(request, target).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!("asking the metadata service for a job: {error:#}");
                said(StatusCode::BAD_GATEWAY, "the metadata service does not answer\n")
            }
        }
    }

    async fn ask(&self, request: &Request<Incoming>, target: &str) -> Result<Response<Full<Bytes>>> {
        let mut asked = self.client.request(request.method().clone(), format!("{}{target}", self.service));
        for name in pass::HEADERS {
            if let Some(value) = request.headers().get(name) {
                asked = asked.header(name, value);
            }
        }
        let mut answer = asked.send().await?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            anyhow::ensure!(body.len() + chunk.len() <= LARGEST, "the answer is larger than {LARGEST} bytes");
            body.extend_from_slice(&chunk);
        }
        let mut back = Response::new(Full::from(body));
        *back.status_mut() = answer.status();
        for name in BACK {
            if let Some(value) = answer.headers().get(&name) {
                back.headers_mut().insert(name, value.clone());
            }
        }
        Ok(back)
    }
}

fn said(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(words));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}
