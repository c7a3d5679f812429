//! Starting an interrupted pipeline again, against scripted servers: every branch of the rules.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use std::time::Duration;

use anyhow::Result;
use common::error::{Class, Report};
use common::forge::bitbucket::Bitbucket;
use common::forge::{Declined, Forge as _, Interrupted, Job, Rerun, RerunOutcome, RerunScope};
use common::secret::Secret;
use scripted::{QUICK, Reply, Server, answer, empty, refused, rerun_of};
use serde_json::{Value, json};

const PIPELINES: &str = "/2.0/repositories/octo/train/pipelines/";
const PIPELINE: &str = "{7b54c4fa-0000-4000-8000-000000000042}";
const STEP: &str = "{7b54c4fa-0000-4000-8000-0000000000aa}";
const TAKEN: RerunOutcome = RerunOutcome::Requested(RerunScope::WholeRun);

fn of_pipeline(rest: &str) -> String {
    format!("{PIPELINES}{}{rest}", PIPELINE.replace('{', "%7B").replace('}', "%7D"))
}

fn branch(commit: &str, name: &str, selector: &Value) -> Value {
    let commit = json!({ "type": "commit", "hash": commit });
    json!({ "type": "pipeline_ref_target", "ref_type": "branch", "ref_name": name, "selector": selector, "commit": commit })
}

fn target() -> Value {
    branch("abc", "main", &json!({ "type": "branches", "pattern": "main" }))
}

fn state(name: &str, result: Option<&str>) -> Value {
    json!({ "name": name, "result": result.map(|name| json!({ "name": name })) })
}

fn pipeline(number: u64, state: &Value, target: &Value) -> Value {
    json!({ "uuid": PIPELINE, "build_number": number, "state": state, "target": target })
}

fn ours(state: &Value) -> Reply {
    answer(200, &pipeline(42, state, &target()))
}

fn running() -> Reply {
    ours(&state("IN_PROGRESS", None))
}

fn failed() -> Reply {
    ours(&state("COMPLETED", Some("FAILED")))
}

fn list(pipelines: &[Value]) -> Reply {
    answer(200, &json!({ "page": 1, "values": pipelines }))
}

fn other(number: u64) -> Value {
    pipeline(number, &state("COMPLETED", Some("FAILED")), &target())
}

struct World(Server);

impl World {
    /// A pipeline, number 42, in these states in turn; its step was stopped.
    async fn new(states: impl IntoIterator<Item = Reply>) -> Self {
        let server = Server::start().await;
        server.on(&format!("GET {}", of_pipeline("")), states);
        server.on(&format!("GET {PIPELINES}"), [list(&[other(42)])]);
        server.on(&format!("POST {PIPELINES}"), [answer(201, &other(43))]);
        let world = Self(server);
        world.step(&state("COMPLETED", Some("STOPPED")));
        world
    }

    fn step(&self, state: &Value) {
        let step = STEP.replace('{', "%7B").replace('}', "%7D");
        self.0.on(
            &format!("GET {}", of_pipeline(&format!("/steps/{step}"))),
            [answer(200, &json!({ "state": state }))],
        );
    }

    fn listed(self, lists: impl IntoIterator<Item = Vec<Value>>) -> Self {
        let lists: Vec<_> = lists.into_iter().map(|pipelines| list(&pipelines)).collect();
        self.0.on(&format!("GET {PIPELINES}"), lists);
        self
    }

    async fn rerun(&self, request: &Rerun) -> Result<RerunOutcome> {
        let page = format!("{}/octo/train", self.0.url).parse().unwrap();
        let bitbucket = Bitbucket::new(&page, &Secret::new("canary")).unwrap().with_retry(QUICK);
        bitbucket.rerun(request).await
    }

    async fn declined(&self, request: &Rerun, why: Declined) {
        assert_eq!(self.rerun(request).await.unwrap(), RerunOutcome::Declined(why));
        assert_eq!(self.0.posts(), [""; 0]);
    }
}

fn of(run: &str, key: &str) -> Interrupted {
    Interrupted::Known(Job {
        run: run.into(),
        attempt: 1,
        repository: "octo/train".into(),
        key: key.into(),
    })
}

fn request() -> Rerun {
    rerun_of(of(PIPELINE, STEP))
}

#[tokio::test]
async fn a_new_pipeline_of_the_same_target() {
    let world = World::new([failed()]).await;
    assert_eq!(world.rerun(&request()).await.unwrap(), TAKEN);
    assert_eq!(world.0.posts(), [format!("POST {PIPELINES}")]);
    let requests = world.0.requests();
    assert_eq!(requests.last().unwrap().body, json!({ "target": target() }));
    let listed = requests.iter().find(|request| request.line == format!("GET {PIPELINES}")).unwrap();
    assert_eq!(listed.query, "target.commit.hash=abc&sort=-created_on&pagelen=100");
}

