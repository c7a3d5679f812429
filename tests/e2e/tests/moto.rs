//! The launcher's EC2 path against moto's server, which is not ours: with failures injected in front of it.
//!
//! moto makes no machines, so that every launch ends with a runner that is not online: what counts is what was asked for, and that
//! nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "moto/server.rs"]
mod server;

use e2e::{Outcome, Scene};
use server::{Injection, Moto};

/// Runs a launch against moto; none where it cannot be installed.
async fn launch(injections: Vec<Injection>, more: &[&str]) -> Option<(Outcome, Moto)> {
    let moto = Moto::start(injections).await?;
    let scene = Scene::new().await;
    let mut args = vec!["runner", "--cloud=aws", "--labels=gpu", "--provisioning-timeout=4s"];
    args.extend(more);
    let mut command = scene.world.launcher(&args);
    command.env("AWS_ENDPOINT_URL_EC2", moto.url());
    let outcome = command.output().await.unwrap().into();
    scene.end().await;
    Some((outcome, moto))
}

#[tokio::test]
async fn an_instance_is_what_was_asked_for_and_is_destroyed() {
    let Some((outcome, moto)) = launch(Vec::new(), &["--cloud-spot", "--cloud-metadata=team=ml", "--name=named"]).await else {
        return;
    };
    outcome.failed_with(5, &["hint"]);
    let instances = moto.instances().await;
    assert_eq!(instances.len(), 1, "{instances:#?}");
    let instance = &instances[0];
    assert_eq!(instance["state"], "terminated");
    assert_eq!(instance["instance_initiated_shutdown_behavior"], "terminate");
    assert_eq!(instance["lifecycle"], "spot");
    assert_eq!(instance["image_id"], server::IMAGE);
    let tags = instance["tag_set"].as_array().unwrap();
    for (key, value) in [("Name", "named"), ("team", "ml")] {
        assert!(
            tags.iter().any(|tag| tag["key"] == key && tag["value"] == value),
            "{key}: {tags:#?}"
        );
    }
}

#[tokio::test]
async fn the_next_zone_is_tried_at_once() {
    let refusal = Injection::answer(500, "InsufficientInstanceCapacity");
    let Some((outcome, moto)) = launch(vec![refusal], &[]).await else {
        return;
    };
    outcome.failed_with(5, &[]);
    let asked = moto.launches();
    assert_eq!(asked.len(), 2);
    assert_ne!(asked[0]["SubnetId"], asked[1]["SubnetId"]);
    assert_ne!(asked[0]["ClientToken"], asked[1]["ClientToken"]);
    assert_eq!(moto.live().await, 0);
}

#[tokio::test]
async fn throttling_is_waited_for() {
    let injections = vec![Injection::answer(503, "RequestLimitExceeded"); 2];
    let Some((outcome, moto)) = launch(injections, &["--provisioning-timeout=15s"]).await else {
        return;
    };
    outcome.failed_with(5, &[]);
    let asked = moto.launches();
    assert_eq!(asked.len(), 3);
    assert!(
        asked.iter().all(|form| form["ClientToken"] == asked[0]["ClientToken"]),
        "{asked:#?}"
    );
    assert_eq!((moto.instances().await.len(), moto.live().await), (1, 0));
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let injections = vec![Injection::answer(403, "UnauthorizedOperation")];
    let Some((outcome, moto)) = launch(injections, &[]).await else {
        return;
    };
    outcome.failed_with(3, &["ec2:RunInstances"]);
    assert!(moto.instances().await.is_empty());
}

/// moto does not know client tokens: it makes a second instance for the same one. AWS would not; both are destroyed here.
#[tokio::test]
async fn every_instance_of_a_launch_whose_answer_was_lost_is_destroyed() {
    let Some((_, moto)) = launch(vec![Injection::LoseAnswer], &["--provisioning-timeout=10s"]).await else {
        return;
    };
    let instances = moto.instances().await;
    assert!(!instances.is_empty());
    assert!(
        instances
            .iter()
            .all(|instance| instance["client_token"] == instances[0]["client_token"]),
        "{instances:#?}"
    );
    assert_eq!(moto.live().await, 0);
}
