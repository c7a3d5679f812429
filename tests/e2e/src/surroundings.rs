//! What a machine finds around it, in the hands of the test: time for its own timers, its clock, and its name server.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::net::UdpSocket;

/// The steps that a machine's timers sleep end when there is time; everybody else sleeps as always.
const SLEEP: &str = "#!/bin/sh
case $1 in
[1-5]) read -r _ <'@time@' ;;
*) exec /bin/sleep \"$@\" ;;
esac
";

/// More steps than all timers of a machine have together.
const STEPS: usize = 1000;

/// Where Debian and others have the library that gives a program another clock.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// What programs look up names with, and nothing else.
const LOOK_UP: &str = "printf 'hosts: files dns\\n' >/etc/nsswitch.conf";

/// The time of a world's timers, which stands still until [`Time::pass`].
pub struct Time(File);

impl Time {
    /// Of the machines that will be launched in this world.
    pub fn stand_still(world: &Path) -> Self {
        let (programs, time) = (world.join("programs"), world.join("time"));
        mkfifo(&time, Mode::S_IRWXU).unwrap();
        fs::create_dir(&programs).unwrap();
        let sleep = programs.join("sleep");
        fs::write(&sleep, SLEEP.replace("@time@", &time.display().to_string())).unwrap();
        fs::set_permissions(&sleep, Permissions::from_mode(0o755)).unwrap();
        before_user_data(world, &format!("PATH={}:$PATH", programs.display()));
        // Read and write: there is a reader, whoever else is.
        Self(OpenOptions::new().read(true).write(true).open(time).unwrap())
    }

    /// All timers come to their end.
    pub fn pass(&mut self) {
        self.0.write_all(&[b'\n'; STEPS]).unwrap();
    }
}

/// Adds to what is done on each machine of a world before its user data runs.
fn before_user_data(world: &Path, script: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(world.join("before-user-data"))
        .unwrap();
    writeln!(file, "{script}").unwrap();
}

/// The library that gives a program another clock, where it is installed.
pub fn clock_library() -> Option<PathBuf> {
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    let below = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    folders
        .into_iter()
        .chain(below)
        .map(|folder| folder.join(LIBRARY))
        .find(|file| file.exists())
}

/// What every program of a world's machines is started with, so that the clock can jump; only that of the day.
pub fn let_clock_jump(world: &Path) {
    let library = clock_library().expect("the library is there");
    before_user_data(
        world,
        &format!(
            "export LD_PRELOAD={} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
            library.display()
        ),
    );
}

/// Makes the clock jump, on the machine itself, and sees that it did.
pub fn jump(days: &str) -> String {
    let library = clock_library().expect("the library is there");
    format!(
        "echo '{days}' >/etc/faketimerc.new && mv /etc/faketimerc.new /etc/faketimerc && [ \"$(LD_PRELOAD={} date +%j)\" != \"$(date +%j)\" ]",
        library.display()
    )
}

/// A name server that hears every question and answers none.
pub struct NameServer(UdpSocket, Ipv4Addr);

impl NameServer {
    /// Of the machines that will be launched in this world: they know the forge by their own files until those are lost.
    pub async fn of_machines(world: &Path) -> Self {
        before_user_data(world, LOOK_UP);
        Self::silent().await
    }

    /// Of nobody yet.
    pub async fn silent() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let [process, _] = std::process::id().to_le_bytes()[..2] else {
            unreachable!()
        };
        loop {
            let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            // Of this machine, and nobody else's.
            let address = Ipv4Addr::new(127, 64 | process, high, low);
            if let Ok(socket) = UdpSocket::bind((address, 53)).await {
                return Self(socket, address);
            }
        }
    }

    /// Makes it the only one who knows a name, on the machine itself.
    pub fn take_over(&self) -> String {
        format!(
            ": >/etc/hosts; rm -f /etc/resolv.conf; printf 'nameserver {}\\noptions timeout:2 attempts:1\\n' >/etc/resolv.conf",
            self.1
        )
    }

    /// Its address.
    pub const fn address(&self) -> Ipv4Addr {
        self.1
    }

    /// Waits until it was asked.
    pub async fn asked(&self) {
        self.0.readable().await.unwrap();
    }
}
