//! The stand-in runner's configuration, by its own scripts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hub;

use hub::Hub;
use hub::machine::{Machine, settings, token};

#[tokio::test]
async fn it_is_configured_as_the_real_one_is() {
    let hub = Hub::new().await;
    let machine = Machine::new(&hub.github).await;
    let output = machine.configure(&hub, "r", &["--ephemral"]).await;
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    for line in ["√ Connected to GitHub", "√ Runner successfully added", "√ Settings Saved."] {
        assert!(out.lines().any(|one| one == line), "{out}");
    }
    assert!(err.contains("Unrecognized command-line input arguments"), "{err}");
    let runner = hub.github.runners().remove(0);
    assert_eq!(runner.labels, ["self-hosted", "Linux", sandbox::standin::ARCH, "gpu"]);
    assert!(!runner.ephemeral, "a misspelt option makes no difference");
    assert_eq!(settings(&machine.root())["agentId"], runner.id);
    assert_eq!(
        std::fs::read_to_string(machine.root().join(".path")).unwrap().trim(),
        std::env::var("PATH").unwrap()
    );

    let again = machine.configure(&hub, "other", &[]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("already configured"));
}

#[tokio::test]
async fn a_name_in_use_is_refused_unless_it_is_to_be_replaced() {
    let hub = Hub::new().await;
    let _first = Machine::configured(&hub, "r", &[]).await;
    let second = Machine::new(&hub.github).await;
    let refused = second.configure(&hub, "r", &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("A runner exists with the same name r.")
    );
    let id = hub.github.runners()[0].id;
    let replaced = second.configure(&hub, "r", &["--replace"]).await;
    assert!(
        String::from_utf8(replaced.stdout)
            .unwrap()
            .contains("√ Successfully replaced the runner")
    );
    assert_eq!(settings(&second.root())["agentId"], id);
}

#[tokio::test]
async fn wrong_tokens_register_nothing() {
    let hub = Hub::new().await;
    let machine = Machine::new(&hub.github).await;
    let remove = token(&hub, "remove-token").await;
    for token in ["nonsense", &remove] {
        let args = ["--unattended", "--url", &hub.github.repo_url(), "--name", "r"];
        let mut command = machine.command("config.sh", &args);
        let output = command.env("ACTIONS_RUNNER_INPUT_TOKEN", token).output().await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("404"));
    }
    assert!(hub.github.runners().is_empty());
}

#[tokio::test]
async fn an_idle_runner_is_removed_by_its_own_script() {
    let hub = Hub::new().await;
    let machine = Machine::configured(&hub, "r", &[]).await;
    let remove = token(&hub, "remove-token").await;
    let output = machine
        .command("config.sh", &["remove", "--token", &remove])
        .output()
        .await
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    for line in ["√ Runner removed successfully", "√ Removed .credentials", "√ Removed .runner"] {
        assert!(out.lines().any(|one| one == line), "{out}");
    }
    assert!(hub.github.runners().is_empty());
}

#[tokio::test]
async fn scripts_refuse_root_unless_it_is_allowed() {
    if !nix::unistd::Uid::effective().is_root() {
        return skip("scripts_refuse_root_unless_it_is_allowed", "only root is refused");
    }
    let hub = Hub::new().await;
    let machine = Machine::new(&hub.github).await;
    for (script, words, code) in [
        ("config.sh", "Must not run with sudo", 1),
        ("run.sh", "Must not run interactively with sudo", 0),
    ] {
        let output = machine
            .command(script, &[])
            .env_remove("RUNNER_ALLOW_RUNASROOT")
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(words));
    }
}

/// Notes that a test could not be done here.
fn skip(name: &str, reason: &str) {
    use std::io::Write as _;
    println!("skipped: {name}: {reason}");
    if let Some(path) = std::env::var_os("CML_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{name}: {reason}").unwrap();
    }
}
