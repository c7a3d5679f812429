//! A world as a whole, without a launcher: what is around its commands.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod wire;

use sandbox::ci::{JobSpec, Workflow};
use sandbox::world::{Options, World};
use wire::{PATIENCE, request};

/// A world whose programs are not needed.
async fn world() -> World {
    let any = std::env::current_exe().ok();
    let options = Options {
        launcher: any.clone(),
        agent: any,
        ..Options::default()
    };
    World::start(options).await.unwrap()
}

#[tokio::test]
async fn its_proxy_lets_nothing_out() {
    let world = world().await;
    let (status, _) = request("CONNECT", world.nowhere(), &[], "").await.unwrap();
    assert_eq!(status, 502);
    let (status, _) = request("GET", &format!("{}/somewhere", world.nowhere()), &[], "").await.unwrap();
    assert_eq!(status, 502);
    assert_eq!(world.events.count("outside-refused"), 2);
    assert!(world.close().await.is_empty());
}

#[tokio::test]
async fn it_says_what_is_left_and_leaves_nothing() {
    let world = world().await;
    let dir = world.dir().to_owned();
    let job = JobSpec {
        key: "stay".into(),
        name: "stay".into(),
        needs: Vec::new(),
        labels: vec!["ubuntu-latest".into()],
        script: "sleep 1000".into(),
        env: Vec::new(),
        timeout: None,
    };
    world.forge.start_run(Workflow {
        name: "ci".into(),
        jobs: vec![job],
    });
    let sleeps = || {
        sandbox::instance::processes(&dir)
            .iter()
            .any(|(_, command)| command == "sleep 1000")
    };
    let started = async {
        while !sleeps() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("the job starts");
    let leftovers = world.close().await;
    assert!(
        leftovers.processes.iter().any(|process| process.ends_with("sleep 1000")),
        "{leftovers:?}"
    );
    assert!(!sleeps());
    assert!(!dir.exists());
}
