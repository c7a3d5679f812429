//! The real machine: instances boot a Debian with systemd and cloud-init, and the agent is a service there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::Duration;

use e2e::{Scene, skip};
use sandbox::world::Options;

/// A world whose instances boot, unless this machine cannot have one.
async fn scene(test: &str) -> Option<Scene> {
    let Some(image) = std::env::var_os("CML_TEST_IMAGE") else {
        skip(test, "needs root, mmdebstrap, systemd-container and dnsmasq-base");
        return None;
    };
    let options = Options {
        image: Some(PathBuf::from(image)),
        ..Options::default()
    };
    Some(Scene::with(options).await)
}

#[tokio::test]
async fn a_machine_lives_its_whole_life() {
    let Some(scene) = scene("a_machine_lives_its_whole_life").await else { return };
    let run = scene.job("id; env; cat /proc/self/cgroup");
    let out = scene.launch(&["--log=debug"]).await;
    eprintln!("{}", scene.timeline());
    out.succeeded();
    assert_eq!(scene.conclusion(run).await, "success");
    scene.end().await;
}
