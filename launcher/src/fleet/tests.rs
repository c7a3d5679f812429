#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use common::forge::Runner;
use jiff::Timestamp;

use super::machine::{Machine, Verdict};
use super::{Command, Fleet, table};
use crate::cloud::{Instance, Life};
use crate::launch::tests::servers::{Fault, Servers};
use crate::launch::tests::world::{instance, request, runner};

const DEADLINE: &str = "2026-03-04T05:16:07Z";

fn tagged(state: &str) -> Instance {
    let tags = [
        ("cml", "0.1.0"),
        ("cml-runner-name", "trainer"),
        ("cml-repo", "https://github.com/octo/train"),
        ("cml-deadline", DEADLINE),
        ("cml-run", "42"),
    ];
    Instance {
        life: match state {
            "running" => Life::Live,
            "terminated" => Life::Gone,
            _ => Life::Stopped,
        },
        state: state.into(),
        tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..instance()
    }
}

fn machine(state: &str, runner: Option<Runner>) -> Machine {
    Machine {
        runner,
        ..Machine::new(tagged(state))
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn what_is_still_good_for_anything() {
    let (early, late) = (at("2026-03-04T05:20:00Z"), at("2026-03-04T05:27:00Z"));
    let busy = Runner {
        busy: true,
        ..runner("trainer", false)
    };
    let (online, offline) = (runner("trainer", true), runner("trainer", false));
    for (state, runner, now, verdict) in [
        ("running", None, early, Verdict::Keep),
        (
            "running",
            None,
            late,
            Verdict::Destroy("it is past its deadline, and has no runner"),
        ),
        ("running", Some(&offline), early, Verdict::Keep),
        (
            "running",
            Some(&offline),
            late,
            Verdict::Destroy("it is past its deadline, and its runner is offline"),
        ),
        ("running", Some(&online), late, Verdict::Keep),
        // The forge may not hear of a runner for a while that still works.
        ("running", Some(&busy), late, Verdict::Keep),
        ("stopped (User initiated)", Some(&online), early, Verdict::Destroy("it is stopped")),
        ("terminated", None, late, Verdict::Keep),
        ("terminated", Some(&offline), early, Verdict::Forget),
        // The name is another machine's by now.
        ("terminated", Some(&online), late, Verdict::Keep),
    ] {
        assert_eq!(machine(state, runner.cloned()).verdict(now), verdict, "{state} {runner:?}");
    }
}

#[test]
fn a_deadline_that_somebody_wrote_is_no_panic() {
    for (tag, verdict) in [
        ("9999-12-30T22:00:00Z", Verdict::Keep),
        ("soon", Verdict::Keep),
        (
            "-009999-01-02T01:59:59Z",
            Verdict::Destroy("it is past its deadline, and has no runner"),
        ),
    ] {
        let mut machine = machine("running", None);
        machine.instance.tags.insert("cml-deadline".into(), tag.into());
        assert_eq!(machine.verdict(at("2026-03-04T05:27:00Z")), verdict, "{tag}");
    }
}

#[test]
fn a_machine_is_known_by_its_tags() {
    let machine = machine("running", None);
    assert!(machine.is_called("Trainer") && machine.is_called("i-1") && !machine.is_called("i-2"));
    assert!(machine.is_of(&"https://github.com/Octo/train".parse().unwrap()));
    assert!(!machine.is_of(&"https://github.com/octo/other".parse().unwrap()));
    // Somebody else's tag of the same name is no reason to touch a machine.
    assert!(!Machine::new(instance()).is_of(&"https://github.com/octo/train".parse().unwrap()));
}

#[test]
fn the_table_and_the_list() {
    let mut machines = [machine("running", Some(runner("trainer", true))), machine("running", None)];
    machines[0].hourly = Some(0.6096);
    let now = at("2026-03-04T07:11:07Z");
    let text = table::text(&machines, now);
    insta::assert_snapshot!("list", [text, table::json(&machines, now).unwrap()].join("\n"));
    assert_eq!(table::text(&[], at(DEADLINE)), "no machines\n");
}

/// A machine without a runner, long past its deadline.
fn orphan() -> Servers {
    let servers = Servers::default();
    {
        let mut state = servers.state();
        state.instances.insert("i-1".into());
        state.tags = tagged("running").tags;
    }
    servers
}

async fn reap(servers: &Servers, options: &[&str]) -> String {
    let request = request(options);
    let fleet = Fleet {
        request: &request,
        forge: servers,
        cloud: servers,
    };
    fleet.act(&Command::Reap).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_destroyed_after_a_second_look() {
    let servers = orphan();
    let said = reap(&servers, &[]).await;
    assert_eq!(said, "trainer (i-1): terminated\n");
    let calls = servers.state().calls.clone();
    assert_eq!(calls, ["find", "runners", "find", "runners", "destroy i-1", "find-legacy"]);
}

fn left_behind(servers: &Servers) {
    let named = |id: &str, name: &str| Instance {
        id: id.into(),
        tags: [("Name".to_owned(), name.to_owned())].into(),
        ..instance()
    };
    servers.state().legacy = vec![
        named("i-old", "cml-cml-qvatfz183y-189owb5f-4cqojpqf"),
        named("i-foreign", "cml-cml-qvatfz183y-189owb5f-4cqojpqg"),
    ];
}

#[tokio::test(start_paused = true)]
async fn what_the_old_tool_left_is_told_of_and_left() {
    for options in [&[][..], &["--dry-run"]] {
        let servers = Servers::default();
        left_behind(&servers);
        let said = reap(&servers, options).await;
        assert!(
            said.starts_with("nothing to clean up (machines: 0)\ncml-cml-qvatfz183y-189owb5f-4cqojpqf (i-old, m7i.2xlarge, us-west-1a, ")
        );
        assert!(said.ends_with("remove it with `aws ec2 terminate-instances --region us-west-1 --instance-ids i-old`\n"));
        assert_eq!((said.lines().count(), said.contains("i-foreign")), (2, false), "{said}");
        assert_eq!(servers.state().calls, ["find", "find-legacy"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_for_is_no_reason_to_fail() {
    let servers = orphan();
    let refused = Fault::Fail(Arc::new(|| anyhow::anyhow!("UnauthorizedOperation")));
    servers.state().faults.push(("find-legacy".to_owned(), 0..1, refused));
    assert_eq!(reap(&servers, &[]).await, "trainer (i-1): terminated\n");
}

#[tokio::test(start_paused = true)]
async fn one_whose_runner_comes_back_meanwhile_is_left_alone() {
    let servers = orphan();
    let back = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        servers.state().runners.push(runner("trainer", true));
    };
    let (said, ()) = tokio::join!(reap(&servers, &[]), back);
    assert_eq!(said, "nothing to clean up (machines: 1)\n");
    assert!(servers.state().instances.contains("i-1"));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_only_says_so() {
    let servers = orphan();
    let said = reap(&servers, &["--dry-run"]).await;
    assert_eq!(
        said,
        "trainer (i-1): would be terminated, it is past its deadline, and has no runner\n"
    );
    assert!(servers.state().instances.contains("i-1"));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_machine_is_kept_as_long_as_its_job_cannot_be_run_again() {
    let servers = Servers::default();
    servers.state().others = vec![tagged("stopped")];
    let job = r#"{"job":{"run":"42","attempt":1,"repository":"octo/train","key":"train"},"launch":null}"#;
    servers.state().console = format!("cml-phase name=rerun state=fail after=3 detail={job}\n");
    let request = request(&[]);
    let fleet = Fleet {
        request: &request,
        forge: &servers,
        cloud: &servers,
    };
    let error = fleet.act(&Command::Reap).await.unwrap_err();
    assert!(format!("{error:#}").contains("the interrupted job of run 42"), "{error:#}");
    let calls = servers.state().calls.clone();
    assert!(!calls.iter().any(|call| call.starts_with("destroy")), "{calls:?}");
    // Nobody's last words are lost where there are none.
    servers.state().console.clear();
    let said = fleet.act(&Command::Reap).await.unwrap();
    assert!(said.contains("terminated"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn the_runner_of_a_name_is_that_of_the_last_machine_of_that_name() {
    let servers = Servers::default();
    {
        let mut state = servers.state();
        state.runners.push(runner("trainer", false));
        state.others = vec![
            Instance {
                id: "i-new".into(),
                launched_at: "2026-03-04T06:00:00Z".into(),
                ..tagged("running")
            },
            Instance {
                id: "i-old".into(),
                ..tagged("terminated")
            },
        ];
    }
    let request = request(&[]);
    let fleet = Fleet {
        request: &request,
        forge: &servers,
        cloud: &servers,
    };
    let machines = fleet.machines().await.unwrap();
    let seen: Vec<_> = machines.iter().map(|one| (one.instance.id.as_str(), one.runner_state())).collect();
    assert_eq!(seen, [("i-old", "none"), ("i-new", "offline")]);
}

async fn list(servers: &Servers) -> serde_json::Value {
    let request = request(&["--output=json"]);
    let fleet = Fleet {
        request: &request,
        forge: servers,
        cloud: servers,
    };
    serde_json::from_str(&fleet.act(&Command::List).await.unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_price_is_asked_for_once_and_need_not_be_known() {
    let servers = orphan();
    {
        let mut state = servers.state();
        state.prices.insert("m7i.2xlarge".into(), 0.25);
        let another = |id: &str, kind: &str| Instance {
            id: id.into(),
            kind: kind.into(),
            ..tagged("running")
        };
        state.others = vec![another("i-2", "m7i.2xlarge"), another("i-3", "p5.48xlarge")];
    }
    let listed = list(&servers).await;
    let hourly: Vec<Option<f64>> = listed.as_array().unwrap().iter().map(|one| one["hourly_usd"].as_f64()).collect();
    assert_eq!(hourly, [Some(0.25), Some(0.25), None]);
    assert!(
        listed[0]["cost_usd"].as_f64().unwrap() > 0.0 && listed[2]["cost_usd"].is_null(),
        "{listed}"
    );
    assert_eq!(
        servers.state().calls,
        ["find", "runners", "hourly m7i.2xlarge", "hourly p5.48xlarge"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_does_not_wait_for_prices_for_ever() {
    for fault in [Fault::Hang, Fault::Fail(Arc::new(|| anyhow::anyhow!("UnauthorizedOperation")))] {
        let servers = orphan();
        servers.state().faults.push(("hourly".to_owned(), 0..1, fault));
        let listed = list(&servers).await;
        assert!(listed[0]["name"] == "trainer" && listed[0]["hourly_usd"].is_null(), "{listed}");
    }
}

/// What a launch says when it looks at what the cloud lists.
async fn tidy(servers: &Servers, found: Vec<Instance>) -> String {
    let request = request(&[]);
    let fleet = Fleet {
        request: &request,
        forge: servers,
        cloud: servers,
    };
    fleet.tidy(found).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_sees_nothing_useless_asks_nobody() {
    let servers = orphan();
    let early = Instance {
        tags: [("cml-deadline".to_owned(), "9999-01-01T00:00:00Z".to_owned())].into(),
        ..tagged("running")
    };
    let foreign = Instance {
        tags: [("cml-repo".to_owned(), "https://github.com/octo/other".to_owned())].into(),
        ..tagged("stopped")
    };
    assert_eq!(tidy(&servers, vec![early, foreign, tagged("terminated")]).await, "");
    assert_eq!(servers.state().calls, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_is_ended_without_a_second_look() {
    let servers = Servers::default();
    servers.state().others = vec![tagged("stopped")];
    assert_eq!(tidy(&servers, vec![tagged("stopped")]).await, "trainer (i-1): terminated\n");
    // Its console goes with it on some clouds: what it could not run again is read before.
    assert_eq!(servers.state().calls, ["find", "runners", "console i-1", "destroy i-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_only_looks_useless_is_looked_at_twice() {
    let servers = orphan();
    let found = vec![tagged("running")];
    assert_eq!(tidy(&servers, found).await, "trainer (i-1): terminated\n");
    let calls = servers.state().calls.clone();
    assert_eq!(calls, ["find", "runners", "find", "runners", "destroy i-1"]);
}
