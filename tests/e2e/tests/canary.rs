//! Every secret of a launch is looked for, wherever a job or a reader of logs could find it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::SystemTime;

use e2e::{Scene, startup_script};
use sandbox::instance::{Isolation, user_data};
use sandbox::world::Options;
use sandbox::{github, standin};

/// A world whose token is nowhere but in it: not even in our own programs and their source.
async fn scene() -> Scene {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let token = format!(
        "ghp_{}",
        &standin::sha256(format!("{now:?} {}", std::process::id()).as_bytes())[..36]
    );
    Scene::with(Options {
        github: github::Options {
            token,
            ..github::Options::default()
        },
        ..Options::default()
    })
    .await
}

/// A script that fails where what its user may read holds a text. It names the text in two halves, so that it does not find itself.
fn search(text: &str) -> String {
    let (head, tail) = text.split_at(text.len() / 2);
    format!(
        "found=$(printf '%s%s' '{head}' '{tail}' | grep -rlsF -f - /etc /home /opt /root /run /tmp /usr/local /var /dev/shm /proc/[0-9]*/environ \
         /proc/[0-9]*/cmdline 2>/dev/null || :)
         echo \"searched as $(id -un)\"
         if [ -n \"$found\" ]; then echo \"found in $found\"; exit 1; fi
         if env | grep -q '{tail}'; then echo 'found in the environment'; exit 1; fi"
    )
}

fn secret(scene: &Scene, name: &str) -> String {
    scene.world.env().into_iter().find(|(known, _)| known == name).unwrap().1
}

#[tokio::test]
async fn a_job_finds_no_secret_on_its_machine_and_no_log_tells_one() {
    if Isolation::best() != Isolation::Overlay {
        e2e::skip(
            "a_job_finds_no_secret_on_its_machine_and_no_log_tells_one",
            "jobs are no other user without root",
        );
        return;
    }
    let scene = scene().await;
    let token = scene.world.github.token().to_owned();
    let aws = secret(&scene, "AWS_SECRET_ACCESS_KEY");
    let run = scene.job(&format!("{}\n{}", search(&token), search(&aws)));
    let launched = scene.launch(&["--log=debug", &startup_script("echo prepared")]).await;
    launched.succeeded();
    assert_eq!(scene.conclusion(run).await, "success", "{}", scene.timeline());
    scene.all_gone().await;
    assert!(scene.timeline().contains("searched as cml"));
    for secret in [&token, &aws] {
        assert!(!scene.timeline().contains(secret), "on the console, or in the job's log");
        assert!(
            !launched.stderr.contains(secret) && !launched.stdout.contains(secret),
            "told by the launcher"
        );
    }
    let requests = scene.world.ec2.requests();
    for (action, form) in &requests {
        assert!(
            form.iter().all(|(name, value)| name == "UserData" || !value.contains(&token)),
            "{action} sends the token in clear"
        );
    }
    let (_, form) = requests.iter().find(|(action, _)| action == "RunInstances").unwrap();
    let data = user_data(&form["UserData"]).unwrap();
    assert!(data.contains(&token), "in this mode the machine needs it");
    assert!(!data.contains(&aws), "no cloud credential goes to the machine");
    scene.end().await;
}

#[tokio::test]
async fn the_search_finds_what_is_there_to_be_found() {
    if Isolation::best() != Isolation::Overlay {
        return;
    }
    let scene = scene().await;
    let token = scene.world.github.token().to_owned();
    let run = scene.job(&search(&token));
    let leak = startup_script(&format!("umask 022; echo '{token}' >/etc/leak"));
    scene.launch(&[&leak]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "failure");
    assert!(scene.timeline().contains("found in /etc/leak"), "{}", scene.timeline());
    scene.end().await;
}

#[tokio::test]
async fn no_argument_of_any_process_is_a_secret() {
    let scene = scene().await;
    let token = scene.world.github.token().to_owned();
    // Root's own look, while the runner is configured and started: config.sh gets its registration token, the agent the forge's.
    let watch = format!(
        "setsid sh -c 'i=0; while [ $i -lt 200 ]; do cat /proc/[0-9]*/cmdline 2>/dev/null; i=$((i + 1)); sleep 0.01; done >{}' >/dev/null 2>&1 &",
        scene.world.dir().join("arguments").display()
    );
    let run = scene.job("sleep 1");
    scene.launch(&[&startup_script(&watch)]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    let seen = std::fs::read(scene.world.dir().join("arguments")).unwrap();
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("Runner.Listener"), "it was looked at the right time");
    assert!(!seen.contains(&token), "the token is an argument");
    assert!(!seen.contains("AREG"), "a registration token is an argument");
    scene.end().await;
}
