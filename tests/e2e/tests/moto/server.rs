//! moto's server, with a proxy in front of it that makes launches fail.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::PATIENCE;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// The newest of Canonical's amd64 images in [`IMAGES`]. The order there is another, and another account has a newer one of that name.
pub const IMAGE: &str = "ami-00000000000000a03";

/// The only one there for arm64.
pub const ARM64: &str = "ami-00000000000000b01";

/// Amazon's, whose root device has another name.
pub const XVDA: &str = "ami-00000000000000c01";

/// All images that moto is told of.
const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contract/ec2/amis.json");

/// What happens to one `RunInstances`.
#[derive(Clone)]
pub enum Injection {
    /// It is answered so, and does not reach moto.
    Answer(u16, String),
    /// moto acts on it, but its answer is lost.
    LoseAnswer,
}

impl Injection {
    pub fn answer(status: u16, code: &str) -> Self {
        Self::Answer(status, sandbox::ec2::error(code, "injected"))
    }
}

/// A running moto; it ends with this value.
pub struct Moto {
    _server: Child,
    server: SocketAddr,
    proxy: SocketAddr,
    launches: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
}

fn skip(reason: &str) {
    eprintln!("SKIP moto: {reason}");
    if let Some(path) = std::env::var_os("CML_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "moto: {reason}").unwrap();
    }
}

impl Moto {
    /// Starts moto from the Python of `CML_TEST_PYTHON`, which `make test` sets; none without it, which is a counted skip.
    pub async fn start(injections: Vec<Injection>) -> Option<Self> {
        let Some(python) = std::env::var_os("CML_TEST_PYTHON") else {
            skip("no Python with moto (`make test` installs it)");
            return None;
        };
        let server = free().await;
        let child = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &server.port().to_string()])
            .env("MOTO_AMIS_PATH", IMAGES)
            .env("MOTO_ENABLE_AMI_VALIDATION", "true")
            .env("MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION", "true")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let up = async {
            while TcpStream::connect(server).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("moto starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let launches = Arc::new(Mutex::new(Vec::new()));
        let front = Front {
            server,
            injections: Mutex::new(injections.into()),
            launches: Arc::clone(&launches),
        };
        tokio::spawn(front.serve(listener));
        Some(Self {
            _server: child,
            server,
            proxy,
            launches,
        })
    }

    /// The address of the proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.proxy)
    }

    /// Every `RunInstances` that was asked for.
    pub fn launches(&self) -> Vec<BTreeMap<String, String>> {
        self.launches.lock().unwrap().clone()
    }

    /// Every instance that moto has, in its own words.
    pub async fn instances(&self) -> Vec<Value> {
        let request = format!(
            "GET /moto-api/data.json HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.server
        );
        let answer = exchange(self.server, request.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let data: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        data["ec2"]["Instance"].as_array().cloned().unwrap_or_default()
    }

    /// How many of them have not been terminated.
    pub async fn live(&self) -> usize {
        self.instances()
            .await
            .iter()
            .filter(|instance| instance["state"] != "terminated")
            .count()
    }
}

async fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn exchange(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

struct Front {
    server: SocketAddr,
    injections: Mutex<VecDeque<Injection>>,
    launches: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
}

impl Front {
    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            // One after the other is enough for one launcher.
            self.answer(stream).await;
        }
    }

    /// Serves one request and closes the connection.
    async fn answer(&self, mut stream: TcpStream) {
        let Some((head, body)) = read(&mut stream).await else {
            return;
        };
        let form = sandbox::form::parse(&body);
        let mut injected = None;
        if form.get("Action").is_some_and(|action| action == "RunInstances") {
            self.launches.lock().unwrap().push(form);
            injected = self.injections.lock().unwrap().pop_front();
        }
        if let Some(Injection::Answer(status, xml)) = &injected {
            let head = format!(
                "HTTP/1.1 {status} Injected\r\ncontent-type: text/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                xml.len()
            );
            let _ = stream.write_all((head + xml).as_bytes()).await;
            return;
        }
        let lines = head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let head: String = lines.flat_map(|line| [line, "\r\n"]).collect();
        let answer = exchange(self.server, format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await;
        if injected.is_none() {
            let _ = stream.write_all(&answer).await;
        }
    }
}

/// One request: its head, without the empty line, and its body.
async fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")?
                    .trim()
                    .parse::<usize>()
                    .ok()
            });
            if body.len() >= length.unwrap_or_default() {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        let mut chunk = [0; 8192];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
        }
    }
}
