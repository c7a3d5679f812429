//! The real machine: instances boot a Debian, cloud-init runs the user data, and the agent is a service of systemd's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod machine {
    pub mod host;
    pub mod metadata;
    pub mod network;
    pub mod secrets;
}

use std::path::PathBuf;
use std::time::Duration;

use e2e::machine::{Timings, baked, image};
use e2e::{NOTICE, Scene, skip, startup_script, until};
use machine::host::{
    a_debian_package_is_installed_upgraded_in_mid_job_and_removed, a_host_that_restarts_has_its_job_run_again_and_its_runner_back,
    a_runner_is_installed_works_is_drained_and_leaves_nothing, a_user_that_was_there_before_stays,
    an_agent_that_is_killed_on_a_host_clears_up_and_begins_anew, an_rpm_is_installed_upgraded_in_mid_job_and_removed,
    what_is_refused_installs_nothing,
};
use sandbox::cloud::Kind;
use sandbox::events::Event;
use sandbox::world::{Image, Options};

/// A world whose instances boot; none where this machine cannot have one.
async fn scene(test: &str, files: &[(&str, &str)]) -> Option<Scene> {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    let files = files.collect();
    Some(boots(Image { files, ..bootable(test)? }, Kind::Aws).await)
}

/// What instances boot; else the test is skipped.
fn bootable(test: &str) -> Option<Image> {
    let image = image();
    if image.is_none() {
        skip(test, "needs root, mmdebstrap, systemd-container and dnsmasq-base");
    }
    image
}

/// A world of this cloud, whose instances boot this.
async fn boots(image: Image, cloud: Kind) -> Scene {
    Scene::with(Options {
        image: Some(image),
        cloud,
        notice: (cloud != Kind::Aws).then_some(NOTICE),
        ..Options::default()
    })
    .await
}

/// A test that is given a scene.
macro_rules! machines {
    ($($test:ident $(with $files:expr)?),* $(,)?) => {
        mod on_a_real_machine {
            $(#[tokio::test]
            async fn $test() {
                #[allow(unused_mut, unused_assignments)]
                let mut files: &[(&str, &str)] = &[];
                $(files = $files;)?
                if let Some(scene) = super::scene(stringify!($test), files).await {
                    super::$test(scene).await;
                }
            })*
        }
    };
}

machines! {
    a_job_is_done_and_the_idle_machine_goes,
    a_job_can_read_neither_the_user_data_nor_the_token,
    a_machine_that_is_taken_back_has_its_job_run_again,
    a_machine_that_is_shut_down_has_its_job_run_again,
    an_agent_that_is_killed_comes_back_to_take_its_leave,
    an_agent_that_is_killed_over_and_over_takes_the_machine_with_it,
    an_agent_that_hangs_is_found_out_by_its_watchdog with &[super::SHORT_WATCHDOG],
    a_machine_whose_runner_is_not_online_in_time_goes_whatever_becomes_of_the_agent,
    a_machine_that_has_lived_long_enough_goes_whatever_becomes_of_the_agent,
    a_startup_script_that_hangs_is_ended_and_told_of,
    a_startup_script_installs_a_package_that_jobs_use,
    a_startup_script_may_restart_the_machine,
    a_machine_that_is_restarted_in_mid_job_has_it_run_again,
    a_runner_is_installed_works_is_drained_and_leaves_nothing,
    a_host_that_restarts_has_its_job_run_again_and_its_runner_back,
    an_agent_that_is_killed_on_a_host_clears_up_and_begins_anew,
    what_is_refused_installs_nothing,
    a_user_that_was_there_before_stays,
    a_debian_package_is_installed_upgraded_in_mid_job_and_removed,
    an_rpm_is_installed_upgraded_in_mid_job_and_removed,
}

/// Minutes in production.
const SHORT_WATCHDOG: (&str, &str) = (
    "/etc/systemd/system/cml-agent.service.d/watchdog.conf",
    "[Service]\nWatchdogSec=3s\n",
);

/// Options of a machine that waits for jobs until something happens.
const STAYS: &str = "--idle-timeout=never";

/// A launch whose machine works on a job that runs until the gate opens.
async fn busy(scene: &Scene, more: &[&str]) -> (sandbox::ci::RunId, PathBuf) {
    let gate = scene.world.dir().join("gate");
    let run = scene.job(&until(&gate));
    scene.launch(more).await.succeeded();
    scene.working().await;
    (run, gate)
}

/// All that the first machine's journal says of the agent.
fn journal(scene: &Scene) -> String {
    let dir = scene.world.fleet.machine_dir(&scene.first().id).join("root/var/log/journal");
    let mut command = std::process::Command::new("journalctl");
    let output = command
        .arg("--directory")
        .arg(dir)
        .args(["--no-pager", "--output=cat", "--unit=cml-agent.service"])
        .output();
    String::from_utf8_lossy(&output.expect("journalctl starts").stdout).into_owned()
}

