//! Running an interrupted job of GitLab again, against scripted servers: every branch of the rules, and how often GitLab is asked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::time::Duration;

use common::error::{Class, Report};
use common::forge::{Declined, Interrupted, Rerun, RerunOutcome, RerunScope};
use scripted::pipeline::{API, NOT_RETRYABLE, PROJECT, World, executions, impatient, job, launched_by, made, of, ours, request, states};
use scripted::{Reply, answer, empty, refused};
use serde_json::json;

const OURS: RerunOutcome = RerunOutcome::Requested(RerunScope::FailedJobs);
const WITH_LAUNCH: RerunOutcome = RerunOutcome::Requested(RerunScope::LaunchJob);

async fn assert_declined(world: &World, request: &Rerun, why: Declined) {
    assert_eq!(world.rerun(request).await.unwrap(), RerunOutcome::Declined(why));
    assert_eq!(world.posts(), [""; 0]);
}

#[tokio::test]
async fn only_the_interrupted_job_of_a_pipeline_runs_again() {
    let jobs = [job(6, "other", "failed"), ours("failed")];
    let world = World::still("failed", &jobs).await.lets_all_again();
    assert_eq!(world.rerun(&request()).await.unwrap(), OURS);
    let asked: Vec<_> = world.server.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(
        asked,
        [
            format!("GET {API}/projects/octo%2Ftrain"),
            format!("GET {PROJECT}/jobs/7"),
            format!("GET {PROJECT}/pipelines/42/jobs"),
            format!("POST {PROJECT}/jobs/7/retry"),
        ]
    );
    assert_eq!(world.server.requests()[2].query, "include_retried=true&per_page=100&page=1");
}

#[tokio::test]
async fn what_is_left_alone() {
    let jobs = [ours("failed")];
    let gone = World::new(vec![refused(404, "404 Not found")], vec![executions(&jobs)]).await;
    assert_declined(&gone.lets_all_again(), &request(), Declined::Unknown).await;
    // GitLab would run it again.
    let well = World::still("success", &[ours("success")]).await.lets_all_again();
    assert_declined(&well, &impatient(), Declined::Succeeded).await;
    for status in ["canceled", "canceling"] {
        let unwanted = World::still(status, &[ours(status)]).await.lets_all_again();
        assert_declined(&unwanted, &impatient(), Declined::Cancelled).await;
    }
    let begun = Rerun {
        job: Interrupted::Begun {
            name: Some("train".into()),
            age: Duration::ZERO,
        },
        ..request()
    };
    assert_declined(&World::still("failed", &jobs).await.lets_all_again(), &begun, Declined::Unknown).await;
}

#[tokio::test]
async fn a_job_that_somebody_has_run_again_is_left_alone() {
    let jobs = [ours("failed"), job(9, "train", "running")];
    let world = World::still("failed", &jobs).await.lets_all_again();
    assert_declined(&world, &request(), Declined::AlreadyRerun).await;
    // An earlier execution, and a later one of another job, are none of it.
    let jobs = [job(6, "train", "failed"), ours("failed"), job(9, "test", "pending")];
    let world = World::still("failed", &jobs).await.lets_all_again();
    assert_eq!(world.rerun(&request()).await.unwrap(), OURS);
}

#[tokio::test]
async fn a_job_runs_as_often_as_allowed_and_its_executions_are_counted_on_every_page() {
    let earlier = executions(&[job(3, "train", "failed"), job(2, "test", "failed")]).with("x-next-page", "2");
    let pages = |last| vec![earlier.clone(), last];
    let second = executions(&[ours("failed")]);
    let world = World::new(states(&["failed"]), pages(second.clone())).await.lets_all_again();
    assert_eq!(world.rerun(&request()).await.unwrap(), OURS);
    let third = executions(&[job(4, "train", "failed"), ours("failed")]);
    let world = World::new(states(&["failed"]), pages(third)).await.lets_all_again();
    assert_declined(&world, &request(), Declined::AttemptsUsedUp(3)).await;
    let once = Rerun {
        max_attempts: 2,
        ..request()
    };
    let world = World::new(states(&["failed"]), pages(second)).await.lets_all_again();
    assert_declined(&world, &once, Declined::AttemptsUsedUp(2)).await;
}

#[tokio::test]
async fn a_job_that_goes_on_is_waited_for() {
    let world = World::new(states(&["running", "pending", "failed"]), vec![executions(&[ours("failed")])]).await;
    let world = world.lets_all_again();
    let patient = Rerun {
        patience: Duration::from_secs(10),
        ..request()
    };
    assert_eq!(world.rerun(&patient).await.unwrap(), OURS);
    assert_eq!(world.posts(), ["7/retry"], "and never cancelled within the patience");
}

