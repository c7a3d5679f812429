//! The daemon: it keeps containers, and a file for each, which tests see, beside a list of all that became of them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Answer, Request, SERVER, Wanted};
use crate::standin::program;

/// What the runner's image is called, wherever it comes from.
const RUNNER: &str = "bitbucket-pipelines-runner";

struct Container {
    wanted: Wanted,
    /// The group of its processes, while it runs.
    group: Option<i32>,
}

struct Daemon {
    dir: PathBuf,
    server: String,
    containers: Mutex<BTreeMap<String, Container>>,
    images: Mutex<Vec<String>>,
}

/// Listens at `DIR.sock`, for ever.
pub async fn serve(dir: &Path, server: &str) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let socket = dir.with_extension("sock");
    let (new, daemon) = (
        dir.with_extension("new"),
        Arc::new(Daemon {
            dir: dir.into(),
            server: server.into(),
            containers: Mutex::default(),
            images: Mutex::default(),
        }),
    );
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o666))?;
    // Whoever waits for it finds one that listens, and lets everybody in.
    std::fs::rename(&new, &socket)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move { daemon.answer(stream).await });
    }
}

impl Daemon {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: &str, name: &str) {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.with_extension("log"));
        let _ = log.and_then(|mut log| writeln!(log, "{what} {name}"));
    }

    async fn answer(self: Arc<Self>, stream: UnixStream) {
        let (read, mut write) = stream.into_split();
        let Ok(Some(line)) = BufReader::new(read).lines().next_line().await else {
            return;
        };
        let (tell, mut answers) = unbounded_channel();
        let failed = |error: anyhow::Error| {
            let _ = tell.send(Answer::Line(format!("Error response from daemon: {error:#}")));
            let _ = tell.send(Answer::Exit(1));
        };
        match serde_json::from_str::<Request>(&line) {
            Ok(request) => self.execute(request, &tell).unwrap_or_else(failed),
            Err(error) => failed(error.into()),
        }
        drop(tell);
        while let Some(answer) = answers.recv().await {
            let text = serde_json::to_string(&answer).unwrap_or_default();
            // Who asked may have gone; the container has not.
            if write.write_all(format!("{text}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn execute(self: &Arc<Self>, request: Request, tell: &UnboundedSender<Answer>) -> Result<()> {
        let words: Vec<&str> = request.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["image", "inspect", .., image] => {
                let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
                if !images.iter().any(|there| there == image) {
                    bail!("No such image: {image}");
                }
            }
            ["image", "pull", .., image] => self.images.lock().unwrap_or_else(PoisonError::into_inner).push((*image).into()),
            ["container", "create", ..] => drop(self.create(&request.words[2..], request.env)?),
            ["container", "start", "--attach", name] => return self.start(name, tell),
            ["container", "run", ..] => {
                let name = self.create(&request.words[2..], request.env)?;
                return self.start(&name, tell);
            }
            ["container", "ls", ..] => {
                for (name, container) in self.containers().iter() {
                    let (label, mounts) = (&container.wanted.label, container.wanted.mounts.join(","));
                    let _ = tell.send(Answer::Line(format!("{name}\t{label}\t{name}\t{mounts}")));
                }
            }
            ["container", "kill", "--signal", signal, name] => self.kill(name, Signal::from_str(signal)?)?,
            ["container", "rm", "--force", "--volumes", names @ ..] => names.iter().for_each(|name| self.remove(name)),
            _ => bail!("unknown command: {}", words.join(" ")),
        }
        let _ = tell.send(Answer::Exit(0));
        Ok(())
    }

    fn create(&self, words: &[String], env: Vec<(String, String)>) -> Result<String> {
        let mut wanted = Wanted::read(words)?;
        wanted.env.extend(env);
        let name = wanted.name.clone();
        let mut containers = self.containers();
        if containers.contains_key(&name) {
            bail!("Conflict. The container name {name} is already in use");
        }
        std::fs::write(self.dir.join(&name), &wanted.image)?;
        self.tell("create", &name);
        containers.insert(name.clone(), Container { wanted, group: None });
        Ok(name)
    }

    /// Runs it, apart from whoever asks, who is told what it says and how it ends.
    fn start(self: &Arc<Self>, name: &str, tell: &UnboundedSender<Answer>) -> Result<()> {
        let mut containers = self.containers();
        let container = containers.get_mut(name).with_context(|| format!("No such container: {name}"))?;
        let mut child = self.spawn(&container.wanted)?;
        container.group = child.id().and_then(|id| i32::try_from(id).ok());
        self.tell("start", name);
        let (say, lines) = unbounded_channel();
        tokio::spawn(read(child.stdout.take(), say.clone()));
        tokio::spawn(read(child.stderr.take(), say));
        tokio::spawn(Arc::clone(self).follow(name.to_owned(), child, lines, tell.clone()));
        Ok(())
    }

    fn spawn(&self, wanted: &Wanted) -> Result<Child> {
        let mut command = match wanted.command.as_slice() {
            _ if wanted.image.contains(RUNNER) => Command::new(program("bitbucket-runner")?),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args);
                command
            }
            [] => bail!("No command specified"),
        };
        for mount in wanted.mounts.iter().filter(|mount| !Path::new(mount).exists()) {
            std::fs::create_dir_all(mount)?;
        }
        command.env_clear().envs(wanted.env.iter().cloned()).env(SERVER, &self.server);
        for name in ["PATH", "DOCKER_HOST"] {
            command.env(name, std::env::var(name).unwrap_or_default());
        }
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    async fn follow(self: Arc<Self>, name: String, mut child: Child, mut lines: UnboundedReceiver<String>, tell: UnboundedSender<Answer>) {
        while let Some(line) = lines.recv().await {
            let _ = tell.send(Answer::Line(line));
        }
        let code = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(137);
        self.tell("die", &name);
        let removes = self.containers().get_mut(&name).is_some_and(|container| {
            container.group = None;
            container.wanted.removes
        });
        if removes {
            self.remove(&name);
        }
        let _ = tell.send(Answer::Exit(code));
    }

    fn kill(&self, name: &str, signal: Signal) -> Result<()> {
        let group = self.containers().get(name).and_then(|container| container.group);
        let group = group.with_context(|| format!("container {name} is not running"))?;
        Ok(killpg(Pid::from_raw(group), signal)?)
    }

    fn remove(&self, name: &str) {
        // It may not run.
        let _ = self.kill(name, Signal::SIGKILL);
        if self.containers().remove(name).is_some() {
            self.tell("remove", name);
        }
        let _ = std::fs::remove_file(self.dir.join(name));
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>, say: UnboundedSender<String>) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = say.send(line);
    }
}