async fn a_job_is_done_and_the_idle_machine_goes(scene: Scene) {
    let run = scene.job("id -un; cat /proc/self/cgroup");
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.all_gone().await;
    assert_eq!(scene.first().reason, "Client.InstanceInitiatedShutdown");
    let journal = journal(&scene);
    assert!(
        journal.contains("job_ended") && !journal.contains(scene.world.forge.token()),
        "{journal}"
    );
    let said = |text: &str| {
        scene
            .world
            .events
            .all()
            .iter()
            .any(|event| event.what == "job-output" && event.detail.ends_with(text))
    };
    assert!(said("cml") && said("/cml.slice/cml-agent.service"), "{}", scene.timeline());
    scene.end().await;
}

async fn a_job_can_read_neither_the_user_data_nor_the_token(scene: Scene) {
    let token = scene.world.forge.token().to_owned();
    let (head, tail) = token.split_at(8);
    // Not whole in the job itself, which lies on the disk too.
    let run = scene.job(&format!(
        "url=http://169.254.169.254/latest; \
         if curl -sS -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $url/api/token; then exit 1; fi; \
         if curl -sS -m 5 $url/user-data; then exit 1; fi; \
         head={head} tail={tail}; \
         look() {{ grep -lsF \"$head$tail\" /proc/[0-9]*/environ /proc/[0-9]*/cmdline; \
           grep -rlsF --devices=skip --exclude-dir=sys --exclude-dir=proc --exclude-dir='cml-sandbox-*' \"$head$tail\" /; }}; \
         found=$(look || :); echo found: $found; [ -z \"$found\" ] || exit 1; \
         echo \"$head$tail\" >planted; found=$(look || :); rm planted; [ -n \"$found\" ] || exit 1; \
         sudo -n true && exit 1; cat /var/lib/cml/spec.json && exit 1; \
         echo nothing found"
    ));
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.end().await;
}

async fn a_machine_that_is_taken_back_has_its_job_run_again(scene: Scene) {
    let (run, gate) = busy(&scene, &["--cloud-spot"]).await;
    scene.take_back(Duration::from_mins(2));
    scene.runs_again(run, &gate).await;
}

/// As a person does it, or a cloud that presses the power button: systemd tells the agent to stop, and waits for it.
async fn a_machine_that_is_shut_down_has_its_job_run_again(scene: Scene) {
    let (run, gate) = busy(&scene, &[]).await;
    scene.inside(&scene.first().id, "systemctl poweroff");
    scene.runs_again(run, &gate).await;
}

async fn an_agent_that_is_killed_comes_back_to_take_its_leave(scene: Scene) {
    let (run, gate) = busy(&scene, &[]).await;
    scene.inside(&scene.first().id, "pkill -KILL -x cml-agent");
    scene.runs_again(run, &gate).await;
}

async fn an_agent_that_is_killed_over_and_over_takes_the_machine_with_it(scene: Scene) {
    scene.launch(&[STAYS]).await.succeeded();
    scene.inside(
        &scene.first().id,
        "systemd-run --quiet sh -c 'while :; do pkill -KILL -x cml-agent; sleep 0.02; done'",
    );
    scene.all_gone().await;
    // Nobody was left to take leave: the forge sees it offline, and it is removed there.
    scene.event("runner-offline").await;
    let reaped = Scene::finish(scene.command(&["runner", "reap", "--cloud=aws"])).await;
    reaped.succeeded();
    scene.end().await;
}

async fn an_agent_that_hangs_is_found_out_by_its_watchdog(scene: Scene) {
    let (run, gate) = busy(&scene, &[]).await;
    scene.inside(&scene.first().id, "pkill -STOP -x cml-agent");
    scene.runs_again(run, &gate).await;
}

async fn a_machine_whose_runner_is_not_online_in_time_goes_whatever_becomes_of_the_agent(scene: Scene) {
    let script = startup_script("pkill -STOP -x cml-agent; echo frozen");
    let mut launcher = scene.start(&["--provisioning-timeout=20s", &script]);
    let begun = |event: &Event| event.detail.contains("name=startup-script state=begin");
    scene.event_where("the start-up script", begun).await;
    launcher.kill().await.unwrap();
    scene.all_gone().await;
    scene.end().await;
}

async fn a_machine_that_has_lived_long_enough_goes_whatever_becomes_of_the_agent(scene: Scene) {
    scene.launch(&[STAYS, "--max-lifetime=25s"]).await.succeeded();
    scene.inside(&scene.first().id, "pkill -STOP -x cml-agent");
    scene.all_gone().await;
    scene.event("runner-offline").await;
    Scene::finish(scene.command(&["runner", "reap", "--cloud=aws"])).await.succeeded();
    scene.end().await;
}