#[tokio::test]
async fn past_the_patience_the_job_alone_is_cancelled_whether_or_not_its_runner_confirms_it() {
    for ended in [
        &["running", "canceled"][..],
        &["running", "running", "canceling"],
        &["running", "failed"],
    ] {
        let world = World::new(states(ended), vec![executions(&[job(6, "other", "running"), ours("running")])]).await;
        let world = world.on("7/cancel", [answer(201, &ours("canceling"))]).lets_all_again();
        assert_eq!(world.rerun(&impatient()).await.unwrap(), OURS, "{ended:?}");
        assert_eq!(world.posts(), ["7/cancel", "7/retry"], "{ended:?}");
    }
}

#[tokio::test]
async fn a_cancellation_that_comes_too_late_does_not_matter_but_one_that_is_refused_does() {
    let late = || [refused(403, "403 Forbidden - Job is not cancelable")];
    let jobs = || vec![executions(&[ours("failed")])];
    let world = World::new(states(&["running", "failed"]), jobs()).await;
    assert_eq!(
        world.on("7/cancel", late()).lets_all_again().rerun(&impatient()).await.unwrap(),
        OURS
    );
    for (status, why) in [("success", Declined::Succeeded), ("canceled", Declined::Cancelled)] {
        let world = World::new(states(&["running", status]), jobs()).await;
        let outcome = world.on("7/cancel", late()).lets_all_again().rerun(&impatient()).await;
        assert_eq!(outcome.unwrap(), RerunOutcome::Declined(why), "{status}");
    }
    let world = World::still("running", &[ours("running")])
        .await
        .on("7/cancel", [refused(403, "403 Forbidden")]);
    let error = world.rerun(&impatient()).await.unwrap_err();
    assert_eq!(Report(&error).class(), Class::Access);
    assert!(Report(&error).hint().unwrap().contains("the scope `api`"), "{error:#}");
    assert_eq!(world.posts(), ["7/cancel"]);
}

#[tokio::test]
async fn a_cancellation_whose_answer_was_lost_is_ours_all_the_same() {
    let world = World::new(states(&["running", "canceled"]), vec![executions(&[ours("canceled")])]).await;
    let world = world
        .on("7/cancel", [Reply::Reset, refused(403, "403 Forbidden - Job is not cancelable")])
        .lets_all_again();
    assert_eq!(world.rerun(&impatient()).await.unwrap(), OURS);
    assert_eq!(world.posts(), ["7/cancel", "7/cancel", "7/retry"]);
}

#[tokio::test]
async fn the_launch_job_runs_again_first_so_that_a_machine_comes() {
    let jobs = [job(5, "launch", "success"), ours("failed")];
    let world = World::still("failed", &jobs).await.lets_all_again();
    assert_eq!(world.rerun(&launched_by("5", "42")).await.unwrap(), WITH_LAUNCH);
    assert_eq!(world.posts(), ["5/retry", "7/retry"]);
}

#[tokio::test]
async fn a_launch_job_that_runs_again_already_is_enough() {
    let jobs = [job(5, "launch", "success"), ours("failed"), job(8, "launch", "running")];
    let world = World::still("failed", &jobs).await.lets_all_again();
    assert_eq!(world.rerun(&launched_by("5", "42")).await.unwrap(), WITH_LAUNCH);
    assert_eq!(world.posts(), ["7/retry"]);
}

#[tokio::test]
async fn a_machine_launched_elsewhere_needs_no_launch() {
    let jobs = [job(5, "launch", "success"), ours("failed")];
    for launch in [
        launched_by("5", "41"),
        launched_by("4", "42"),
        launched_by("GitHub Actions 5", "42"),
    ] {
        let world = World::still("failed", &jobs).await.lets_all_again();
        assert_eq!(world.rerun(&launch).await.unwrap(), OURS, "{launch:?}");
        assert_eq!(world.posts(), ["7/retry"], "{launch:?}");
    }
}

#[tokio::test]
async fn a_job_is_not_run_again_without_a_machine_for_it() {
    let jobs = [job(5, "launch", "running"), ours("failed")];
    let world = World::still("failed", &jobs).await.lets_all_again();
    let world = world.on("5/retry", [refused(403, NOT_RETRYABLE)]);
    let error = world.rerun(&launched_by("5", "42")).await.unwrap_err();
    assert!(format!("{error:#}").contains("not retryable"), "{error:#}");
    assert_eq!(world.posts(), ["5/retry"]);
}

#[tokio::test]
async fn somebody_who_was_faster_is_enough() {
    let (before, after) = ([ours("failed")], [ours("failed"), job(9, "train", "pending")]);
    let pipeline = vec![executions(&before), executions(&after)];
    let world = World::new(states(&["failed"]), pipeline).await.refuses();
    assert_eq!(world.rerun(&request()).await.unwrap(), OURS);
    assert_eq!(world.posts(), ["7/retry"]);
    let world = World::still("failed", &before).await.refuses();
    let error = world.rerun(&request()).await.unwrap_err();
    assert_eq!(Report(&error).class(), Class::Access);
    assert!(format!("{error:#}").starts_with("running job 7 again: "), "{error:#}");
    assert_eq!(world.posts(), ["7/retry"]);
}

