//! A private root in which the script is run for real, with an agent of our own and a web server to download it from.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::phase::Phase;

use crate::bootstrap::Bootstrap;

/// Says what it was called with, how it found its spec, and does what the machine tells it.
const AGENT: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then echo "cml-agent 1.2.3"; exit; fi
mkdir -p "$CML_ROOT/seen"
echo "$@" >"$CML_ROOT/seen/arguments"
cp "$3" "$CML_ROOT/seen/spec"
stat -c %a "$3" >"$CML_ROOT/seen/mode"
if [ -e "$CML_ROOT/agent-fails" ]; then exit 7; fi
echo start >>"$CML_ROOT/seen/starts"
if [ -e "$CML_ROOT/agent-dies" ] && [ "$(grep -c start "$CML_ROOT/seen/starts")" -le "$(cat "$CML_ROOT/agent-dies")" ]; then kill -9 $$; fi
if [ -e "$CML_ROOT/agent-waits-online" ]; then touch "$CML_ROOT/var/lib/cml/online" "$CML_ROOT/agent-waits"; fi
if [ -e "$CML_ROOT/agent-waits" ]; then
	turns=600
	while [ "$turns" -gt 0 ] && [ ! -e "$CML_ROOT/power-off" ]; do sleep 0.1; turns=$((turns - 1)); done
	if [ -e "$CML_ROOT/power-off" ]; then touch "$CML_ROOT/seen/power-off"; fi
	exit 0
fi
touch "$CML_ROOT/var/lib/cml/online"
"#;

/// Stands for each program that could power off the computer that the tests run on: the script must never reach the real ones.
const POWER_OFF: &str = "#!/bin/sh\necho \"$0 $*\" >>\"$CML_ROOT/power-off\"\n";

/// The same, of a machine that refuses until it was asked for the fifth time, and on which a minute is over at once.
const REFUSES: &str = "[ \"$(grep -c . \"$CML_ROOT/power-off\")\" -ge 5 ]\n";
const MINUTES: &str = "#!/bin/sh\ncase $1 in\n60) echo \"$1\" >>\"$CML_ROOT/slept\" ;;\n*) exec /bin/sleep \"$@\" ;;\nesac\n";

/// Everything that the script needs apart from a downloader.
const TOOLS: [&str; 19] = [
    "grep",
    "sh",
    "date",
    "mkdir",
    "chmod",
    "chown",
    "rm",
    "mv",
    "cat",
    "tr",
    "sleep",
    "sha256sum",
    "setsid",
    "touch",
    "cp",
    "stat",
    "printf",
    "env",
    "id",
];

/// The shells of this host that a machine may have as `sh`.
pub fn shells() -> Vec<String> {
    let all = ["sh", "dash", "busybox sh", "bash"];
    let (there, missing): (Vec<&str>, Vec<&str>) = all
        .into_iter()
        .partition(|shell| find(shell.split(' ').next().unwrap_or_default()).is_some());
    for shell in missing {
        skip("bootstrap", &format!("no {shell} here"));
    }
    there.into_iter().map(str::to_owned).collect()
}

