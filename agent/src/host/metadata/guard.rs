//! Routing rules by user that keep jobs from the cloud's metadata service, which hands the user data, and with it the forge token, to whoever asks.
//!
//! They need no firewall, and fail at once. Root passes, as do its services. What root does for a job passes too: Docker with the host's network, `sudo`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

/// All users but root. The highest id means "no user".
const USERS: &str = "1-4294967294";
/// Before the rules that lead anywhere.
const PRIORITY: &str = "100";
/// Before that.
const BEFORE: &str = "99";
/// Root alone.
const ROOT: &str = "0-0";
/// The port of the web.
const WEB: &str = "80";
/// The routes of those who are answered by us; a number that nobody else has.
const TABLE: &str = "25427";
/// A command that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// What ip(8) says of a rule that is there already: an agent that was killed made it.
const EXISTS: &str = "File exists";

/// Where the web of an address leads for all but root, containers among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Web {
    /// Nowhere.
    Shut,
    /// To this machine, where we listen; in the new protocol nowhere.
    Ours,
}

/// Keeps everybody but root from an address, and so bridged containers where the service answers only the next hop; `v6` where the machine has it.
///
/// # Errors
/// The rule for `v4` cannot be made.
pub async fn keep_from(v4: &str, v6: Option<&str>) -> Result<()> {
    if let Some(v6) = v6
        && let Err(error) = run(&rule("-6", v6)).await
    {
        tracing::debug!("{v6} is not guarded: {error:#}");
    }
    run(&rule("-4", v4)).await
}

/// The same for the web's port alone, beside others for names and time at the same address, and however many hops away.
///
/// # Errors
/// A rule for `v4` cannot be made.
pub async fn web(v4: &str, v6: Option<&str>, leads: Web) -> Result<()> {
    if let Some(v6) = v6
        && let Err(error) = web_rules("-6", v6, Web::Shut).await
    {
        tracing::debug!("{v6} is not guarded: {error:#}");
    }
    web_rules("-4", v4, leads).await
}

/// The command that keeps everybody but root from an address.
fn rule<'a>(family: &'a str, address: &'a str) -> [&'a str; 11] {
    [
        "ip", family, "rule", "add", "to", address, "uidrange", USERS, "priority", PRIORITY, "prohibit",
    ]
}

/// The first lets root pass, but not what is only passed on, as a container's is: that has no user, and did not begin here (`iif lo`).
async fn web_rules(family: &str, address: &str, leads: Web) -> Result<()> {
    run(&pass_root(family, address)).await?;
    match leads {
        Web::Shut => run(&shut(family, address)).await,
        Web::Ours => {
            run(&route(family, address)).await?;
            run(&lead(family, address)).await
        }
    }
}

fn pass_root<'a>(family: &'a str, address: &'a str) -> [&'a str; 18] {
    [
        "ip", family, "rule", "add", "iif", "lo", "to", address, "ipproto", "tcp", "dport", WEB, "uidrange", ROOT, "priority", BEFORE,
        "lookup", "main",
    ]
}

fn shut<'a>(family: &'a str, address: &'a str) -> [&'a str; 13] {
    [
        "ip", family, "rule", "add", "to", address, "ipproto", "tcp", "dport", WEB, "priority", PRIORITY, "prohibit",
    ]
}

/// The address is ours. `src`: who asks does so from the loopback's address; from this one, the answer would take root's way, to the service.
fn route<'a>(family: &'a str, address: &'a str) -> [&'a str; 12] {
    [
        "ip",
        family,
        "route",
        "replace",
        "local",
        address,
        "dev",
        "lo",
        "src",
        "127.0.0.1",
        "table",
        TABLE,
    ]
}

fn lead<'a>(family: &'a str, address: &'a str) -> [&'a str; 14] {
    [
        "ip", family, "rule", "add", "to", address, "ipproto", "tcp", "dport", WEB, "priority", PRIORITY, "lookup", TABLE,
    ]
}