#[tokio::test]
async fn a_lost_answer_that_was_taken_is_not_asked_again() {
    for lost in [Reply::Reset, empty(502)] {
        let pipeline = [vec![ours("failed")], vec![ours("failed"), job(101, "train", "pending")]];
        let pipeline = pipeline.iter().map(|jobs| executions(jobs)).collect();
        let world = World::new(states(&["failed"]), pipeline).await.on("7/retry", [lost]);
        assert_eq!(world.rerun(&request()).await.unwrap(), OURS);
        assert_eq!(world.posts(), ["7/retry"]);
    }
}

#[tokio::test]
async fn a_lost_answer_that_was_not_taken_is_asked_again_but_not_for_ever() {
    let jobs = [ours("failed")];
    let world = World::still("failed", &jobs)
        .await
        .on("7/retry", [Reply::Reset, made(101, "train")]);
    assert_eq!(world.rerun(&request()).await.unwrap(), OURS);
    assert_eq!(world.posts().len(), 2);
    let world = World::still("failed", &jobs).await.on("7/retry", [Reply::Reset]);
    let error = world.rerun(&request()).await.unwrap_err();
    assert_eq!(world.posts().len(), 3, "{error:#}");
}

#[tokio::test]
async fn the_budget_ends_it() {
    let world = World::still("running", &[ours("running")])
        .await
        .on("7/cancel", [answer(201, &ours("running"))]);
    let short = Rerun {
        budget: Duration::from_millis(300),
        ..request()
    };
    let error = world.rerun(&short).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("did not let the interrupted job run again within"),
        "{error:#}"
    );
    assert!(world.posts().iter().all(|post| post == "7/cancel"), "{:?}", world.posts());
}

#[tokio::test]
async fn a_job_cannot_lead_the_token_elsewhere() {
    let theirs = |run: &str, repository: &str| Rerun {
        job: of(run, repository),
        ..request()
    };
    for (page, request) in [
        ("octo/train", theirs("7/../8", "octo/train")),
        ("octo/train", theirs("", "octo/train")),
        ("octo", theirs("7", "victim/train")),
        ("octo", theirs("7", "octopus/train")),
        ("octo", theirs("7", "octo")),
        ("octo", theirs("7", "")),
        ("", theirs("7", "..")),
        ("", theirs("7", "")),
    ] {
        let world = World::still("failed", &[ours("failed")]).await.lets_all_again();
        let error = world.of(page, &request).await.unwrap_err();
        assert!(format!("{error:#}").contains("does not belong to"), "{error:#}");
        assert_eq!(world.posts(), [""; 0]);
        assert!(!world.server.requests().iter().any(|request| request.line.contains("/jobs")));
    }
    // One segment of the address, whatever it holds.
    let world = World::still("failed", &[ours("failed")]).await.lets_all_again();
    let outcome = world.of("octo", &theirs("7", "octo/../../victim/train?x")).await.unwrap();
    assert_eq!(outcome, RerunOutcome::Declined(Declined::Unknown));
    let asked = world.server.requests().pop().unwrap();
    assert_eq!(asked.line, format!("GET {API}/projects/octo%2F..%2F..%2Fvictim%2Ftrain%3Fx/jobs/7"));
}

#[tokio::test]
async fn a_job_of_a_project_of_the_group_runs_again_there() {
    for (page, project) in [("octo", "octo/train"), ("", "octo/train")] {
        let world = World::still("failed", &[ours("failed")]).await.lets_all_again();
        let request = Rerun {
            job: of("7", project),
            ..request()
        };
        assert_eq!(world.of(page, &request).await.unwrap(), OURS);
        assert_eq!(world.posts(), [format!("POST {API}/projects/octo%2Ftrain/jobs/7/retry")]);
    }
    // The project may have been moved since it was cloned: its number counts.
    let world = World::still("failed", &[ours("failed")]).await.lets_all_again();
    let moved = Rerun {
        job: of("7", "octo/by-its-old-name"),
        ..request()
    };
    assert_eq!(world.rerun(&moved).await.unwrap(), OURS);
}

#[tokio::test]
async fn a_job_without_a_pipeline_is_not_guessed_about() {
    let world = World::new(vec![answer(200, &json!({ "id": 7, "name": "train", "status": "failed" }))], vec![]).await;
    let error = world.lets_all_again().rerun(&request()).await.unwrap_err();
    assert!(format!("{error:#}").contains("does not tell the job's pipeline"), "{error:#}");
}
