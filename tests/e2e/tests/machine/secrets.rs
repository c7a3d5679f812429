//! What a real machine keeps of a launch's secrets, and what its jobs can make it do later.

use e2e::machine::image;
use e2e::{NOTICE, Scene, skip};
use sandbox::cloud;
use sandbox::forge::Kind;
use sandbox::world::Options;

use super::super::{STAYS, bootable, boots, journal};

/// The one file of a machine that holds the forge token, for root alone.
const SPEC: &str = "/var/lib/cml/spec.json";

/// Each way to have something started later, or by somebody else, and to end the machine. Cron, at, and the user's own systemd are there.
const LATER: &str = "set +e
    denied() { if \"$@\" >/dev/null 2>&1; then echo \"could: $*\"; exit 1; fi; }
    echo '* * * * * touch /tmp/later' >/tmp/table
    denied crontab /tmp/table
    denied sh -c 'echo touch /tmp/later | at now'
    denied sh -c 'echo touch /tmp/later | batch'
    denied systemd-run touch /tmp/later
    denied systemd-run --user touch /tmp/later
    denied loginctl enable-linger
    denied loginctl enable-linger \"$(id -un)\"
    denied systemctl poweroff
    denied systemctl stop cml-agent.service
    denied systemctl --user start default.target
    denied busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager PowerOff b false
    denied sudo -n true
    denied sh -c 'echo cml-phase name=online state=fail after=0 >/dev/console'
    denied ip rule del priority 100
    [ \"$(ulimit -H -c)\" = 0 ] || exit 1
    grep -q 'systemd-private.* /tmp ' /proc/self/mountinfo || { echo 'the /tmp of all'; exit 1; }
    (cd /tmp; sh -c 'kill -SEGV $$'); ls /tmp/core* 2>/dev/null && exit 1
    echo nothing comes later";

#[tokio::test]
async fn a_job_can_have_nothing_done_later_or_by_others() {
    let Some(image) = bootable("a_job_can_have_nothing_done_later_or_by_others") else {
        return;
    };
    let scene = boots(image, cloud::Kind::Aws).await;
    let run = scene.job(LATER);
    scene.launch(&["--docker=never"]).await.succeeded();
    let conclusion = scene.conclusion(run).await;
    assert_eq!(conclusion, "success", "{}\n{}", journal(&scene), scene.timeline());
    assert!(scene.timeline().contains("nothing comes later"));
    scene.end().await;
}

/// All that is written on the machine's disk is looked through once it is off, its journal as text.
async fn keeps(scene: Scene, options: &[&str], expected: &[&str]) {
    let token = scene.world.forge.token().to_owned();
    let run = scene.job("echo worked");
    scene.launch(&[options, &["--log=debug"]].concat()).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    if !options.contains(&"--single") {
        // An agent that dies with its memory full of secrets leaves no image of it.
        scene.inside(&scene.first().id, "pkill -ABRT -x cml-agent");
    }
    scene.all_gone().await;
    let machine = scene.world.fleet.machine_dir(&scene.first().id).join("root");
    let search = std::process::Command::new("grep")
        .args(["-rlsF", "--devices=skip", "-e", &token, "."])
        .current_dir(&machine)
        .output()
        .expect("grep starts");
    let found = String::from_utf8_lossy(&search.stdout);
    let found: Vec<&str> = found.lines().map(|path| path.trim_start_matches('.')).collect();
    assert_eq!(found, expected, "{}", scene.timeline());
    assert!(machine.join("var/log/journal").exists());
    let told = journal(&scene);
    assert!(told.contains("agent started") && !told.contains(&token), "{told}");
    assert!(!scene.timeline().contains(&token));
    scene.end().await;
}

/// One scene for each cloud and forge. Bitbucket's runner needs Java, which these machines do not have: canary.rs has it.
async fn scene(test: &str, forge: Kind, cloud: cloud::Kind) -> Option<Scene> {
    let Some(image) = image() else {
        skip(test, "needs root, mmdebstrap, systemd-container and dnsmasq-base");
        return None;
    };
    let options = Options {
        forge: forge.into(),
        image: Some(image),
        cloud,
        notice: (cloud != cloud::Kind::Aws).then_some(NOTICE),
        ..Options::default()
    };
    Some(Scene::with(options).await)
}

macro_rules! keep {
    ($($test:ident: $forge:ident $cloud:ident $options:expr => $expected:expr),* $(,)?) => {
        $(#[tokio::test]
        async fn $test() {
            if let Some(scene) = scene(stringify!($test), Kind::$forge, cloud::Kind::$cloud).await {
                keeps(scene, $options, $expected).await;
            }
        })*
    };
}

keep! {
    a_machine_on_ec2_keeps_the_token_in_one_file: GitHub Aws &[STAYS] => &[SPEC],
    a_machine_of_azures_keeps_the_token_in_one_file: GitHub Azure &[STAYS] => &[SPEC],
    a_machine_of_googles_keeps_the_token_in_one_file: GitHub Gcp &[STAYS] => &[SPEC],
    a_machine_of_gitlabs_keeps_the_token_in_one_file: GitLab Aws &[STAYS] => &[SPEC],
    a_machine_for_a_single_job_without_retry_never_had_it: GitHub Aws &["--single", "--no-retry"] => &[],
}
