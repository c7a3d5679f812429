//! `cml-agent install`, `status` and `uninstall` where systemd does not run. What systemd does with a runner is for a machine that has one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Stdio;
use std::time::Duration;

use e2e::{Outcome, PATIENCE, Scene};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

async fn ended(child: Child) -> Outcome {
    Scene::finish(child).await
}

/// `cml-agent` in the world, with a root of its own: there is no systemd below it.
fn agent(scene: &Scene, args: &[&str]) -> Child {
    let env = scene.world.env();
    let path = &env.iter().find(|(name, _)| name == "PATH").unwrap().1;
    let program = std::env::split_paths(path)
        .map(|dir| dir.join("cml-agent"))
        .find(|file| file.is_file());
    let mut command = tokio::process::Command::new(program.unwrap());
    command
        .args(args)
        .env_clear()
        .envs(env)
        .env("CML_ROOT", scene.world.dir().join("root"));
    command.current_dir(scene.world.dir()).stdin(Stdio::null());
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// What `cml-agent status` says.
async fn status(scene: &Scene) -> (Option<i32>, String) {
    let outcome = ended(agent(scene, &["status"])).await;
    (outcome.code, outcome.stdout)
}

/// Starts a runner, and waits until its agent knows that it is online.
async fn install(scene: &Scene) -> Child {
    let runner = agent(scene, &["install", "--labels=gpu", "--name=here"]);
    let online = async {
        while status(scene).await.0 != Some(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, online).await.expect("the runner is online");
    runner
}

#[tokio::test]
async fn without_systemd_an_installed_runner_runs_in_the_foreground_and_is_removed_with_all_that_it_made() {
    let scene = Scene::new().await;
    assert_eq!(status(&scene).await, (Some(4), "no runner is installed on this host\n".into()));
    let runner = install(&scene).await;
    let (code, said) = status(&scene).await;
    assert!(
        code == Some(0) && said.contains("here: online, idle since ") && said.contains("labels gpu"),
        "{said}"
    );
    signal(&runner, Signal::SIGHUP);
    let outcome = ended(runner).await;
    outcome.succeeded();
    assert!(outcome.stdout.contains("in the foreground"), "{outcome:?}");
    let (code, said) = status(&scene).await;
    assert!(
        code == Some(3) && said.contains("here: not running since ") && said.contains("(drained)"),
        "{said}"
    );

    // What still runs is told to stop.
    let again = install(&scene).await;
    let removed = ended(agent(&scene, &["uninstall"])).await;
    removed.succeeded();
    assert!(!removed.stdout.contains("may still be in the forge"), "{removed:?}");
    ended(again).await.succeeded();
    assert_eq!(status(&scene).await.0, Some(4));
    for left in ["etc/cml", "var/lib/cml"] {
        assert!(!scene.world.dir().join("root").join(left).exists(), "{left}");
    }
    scene.end().await;
}

#[tokio::test]
async fn what_a_killed_agent_left_is_removed_with_its_registration() {
    let scene = Scene::new().await;
    let runner = install(&scene).await;
    signal(&runner, Signal::SIGKILL);
    ended(runner).await;
    ended(agent(&scene, &["uninstall", "--name=here"])).await.succeeded();
    scene.event("runner-removed").await;
    assert!(!scene.world.dir().join("root/var/lib/cml").exists());
    scene.end().await;
}

#[tokio::test]
async fn options_and_tokens_that_are_refused_install_nothing() {
    let scene = Scene::new().await;
    let refused = |args: &'static [&'static str]| ended(agent(&scene, args));
    let idle = refused(&["install", "--idle-timeout=5m"]).await;
    idle.failed_with(2, &["--idle-timeout", "has no place here"]);
    refused(&["install", "--cloud=aws"])
        .await
        .failed_with(2, &["--cloud", "has no place here"]);
    refused(&["install", "--lables=x"])
        .await
        .failed_with(2, &["did you mean `--labels`?"]);
    std::fs::write(scene.world.dir().join("token"), "wrong\n").unwrap();
    let token = refused(&["install", "--token-file=token"]).await;
    token.failed_with(3, &["refused the token"]);
    assert!(!token.stderr.contains("wrong"), "{token:?}");
    refused(&["uninstall"]).await.failed_with(2, &["no runner is installed"]);
    assert_eq!(status(&scene).await.0, Some(4));
    scene.end().await;
}
