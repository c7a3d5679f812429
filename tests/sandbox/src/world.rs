//! A whole world: a forge, a cloud with its instances, the agent's download, and the environment of a command in it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::azure::Azure;
use crate::bitbucket::Bitbucket;
use crate::cloud::{self, Cloud};
use crate::ec2::Ec2;
use crate::events::{Events, Source};
use crate::fleet::{self, Fleet};
use crate::forge::{self, Forge};
use crate::gce::Gce;
use crate::github::GitHub;
use crate::gitlab::GitLab;
use crate::instance::{self, Isolation, Machines, Net};
use crate::interrupt;
use crate::kubernetes::Cluster;
use crate::standin;

/// How a world is set up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Its forge; a GitHub, unless another is asked for.
    pub forge: forge::Options,
    /// Its cloud; EC2, unless another is asked for.
    pub cloud: cloud::Kind,
    /// The launcher; else the one that was built beside this program.
    pub launcher: Option<PathBuf>,
    /// The agent that instances download; else the one that was built beside this program.
    pub agent: Option<PathBuf>,
    /// How often agents ask the metadata service for a notice; else often, so that nobody waits.
    pub metadata_interval: Option<Duration>,
    /// How long an instance has from its notice on, where the notice does not say it; else as long as in production.
    pub notice: Option<Duration>,
    /// Whether instances have a Docker.
    pub docker: bool,
    /// A root file system that instances boot, with a systemd and a cloud-init of its own. Needs root, and a thread of its own: the one that
    /// starts the world leaves this machine's network for good.
    pub image: Option<Image>,
}

/// What an instance has on its disk when it boots.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The root file system; it is only read.
    pub root: PathBuf,
    /// Files that it has besides: their absolute paths, and what is in them.
    pub files: Vec<(String, String)>,
    /// How much may be written, in MiB, if there is a limit: then a restart forgets it, and nothing of it is seen from outside.
    pub disk_mib: Option<u32>,
}

/// Where, in a world, its commands have their Java.
const JAVA_HOME: &str = "jdk";
/// Five seconds in production.
const METADATA_INTERVAL: Duration = Duration::from_millis(200);

/// A running world.
pub struct World {
    /// What happens in it.
    pub events: Events,
    /// Its forge.
    pub forge: Forge,
    /// Its cloud.
    pub cloud: Cloud,
    /// The cloud's instances.
    pub fleet: Fleet,
    isolation: Isolation,
    dir: TempDir,
    launcher: PathBuf,
    agent: PathBuf,
    downloads: Downloads,
}

/// Serves the agent, and turns away everything else.
struct Downloads {
    address: SocketAddr,
    base: String,
    url: String,
    sha256: String,
    task: JoinHandle<()>,
}

/// What was not cleaned up, before the world ended.
#[derive(Debug, Clone, Default)]
pub struct Leftovers {
    /// Instances that neither ended nor are ending.
    pub live_instances: Vec<String>,
    /// The names of runners that are still registered.
    pub registrations: Vec<String>,
    /// Processes that belong to the world.
    pub processes: Vec<String>,
}

impl Leftovers {
    /// Whether all is clean.
    pub fn is_empty(&self) -> bool {
        self.live_instances.is_empty() && self.registrations.is_empty() && self.processes.is_empty()
    }
}