/// Prints and counts what was not tested.
pub fn skip(test: &str, reason: &str) {
    println!("skipped {test}: {reason}");
    if let Some(path) = std::env::var_os("CML_TEST_SKIPS") {
        let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn write_program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub struct Machine {
    root: tempfile::TempDir,
    address: String,
    served: Arc<AtomicUsize>,
}

impl Machine {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let machine = Self {
            address: listener.local_addr().unwrap().to_string(),
            served: Arc::default(),
            root,
        };
        let served = machine.served.clone();
        std::thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap(), &served)));
        // First on the search path.
        for program in ["systemctl", "poweroff", "shutdown", "halt", "reboot"] {
            write_program(&machine.path("shims").join(program), POWER_OFF);
        }
        std::fs::create_dir_all(machine.path("etc")).unwrap();
        // The first ordinary user is not the image's own.
        let passwd = format!("first:x:1000:1000::/home/first:/bin/sh\n{}:x:1:1::/home/me:/bin/sh\n", Self::user());
        std::fs::write(machine.path("etc/passwd"), passwd).unwrap();
        machine
    }

    /// Who runs the tests: files can be given to nobody else.
    pub fn user() -> String {
        let output = Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    pub fn mode(&self, path: &str) -> u32 {
        self.path(path).metadata().unwrap().permissions().mode() & 0o777
    }

    /// Makes an empty file.
    pub fn set(&self, path: &str) {
        self.write(path, "");
    }

    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    /// The same launch with the agent of our own web server.
    pub fn with_agent(&self, boot: Bootstrap) -> Bootstrap {
        use std::io::Read as _;
        let mut sum = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        sum.stdin.take().unwrap().write_all(AGENT.as_bytes()).unwrap();
        let mut hex = String::new();
        sum.stdout.take().unwrap().take(64).read_to_string(&mut hex).unwrap();
        sum.wait().unwrap();
        Bootstrap {
            agent_urls: vec![format!("http://{}/agent", self.address)],
            agent_sha256: hex,
            ..boot
        }
    }

    /// Its power goes off only when it was asked for the fifth time.
    pub fn refuse_power_off(&self) {
        for program in ["systemctl", "poweroff", "shutdown"] {
            write_program(&self.path("shims").join(program), &format!("{POWER_OFF}{REFUSES}"));
        }
        write_program(&self.path("shims/sleep"), MINUTES);
    }

    /// An agent that is in the image already.
    pub fn bake(&self, version: &str) {
        write_program(&self.path("opt/cml/bin/cml-agent"), &AGENT.replace("1.2.3", version));
    }

    /// Leaves only this one of the programs that download; false where it is missing here.
    pub fn only_downloader(&self, tool: &str) -> bool {
        let folder = self.path("tools");
        std::fs::create_dir_all(&folder).unwrap();
        let Some(mut program) = find(tool) else {
            return false;
        };
        if tool == "python3" {
            // A wrapper would look for programs of its own.
            let output = Command::new(program)
                .args(["-c", "import sys; print(sys.executable)"])
                .output()
                .unwrap();
            program = String::from_utf8(output.stdout).unwrap().trim().into();
        }
        symlink(program, folder.join(tool)).unwrap();
        for other in TOOLS {
            symlink(find(other).unwrap(), folder.join(other)).unwrap();
        }
        true
    }

    /// Writes down what a downloader is called with, and by which variable it is told whom to trust.
    pub fn tell_of(&self, tool: &str) {
        let text = "#!/bin/sh\necho \"$* ${SSL_CERT_FILE:-}\" >>\"$CML_ROOT/told\"\nexec \"$CML_ROOT/tools/TOOL\" \"$@\"\n";
        write_program(&self.path("shims").join(tool), &text.replace("TOOL", tool));
    }

    /// Our web server as a proxy, which asks nobody who is there.
    pub fn proxy(&self) -> String {
        format!("http://me:canary@{}", self.address)
    }

    fn command(&self, shell: &str) -> Command {
        let tools = Some(self.path("tools")).filter(|tools| tools.exists());
        let tools = tools.map_or_else(|| std::env::var_os("PATH").unwrap(), Into::into);
        let mut path = self.path("shims").into_os_string();
        path.push(":");
        path.push(tools);
        let mut words = shell.split(' ');
        let mut command = Command::new(find(words.next().unwrap()).unwrap());
        command.args(words).env_clear().env("PATH", path).env("CML_ROOT", self.root.path());
        command.env("CML_CONSOLE", self.path("console")).stdin(Stdio::null());
        command
    }

    /// Runs the script until it ends; it says nothing but on its console.
    pub fn run(&self, shell: &str, boot: &Bootstrap) {
        let said = self.said(shell, boot);
        assert!(said.is_empty(), "{shell}: {said}");
    }

    /// Runs the script until it ends, and returns what it, or its shell, said.
    pub fn said(&self, shell: &str, boot: &Bootstrap) -> String {
        let script = self.path("user-data");
        std::fs::write(&script, boot.render()).unwrap();
        let output = self.command(shell).arg(&script).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs the timers' own script.
    pub fn timer(&self, seconds: u32, marker: &str) {
        let script = self.path("var/lib/cml/power-off-timer");
        let status = self
            .command("sh")
            .arg(script)
            .args([&seconds.to_string(), marker])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The phases on the console, without their times.
    pub fn phases(&self) -> Vec<String> {
        let console = self.read("console");
        let phases = console.lines().filter_map(Phase::parse);
        phases
            .map(|phase| {
                format!(
                    "{} {}",
                    phase.name,
                    phase.to_string().split("state=").nth(1).unwrap().split(' ').next().unwrap()
                )
            })
            .collect()
    }

    pub fn power_offs(&self) -> usize {
        self.read("power-off").lines().count()
    }

    /// How many downloads there were.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

/// Answers one request.
fn serve(mut stream: TcpStream, served: &AtomicUsize) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    served.fetch_add(1, Ordering::SeqCst);
    let path = request.split(' ').nth(1).unwrap_or_default();
    // As a proxy is asked.
    let path = path.strip_prefix("http://agents.invalid").unwrap_or(path);
    let (status, body, length) = match path.split('?').next().unwrap_or_default() {
        "/agent" => ("200 OK", AGENT, AGENT.len()),
        "/other" => ("200 OK", "#!/bin/sh\necho not the agent\n", 29),
        "/truncated" => ("200 OK", &AGENT[..40], AGENT.len()),
        _ => ("404 Not Found", "no such file", 12),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    // The client may have gone: that is its own test's matter.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}
