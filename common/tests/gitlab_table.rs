//! The third table of docs/reruns.md: what is asked of GitLab, for each end of the interrupted job, attempt and launch job.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::fmt::Write as _;

use common::forge::{Declined, Rerun, RerunOutcome};
use scripted::pipeline::{World, executions, impatient, job, launched_by, ours, states};
use scripted::{answer, refused};
use serde_json::Value;

/// The most attempts that are allowed.
const CAP: u64 = 3;

/// How the interrupted job stands in the end: its states, and whether there is a later execution of it.
const ENDS: [(&str, &[&str], bool); 6] = [
    ("failed", &["failed"], false),
    ("is taken for running past the patience", &["running", "canceled"], false),
    ("ended well after all", &["success"], false),
    ("was cancelled by a person", &["canceled"], false),
    ("has been run again by somebody", &["failed"], true),
    ("is not known any more", &[], false),
];

/// Where the launch job ran, and whether it has been run again.
const LAUNCHES: [(&str, Option<&str>, bool); 4] = [
    ("none, or none that is known", None, false),
    ("in another pipeline", Some("41"), false),
    ("in the same pipeline", Some("42"), false),
    ("in the same pipeline, and it runs again already", Some("42"), true),
];

async fn asked(attempt: u64, (_, ended, rerun): (&str, &[&str], bool), (_, launch, relaunched): (&str, Option<&str>, bool)) -> String {
    let mut jobs: Vec<Value> = (1..attempt).map(|earlier| job(earlier, "train", "failed")).collect();
    jobs.extend([job(5, "launch", "success"), ours("failed")]);
    if rerun {
        jobs.push(job(9, "train", "running"));
    }
    if relaunched {
        jobs.push(job(8, "launch", "running"));
    }
    let seen = if ended.is_empty() {
        vec![refused(404, "404 Not found")]
    } else {
        states(ended)
    };
    let world = World::new(seen, vec![executions(&jobs)]).await.lets_all_again();
    let world = world.on("7/cancel", [answer(201, &ours("canceling"))]);
    let request = Rerun {
        max_attempts: u32::try_from(CAP).unwrap(),
        launch: launch.and_then(|pipeline| launched_by("5", pipeline).launch),
        ..impatient()
    };
    let outcome = world.rerun(&request).await.unwrap();
    let mut words: Vec<&str> = world
        .posts()
        .iter()
        .map(|post| match post.as_str() {
            "7/cancel" => "cancels it",
            "5/retry" => "launch job",
            "7/retry" => "the job",
            other => panic!("{other}"),
        })
        .collect();
    match outcome {
        RerunOutcome::Requested(_) => {}
        RerunOutcome::Declined(Declined::AttemptsUsedUp(_)) => words.push("nothing: attempts used up"),
        RerunOutcome::Declined(_) => words.push("nothing"),
    }
    words.join(", then ")
}

async fn table() -> String {
    let mut text = scripted::golden::head(&LAUNCHES.map(|(name, ..)| name));
    for end in ENDS {
        for attempt in [1, CAP] {
            let mut cells = Vec::new();
            for launch in LAUNCHES {
                cells.push(asked(attempt, end, launch).await);
            }
            let of = if attempt < CAP { "below" } else { "at" };
            let _ = writeln!(text, "| {} | {of} `--max-attempts` | {} |", end.0, cells.join(" | "));
        }
    }
    text
}

#[tokio::test]
async fn the_table_of_requests_is_checked_in() {
    scripted::golden::check("gitlab", &table().await);
}
