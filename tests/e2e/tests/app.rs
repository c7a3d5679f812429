//! The launcher as a GitHub App: what it has made, what it gives to a machine, and what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use e2e::{Outcome, Scene, until};
use sandbox::cloud;
use sandbox::forge::Kind;
use sandbox::github::app::{self, CLIENT_ID, KEY, NUMBER};
use sandbox::github::{self};
use sandbox::world::Options;
use tokio::process::Child;

/// What names the App in a command's environment.
const ID: &str = "CML_RUNNER_APP_ID";
const PRIVATE_KEY: &str = "CML_RUNNER_APP_PRIVATE_KEY";

/// A world whose App is set up like this.
async fn scene(app: app::Options) -> Scene {
    let forge = github::Options {
        app,
        ..github::Options::default()
    };
    Scene::with(Options {
        forge: forge.into(),
        ..Options::default()
    })
    .await
}

/// A command with the App, and no token.
fn command<S: AsRef<str>>(scene: &Scene, args: &[S]) -> tokio::process::Command {
    let mut command = scene
        .world
        .launcher(&std::iter::once("runner").chain(args.iter().map(AsRef::as_ref)).collect::<Vec<_>>());
    command.env_remove("REPO_TOKEN").env(ID, CLIENT_ID).env(PRIVATE_KEY, KEY);
    command
}

fn start(command: &mut tokio::process::Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().expect("the launcher starts")
}

async fn run(command: &mut tokio::process::Command) -> Outcome {
    Scene::finish(start(command)).await
}

/// The options of a launch.
const LAUNCH: [&str; 4] = ["--labels=gpu", "--idle-timeout=10s", "--provisioning-timeout=40s", "--log=debug"];

async fn launch(scene: &Scene, more: &[&str]) -> Outcome {
    run(&mut command(scene, &line(scene, more))).await
}

/// The command line of a launch on the world's cloud.
fn line(scene: &Scene, more: &[&str]) -> Vec<String> {
    let own = scene.world.cloud.kind().options();
    let words = own.iter().chain(&LAUNCH).chain(more).map(|word| (*word).to_owned());
    std::iter::once(scene.cloud()).chain(words).collect()
}

/// What of the key must be seen nowhere: a line of it.
fn key() -> &'static str {
    KEY.lines().nth(3).unwrap()
}

/// The requests that are only an App's.
fn asked(scene: &Scene) -> Vec<String> {
    let requests = scene.world.forge.requests().into_iter();
    let own = requests.filter(|request| request.path.starts_with("/app/") || request.path.ends_with("/installation"));
    own.map(|request| format!("{} {} {}", request.status, request.method, request.path))
        .collect()
}

fn grants(name: &str) -> BTreeMap<String, String> {
    app::grants(&[name])
}

/// The machine of `page` does its job, with a token for `permission` in `repositories` at its launcher, and none on it.
async fn does_its_job(page: &str, repositories: &[&str], permission: &str, no_retry: &[&str]) {
    let scene = scene(app::Options::default()).await;
    let repo = format!("--repo={}/{page}", scene.world.forge.url());
    let run = scene.job("echo done");
    let launched = launch(&scene, &[&["--single", &repo], no_retry].concat()).await;
    launched.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    let minted = scene.world.github().minted();
    assert_eq!(minted.len(), 1, "{minted:?}");
    assert_eq!(
        (&minted[0].repositories[..], &minted[0].permissions),
        (
            &repositories.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..],
            &grants(permission)
        )
    );
    let data = scene.world.fleet.script(&scene.first().id).unwrap();
    for (secret, what) in [(key(), "the key"), (minted[0].token.as_str(), "the token"), (CLIENT_ID, "the App")] {
        assert!(!data.contains(secret), "{what} is on the machine");
    }
    for secret in [key(), &minted[0].token] {
        assert!(
            !launched.stderr.contains(secret) && !launched.stdout.contains(secret),
            "{}",
            launched.stderr
        );
        assert!(!scene.timeline().contains(secret));
    }
    assert!(
        scene.world.forge.requests().iter().all(|request| !request.from_agent()),
        "its agent has no token"
    );
    scene.end().await;
}

#[tokio::test]
async fn a_machine_of_a_repository_does_its_job_without_a_token() {
    does_its_job("octo/train", &["train"], "administration", &["--no-retry"]).await;
}

#[tokio::test]
async fn a_machine_of_an_organisation_does_its_job_without_a_token() {
    does_its_job("octo", &[], "organization_self_hosted_runners", &[]).await;
}

