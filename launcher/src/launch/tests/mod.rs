#![allow(clippy::unwrap_used)]

pub mod servers;
pub mod world;

use std::time::Duration;

use common::error::{Class, Failure, Report};
use common::forge::Removal;
use common::spec::{Credential, Executor, JobMetadata, RunnerSpec};

use super::{LAST_SIGNAL, Outcome};
use crate::cloud::{Instance, Life};
use servers::Fault;
use world::{World, instance, runner};

const INTERRUPT: i32 = 2;

fn class(error: &anyhow::Error) -> Class {
    Report(error).class()
}

fn failure(class: Class) -> impl Fn() -> anyhow::Error {
    move || Failure::new(class, "refused").into()
}

#[tokio::test(start_paused = true)]
async fn a_launch_from_start_to_end() {
    let world = World::new(&["--name=trainer"]);
    let outcome = world.launch().await.unwrap();
    let Outcome::Launched(launched) = outcome else {
        panic!("reused");
    };
    assert_eq!(
        launched.ip.as_deref(),
        Some("192.0.2.7"),
        "the address that the cloud knew only later"
    );
    world.expect(&[
        "check_access",
        "runners trainer",
        "create",
        "runners trainer",
        "runners trainer",
        "find",
    ]);
    let order = world.order();
    let tag = |key: &str| order.tags.get(key).cloned().unwrap_or_default();
    assert_eq!((tag("Name"), tag("cml-runner-name")), ("trainer".into(), "trainer".into()));
    assert_eq!(
        (tag("cml-repo"), tag("cml-launch-id")),
        ("https://github.com/octo/train".into(), order.launch_id.clone())
    );
    assert!(!tag("cml").is_empty() && tag("cml-deadline").ends_with('Z'), "{:?}", order.tags);
    let spec = world.spec();
    assert!(matches!(spec.credential, Credential::Token(token) if token.expose() == "ghp_canary"));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_launch_left_stopped_is_ended_once_the_runner_is_online() {
    let world = World::new(&[]);
    world.other(Instance {
        id: "i-0".into(),
        life: Life::Stopped,
        tags: [("cml-repo".to_owned(), "https://github.com/octo/train".to_owned())].into(),
        ..instance()
    });
    let outcome = world.launch().await.unwrap();
    assert!(matches!(outcome, Outcome::Launched(own) if own.id == "i-1"));
    let calls = world.calls();
    assert_eq!(
        calls.iter().filter(|call| call.starts_with("destroy")).collect::<Vec<_>>(),
        ["destroy i-0"]
    );
    world.fails("destroy", failure(Class::Access));
    world.launch().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn jobs_reach_the_metadata_service_where_the_machine_has_a_role_for_them() {
    for (options, reach) in [
        (&[][..], JobMetadata::None),
        (&["--cloud-permission-set=trainer"], JobMetadata::Role),
        (&["--cloud-permission-set=trainer", "--job-metadata=none"], JobMetadata::None),
        (&["--cloud-permission-set=trainer", "--job-metadata=false"], JobMetadata::None),
        (&["--job-metadata=all"], JobMetadata::All),
    ] {
        let world = World::new(options);
        world.launch().await.unwrap();
        assert_eq!(world.spec().options.job_metadata, Some(reach), "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_may_not_start_containers_run_in_a_shell_and_have_a_place_of_their_own() {
    for (options, executor, private) in [
        (&[][..], Executor::Auto, "PrivateTmp=no"),
        (&["--docker=never"], Executor::Shell, "PrivateTmp=yes"),
        (&["--docker=false"], Executor::Shell, "PrivateTmp=yes"),
    ] {
        let world = World::new(options);
        world.launch().await.unwrap();
        assert_eq!(world.spec().options.executor, executor, "{options:?}");
        assert!(world.order().startup_data.contains(private), "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_made_name_is_not_looked_for() {
    let world = World::new(&[]);
    world.launch().await.unwrap();
    assert_eq!(world.calls()[..2], ["check_access", "create"]);
}

#[tokio::test(start_paused = true)]
async fn a_single_job_that_is_never_run_again_needs_no_token_on_the_machine() {
    let world = World::new(&["--single", "--no-retry", "--name=one"]);
    world.launch().await.unwrap();
    assert!(!world.order().startup_data.contains("ghp_canary"));
    assert!(matches!(world.spec().credential, Credential::Jit(config) if config.expose() == "jit_canary"));
    let options = world.spec().options;
    assert_eq!(
        options.runner_url.as_deref(),
        Some("https://github.test/runner.tar.gz"),
        "its agent cannot ask for it"
    );
    assert!(options.runner_sha256.is_some());
    for options in [["--single", "--name=one"], ["--no-retry", "--name=one"]] {
        let world = World::new(&options);
        world.launch().await.unwrap();
        assert!(matches!(world.spec().credential, Credential::Token(_)), "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_in_use_costs_nothing() {
    let world = World::new(&["--name=trainer"]);
    world.registered(runner("trainer", false));
    let error = world.launch().await.unwrap_err();
    assert_eq!(class(&error), Class::NameInUse);
    world.expect(&["check_access", "runners trainer"]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_there_is_reused() {
    for options in [&["--reuse"][..], &["--reuse-idle"]] {
        let world = World::new(options);
        world.registered(runner("other", true));
        let outcome = world.launch().await.unwrap();
        assert!(matches!(outcome, Outcome::Reused(runner) if runner.name == "other"));
        world.expect(&["check_access", "runners"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_before_the_instance_leaves_nothing_to_remove() {
    let world = World::new(&["--name=trainer"]);
    world.fails("check_access", failure(Class::Access));
    assert_eq!(class(&world.launch().await.unwrap_err()), Class::Access);
    world.expect(&["check_access"]);

    let world = World::new(&["--name=trainer"]);
    world.fails("create", failure(Class::Capacity));
    assert_eq!(class(&world.launch().await.unwrap_err()), Class::Capacity);
    world.expect(&["check_access", "runners trainer", "create", "find"]);
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_registration_made_for_a_machine_that_cannot_be_had_is_deleted() {
    let world = World::new(&["--single", "--no-retry", "--name=one"]);
    world.fails("create", failure(Class::Capacity));
    assert_eq!(class(&world.launch().await.unwrap_err()), Class::Capacity);
    world.expect(&["check_access", "runners one", "enroll", "package", "create", "find", "unregister 7"]);
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_enrolment_is_looked_for() {
    let world = World::new(&["--single", "--no-retry", "--name=one"]);
    world.fails_after("enroll", || anyhow::anyhow!("the answer was lost"));
    world.launch().await.unwrap_err();
    world.expect(&["check_access", "runners one", "enroll", "runners one", "unregister 7"]);
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_launch_took_meanwhile_is_not_ours_to_remove() {
    let world = World::new(&["--single", "--no-retry"]);
    world.registered(runner("cml-made", true));
    world.fails("enroll", failure(Class::NameInUse));
    assert_eq!(class(&world.launch().await.unwrap_err()), Class::NameInUse);
    world.expect(&["check_access", "enroll"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_creation_is_swept() {
    let world = World::new(&["--name=trainer"]);
    world.never_online();
    world.fails_after("create", || anyhow::anyhow!("the answer was lost"));
    // Nor is it listed at once.
    world.hides_instance_for(2);
    let error = world.launch().await.unwrap_err();
    assert_eq!(class(&error), Class::Unexpected);
    assert!(world.is_clean(), "{:?}", world.calls());
    world.expect(&[
        "check_access",
        "runners trainer",
        "create",
        "find",
        "find",
        "find",
        "destroy i-1",
        "runners trainer",
    ]);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_never_comes_online_is_told_of_and_removed() {
    let world = World::new(&["--name=trainer", "--provisioning-timeout=20min"]);
    world.never_online();
    world.console("[ 1.0] cml-phase name=startup-script state=begin after=12 detail=ghp_canary\nbye\n");
    let began = tokio::time::Instant::now();
    let error = world.launch().await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 20 * 60);
    let report = Report(&error).to_string();
    assert_eq!(class(&error), Class::NotOnline, "{report}");
    assert!(
        report.contains("phase `startup-script` had begun: ****") && report.contains("1200 s"),
        "{report}"
    );
    assert!(world.is_clean());
    assert!(world.calls().len() < 250, "{} requests", world.calls().len());
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_gives_up_is_not_waited_for() {
    let world = World::new(&["--name=trainer", "--provisioning-timeout=20min"]);
    world.never_online();
    world.console("[ 1.0] cml-phase name=startup-script state=fail after=12 detail=exit status 7 ghp_canary\nbye\n");
    let began = tokio::time::Instant::now();
    let error = world.launch().await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 30, "the first look at the console");
    let report = Report(&error).to_string();
    assert_eq!(class(&error), Class::NotOnline, "{report}");
    assert!(report.contains("phase `startup-script` failed: exit status 7 ****"), "{report}");
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_ends_in_the_creation_is_kept() {
    let world = World::new(&["--name=trainer"]);
    world.hangs("create");
    let error = world.launch().await.unwrap_err();
    assert_eq!(class(&error), Class::NotOnline);
    assert!(Report(&error).to_string().contains("creating the instance"), "{error:#}");
    assert!(world.is_clean());
}

#[tokio::test(start_paused = true)]
async fn the_death_of_the_instance_is_noticed_long_before_the_budget_ends() {
    let world = World::new(&["--name=trainer"]);
    world.never_online();
    world.dies("terminated: Server.SpotInstanceTermination");
    let began = tokio::time::Instant::now();
    let error = world.launch().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    assert!(format!("{error:#}").contains("Server.SpotInstanceTermination"), "{error:#}");
    assert_eq!(class(&error), Class::NotOnline);
}

#[tokio::test(start_paused = true)]
async fn a_single_job_may_be_over_before_anybody_looks() {
    let world = World::new(&["--name=trainer", "--single"]);
    world.never_online();
    world.dies("terminated");
    world.console("cml-phase name=online state=ok after=30\n");
    world.launch().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn passing_troubles_of_the_forge_and_the_cloud_do_not_end_a_launch() {
    let world = World::new(&["--name=trainer"]);
    world.online_after(Duration::from_mins(2));
    world.fails_from("runners", 2..5, || anyhow::anyhow!("502"));
    world.fails_from("find", 0..2, || anyhow::anyhow!("throttled"));
    world.launch().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_meanwhile_ends_it() {
    let world = World::new(&["--name=trainer"]);
    world.never_online();
    world.fails_from("runners", 3..4, failure(Class::Access));
    assert_eq!(class(&world.launch().await.unwrap_err()), Class::Access);
    assert!(world.is_clean());
}

/// In every step: while it is asked, before it has any effect, and after it had, before its answer came.
#[tokio::test(start_paused = true)]
async fn a_signal_at_any_moment_leaves_nothing() {
    for step in ["check_access", "runners", "enroll", "package", "create", "find"] {
        for fault in [Fault::Hang, Fault::HangAfter] {
            let world = World::new(&["--name=one", "--single", "--no-retry"]);
            if step == "find" {
                world.never_online();
            }
            world.on(step, fault);
            let error = world.interrupted_at(step, INTERRUPT).await;
            assert_eq!(class(&error).exit_code(), 130, "{step}: {error:#}");
            assert!(world.is_clean(), "{step}: {:?}", world.calls());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_does_not_stop_the_destruction() {
    let world = World::new(&["--name=trainer"]);
    world.never_online();
    world.fails_from("destroy", 0..3, || anyhow::anyhow!("throttled"));
    let error = world.signalled_from("destroy", LAST_SIGNAL - 1).await;
    assert!(world.is_clean(), "{error:#}");
}

#[tokio::test(start_paused = true)]
async fn a_third_signal_ends_it_and_says_what_may_be_left() {
    let world = World::new(&["--name=trainer"]);
    world.never_online();
    world.on("destroy", Fault::Hang);
    let error = world.signalled_from("destroy", LAST_SIGNAL).await;
    assert!(!world.is_clean());
    assert!(format!("{error:#}").contains("cml-launch-id=cml-"), "{error:#}");
    assert_eq!(class(&error), Class::Signal(INTERRUPT));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_is_named_with_the_command_that_does() {
    let world = World::new(&["--name=trainer"]);
    world.never_online();
    world.fails("destroy", || anyhow::anyhow!("the service is down"));
    let error = world.launch().await.unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("aws ec2 terminate-instances --region us-west-1 --instance-ids i-1"),
        "{text}"
    );
    assert_eq!(class(&error), Class::NotOnline);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_busy_is_left_to_the_forge_and_told_of() {
    let world = World::new(&["--name=trainer"]);
    world.never_online();
    world.registers_as(runner("trainer", false), Removal::Busy("it runs a job".into()));
    let error = world.launch().await.unwrap_err();
    assert!(format!("{error:#}").contains("it runs a job"), "{error:#}");
    assert!(world.calls().contains(&"destroy i-1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_plan_shows_everything_but_secrets_and_writes_nothing() {
    let world = World::new(&["--name=one", "--single", "--no-retry", "--cloud-startup-script=ZWNobyBjYW5hcnkK"]);
    let plan = world.plan().await.unwrap();
    world.expect(&["plan"]);
    assert!(plan.contains("RunInstances") && plan.contains("cml-agent"), "{plan}");
    assert!(
        !plan.contains("canary") && !plan.contains("ZWNobyBjYW5hcnkK") && plan.contains("****"),
        "{plan}"
    );
}

#[test]
fn no_limit_at_all_is_refused() {
    let world = World::prepared(&["--provisioning-timeout=never"]);
    assert_eq!(class(&world.err().unwrap()), Class::Usage);
}

#[tokio::test(start_paused = true)]
async fn the_spec_is_what_the_agent_reads() {
    let world = World::new(&["--name=trainer", "--labels=a'b,c", "--idle-timeout=90"]);
    world.launch().await.unwrap();
    let RunnerSpec { name, options, .. } = world.spec();
    assert_eq!((name.as_str(), options.labels), ("trainer", vec!["a'b".to_owned(), "c".to_owned()]));
    assert_eq!(instance().id, "i-1");
}