async fn run(words: &[&str]) -> Result<()> {
    let (program, args) = words.split_first().context("no command")?;
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = timeout(PATIENCE, output).await.context("it does not end")?;
    let output = output.with_context(|| format!("starting {program} (the package iproute2)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || said.contains(EXISTS) {
        return Ok(());
    }
    bail!("`{}`: {}", words.join(" "), said.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::{lead, pass_root, route, rule, shut};
    use crate::user::skip;

    const ADDRESS: &str = "169.254.169.254";
    const PATIENCE: Duration = Duration::from_secs(30);
    /// Any user but root.
    const JOB: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

    /// Answers at the address, whether the machine has it or not: Linux's `IP_TRANSPARENT` is 19.
    const SERVE: &str = r#"
import http.server, socket
class Server(http.server.HTTPServer):
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_IP, 19, 1)
        super().server_bind()
Server(("169.254.169.254", 80), http.server.SimpleHTTPRequestHandler).serve_forever()
"#;

    /// A network of its own, as long as this lives.
    struct Network(Child);

    impl Network {
        fn new() -> Option<Self> {
            let child = Command::new("unshare")
                .args(["--net", "sleep", "600"])
                .stderr(Stdio::null())
                .spawn()
                .ok()?;
            let network = Self(child);
            let own = std::fs::read_link("/proc/self/ns/net").ok()?;
            let deadline = Instant::now() + PATIENCE;
            // It is there once the program has left ours.
            while std::fs::read_link(format!("/proc/{}/ns/net", network.0.id())).ok()? == own {
                (Instant::now() < deadline).then_some(())?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Some(network)
        }

        fn run(&self, command: &str) -> bool {
            self.start(command).wait().unwrap().success()
        }

        fn start(&self, command: &str) -> Child {
            let target = self.0.id().to_string();
            let mut inside = Command::new("nsenter");
            inside.args(["--target", &target, "--net", "sh", "-c", command]);
            inside
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        }
    }

    impl Drop for Network {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A machine with one wire to a cloud that has the metadata service's address; none where that cannot be made.
    fn machine() -> Option<(Network, Network)> {
        let (cloud, machine) = (Network::new()?, Network::new()?);
        let wire = format!(
            "ip link set lo up && ip link add c0 type veth peer name eth0 netns {} && ip addr add 10.77.0.1/24 dev c0 &&
             ip addr add {ADDRESS}/32 dev c0 && ip link set c0 up",
            machine.0.id()
        );
        let up = "ip link set lo up && ip addr add 10.77.0.2/24 dev eth0 && ip link set eth0 up && ip route add default via 10.77.0.1";
        (cloud.run(&wire) && machine.run(up)).then_some((cloud, machine))
    }

    #[test]
    fn root_reaches_the_service_and_jobs_do_not() {
        let name = "root_reaches_the_service_and_jobs_do_not";
        let Some((cloud, machine)) = machine() else {
            skip(name, "needs root and network namespaces");
            return;
        };
        let service = format!("exec python3 -m http.server --directory /var/empty --bind {ADDRESS} 80");
        std::fs::create_dir_all("/var/empty").unwrap();
        let mut service = cloud.start(&service);
        let get = format!("curl -sf -m 5 -o /dev/null http://{ADDRESS}/");
        let deadline = Instant::now() + PATIENCE;
        while !machine.run(&get) {
            if service.try_wait().unwrap().is_some() || Instant::now() > deadline {
                skip(name, "needs curl and python3");
                return;
            }
        }
        assert!(machine.run(&format!("{JOB} {get}")), "so far everybody reaches it");
        assert!(machine.run(&rule("-4", ADDRESS).join(" ")));
        assert!(machine.run(&get), "root still does");
        assert!(!machine.run(&format!("{JOB} {get}")), "a job does not");
        let disguised = machine.run(&format!("{JOB} unshare --user --map-root-user {get}"));
        assert!(!disguised, "nor as the root of a namespace of its own");
        service.kill().unwrap();
        service.wait().unwrap();
    }

    /// A container on the machine, whose packets the machine passes on.
    fn container(cloud: &Network, machine: &Network) -> Option<Network> {
        let container = Network::new()?;
        let wire = format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward && ip link add docker0 type veth peer name eth0 netns {} &&
             ip addr add 10.78.0.1/24 dev docker0 && ip link set docker0 up",
            container.0.id()
        );
        let up = "ip addr add 10.78.0.2/24 dev eth0 && ip link set eth0 up && ip route add default via 10.78.0.1";
        let back = "ip route add 10.78.0.0/24 via 10.77.0.2";
        (machine.run(&wire) && container.run(up) && cloud.run(back)).then_some(container)
    }

    /// Both, or the test is skipped.
    fn machine_with_container(test: &str) -> Option<(Network, Network, Network)> {
        let Some((cloud, machine)) = machine() else {
            skip(test, "needs root and network namespaces");
            return None;
        };
        let Some(container) = container(&cloud, &machine) else {
            skip(test, "needs packets to be passed on");
            return None;
        };
        Some((cloud, machine, container))
    }

    #[test]
    fn jobs_and_containers_are_kept_from_the_web_of_an_address_and_from_nothing_else() {
        let name = "jobs_and_containers_are_kept_from_the_web_of_an_address_and_from_nothing_else";
        let Some((cloud, machine, container)) = machine_with_container(name) else {
            return;
        };
        std::fs::create_dir_all("/var/empty").unwrap();
        // What answers on port 53 is no name server, but found as one is.
        let serve = |port: u16| {
            cloud.start(&format!(
                "exec python3 -m http.server --directory /var/empty --bind {ADDRESS} {port}"
            ))
        };
        let mut services = [serve(80), serve(53)];
        let get = |port: u16| format!("curl -sf -m 5 -o /dev/null http://{ADDRESS}:{port}/");
        let deadline = Instant::now() + PATIENCE;
        while !(machine.run(&get(80)) && container.run(&get(53))) {
            if services.iter_mut().any(|service| service.try_wait().unwrap().is_some()) || Instant::now() > deadline {
                skip(name, "needs curl and python3");
                return;
            }
        }
        assert!(container.run(&get(80)), "so far everybody reaches it");
        assert!(machine.run(&pass_root("-4", ADDRESS).join(" ")) && machine.run(&shut("-4", ADDRESS).join(" ")));
        assert!(machine.run(&get(80)), "root still does");
        assert!(!machine.run(&format!("{JOB} {}", get(80))), "a job does not");
        assert!(!container.run(&get(80)), "nor does a container");
        assert!(machine.run(&format!("{JOB} {}", get(53))), "names are not the web");
        assert!(container.run(&get(53)));
        for service in &mut services {
            service.kill().unwrap();
            service.wait().unwrap();
        }
    }

    #[test]
    fn jobs_and_containers_are_led_to_this_machine_and_root_to_the_service() {
        let name = "jobs_and_containers_are_led_to_this_machine_and_root_to_the_service";
        let Some((cloud, machine, container)) = machine_with_container(name) else {
            return;
        };
        let dir = tempfile::TempDir::new().unwrap();
        for name in ["cloud", "agent"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("who"), name).unwrap();
        }
        let script = dir.path().join("serve.py");
        std::fs::write(&script, SERVE).unwrap();
        let serve = |network: &Network, name: &str| {
            let dir = dir.path().join(name);
            network.start(&format!("cd {} && exec python3 {}", dir.display(), script.display()))
        };
        let mut services = [serve(&cloud, "cloud"), serve(&machine, "agent")];
        let says = |who: &str| format!("curl -sf -m 5 http://{ADDRESS}/who | grep -qx {who}");
        let as_job = |who: &str| format!("{JOB} sh -c '{}'", says(who));
        let deadline = Instant::now() + PATIENCE;
        while !machine.run(&says("cloud")) {
            if services.iter_mut().any(|service| service.try_wait().unwrap().is_some()) || Instant::now() > deadline {
                skip(name, "needs curl and python3");
                return;
            }
        }
        assert!(
            machine.run(&as_job("cloud")) && container.run(&says("cloud")),
            "so far everybody reaches it"
        );
        for command in [&pass_root("-4", ADDRESS)[..], &route("-4", ADDRESS), &lead("-4", ADDRESS)] {
            assert!(machine.run(&command.join(" ")), "{command:?}");
        }
        while !machine.run(&as_job("agent")) {
            assert!(Instant::now() < deadline, "a job does not reach us");
        }
        assert!(container.run(&says("agent")), "nor does a container");
        assert!(machine.run(&says("cloud")), "root does not reach the service any more");
        for service in &mut services {
            service.kill().unwrap();
            service.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = super::run(&["no-such-program"]).await.unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program"), "{error:#}");
        let error = super::run(&["sh", "-c", "echo not permitted >&2; exit 2"]).await.unwrap_err();
        assert!(format!("{error:#}").contains("not permitted"), "{error:#}");
        super::run(&["sh", "-c", "echo RTNETLINK answers: File exists >&2; exit 2"])
            .await
            .unwrap();
    }
}