#[tokio::test]
async fn what_is_left_alone() {
    World::new([refused(404, "Not Found")])
        .await
        .declined(&request(), Declined::Unknown)
        .await;
    let well = World::new([ours(&state("COMPLETED", Some("SUCCESSFUL")))]).await;
    well.declined(&request(), Declined::Succeeded).await;
    // Ours ended well, whatever the others do.
    for states in [running(), failed()] {
        let world = World::new([states]).await;
        world.step(&state("COMPLETED", Some("SUCCESSFUL")));
        world.declined(&request(), Declined::Succeeded).await;
    }
    let newer = World::new([failed()]).await.listed([vec![other(43), other(42)]]);
    newer.declined(&request(), Declined::AlreadyRerun).await;
    let begun = Rerun {
        job: Interrupted::Begun {
            name: None,
            age: Duration::ZERO,
        },
        ..request()
    };
    World::new([failed()]).await.declined(&begun, Declined::Unknown).await;
}

#[tokio::test]
async fn the_pipelines_of_one_target_are_its_attempts() {
    let world = World::new([failed()]).await.listed([vec![other(42), other(40), other(39)]]);
    world.declined(&request(), Declined::AttemptsUsedUp(3)).await;
    // One that the list does not have yet counts too.
    let world = World::new([failed()]).await.listed([vec![other(40), other(39)]]);
    world.declined(&request(), Declined::AttemptsUsedUp(3)).await;
    let once = Rerun {
        max_attempts: 1,
        ..request()
    };
    World::new([failed()]).await.declined(&once, Declined::AttemptsUsedUp(1)).await;
}

#[tokio::test]
async fn another_target_is_no_attempt_of_ours() {
    let elsewhere = [
        branch("def", "main", &json!({ "type": "branches", "pattern": "main" })),
        branch("abc", "other", &json!({ "type": "branches", "pattern": "main" })),
        branch("abc", "main", &json!({ "type": "custom", "pattern": "nightly" })),
        branch("abc", "main", &Value::Null),
        json!({ "type": "pipeline_pullrequest_target", "pullrequest": { "id": 7 }, "commit": { "hash": "abc" } }),
    ];
    let done = state("COMPLETED", Some("FAILED"));
    let others = (43_u64..)
        .zip(elsewhere)
        .map(|(number, target)| pipeline(number, &done, &target))
        .collect();
    let world = World::new([failed()]).await.listed([others]);
    assert_eq!(world.rerun(&request()).await.unwrap(), TAKEN);
}

#[tokio::test]
async fn a_pipeline_that_goes_on_is_waited_for() {
    let world = World::new([ours(&state("PENDING", None)), running(), failed()]).await;
    let patient = Rerun {
        patience: Duration::from_secs(10),
        ..request()
    };
    assert_eq!(world.rerun(&patient).await.unwrap(), TAKEN);
    assert_eq!(world.0.posts(), [format!("POST {PIPELINES}")]);
}

#[tokio::test]
async fn past_the_patience_it_is_stopped_once() {
    let stop = format!("POST {}", of_pipeline("/stopPipeline"));
    let impatient = Rerun {
        patience: Duration::ZERO,
        ..request()
    };
    for reply in [empty(204), refused(400, "The pipeline has completed already")] {
        let world = World::new([running(), running(), ours(&state("COMPLETED", Some("STOPPED")))]).await;
        world.0.on(&stop, [reply]);
        assert_eq!(world.rerun(&impatient).await.unwrap(), TAKEN);
        assert_eq!(world.0.posts(), [stop.clone(), format!("POST {PIPELINES}")]);
    }
    let world = World::new([running()]).await;
    world.0.on(&stop, [empty(403)]);
    let error = world.rerun(&impatient).await.unwrap_err();
    assert_eq!(Report(&error).class(), Class::Access);
    assert!(Report(&error).hint().unwrap().contains("write:pipeline:bitbucket"), "{error:#}");
}

#[tokio::test]
async fn the_budget_ends_it() {
    let world = World::new([running()]).await;
    let short = Rerun {
        patience: Duration::from_secs(2),
        budget: Duration::from_millis(300),
        ..request()
    };
    assert!(world.rerun(&short).await.is_err());
    assert_eq!(world.0.posts(), [""; 0]);
}

#[tokio::test]
async fn a_lost_answer_that_was_taken_is_not_asked_again() {
    let world = World::new([failed()]).await.listed([vec![other(42)], vec![other(43), other(42)]]);
    world.0.on(&format!("POST {PIPELINES}"), [Reply::Reset]);
    assert_eq!(world.rerun(&request()).await.unwrap(), TAKEN);
    assert_eq!(world.0.posts().len(), 1);
}

#[tokio::test]
async fn a_lost_answer_that_was_not_taken_is_asked_again_but_not_for_ever() {
    let world = World::new([failed()]).await;
    world.0.on(&format!("POST {PIPELINES}"), [Reply::Reset, answer(201, &other(43))]);
    assert_eq!(world.rerun(&request()).await.unwrap(), TAKEN);
    assert_eq!(world.0.posts().len(), 2);
    let world = World::new([failed()]).await;
    world.0.on(&format!("POST {PIPELINES}"), [Reply::Reset]);
    assert!(world.rerun(&request()).await.is_err());
    assert_eq!(world.0.posts().len(), 3);
}

#[tokio::test]
async fn what_a_step_told_leads_to_nothing_of_others() {
    for job in [of("42", STEP), of("{..}/../../other", STEP), of(PIPELINE, "../../stopPipeline")] {
        let world = World::new([failed()]).await;
        assert!(world.rerun(&Rerun { job, ..request() }).await.is_err());
        assert!(world.0.requests().is_empty());
    }
}
