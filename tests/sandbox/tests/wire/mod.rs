//! Plain HTTP and one EC2, for the tests of the sandbox: no client of ours stands between them and the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use sandbox::ec2::{ACCESS_KEY, Ec2};
use sandbox::events::{Event, Events};
use sandbox::fleet::{Fleet, Options};
use sandbox::instance::Isolation;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a test waits for what must happen: never reached when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// An image for x86-64.
pub const IMAGE: &str = "ami-0a11a11a11a11a111";

/// One request; returns the status and the body, or nothing when the connection was closed without an answer.
pub async fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, String)> {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap_or((&url[7..], ""));
    let mut stream = TcpStream::connect(host).await.unwrap();
    let mut head = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has no answer either.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// What stands between `<name>` and `</name>`, the first time.
pub fn element(xml: &str, name: &str) -> String {
    let found = xml
        .split_once(&format!("<{name}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    found.unwrap_or_else(|| panic!("no {name} in {xml}")).0.to_owned()
}

/// An EC2, and what it is made of.
pub struct Cloud {
    pub ec2: Ec2,
    pub fleet: Fleet,
    pub events: Events,
    pub dir: TempDir,
}

impl Cloud {
    pub async fn new() -> Self {
        Self::recording(None).await
    }

    pub async fn recording(record: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let events = Events::default();
        let options = Options {
            dir: dir.path().join("instances"),
            isolation: Isolation::best(),
            docker: None,
            machines: None,
            metadata_interval: Duration::from_millis(200),
            notice: None,
        };
        let fleet = Fleet::new(events.clone(), options);
        let ec2 = Ec2::start(events.clone(), fleet.clone(), record).await.unwrap();
        Self { ec2, fleet, events, dir }
    }

    /// A request that is signed for us-west-1; `None` when the connection was closed.
    pub async fn post(&self, form: &[(&str, &str)]) -> Option<(u16, String)> {
        let scope =
            format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20261124/us-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0");
        request("POST", &self.ec2.url(), &[("authorization", &scope)], &encode(form)).await
    }

    /// A request that succeeds.
    pub async fn ask(&self, form: &[(&str, &str)]) -> String {
        let (status, body) = self.post(form).await.expect("an answer");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// A request that is refused: status and code.
    pub async fn refused(&self, form: &[(&str, &str)]) -> (u16, String) {
        let (status, body) = self.post(form).await.expect("an answer");
        assert_ne!(status, 200, "{body}");
        (status, element(&body, "Code"))
    }

    /// Launches an instance with this user data and more parameters; returns its id.
    pub async fn launch(&self, user_data: &str, more: &[(&str, &str)]) -> String {
        use base64::Engine as _;
        let data = base64::engine::general_purpose::STANDARD.encode(user_data);
        let body = self.ask(&[&launch()[..], &[("UserData", data.as_str())], more].concat()).await;
        element(&body, "instanceId")
    }

    pub async fn event(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        match self.events.wait(PATIENCE, wanted).await {
            Some(event) => event,
            None => panic!("it did not happen: {:#?}", self.events.all()),
        }
    }

    /// Waits for a line on a console that begins so; returns the rest of it.
    pub async fn console(&self, id: &str, beginning: &str) -> String {
        let event = self
            .event(|event| event.what == "console" && event.subject == id && event.detail.starts_with(beginning))
            .await;
        event.detail[beginning.len()..].to_owned()
    }

    /// Waits for the end of an instance; returns why.
    pub async fn ended(&self, id: &str) -> String {
        self.event(|event| event.subject == id && ["instance-terminated", "instance-stopped"].contains(&event.what))
            .await
            .detail
    }

    /// The state that EC2 tells.
    pub async fn state(&self, id: &str) -> String {
        element(
            &element(
                &self.ask(&[("Action", "DescribeInstances"), ("InstanceId.1", id)]).await,
                "instanceState",
            ),
            "name",
        )
    }
}

/// A launch that EC2 accepts.
pub fn launch() -> Vec<(&'static str, &'static str)> {
    vec![
        ("Action", "RunInstances"),
        ("Version", "2016-11-15"),
        ("MinCount", "1"),
        ("MaxCount", "1"),
        ("ImageId", IMAGE),
        ("InstanceType", "m7i.xlarge"),
        ("InstanceInitiatedShutdownBehavior", "terminate"),
    ]
}

fn encode(form: &[(&str, &str)]) -> String {
    let value = |text: &str| {
        text.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect::<String>()
    };
    form.iter()
        .map(|(name, text)| format!("{name}={}", value(text)))
        .collect::<Vec<_>>()
        .join("&")
}
