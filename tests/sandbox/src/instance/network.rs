//! The network of a world whose instances boot: nothing of it is this machine's.
//!
//! The world is a network namespace, in which its servers listen and its commands run. Each machine has another, with an interface that
//! leads to the world: for addresses (DHCP) and for the metadata service. The other servers are heard on the machine's own loopback.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, unshare};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Child;
use tokio::task::JoinSet;

/// Where every cloud's metadata service is.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Where Azure's machines say that they have booted.
const WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The address of every machine's network card: no two of them are in one network.
pub const MAC: &str = "06:00:00:00:00:01";
/// The port of the web.
const WEB: u16 = 80;
/// How many machines there may be in one world: each has a network of its own.
const MACHINES: u8 = 32;
/// How many connections may wait.
const BACKLOG: u32 = 64;

/// The network of a world.
pub struct Net {
    /// The server of addresses and names: it knows none of the latter.
    addresses: Child,
    machines: AtomicU8,
}

/// A machine's network, as long as it runs.
pub struct Network {
    number: u8,
    namespace: File,
    _cables: JoinSet<()>,
}

impl Net {
    /// The thread that calls this, and whatever it starts from now on, is in a network of its own.
    ///
    /// # Errors
    /// It is not root, or a program is missing.
    pub fn enter(dir: &Path) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("leaving this machine's network")?;
        ip("link set lo up")?;
        for address in [METADATA, WIRE_SERVER] {
            ip(&format!("address add {address}/32 dev lo"))?;
        }
        let mut server = tokio::process::Command::new("dnsmasq");
        server.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--bind-dynamic",
        ]);
        server.args(["--no-ping", "--no-resolv", "--no-hosts", "--log-facility=/dev/null"]);
        server.arg(format!("--dhcp-leasefile={}", dir.join("leases").display()));
        server.args((1..=MACHINES).map(|number| format!("--dhcp-range=10.77.{number}.10,10.77.{number}.10,255.255.255.0,24h")));
        server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Ok(Self {
            addresses: server.spawn().context("starting dnsmasq")?,
            machines: AtomicU8::new(0),
        })
    }

    /// The network of a machine that boots, again if that is its `number`: it hears `servers` on its loopback, and `metadata` where metadata
    /// services are.
    ///
    /// # Errors
    /// The thread is in no such network, or the world has had too many machines.
    pub fn lay(&self, number: Option<u8>, servers: &[SocketAddr], metadata: SocketAddr) -> Result<Network> {
        if let Some(number) = number {
            ip(&format!("link delete c{number}"))?;
        }
        let number = number.unwrap_or_else(|| self.machines.fetch_add(1, Ordering::Relaxed) + 1);
        if number > MACHINES {
            bail!("a world may have {MACHINES} machines");
        }
        let world = self.addresses.id().context("the server of addresses has ended")?;
        let ports: Vec<u16> = servers.iter().map(SocketAddr::port).collect();
        let laid = std::thread::spawn(move || inside(number, world, &ports)).join();
        let (namespace, listeners) = laid.ok().context("the network's thread has ended")??;
        ip(&format!("address add 10.77.{number}.1/24 dev c{number}"))?;
        ip(&format!("link set c{number} up"))?;
        let mut cables = JoinSet::new();
        for (listener, server) in listeners.into_iter().zip(servers) {
            cables.spawn(carry(TcpListener::from_std(listener)?, *server));
        }
        for address in [METADATA, WIRE_SERVER] {
            let socket = TcpSocket::new_v4()?;
            socket.bind_device(Some(format!("c{number}").as_bytes()))?;
            socket.bind(SocketAddr::from((address, WEB)))?;
            cables.spawn(carry(socket.listen(BACKLOG)?, metadata));
        }
        Ok(Network {
            number,
            namespace,
            _cables: cables,
        })
    }
}

impl Network {
    /// What the world calls it.
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// The namespace.
    pub const fn namespace(&self) -> &File {
        &self.namespace
    }
}

/// What a thread does in the machine's network, before it ends.
fn inside(number: u8, world: u32, ports: &[u16]) -> Result<(File, Vec<std::net::TcpListener>)> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    ip("link set lo up")?;
    ip(&format!("link add eth0 address {MAC} type veth peer name c{number} netns {world}"))?;
    let listen = |port: &u16| {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let listeners: Result<Vec<_>> = ports.iter().map(listen).collect();
    Ok((File::open("/proc/thread-self/ns/net")?, listeners?))
}

/// Passes every connection on.
async fn carry(listener: TcpListener, server: SocketAddr) {
    let mut carried = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        carried.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(server).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
        while carried.try_join_next().is_some() {}
    }
}

fn ip(words: &str) -> Result<()> {
    let done = Command::new("ip").args(words.split(' ')).output().context("starting ip")?;
    if !done.status.success() {
        bail!("ip {words}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
