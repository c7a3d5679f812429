//! A stand-in for Bitbucket's runner: an archive with a start script and the "Java program" in it, which is none but runs by itself: instances
//! of the sandbox have a `java` that starts it.
//!
//! Its arguments, its log, and that it exits as a Java program that was interrupted are the real one's, as far as these are known:
//! <https://support.atlassian.com/bitbucket-cloud/docs/set-up-runners-for-linux-shell/>.

mod arguments;
mod step;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{docker, http};
use arguments::Arguments;

/// The version that it says it has.
const VERSION: &str = "5.7.0";
/// Where in the archive it is told which service it belongs to: the real one knows only one.
const SERVER: &str = "server";
/// How many zeros a tar ends with.
const TAR_END: usize = 1024;
/// What a Java program exits with that SIGINT ended.
const INTERRUPTED: i32 = 130;
/// How soon the service is asked again when it does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// The name of the archive's file.
pub fn archive_name() -> String {
    format!("atlassian-bitbucket-pipelines-runner-{VERSION}.tar.gz")
}

/// The archive, for runners of this service. Only what is the service's own is packed anew: gzip may be continued by gzip.
pub fn archive(server: &str) -> Result<Bytes> {
    static SAME: OnceLock<Vec<u8>> = OnceLock::new();
    let same = if let Some(same) = SAME.get() {
        same
    } else {
        let (program, _) = super::read_once(&super::program("bitbucket-runner")?)?;
        let start = include_bytes!("../scripts/bitbucket-start.sh");
        let mut tar = pack(&[("bin/start.sh", 0o644, start), ("bin/runner.jar", 0o755, &program)])?;
        // The archive goes on.
        tar.truncate(tar.len().saturating_sub(TAR_END));
        let packed = gzip(&tar)?;
        SAME.get_or_init(|| packed)
    };
    let own = gzip(&pack(&[("bin/server", 0o644, server.as_bytes())])?)?;
    Ok([same.as_slice(), &own].concat().into())
}

fn pack(files: &[(&str, u32, &[u8])]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        tar.append_data(&mut header, path, *content).context("packing the runner")?;
    }
    Ok(tar.into_inner()?)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(bytes)?;
    Ok(gzip.finish()?)
}

/// The whole program; returns its exit code.
pub fn main(words: &[String]) -> i32 {
    let started = || -> Result<i32> {
        let (arguments, server) = if let Ok(server) = std::env::var(docker::SERVER) {
            (Arguments::from_environment()?, server)
        } else {
            let server = std::fs::read_to_string(SERVER).context("reading where the service is")?;
            (Arguments::read(words)?, server)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(&Service::new(arguments, server)))
    };
    started().unwrap_or_else(|error| {
        say(&format!("An error occurred: {error:#}"));
        1
    })
}

/// Prints a line as the real one's log does.
fn say(line: &str) {
    super::say(&format!("[{}] {line}", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S,%3f")));
}

/// Whether the program was told to stop.
type Stop = watch::Receiver<bool>;

fn listen() -> Result<Stop> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let _ = tell.send(true);
        std::future::pending::<()>().await;
    });
    Ok(told)
}

async fn run(service: &Service) -> Result<i32> {
    let mut told = listen()?;
    say("Runner starting.");
    say(&format!("Runner runtime: {}", service.arguments.get("runtime")));
    let access = service.access().await?;
    say(
        "Updating runner status to \"ONLINE\" and checking for new steps assigned to the runner after 0 seconds and then every 30 seconds.",
    );
    loop {
        let asked = tokio::select! {
            asked = service.ask(&access) => asked,
            _ = told.wait_for(|is_told| *is_told) => break,
        };
        match asked {
            Ok(Some(step)) => step::run(service, &access, &step, &mut told).await,
            Ok(None) => {}
            Err(error) => {
                say(&format!("An error occurred whilst updating runner state to \"ONLINE\": {error:#}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
        if *told.borrow() {
            break;
        }
    }
    say("Runner shutting down.");
    service.leave(&access).await;
    Ok(INTERRUPTED)
}

/// The service, as one runner speaks to it.
pub struct Service {
    arguments: Arguments,
    server: String,
}

impl Service {
    fn new(arguments: Arguments, server: String) -> Self {
        Self { arguments, server }
    }

    /// Where steps work.
    fn work(&self) -> PathBuf {
        self.arguments.get("directory.working").into()
    }

    async fn send(&self, method: &str, path: &str, authorization: &str, body: &Value) -> Result<Value> {
        let headers = [("content-type", "application/json"), ("authorization", authorization)];
        let answer = http::send(method, &format!("{}{path}", self.server.trim()), &headers, &body.to_string()).await?;
        if answer.status != 200 {
            bail!("{} {}", answer.status, answer.body);
        }
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// A credential for the OAuth client.
    async fn access(&self) -> Result<String> {
        use base64::Engine as _;
        let client = format!(
            "{}:{}",
            self.arguments.get("oauth.client.id"),
            self.arguments.get("oauth.client.secret")
        );
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(client));
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("authorization", basic.as_str()),
        ];
        let url = format!("{}/oauth/token", self.server.trim());
        let answer = http::send("POST", &url, &headers, "grant_type=client_credentials").await?;
        let body: Value = serde_json::from_str(&answer.body)?;
        let token = body["access_token"]
            .as_str()
            .with_context(|| format!("no access: {}", answer.body))?;
        Ok(format!("Bearer {token}"))
    }

    fn state(&self) -> String {
        format!("/internal/runners/{}/state", encoded(self.arguments.get("uuid")))
    }

    /// Says that we are there, and gets a step if there is one.
    async fn ask(&self, access: &str) -> Result<Option<Value>> {
        let body = json!({ "status": "ONLINE", "version": VERSION });
        let mut answer = self.send("PUT", &self.state(), access, &body).await?;
        Ok(Some(answer["step"].take()).filter(|step| !step.is_null()))
    }

    async fn leave(&self, access: &str) {
        // It may have forgotten us.
        let _ = self.send("PUT", &self.state(), access, &json!({ "status": "OFFLINE" })).await;
    }

    /// Tells lines of a step: whether it is to stop.
    async fn tell(&self, access: &str, step: &str, lines: Vec<String>) -> Result<bool> {
        let path = format!("/internal/steps/{}", encoded(step));
        let answer = self.send("POST", &path, access, &json!({ "lines": lines })).await?;
        Ok(answer["stop"] == true)
    }

    async fn complete(&self, access: &str, step: &str, status: &str) -> Result<()> {
        let path = format!("/internal/steps/{}/result", encoded(step));
        self.send("POST", &path, access, &json!({ "status": status })).await.map(drop)
    }
}

fn encoded(uuid: &str) -> String {
    uuid.replace('{', "%7B").replace('}', "%7D")
}