async fn a_startup_script_that_hangs_is_ended_and_told_of(scene: Scene) {
    let script = startup_script("trap '' TERM; echo installing for ever; setsid sleep 1000 & while :; do sleep 1; done");
    let out = scene.launch(&["--provisioning-timeout=20s", &script]).await;
    out.failed_with(5, &["phase `startup-script` had begun", "installing for ever"]);
    scene.end().await;
}

async fn a_startup_script_installs_a_package_that_jobs_use(scene: Scene) {
    let script = startup_script(
        "set -e; mkdir -p /tmp/p/DEBIAN /tmp/p/usr/bin; cd /tmp/p; \
         printf 'Package: greeting\\nVersion: 1\\nArchitecture: all\\nMaintainer: us\\nDescription: says hello\\n' >DEBIAN/control; \
         printf '#!/bin/sh\\necho hello from a package\\n' >usr/bin/greeting; chmod 755 usr/bin/greeting; \
         dpkg-deb --build . ../greeting.deb; apt-get install -y /tmp/greeting.deb",
    );
    let run = scene.job("greeting");
    scene.launch(&[&script]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.end().await;
}

/// As drivers do.
async fn a_startup_script_may_restart_the_machine(scene: Scene) {
    let script = startup_script("echo once >>/root/ran; systemctl reboot");
    let run = scene.job("systemctl is-active cml-boot-deadline.timer; cat /proc/uptime");
    scene.launch(&[&script]).await.succeeded();
    scene.event("rebooted").await;
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.all_gone().await;
    let ran = std::fs::read_to_string(scene.world.fleet.machine_dir(&scene.first().id).join("root/root/ran"));
    assert_eq!(ran.unwrap(), "once\n");
    scene.end().await;
}

async fn a_machine_that_is_restarted_in_mid_job_has_it_run_again(scene: Scene) {
    let (run, gate) = busy(&scene, &[]).await;
    scene.inside(&scene.first().id, "systemctl reboot");
    scene.runs_again(run, &gate).await;
}

#[tokio::test]
async fn a_baked_image_has_the_agent_and_the_runner() {
    let Some(plain) = bootable("a_baked_image_has_the_agent_and_the_runner") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let agent = sandbox::standin::program("cml-agent").unwrap();
    let image = baked(&plain, dir.path(), &agent).unwrap();
    let scene = boots(image, Kind::Aws).await;
    let run = scene.job("git --version");
    scene.launch(&[]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.all_gone().await;
    let own = |event: &Event| event.detail.contains("name=agent state=ok") && event.detail.ends_with("the image's own");
    assert!(scene.world.events.all().iter().any(own), "{}", scene.timeline());
    let journal = journal(&scene);
    assert!(journal.contains("is in /opt/cml/runner already"), "{journal}");
    eprintln!("{:?}", Timings::of(&scene.world.events).unwrap());
    scene.end().await;
}

/// Google's own program fetches the start-up data there, from a metadata service that cloud-init reads too.
#[tokio::test]
async fn a_machine_of_googles_lives_its_whole_life() {
    whole_life("a_machine_of_googles_lives_its_whole_life", Kind::Gcp).await;
}

/// There the start-up data comes on a disk, and cloud-init has to tell the cloud that the machine is there.
#[tokio::test]
async fn a_machine_of_azures_lives_its_whole_life() {
    whole_life("a_machine_of_azures_lives_its_whole_life", Kind::Azure).await;
}

async fn whole_life(test: &str, cloud: Kind) {
    let Some(image) = bootable(test) else { return };
    let scene = boots(image, cloud).await;
    let run = scene.job("if curl -sS -m 5 -H 'Metadata: true' -H 'Metadata-Flavor: Google' http://169.254.169.254/; then exit 1; fi");
    scene.launch(&["--job-metadata=false"]).await.succeeded();
    let conclusion = scene.conclusion(run).await;
    scene.all_gone().await;
    assert_eq!(conclusion, "success", "{}\n{}", journal(&scene), scene.timeline());
    scene.end().await;
}

#[tokio::test]
async fn a_job_that_fills_the_disk_is_run_again_when_it_is_interrupted() {
    let Some(plain) = bootable("a_job_that_fills_the_disk_is_run_again_when_it_is_interrupted") else {
        return;
    };
    let disk_mib = Some(600);
    let scene = boots(Image { disk_mib, ..plain }, Kind::Aws).await;
    let gate = scene.world.dir().join("gate");
    let fill = "cat /dev/zero >\"$HOME/all\" 2>/dev/null || :";
    let run = scene.job(&format!("[ -e '{0}' ] || {{ {fill}; }}; {1}", gate.display(), until(&gate)));
    scene.launch(&[]).await.succeeded();
    scene.working().await;
    scene.inside(&scene.first().id, "! echo x >/root/x 2>/dev/null");
    scene.inside(&scene.first().id, "pkill -TERM -x cml-agent");
    scene.runs_again(run, &gate).await;
}
