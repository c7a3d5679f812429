//! Running an interrupted job again, against scripted servers: every branch of the rules, and how often GitHub is asked.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::time::Duration;

use common::error::{Class, Report};
use common::forge::{Declined, Rerun, RerunOutcome, RerunScope};
use scripted::run::{ACTIONS, ALREADY, MORNING, NOON, World, failed, impatient, interrupted, job, launched_on, of, request, run, running};
use scripted::{Reply, empty, refused};

async fn assert_declined(world: &World, request: &Rerun, why: Declined) {
    assert_eq!(world.rerun(request).await.unwrap(), RerunOutcome::Declined(why));
    assert_eq!(world.posts(), [""; 0]);
}

#[tokio::test]
async fn only_the_failed_jobs_of_a_run_that_has_ended() {
    let world = World::new([failed()], &[interrupted()])
        .await
        .on("runs/42/rerun-failed-jobs", [empty(201)]);
    assert_eq!(
        world.rerun(&request()).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
    let asked: Vec<_> = world
        .server
        .requests()
        .into_iter()
        .map(|request| request.line.replacen(ACTIONS, "", 1))
        .collect();
    assert_eq!(asked, ["GET /runs/42", "GET /runs/42/jobs", "POST /runs/42/rerun-failed-jobs"]);
    assert_eq!(world.server.requests()[1].query, "filter=latest&per_page=100&page=1");
}

#[tokio::test]
async fn what_is_left_alone() {
    let jobs = [interrupted()];
    assert_declined(&World::new([refused(404, "Not Found")], &jobs).await, &request(), Declined::Unknown).await;
    let later = World::new([run("in_progress", None, 2)], &jobs).await;
    assert_declined(&later, &request(), Declined::AlreadyRerun).await;
    let last = Rerun {
        max_attempts: 1,
        ..request()
    };
    assert_declined(&World::new([failed()], &jobs).await, &last, Declined::AttemptsUsedUp(1)).await;
}

#[tokio::test]
async fn a_job_that_ended_well_after_all_is_left_alone() {
    // The last one that our runner had counts; another runner's does not.
    let jobs = [
        job(1, "cml-a", Some("failure"), MORNING),
        job(2, "cml-a", Some("success"), NOON),
        job(3, "other", Some("failure"), NOON),
    ];
    assert_declined(&World::new([failed()], &jobs).await, &request(), Declined::Succeeded).await;
    // GitHub names no job of ours: the run tells.
    let others = [job(3, "other", Some("success"), NOON)];
    let well = || run("completed", Some("success"), 1);
    assert_declined(&World::new([well()], &others).await, &request(), Declined::Succeeded).await;
    // It did end, so that nothing else of the run has to be cancelled for it.
    assert_declined(&World::new([running()], &jobs).await, &impatient(), Declined::Succeeded).await;
}

#[tokio::test]
async fn an_earlier_job_that_ended_well_on_our_runner_does_not_hide_the_interrupted_one() {
    let jobs = [interrupted(), job(2, "cml-a", Some("success"), MORNING)];
    let world = World::new([failed()], &jobs).await.on("runs/42/rerun-failed-jobs", [empty(201)]);
    assert_eq!(
        world.rerun(&request()).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
    // Nor does a run that counts as a success in spite of it (`continue-on-error`).
    let world = World::new([run("completed", Some("success"), 1)], &jobs)
        .await
        .on("runs/42/rerun-failed-jobs", [empty(201)]);
    assert_eq!(
        world.rerun(&request()).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
}

#[tokio::test]
async fn a_run_that_goes_on_is_waited_for() {
    let states = [running(), run("queued", None, 1), run("completed", Some("failure"), 0), failed()];
    let world = World::new(states, &[interrupted()])
        .await
        .on("runs/42/rerun-failed-jobs", [empty(201)]);
    let patient = Rerun {
        patience: Duration::from_secs(10),
        ..request()
    };
    assert_eq!(
        world.rerun(&patient).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
    assert_eq!(world.posts(), ["runs/42/rerun-failed-jobs"]);
    assert_eq!(
        world.server.count(&format!("GET {ACTIONS}/runs/42")),
        4,
        "an earlier attempt than ours is out of date"
    );
}

#[tokio::test]
async fn past_the_patience_the_rest_of_the_run_is_cancelled_and_then_forced() {
    let states = [running(), running(), run("completed", Some("cancelled"), 1)];
    let world = World::new(states, &[job(1, "cml-a", Some("cancelled"), NOON)])
        .await
        .on("runs/42/cancel", [empty(202)])
        .on("runs/42/force-cancel", [empty(202)])
        .on("runs/42/rerun-failed-jobs", [empty(201)]);
    assert_eq!(
        world.rerun(&impatient()).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
    assert_eq!(
        world.posts(),
        ["runs/42/cancel", "runs/42/force-cancel", "runs/42/rerun-failed-jobs"]
    );
}

#[tokio::test]
async fn a_cancellation_that_comes_too_late_does_not_matter_but_one_that_is_refused_does() {
    let world = World::new([running(), failed()], &[interrupted()])
        .await
        .on("runs/42/cancel", [refused(409, "Cannot cancel a workflow run that is completed.")])
        .on("runs/42/rerun-failed-jobs", [empty(201)]);
    assert_eq!(
        world.rerun(&impatient()).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
    let world = World::new([running()], &[interrupted()])
        .await
        .on("runs/42/cancel", [refused(403, "Resource not accessible by personal access token")]);
    let error = world.rerun(&impatient()).await.unwrap_err();
    assert_eq!(Report(&error).class(), Class::Access);
    assert!(Report(&error).hint().unwrap().contains("Actions: read and write"), "{error:#}");
}

#[tokio::test]
async fn the_launch_job_runs_again_so_that_a_machine_comes() {
    let jobs = [interrupted(), job(9, "GitHub Actions 5", Some("success"), MORNING)];
    let world = World::new([failed()], &jobs).await.on("jobs/9/rerun", [empty(201)]);
    let outcome = world.rerun(&launched_on("GitHub Actions 5")).await.unwrap();
    assert_eq!(outcome, RerunOutcome::Requested(RerunScope::LaunchJob));
    assert_eq!(world.posts(), ["jobs/9/rerun"]);
}

#[tokio::test]
async fn a_runner_that_also_failed_at_something_still_names_the_launch_job() {
    let jobs = [
        interrupted(),
        job(8, "host", Some("failure"), NOON),
        job(9, "host", Some("success"), MORNING),
    ];
    let world = World::new([failed()], &jobs).await.on("jobs/9/rerun", [empty(201)]);
    assert_eq!(
        world.rerun(&launched_on("host")).await.unwrap(),
        RerunOutcome::Requested(RerunScope::LaunchJob)
    );
}

#[tokio::test]
async fn the_whole_run_where_the_launch_job_is_not_found_for_sure_or_refused() {
    let twice = vec![
        interrupted(),
        job(8, "host", Some("success"), MORNING),
        job(9, "host", Some("success"), NOON),
    ];
    let none = vec![interrupted(), job(9, "other", Some("success"), NOON)];
    let unfinished = vec![interrupted(), job(9, "host", Some("cancelled"), NOON)];
    for jobs in [twice, none, unfinished] {
        let world = World::new([failed()], &jobs).await.on("runs/42/rerun", [empty(201)]);
        assert_eq!(
            world.rerun(&launched_on("host")).await.unwrap(),
            RerunOutcome::Requested(RerunScope::WholeRun)
        );
        assert_eq!(world.posts(), ["runs/42/rerun"], "{jobs:?}");
    }
    let world = World::new([failed()], &[interrupted(), job(9, "host", Some("success"), MORNING)])
        .await
        .on("jobs/9/rerun", [refused(403, "Only jobs from the current attempt can be re-run.")])
        .on("runs/42/rerun", [empty(201)]);
    assert_eq!(
        world.rerun(&launched_on("host")).await.unwrap(),
        RerunOutcome::Requested(RerunScope::WholeRun)
    );
    assert_eq!(world.posts(), ["jobs/9/rerun", "runs/42/rerun"]);
}

#[tokio::test]
async fn a_machine_launched_from_another_run_needs_no_launch() {
    let mut request = launched_on("GitHub Actions 5");
    request.launch.as_mut().unwrap().run = "41".into();
    let jobs = [interrupted(), job(9, "GitHub Actions 5", Some("success"), MORNING)];
    let world = World::new([failed()], &jobs).await.on("runs/42/rerun-failed-jobs", [empty(201)]);
    assert_eq!(
        world.rerun(&request).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
}

#[tokio::test]
async fn the_whole_run_where_the_failed_jobs_are_refused() {
    let world = World::new([run("completed", Some("cancelled"), 1)], &[interrupted()])
        .await
        .on("runs/42/rerun-failed-jobs", [refused(403, "This workflow run cannot be retried")])
        .on("runs/42/rerun", [empty(201)]);
    assert_eq!(
        world.rerun(&request()).await.unwrap(),
        RerunOutcome::Requested(RerunScope::WholeRun)
    );
}

#[tokio::test]
async fn already_running_is_a_reason_to_wait() {
    let world = World::new([failed()], &[interrupted()]).await.on(
        "runs/42/rerun-failed-jobs",
        [refused(403, ALREADY), refused(403, ALREADY), empty(201)],
    );
    let patient = Rerun {
        patience: Duration::from_secs(2),
        ..request()
    };
    assert_eq!(
        world.rerun(&patient).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
    assert_eq!(world.posts().len(), 3, "and never the whole run");
}

#[tokio::test]
async fn somebody_elses_rerun_meanwhile_is_enough() {
    let world = World::new([failed(), run("in_progress", None, 2)], &[interrupted()])
        .await
        .on("runs/42/rerun-failed-jobs", [refused(403, ALREADY)]);
    let patient = Rerun {
        patience: Duration::from_secs(2),
        ..request()
    };
    assert_eq!(world.rerun(&patient).await.unwrap(), RerunOutcome::Declined(Declined::AlreadyRerun));
    assert_eq!(world.posts().len(), 1);
}

#[tokio::test]
async fn a_lost_answer_that_was_taken_is_not_asked_again() {
    for lost in [Reply::Reset, empty(502)] {
        let world = World::new([failed(), run("queued", None, 2)], &[interrupted()])
            .await
            .on("runs/42/rerun-failed-jobs", [lost]);
        assert_eq!(
            world.rerun(&request()).await.unwrap(),
            RerunOutcome::Requested(RerunScope::FailedJobs)
        );
        assert_eq!(world.posts().len(), 1);
    }
}

#[tokio::test]
async fn a_lost_answer_that_was_not_taken_is_asked_again_but_not_for_ever() {
    let world = World::new([failed()], &[interrupted()])
        .await
        .on("runs/42/rerun-failed-jobs", [Reply::Reset, empty(201)]);
    assert_eq!(
        world.rerun(&request()).await.unwrap(),
        RerunOutcome::Requested(RerunScope::FailedJobs)
    );
    assert_eq!(world.posts().len(), 2);
    let world = World::new([failed()], &[interrupted()])
        .await
        .on("runs/42/rerun-failed-jobs", [Reply::Reset]);
    let error = world.rerun(&request()).await.unwrap_err();
    assert_eq!(world.posts().len(), 3, "{error:#}");
}

#[tokio::test]
async fn what_github_never_allows_is_told_apart_from_a_missing_permission() {
    for (message, class) in [
        (
            "Unable to re-run this workflow run because it was created over a month ago",
            Class::Unexpected,
        ),
        ("Resource not accessible by integration", Class::Access),
    ] {
        let world = World::new([failed()], &[interrupted()])
            .await
            .on("runs/42/rerun-failed-jobs", [refused(403, message)])
            .on("runs/42/rerun", [refused(403, message)]);
        let error = world.rerun(&request()).await.unwrap_err();
        assert_eq!(Report(&error).class(), class, "{error:#}");
        assert!(format!("{error:#}").starts_with("running workflow run 42 again: "), "{error:#}");
        assert!(format!("{error:#}").contains(message), "{error:#}");
    }
}

#[tokio::test]
async fn the_budget_ends_it_and_nothing_was_cancelled_within_the_patience() {
    let world = World::new([running()], &[interrupted()]).await;
    let short = Rerun {
        budget: Duration::from_millis(300),
        ..request()
    };
    let error = world.rerun(&short).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("did not let the interrupted job run again within"),
        "{error:#}"
    );
    assert_eq!(world.posts(), [""; 0]);
}

#[tokio::test]
async fn a_job_cannot_lead_the_token_elsewhere() {
    let theirs = |run: &str, repository: &str| Rerun {
        job: of(run, repository),
        ..request()
    };
    let world = World::new([failed()], &[interrupted()]).await;
    for (page, request) in [
        ("octo/train", theirs("42/../43", "octo/train")),
        ("octo", theirs("42", "victim/train")),
        ("octo", theirs("42", "octo/train/../../victim/train")),
        ("octo", theirs("42", "octo/..")),
        ("enterprises/acme", theirs("42", "octo")),
    ] {
        let error = world.of(page, &request).await.unwrap_err();
        assert!(format!("{error:#}").contains("does not belong to"), "{error:#}");
    }
    assert!(world.server.requests().is_empty());
}

#[tokio::test]
async fn a_job_of_a_repository_of_the_organisation_runs_again_there() {
    for page in ["octo", "Octo", "enterprises/acme"] {
        let world = World::new([failed()], &[interrupted()])
            .await
            .on("runs/42/rerun-failed-jobs", [empty(201)]);
        assert_eq!(
            world.of(page, &request()).await.unwrap(),
            RerunOutcome::Requested(RerunScope::FailedJobs)
        );
    }
}
