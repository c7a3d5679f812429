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
    let outcome = run(&scene, &moto, more).await;
    scene.end().await;
    Some((outcome, moto))
}

/// Runs a launch in a world whose EC2 is moto.
async fn run(scene: &Scene, moto: &Moto, more: &[&str]) -> Outcome {
    let mut args = vec!["runner", "--cloud=aws", "--labels=gpu", "--provisioning-timeout=4s"];
    args.extend(more);
    let mut command = scene.world.launcher(&args);
    command.env("AWS_ENDPOINT_URL_EC2", moto.url());
    command.output().await.unwrap().into()
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
    let asked = moto.launches();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1], "EC2 refuses the same token with other parameters");
    let instances = moto.instances().await;
    assert_eq!(instances.len(), 2, "{instances:#?}");
    assert!(
        instances
            .iter()
            .all(|instance| instance["client_token"] == instances[0]["client_token"]),
        "{instances:#?}"
    );
    assert_eq!(moto.live().await, 0);
}

#[tokio::test]
async fn a_type_that_the_region_does_not_have_is_passed_over_in_every_zone() {
    let refusal = sandbox::ec2::error("InvalidParameterValue", "Invalid value 'm7i.2xlarge' for InstanceType.");
    let Some((_, moto)) = launch(vec![Injection::Answer(400, refusal)], &[]).await else {
        return;
    };
    let kinds: Vec<String> = moto.launches().iter().map(|launch| launch["InstanceType"].clone()).collect();
    assert_eq!(kinds, ["m7i.2xlarge", "m6i.2xlarge"]);
    assert_eq!(moto.live().await, 0);
}

#[tokio::test]
async fn a_refusal_is_not_tried_again_and_says_what_is_missing() {
    let denied = "You are not authorized to perform this operation. User: arn:aws:iam::1:user/ci is not authorized to perform: \
                  iam:PassRole on resource: arn:aws:iam::1:role/r because no identity-based policy allows the iam:PassRole action.";
    for (status, code, message, exit, says) in [
        (403, "UnauthorizedOperation", denied, 3, "grant iam:PassRole"),
        (401, "AuthFailure", "AWS was not able to validate them", 3, "credentials"),
        (
            400,
            "VcpuLimitExceeded",
            "more than your current limit",
            4,
            "Running On-Demand Standard",
        ),
    ] {
        let refusal = Injection::Answer(status, sandbox::ec2::error(code, message));
        let Some((outcome, moto)) = launch(vec![refusal], &[]).await else {
            return;
        };
        outcome.failed_with(exit, &[code, says]);
        assert_eq!((moto.launches().len(), moto.instances().await.len()), (1, 0), "{code}");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let Some(moto) = Moto::start(Vec::new()).await else {
        return;
    };
    let scene = Scene::new().await;
    for (option, says) in [
        ("--cloud-image=ami-00000000000000fff", "ami-00000000000000fff"),
        ("--cloud-image=099720109477/windows-*", "windows-*"),
        ("--cloud-image=ami-00000000000000b01", "arm64"),
        ("--cloud-aws-subnet=subnet-00000000", "subnet-00000000"),
        ("--cloud-aws-security-group=nobody", "nobody"),
        ("--cloud-type=t9.micro", "t9.micro"),
        ("--cloud-region=us-west-1z", "us-west-1z"),
    ] {
        run(&scene, &moto, &[option]).await.failed_with(2, &[says]);
    }
    assert!(moto.instances().await.is_empty());
    scene.end().await;
}

#[tokio::test]
async fn a_dry_run_reads_what_a_launch_would_use() {
    let Some(moto) = Moto::start(Vec::new()).await else {
        return;
    };
    let scene = Scene::new().await;
    let of_amazon = [
        "--cloud-image=137112412989/al2023-*",
        "--cloud-hdd-size=50",
        "--cloud-permission-set=ci",
    ];
    for (options, texts) in [
        (
            &["--cloud-aws-security-group=default"][..],
            [server::IMAGE, "35 GB on /dev/sda1", "groups [sg-"],
        ),
        (&["--cloud-type=m7g.large"], [server::ARM64, "m7g.large", "groups []"]),
        (&of_amazon, [server::XVDA, "50 GB on /dev/xvda", "profile ci"]),
    ] {
        let outcome = run(&scene, &moto, &[&["--dry-run"], options].concat()).await;
        outcome.succeeded();
        for text in texts {
            assert!(outcome.stdout.contains(text), "`{text}` is missing in:\n{}", outcome.stdout);
        }
    }
    assert!(moto.launches().is_empty());
    scene.end().await;
}

#[tokio::test]
async fn the_machine_of_a_launcher_that_was_killed_is_found_and_terminated_by_its_name() {
    let Some(moto) = Moto::start(Vec::new()).await else {
        return;
    };
    let scene = Scene::new().await;
    let cml = |words: &[&str]| {
        let mut command = scene.world.launcher(words);
        command.env("AWS_ENDPOINT_URL_EC2", moto.url()).kill_on_drop(true);
        command
    };
    let mut launcher = cml(&["runner", "--cloud=aws", "--name=lost"]).spawn().unwrap();
    while moto.live().await == 0 {
        assert!(launcher.try_wait().unwrap().is_none(), "the launcher ended without a machine");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    launcher.kill().await.unwrap();
    let list: Outcome = cml(&["runner", "list", "--cloud=aws"]).output().await.unwrap().into();
    list.succeeded();
    assert!(list.stdout.contains("lost") && list.stdout.contains("none"), "{}", list.stdout);
    let ended: Outcome = cml(&["runner", "terminate", "lost", "--cloud=aws"]).output().await.unwrap().into();
    ended.succeeded();
    assert_eq!(moto.live().await, 0, "{}", ended.stdout);
    scene.end().await;
}