#[tokio::test]
async fn the_key_may_be_a_file_and_the_app_its_number() {
    let scene = scene(app::Options::default()).await;
    let file = scene.world.dir().join("app.pem");
    std::fs::write(&file, KEY).unwrap();
    let (number, file) = (format!("--app-id={NUMBER}"), format!("--app-private-key={}", file.display()));
    let args = line(&scene, &["--single", &number, &file]);
    let run = scene.job("true");
    // A token of the surroundings is not taken.
    let child = start(
        command(&scene, &args)
            .env("REPO_TOKEN", "stale")
            .env_remove(ID)
            .env_remove(PRIVATE_KEY),
    );
    Scene::finish(child).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn an_interrupted_job_is_left_to_who_cleans_up_with_a_token_for_that_alone() {
    is_left_to_who_cleans_up(cloud::Kind::Aws, "octo/train").await;
    is_left_to_who_cleans_up(cloud::Kind::Aws, "octo").await;
}

#[tokio::test]
async fn so_it_is_where_the_console_goes_with_the_machine_or_is_a_pod_s_log() {
    is_left_to_who_cleans_up(cloud::Kind::Azure, "octo/train").await;
    is_left_to_who_cleans_up(cloud::Kind::Kubernetes, "octo/train").await;
}

async fn is_left_to_who_cleans_up(cloud: cloud::Kind, page: &str) {
    let scene = Scene::over(cloud).await;
    let repo = format!("--repo={}/{page}", scene.world.forge.url());
    let gate = scene.world.dir().join("gate");
    let queued = scene.job(&until(&gate));
    let spot = [cloud.spot(), &["--single", &repo]].concat();
    launch(&scene, &spot).await.succeeded();
    scene.working().await;
    scene.take_back(Duration::from_secs(8));
    scene
        .event_where("the machine's end", |event| {
            ["instance-terminated", "instance-stopped"].contains(&event.what)
        })
        .await;
    assert_eq!(scene.world.forge.run(queued).unwrap().attempt, 1);
    let reap = async || run(&mut command(&scene, &["reap", &scene.cloud(), &repo])).await;
    let reaped = reap().await;
    reaped.succeeded();
    assert!(reaped.stdout.contains("runs again"), "{reaped:#?}");
    assert_eq!(scene.world.forge.run(queued).unwrap().attempt, 2);
    let minted = scene.world.github().minted();
    let last = minted.last().unwrap();
    assert_eq!(
        (&last.repositories[..], &last.permissions),
        (&["train".to_owned()][..], &grants("actions"))
    );
    assert!(!reap().await.stdout.contains("runs again"), "once");
    std::fs::write(&gate, "").unwrap();
    launch(&scene, &["--single", "--no-retry", &repo]).await.succeeded();
    assert_eq!(scene.conclusion(queued).await, "success");
    scene.end().await;
}

#[tokio::test]
async fn a_token_is_made_anew_before_it_ends() {
    let scene = scene(app::Options {
        // Shorter than what a token must have left.
        token_life: Duration::from_mins(5),
        ..app::Options::default()
    })
    .await;
    let run = scene.job("true");
    launch(&scene, &["--single", "--name=one"]).await.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    assert!(scene.world.github().minted().len() > 2, "one for each question");
    scene.end().await;
}

#[tokio::test]
async fn machines_are_listed_read_and_reused_with_the_app_too() {
    let scene = scene(app::Options::default()).await;
    launch(&scene, &["--single", "--name=one", "--idle-timeout=never"])
        .await
        .succeeded();
    for (words, says) in [
        (&["list"][..], "one"),
        (&["logs", "one"], "cml-phase name=online"),
        (&["reap"], "nothing to clean up"),
    ] {
        let outcome = run(&mut command(&scene, &[words, &["--cloud=aws"]].concat())).await;
        outcome.succeeded();
        assert!(outcome.stdout.contains(says), "{outcome:#?}");
    }
    let reused = launch(&scene, &["--reuse"]).await;
    reused.succeeded();
    assert!(reused.stderr.contains("Reusing existing"), "{}", reused.stderr);
    let none = launch(&scene, &["--reuse", "--labels=other"]).await;
    none.failed_with(2, &["for more than one job", "--single"]);
    assert_eq!(scene.world.fleet.instances().len(), 1);
    run(&mut command(&scene, &["terminate", "one", "--cloud=aws"])).await.succeeded();
    scene.end().await;
}

#[tokio::test]
async fn a_dry_run_asks_for_no_token_and_shows_no_key() {
    let scene = scene(app::Options::default()).await;
    let outcome = launch(&scene, &["--single", "--dry-run"]).await;
    outcome.succeeded();
    assert!(outcome.stdout.contains("RunInstances"), "{}", outcome.stdout);
    assert!(!(outcome.stdout + &outcome.stderr).contains(key()));
    assert!(scene.world.forge.requests().is_empty());
    scene.end().await;
}

#[tokio::test]
async fn what_outlives_a_token_is_refused_before_anything_is_asked() {
    let scene = scene(app::Options::default()).await;
    let export = format!("--export={}", scene.world.dir().join("installation").display());
    let pem = format!("--app-private-key={KEY}");
    let enterprise = format!("--repo={}/enterprises/acme", scene.world.forge.url());
    for (args, says) in [
        (
            &["--cloud=aws"][..],
            &["a machine for more than one job", "`--single`", "REPO_TOKEN"][..],
        ),
        (
            &["--cloud=aws", "--no-retry"],
            &["a machine for more than one job", "after an hour"],
        ),
        (&["--labels=gpu"], &["a runner on this host", "REPO_TOKEN"]),
        (&["--single", "--no-retry"], &["a runner on this host"]),
        (&["--single", "--dry-run"], &["a runner on this host"]),
        (&[&export], &["a service of this host", "REPO_TOKEN"]),
        (&["--cloud=aws", "--single", "--token=x"], &[ID, "`--token` cannot be used with"]),
        (
            &["--cloud=aws", "--single", "--token-file=x"],
            &[ID, "`--token-file` cannot be used with"],
        ),
        (
            &["--cloud=aws", "--single", &pem],
            &["`--app-private-key` holds the key itself", PRIVATE_KEY],
        ),
        (
            &["--cloud=aws", "--single", "--app-private-key=nowhere.pem"],
            &["the file that `--app-private-key` names", "hint"],
        ),
        (
            &["--cloud=aws", "--single", &enterprise],
            &["enterprise `acme`", "manage_runners:enterprise"],
        ),
    ] {
        let outcome = run(&mut command(&scene, args)).await;
        outcome.failed_with(2, says);
        assert!(!outcome.stderr.contains(key()), "{}", outcome.stderr);
    }
    for (missing, given) in [(ID, PRIVATE_KEY), (PRIVATE_KEY, ID)] {
        let child = start(command(&scene, &["--cloud=aws", "--single"]).env_remove(missing));
        Scene::finish(child)
            .await
            .failed_with(2, &[&format!("`{given}` is given without"), "hint"]);
    }
    let garbled = KEY.replace('\n', "");
    let child = start(command(&scene, &["--cloud=aws", "--single"]).env(PRIVATE_KEY, garbled));
    let outcome = Scene::finish(child).await;
    outcome.failed_with(2, &[PRIVATE_KEY, "is no RSA private key"]);
    assert!(!outcome.stderr.contains(key()));
    assert!(scene.world.forge.requests().is_empty() && scene.world.fleet.instances().is_empty());
    scene.end().await;
}

#[tokio::test]
async fn other_forges_have_no_apps() {
    for forge in [Kind::GitLab, Kind::Bitbucket] {
        let scene = Scene::on(forge).await;
        let outcome = launch(&scene, &["--single"]).await;
        outcome.failed_with(2, &[ID, "is not supported with", "--driver=github"]);
        assert!(scene.world.forge.requests().is_empty());
        scene.end().await;
    }
}

#[tokio::test]
async fn an_app_that_may_not_is_told_what_to_change_and_costs_nothing() {
    let default = app::Options::default;
    for (app, id, says) in [
        (
            app::Options {
                installed: false,
                ..default()
            },
            CLIENT_ID,
            ["is not installed on the repository `octo/train`", "Install App"],
        ),
        (
            app::Options {
                suspended: true,
                ..default()
            },
            CLIENT_ID,
            ["is suspended", "/settings/installations/314"],
        ),
        (
            app::Options {
                permissions: app::grants(&["actions"]),
                ..default()
            },
            CLIENT_ID,
            ["lacks the permission `administration: write`", "Administration: Read and write"],
        ),
        (
            app::Options {
                permissions: [("administration".into(), "read".into())].into(),
                ..default()
            },
            CLIENT_ID,
            ["lacks the permission `administration: write`", "/settings/installations/314"],
        ),
        (default(), "Iv1.another", ["Integration not found", "`--app-id`"]),
    ] {
        let scene = scene(app).await;
        let child = start(command(&scene, &line(&scene, &["--single"])).env(ID, id));
        Scene::finish(child).await.failed_with(3, &[&says[..], &["hint"]].concat());
        assert_eq!(asked(&scene).len(), 1, "{:?}", asked(&scene));
        assert!(scene.world.fleet.instances().is_empty() && scene.world.github().minted().is_empty());
        scene.end().await;
    }
}

#[tokio::test]
async fn a_refusal_of_github_s_own_is_told_in_its_words() {
    let scene = scene(app::Options::default()).await;
    let faults = scene.world.forge.faults();
    for (request, status, words, says) in [
        (
            "GET /repos/*/installation",
            401,
            "'Expiration time' claim ('exp') is too far in the future",
            "clock",
        ),
        (
            "POST /app/installations/*",
            422,
            "There is at least one repository that does not exist",
            "/settings/installations/",
        ),
    ] {
        faults.clear();
        faults.answer(request, 1, status, &format!(r#"{{"message":"{words}"}}"#));
        launch(&scene, &["--single"]).await.failed_with(3, &[words, says, "hint"]);
    }
    assert!(scene.world.fleet.instances().is_empty());
    scene.end().await;
}
