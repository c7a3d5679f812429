//! The second table of docs/reruns.md: what is asked of GitHub, for each attempt, launch job and end of the interrupted one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::fmt::Write as _;

use common::forge::{Declined, Rerun, RerunOutcome, RerunScope};
use common::spec::LaunchJob;
use scripted::empty;
use scripted::run::{MORNING, NOON, World, job, request, run};
use serde_json::Value;

/// The most attempts that are allowed.
const CAP: u32 = 3;
/// The runner of the launch job.
const LAUNCHER: &str = "GitHub Actions 5";

/// How the interrupted job stands in the end.
#[derive(Clone, Copy)]
enum End {
    Failed,
    Succeeded,
    RerunBySomebody,
    Forgotten,
}

const ENDS: [(&str, End); 4] = [
    ("failed, or was cancelled", End::Failed),
    ("ended well after all", End::Succeeded),
    ("has been run again by somebody", End::RerunBySomebody),
    ("is of a run that is not known any more", End::Forgotten),
];

/// Where the launch job ran: its run, and the jobs that ended well on its runner.
const LAUNCHES: [(&str, Option<&str>, usize); 4] = [
    ("none, or none that is known", None, 0),
    ("in another run", Some("41"), 1),
    ("in the same run", Some("42"), 1),
    ("in the same run, which of two is not known", Some("42"), 2),
];

async fn asked(attempt: u32, launch: Option<&str>, launched: usize, end: End) -> String {
    let conclusion = match end {
        End::Succeeded => "success",
        _ => "failure",
    };
    let mut jobs: Vec<Value> = vec![job(1, "cml-a", Some(conclusion), NOON)];
    jobs.extend((0..launched).map(|number| job(8 + number as u64, LAUNCHER, Some("success"), MORNING)));
    let state = match end {
        End::RerunBySomebody => run("in_progress", None, attempt + 1),
        End::Forgotten => scripted::refused(404, "Not Found"),
        End::Failed | End::Succeeded => run("completed", Some(conclusion), attempt),
    };
    let ways = ["runs/42/rerun-failed-jobs", "runs/42/rerun", "jobs/8/rerun"];
    let mut world = World::new([state], &jobs).await;
    for way in ways {
        world = world.on(way, [empty(201)]);
    }
    let mut request = Rerun {
        max_attempts: CAP,
        launch: launch.map(|run| LaunchJob {
            run: run.into(),
            attempt: 1,
            runner: LAUNCHER.into(),
        }),
        ..request()
    };
    if let common::forge::Interrupted::Known(job) = &mut request.job {
        job.attempt = attempt;
    }
    match world.rerun(&request).await.unwrap() {
        RerunOutcome::Requested(RerunScope::FailedJobs) => "failed jobs",
        RerunOutcome::Requested(RerunScope::LaunchJob) => "launch job and all that need it",
        RerunOutcome::Requested(RerunScope::WholeRun) => "whole run",
        RerunOutcome::Declined(Declined::AttemptsUsedUp(_)) => "nothing: attempts used up",
        RerunOutcome::Declined(_) => "nothing",
    }
    .to_owned()
}

async fn table() -> String {
    let mut text = scripted::golden::head(&LAUNCHES.map(|(name, ..)| name));
    for (name, end) in ENDS {
        for attempt in [1, CAP] {
            let mut cells = Vec::new();
            for (_, launch, launched) in LAUNCHES {
                cells.push(asked(attempt, launch, launched, end).await);
            }
            let of = if attempt < CAP { "below" } else { "at" };
            let _ = writeln!(text, "| {name} | {of} `--max-attempts` | {} |", cells.join(" | "));
        }
    }
    text
}

#[tokio::test]
async fn the_table_of_requests_is_checked_in() {
    scripted::golden::check("github", &table().await);
}