impl World {
    /// Starts a world.
    pub async fn start(options: Options) -> Result<Self> {
        interrupt::let_programs_hear();
        let dir = tempfile::Builder::new()
            .prefix("cml-sandbox-")
            .tempdir()
            .context("making the world's directory")?;
        // Jobs run as another user.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let find = |given: Option<PathBuf>, name: &str| match given {
            Some(path) => path.canonicalize().with_context(|| format!("finding {}", path.display())),
            None => standin::program(name),
        };
        let (launcher, agent) = (find(options.launcher, "cml")?, find(options.agent, "cml-agent")?);
        let events = Events::default();
        let isolation = Isolation::best();
        let net = options.image.is_some().then(|| Net::enter(dir.path())).transpose()?;
        let forge = Forge::start(events.clone(), options.forge).await?;
        let downloads = Downloads::serve(&agent, events.clone()).await?;
        let record = std::env::var_os(options.cloud.record()).map(PathBuf::from);
        let fleet = Fleet::new(
            events.clone(),
            fleet::Options {
                dir: dir.path().join("instances"),
                isolation,
                metadata_interval: options.metadata_interval.unwrap_or(METADATA_INTERVAL),
                notice: options.notice,
                docker: options.docker.then(|| forge.url()),
                machines: options.image.zip(net).map(|(image, net)| {
                    let servers = vec![forge.address(), downloads.address];
                    Arc::new(Machines {
                        cloud: options.cloud,
                        image,
                        net,
                        servers,
                    })
                }),
            },
        );
        let cloud = Cloud::start(options.cloud, events.clone(), fleet.clone(), record).await?;
        stand_in_for_java(dir.path()).context("making a stand-in for Java")?;
        let world = Self {
            events,
            forge,
            cloud,
            fleet,
            isolation,
            dir,
            launcher,
            agent,
            downloads,
        };
        world.forge.set_hosted_env(world.cloud_env());
        Ok(world)
    }

    /// Its forge, in a world whose forge is a GitHub: for what only a GitHub has.
    ///
    /// # Panics
    /// In a world with another forge.
    pub fn github(&self) -> &GitHub {
        let Forge::GitHub(github) = &self.forge else {
            panic!("this world has no GitHub but a {:?}", self.forge.kind());
        };
        github
    }

    /// Its forge, in a world whose forge is a GitLab: for what only a GitLab has.
    ///
    /// # Panics
    /// In a world with another forge.
    pub fn gitlab(&self) -> &GitLab {
        let Forge::GitLab(gitlab) = &self.forge else {
            panic!("this world has no GitLab but a {:?}", self.forge.kind());
        };
        gitlab
    }

    /// Its forge, in a world whose forge is a Bitbucket: for what only a Bitbucket has.
    ///
    /// # Panics
    /// In a world with another forge.
    pub fn bitbucket(&self) -> &Bitbucket {
        let Forge::Bitbucket(bitbucket) = &self.forge else {
            panic!("this world has no Bitbucket but a {:?}", self.forge.kind());
        };
        bitbucket
    }

    /// Its cloud, in a world whose cloud is EC2: for what only EC2 has.
    ///
    /// # Panics
    /// In a world with another cloud.
    pub fn ec2(&self) -> &Ec2 {
        let Cloud::Aws(ec2) = &self.cloud else {
            panic!("this world has no EC2 but {}", self.cloud.kind().title());
        };
        ec2
    }

    /// Its cloud, in a world whose cloud is a Kubernetes cluster: for what only a cluster has.
    ///
    /// # Panics
    /// In a world with another cloud.
    pub fn cluster(&self) -> &Cluster {
        let Cloud::Kubernetes(cluster) = &self.cloud else {
            panic!("this world has no cluster but {}", self.cloud.kind().title());
        };
        cluster
    }

    /// Its cloud, in a world whose cloud is Azure: for what only Azure has.
    ///
    /// # Panics
    /// In a world with another cloud.
    pub fn azure(&self) -> &Azure {
        let Cloud::Azure(azure) = &self.cloud else {
            panic!("this world has no Azure but {}", self.cloud.kind().title());
        };
        azure
    }

    /// Its cloud, in a world whose cloud is Google's: for what only that has.
    ///
    /// # Panics
    /// In a world with another cloud.
    pub fn gce(&self) -> &Gce {
        let Cloud::Gcp(gce) = &self.cloud else {
            panic!("this world has no Compute Engine but a {:?}", self.cloud.kind());
        };
        gce
    }

    /// How instances are kept apart from this machine.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// A directory that the user's machine, the instances and their jobs see at the same path.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The environment of a command in this world.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = self.cloud_env();
        env.push(("CML_RUNNER_REPO".into(), self.forge.repo_url()));
        env.push(("CML_RUNNER_DRIVER".into(), self.forge.kind().driver().into()));
        env
    }

    /// What a hosted job of the repository has: everything but what the forge tells it anyway.
    fn cloud_env(&self) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = [&self.launcher, &self.agent].map(|program| program.parent().unwrap_or(Path::new("/")).display().to_string());
        let pairs = [
            ("PATH", format!("{}:{}:{path}", programs[0], programs[1])),
            ("HOME", self.dir.path().display().to_string()),
            ("JAVA_HOME", self.dir.path().join(JAVA_HOME).display().to_string()),
            ("REPO_TOKEN", self.forge.token().into()),
            ("CML_RUNNER_AGENT_URL", self.downloads.url.clone()),
            ("CML_RUNNER_AGENT_SHA256", self.downloads.sha256.clone()),
        ];
        let pairs = pairs.into_iter().chain(self.cloud.command_env(&self.cloud_secret()));
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value));
        pairs.chain(self.forge.command_env()).collect()
    }

    /// What proves to the cloud who the command is. Of the world's own random name: found anywhere else, it was left there by this world.
    pub fn cloud_secret(&self) -> String {
        standin::sha256(self.dir.path().as_os_str().as_encoded_bytes())
    }

    /// A proxy that lets nothing out of this world, and tells who tried.
    pub fn nowhere(&self) -> &str {
        &self.downloads.base
    }

    /// A launcher with these arguments, and nothing of our own environment.
    pub fn launcher(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.launcher);
        command.args(args).env_clear().envs(self.env()).current_dir(self.dir.path());
        command
    }

    /// Looks at what is left, then ends everything.
    pub async fn close(self) -> Leftovers {
        let live = self.fleet.instances().into_iter().filter(|instance| !instance.state.is_over());
        let leftovers = Leftovers {
            live_instances: live.map(|instance| instance.id).collect(),
            registrations: self.forge.runners().into_iter().map(|runner| runner.name).collect(),
            processes: instance::processes(self.dir.path())
                .into_iter()
                .map(|(pid, command)| format!("{pid}: {command}"))
                .collect(),
        };
        self.forge.close().await;
        self.cloud.close().await;
        self.fleet.close().await;
        for (pid, _) in instance::processes(self.dir.path()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        instance::remove_groups(self.dir.path());
        leftovers
    }
}

/// What commands in a world have in place of Java, as instances have on their PATH.
fn stand_in_for_java(world: &Path) -> Result<()> {
    let bin = world.join(JAVA_HOME).join("bin");
    std::fs::create_dir_all(&bin)?;
    let java = bin.join("java");
    std::fs::write(&java, instance::JAVA)?;
    Ok(std::fs::set_permissions(
        &java,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?)
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Downloads {
    async fn serve(agent: &Path, events: Events) -> Result<Self> {
        let (bytes, sha256) = standin::read_once(agent)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening")?;
        let address = listener.local_addr()?;
        let base = format!("http://{address}");
        let refuse = move |uri: Uri| async move {
            let place = uri.authority().map_or_else(|| uri.to_string(), ToString::to_string);
            events.push(
                Source::Command,
                "outside-refused",
                place,
                "nothing outside of this world is reached",
            );
            StatusCode::BAD_GATEWAY
        };
        let app = Router::new()
            .route("/cml-agent", get(move || async move { bytes }))
            .fallback(refuse);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            url: format!("{base}/cml-agent"),
            address,
            base,
            sha256,
            task,
        })
    }
}
