//! The life of the sandbox's instances, which are real processes, with user data written by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod wire;

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use sandbox::events::Events;
use sandbox::instance::{Boot, Isolation, Machine, processes};
use wire::{Cloud, PATIENCE, element, launch, request};

/// Waits until something is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// Says that a test cannot run here.
fn skip(name: &str, reason: &str) {
    println!("{name}: {reason}");
    if let Some(path) = std::env::var_os("CML_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{name}: {reason}").unwrap();
    }
}

#[tokio::test]
async fn it_prints_on_its_console_and_ends_when_it_powers_off() {
    let cloud = Cloud::new().await;
    let gate = cloud.dir.path().join("gate");
    let script = format!(
        "#!/bin/sh\necho \"I am $(hostname), pid 1 is not me: $$\"\necho on the device >\"$CML_CONSOLE\"\nwhile [ ! -e {} ]; do sleep 0.02; done\nprintf 'no line end'\npoweroff\nsleep 1000\n",
        gate.display()
    );
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(script.as_bytes()).unwrap();
    let data = STANDARD.encode(gzip.finish().unwrap());
    let id = element(&cloud.ask(&[&launch()[..], &[("UserData", &data)]].concat()).await, "instanceId");
    cloud.console(&id, "on the device").await;
    assert_eq!(cloud.state(&id).await, "running");
    std::fs::write(gate, "").unwrap();
    assert_eq!(cloud.ended(&id).await, "Client.InstanceInitiatedShutdown");
    assert_eq!(cloud.state(&id).await, "terminated");
    cloud.console(&id, "no line end").await;
    let output = element(&cloud.ask(&[("Action", "GetConsoleOutput"), ("InstanceId", &id)]).await, "output");
    let console = String::from_utf8(STANDARD.decode(output).unwrap()).unwrap();
    assert!(console.contains("I am ") && console.ends_with("no line end\n"), "{console}");
}

#[tokio::test]
async fn every_way_to_power_off_works_and_asking_for_something_else_does_not() {
    let cloud = Cloud::new().await;
    for command in ["systemctl poweroff", "shutdown -h now", "halt -p", "reboot"] {
        let id = cloud.launch(&format!("#!/bin/sh\n{command}\n"), &[]).await;
        assert_eq!(cloud.ended(&id).await, "Client.InstanceInitiatedShutdown", "{command}");
    }
    let id = cloud.launch("#!/bin/sh\nsystemctl daemon-reload || echo no systemd\n", &[]).await;
    cloud.console(&id, "no systemd").await;
    assert_eq!(cloud.state(&id).await, "running");
}

#[tokio::test]
async fn without_the_behaviour_terminate_powering_off_only_stops() {
    let cloud = Cloud::new().await;
    let stop = ("InstanceInitiatedShutdownBehavior", "stop");
    let data = STANDARD.encode("#!/bin/sh\npoweroff\n");
    let mut form = launch();
    form.retain(|(name, _)| *name != stop.0);
    form.extend([stop, ("UserData", &data)]);
    let id = element(&cloud.ask(&form).await, "instanceId");
    cloud.ended(&id).await;
    assert_eq!(cloud.state(&id).await, "stopped");
}

#[tokio::test]
async fn nothing_that_it_started_survives_it() {
    let cloud = Cloud::new().await;
    let id = cloud
        .launch(
            "#!/bin/sh\nsetsid sh -c 'trap \"\" TERM HUP; sleep 1000' >/dev/null 2>&1 &\necho left a daemon\n",
            &[],
        )
        .await;
    cloud.console(&id, "left a daemon").await;
    let dir = cloud.dir.path().to_owned();
    let daemon = || processes(&dir).iter().any(|(_, command)| command == "sleep 1000");
    until("the daemon runs", daemon).await;
    assert_eq!(cloud.state(&id).await, "running", "a script that ends does not end its machine");
    cloud.fleet.vanish(&id);
    assert_eq!(cloud.ended(&id).await, "it was lost");
    assert_eq!(processes(&dir), []);
}

#[tokio::test]
async fn what_it_writes_stays_in_it() {
    const NAME: &str = "what_it_writes_stays_in_it";
    if Isolation::best() == Isolation::PrivateRoot {
        return skip(NAME, "namespaces are not allowed here");
    }
    let cloud = Cloud::new().await;
    let mark = format!("cml-sandbox-{}", std::process::id());
    let script = format!(
        "#!/bin/sh\nfor dir in / /etc /usr/bin /opt /opt/cml /var/lib/cml /var/tmp /tmp /root /home /run; do\n\tmkdir -p $dir\n\techo x >$dir/{mark} && echo \"wrote $dir\"\ndone\nls -d /run/systemd\necho to the console >/dev/console\necho 'all tried'\n"
    );
    let id = cloud.launch(&script, &[]).await;
    cloud.console(&id, "all tried").await;
    cloud.console(&id, "to the console").await;
    for own in ["/opt/cml", "/var/lib/cml", "/tmp", "/root", "/run"] {
        cloud.console(&id, &format!("wrote {own}")).await;
    }
    assert!(!cloud.events.all().iter().any(|event| event.detail == "/run/systemd"));
    for dir in [
        "/",
        "/etc",
        "/usr/bin",
        "/opt",
        "/opt/cml",
        "/var/lib/cml",
        "/var/tmp",
        "/tmp",
        "/root",
        "/home",
        "/run",
    ] {
        assert!(!Path::new(dir).join(&mark).exists(), "{dir}/{mark} is on this machine");
    }
}

#[tokio::test]
async fn it_has_nothing_of_our_environment() {
    let cloud = Cloud::new().await;
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something to inherit");
    let id = cloud
        .launch("#!/bin/sh\nenv | sed 's/=.*//; s/^/has /'\necho 'that is all'\n", &[])
        .await;
    cloud.console(&id, "that is all").await;
    let known = [
        "PATH",
        "HOME",
        "LANG",
        "CML_CONSOLE",
        "CML_METADATA_INTERVAL",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "CML_ROOT",
    ];
    let shells = ["PWD", "OLDPWD", "SHLVL", "_"];
    let has: Vec<String> = cloud
        .events
        .all()
        .iter()
        .filter_map(|event| Some(event.detail.strip_prefix("has ")?.to_owned()))
        .collect();
    assert!(has.len() >= 6, "{has:?}");
    for name in has {
        assert!(known.contains(&name.as_str()) || shells.contains(&name.as_str()), "{name}");
    }
}

#[tokio::test]
async fn a_spot_machine_is_told_before_it_is_taken() {
    let cloud = Cloud::new().await;
    let spot = [("InstanceMarketOptions.MarketType", "spot")];
    let id = cloud
        .launch("#!/bin/sh\necho \"imds $AWS_EC2_METADATA_SERVICE_ENDPOINT\"\n", &spot)
        .await;
    let imds = cloud.console(&id, "imds ").await;
    let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "60")];
    let (_, token) = request("PUT", &format!("{imds}/latest/api/token"), &ttl, "").await.unwrap();
    let get = async |path: &str| {
        let url = format!("{imds}/latest/meta-data/{path}");
        request("GET", &url, &[("x-aws-ec2-metadata-token", &token)], "").await.unwrap()
    };
    assert_eq!(get("instance-id").await, (200, id.clone()));
    assert_eq!(get("spot/instance-action").await.0, 404);
    assert_eq!(get("events/recommendations/rebalance").await.0, 404);
    cloud.ec2.rebalance(&id);
    assert!(get("events/recommendations/rebalance").await.1.contains("noticeTime"));
    assert_eq!(cloud.state(&id).await, "running", "advice takes nothing");
    // Long enough for the questions that follow, however slow this machine is: the second notice ends it.
    cloud.ec2.take_back(&id, Duration::from_hours(1));
    assert!(get("spot/instance-action").await.1.contains("\"action\":\"terminate\""));
    assert!(get("spot/termination-time").await.1.ends_with('Z'));
    cloud.ec2.take_back(&id, Duration::ZERO);
    assert_eq!(cloud.ended(&id).await, "Server.SpotInstanceTermination");
}

/// The child of the next test: boots an instance, and waits to be killed.
const CHILD: &str = "SANDBOX_TEST_INSTANCE_DIR";

#[tokio::test]
async fn instances_die_with_a_sandbox_that_is_killed() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let boot = Boot {
            id: "i-1".into(),
            dir: Path::new(&dir).join("instances/i-1"),
            isolation: Isolation::best(),
            script: "#!/bin/sh\nsetsid sleep 1000 &\nsleep 1000\n".into(),
            env: Vec::new(),
            metadata_interval: Duration::from_secs(1),
            docker: None,
            metadata: None,
            machines: None,
            events: Events::default(),
        };
        let _machine = Machine::boot(boot).unwrap();
        return std::future::pending().await;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "instances_die_with_a_sandbox_that_is_killed"])
        .env(CHILD, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let sleepers = || processes(dir.path()).iter().filter(|(_, command)| command == "sleep 1000").count();
    until("both sleep", || sleepers() == 2).await;
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    until("nothing is left", || processes(dir.path()).is_empty()).await;
}
