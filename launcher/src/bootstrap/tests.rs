#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use common::certificates::Certificates;
use common::error::{Class, Report};
use common::network::Network;
use common::spec::CloudKind::{Aws, Gcp, Kubernetes};
use proptest::prelude::*;

use super::{Bootstrap, Login, SCRIPT, check, gzip, limit, placeholder, quote, unit};

pub mod machine;

use machine::{Machine, shells};

/// What would end quotes, lines, here-documents and scripts, or start commands, or be taken for a placeholder.
const HOSTILE: &str =
    "it's \"quoted\" $(poweroff) `poweroff` $HOME \\' \\\nEOF\nTIMER\n'; poweroff; '\r\n@@spec@@ % ${x} é \u{202e}\n#!/bin/sh\n\n";

fn bootstrap() -> Bootstrap {
    Bootstrap {
        cloud: Aws,
        launch_id: "cml-AbC".into(),
        spec: "{\"name\": \"trainer\"}\n".into(),
        version: "1.2.3".into(),
        agent_urls: vec!["https://example.org/cml-agent?key=abc".into()],
        agent_sha256: "0".repeat(64),
        boot_budget: Duration::from_mins(11),
        boot_deadline: 1_790_000_660,
        lifetime: None,
        private_tmp: false,
        login: None,
        network: Network::default(),
        certificates: None,
    }
}

fn authority() -> Certificates {
    Certificates::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../common/tests/authority.pem"))).unwrap()
}

fn hostile() -> Bootstrap {
    Bootstrap {
        spec: HOSTILE.into(),
        lifetime: Some(Duration::from_hours(24)),
        login: Some(Login {
            user: "ubuntu".into(),
            public_key: "ssh-rsa AAAA it's $(mine)".into(),
        }),
        ..bootstrap()
    }
}

#[test]
fn the_whole_script_with_hostile_values() {
    let text = Bootstrap {
        network: Network {
            proxy: Some("http://me:it's$(poweroff)`@proxy.example.com:3128".parse().unwrap()),
            no_proxy: vec!["example.com".into(), "'; poweroff; '".into()],
            trusted: None,
        },
        certificates: Some(authority()),
        ..hostile()
    };
    let text = text.render();
    // The unit has its own owner and tests.
    insta::assert_snapshot!("hostile", text.replace(&quote(&unit(false)), "'(the unit)'"));
}

#[test]
fn every_value_that_the_script_names_is_known() {
    let mut rest = SCRIPT;
    while let Some((_, name, after)) = placeholder(rest) {
        assert!(!bootstrap().value(name).contains("@@"), "{name}");
        rest = after;
    }
    assert!(!bootstrap().render().contains("@@"));
}

#[test]
fn it_fits_with_room_for_a_script_of_the_user() {
    let packed = gzip(bootstrap().render().as_bytes()).unwrap();
    assert!(packed.len() < limit(Aws) / 2, "{} bytes", packed.len());
}

#[test]
fn what_is_too_large_is_named() {
    let mut random = fastrand::Rng::with_seed(7);
    let large = Bootstrap {
        spec: std::iter::repeat_with(|| random.alphanumeric()).take(40_000).collect(),
        ..bootstrap()
    };
    let error = check(
        Aws,
        &large.render(),
        &[("--cloud-startup-script", 30_000), ("--on-interrupt", 0), ("--ca-certificates", 9)],
    )
    .unwrap_err();
    assert_eq!(Report(&error).class(), Class::Usage);
    let hint = Report(&error).hint().unwrap_or_default().to_owned();
    assert!(
        hint.starts_with("`--cloud-startup-script` has 30000 bytes, `--ca-certificates` has 9 bytes: "),
        "{hint}"
    );
    let error = check(Aws, &large.render(), &[]).unwrap_err();
    assert!(!Report(&error).hint().unwrap_or_default().contains("startup-script"));
    check(Gcp, &large.render(), &[]).unwrap();
}

#[test]
fn the_spec_arrives_as_it_was_and_the_agent_runs() {
    for shell in shells() {
        let machine = Machine::new();
        let boot = machine.with_agent(Bootstrap {
            login: Some(Login {
                user: Machine::user(),
                public_key: "ssh-rsa AAAA it's $(mine)".into(),
            }),
            ..hostile()
        });
        machine.run(&shell, &boot);
        assert_eq!(machine.read("seen/spec"), HOSTILE, "{shell}");
        assert_eq!(machine.read("seen/mode"), "600\n", "{shell}");
        assert_eq!(
            machine.read("seen/arguments"),
            format!("run --spec {}\n", machine.path("var/lib/cml/spec.json").display()),
            "{shell}"
        );
        assert_eq!(machine.phases(), ["boot begin", "boot ok", "agent begin", "agent ok"], "{shell}");
        assert_eq!(machine.mode("var/lib/cml"), 0o700, "{shell}");
        assert_eq!(
            machine.read("home/me/.ssh/authorized_keys").trim(),
            "ssh-rsa AAAA it's $(mine)",
            "{shell}"
        );
        assert_eq!(machine.mode("home/me/.ssh/authorized_keys"), 0o600, "{shell}");
        // The agent ended: nobody but the script is left to power off.
        assert_eq!(machine.power_offs(), 1, "{shell}");
    }
}

#[test]
fn an_agent_with_the_wrong_checksum_is_not_run() {
    for shell in shells() {
        let machine = Machine::new();
        let boot = Bootstrap {
            agent_sha256: "0".repeat(64),
            ..machine.with_agent(bootstrap())
        };
        machine.run(&shell, &boot);
        assert_eq!(machine.phases(), ["boot begin", "boot ok", "agent begin", "agent fail"], "{shell}");
        assert!(machine.read("console").contains("has the SHA-256"), "{}", machine.read("console"));
        assert!(
            !machine.path("seen").exists() && !machine.path("opt/cml/bin/cml-agent").exists(),
            "{shell}"
        );
        assert_eq!(machine.power_offs(), 1, "{shell}");
        assert_eq!(machine.served(), 1, "what is wrong is not downloaded again");
    }
}

#[test]
fn each_downloader_goes_through_the_proxy_and_trusts_whom_it_is_told_to() {
    for tool in ["curl", "wget", "python3"] {
        for shell in shells() {
            let machine = Machine::new();
            if !machine.only_downloader(tool) {
                machine::skip("bootstrap", &format!("no {tool} here"));
                break;
            }
            // Without curl that shell takes a wget of its own, which crashes where there is a proxy (Debian 12).
            if tool != "curl" && shell.starts_with("busybox") {
                machine::skip("bootstrap", "busybox has its own wget, which knows no proxy");
                continue;
            }
            machine.tell_of(tool);
            let boot = machine.with_agent(bootstrap());
            let boot = Bootstrap {
                // Only the proxy can find it.
                agent_urls: vec!["http://agents.invalid/agent".into()],
                network: Network {
                    proxy: Some(machine.proxy().parse().unwrap()),
                    ..Network::default()
                },
                certificates: Some(authority()),
                ..boot
            };
            machine.run(&shell, &boot);
            assert_eq!(
                machine.phases(),
                ["boot begin", "boot ok", "agent begin", "agent ok"],
                "{tool} {shell} {}",
                machine.read("console")
            );
            assert_eq!(
                machine.read("var/lib/cml/ca-certificates.pem"),
                authority().to_pem(),
                "{tool} {shell}"
            );
            let trusted = machine.path("var/lib/cml/trusted.pem");
            assert!(
                machine.read("var/lib/cml/trusted.pem").starts_with(&authority().to_pem()),
                "{tool} {shell}"
            );
            let told = machine.read("told");
            assert!(
                told.contains(&trusted.display().to_string()) && !told.contains("canary"),
                "{tool} {shell}: {told}"
            );
            assert!(!machine.read("console").contains("canary"), "{tool} {shell}");
        }
    }
}

#[test]
fn the_next_address_is_tried() {
    let machine = Machine::new();
    let boot = machine.with_agent(bootstrap());
    let right = boot.agent_urls[0].clone();
    for bad in ["/missing?token=hidden", "/other", "/truncated"] {
        let machine = Machine::new();
        let boot = Bootstrap {
            agent_urls: vec![right.replace("/agent", bad), right.clone()],
            ..boot.clone()
        };
        machine.run("sh", &boot);
        assert!(machine.path("seen/spec").exists(), "{bad}: {}", machine.read("console"));
        assert!(!machine.read("console").contains("hidden"));
    }
}

#[test]
fn a_baked_agent_of_the_same_version_is_taken() {
    for (version, is_taken) in [("1.2.3", true), ("1.2.4", false)] {
        let machine = Machine::new();
        let boot = machine.with_agent(bootstrap());
        machine.bake(version);
        machine.run("sh", &boot);
        assert_eq!(machine.served() == 0, is_taken, "{version}");
        assert!(machine.path("seen/spec").exists(), "{version}");
    }
}

#[test]
fn each_downloader_will_do() {
    for tool in ["curl", "wget", "python3"] {
        let machine = Machine::new();
        let boot = machine.with_agent(bootstrap());
        if !machine.only_downloader(tool) {
            machine::skip("each_downloader_will_do", &format!("no {tool} here"));
            continue;
        }
        machine.run("sh", &boot);
        assert!(machine.path("seen/spec").exists(), "{tool}: {}", machine.read("console"));
    }
    let machine = Machine::new();
    let boot = machine.with_agent(bootstrap());
    assert!(machine.only_downloader("true"));
    machine.run("sh", &boot);
    assert!(machine.read("console").contains("none of curl, wget and python3"));
    assert_eq!(machine.power_offs(), 1);
}

#[test]
fn a_machine_that_is_not_online_in_time_powers_off() {
    let seconds_since_1970 = || jiff::Timestamp::now().as_second();
    for deadline in [0, seconds_since_1970() + 1, seconds_since_1970() + 1_000_000] {
        let machine = Machine::new();
        let boot = Bootstrap {
            boot_budget: Duration::from_secs(1),
            boot_deadline: deadline,
            ..machine.with_agent(bootstrap())
        };
        machine.set("agent-waits");
        machine.run("sh", &boot);
        assert!(
            machine.path("seen/power-off").exists(),
            "the agent still ran when the power went off ({deadline})"
        );
    }
}

#[test]
fn a_machine_that_was_online_stays() {
    let machine = Machine::new();
    machine.run("sh", &machine.with_agent(bootstrap()));
    let before = machine.power_offs();
    machine.timer(0, "online");
    assert_eq!(machine.power_offs(), before, "the marker of the agent is there");
    std::fs::remove_file(machine.path("var/lib/cml/online")).unwrap();
    machine.timer(0, "online");
    assert_eq!(machine.power_offs(), before + 1);
}

#[test]
fn a_machine_that_has_lived_for_too_long_powers_off_though_it_was_online() {
    let machine = Machine::new();
    let boot = Bootstrap {
        lifetime: Some(Duration::from_secs(1)),
        ..machine.with_agent(bootstrap())
    };
    machine.set("agent-waits-online");
    machine.run("sh", &boot);
    assert!(
        machine.path("seen/power-off").exists(),
        "the agent still ran when the power went off"
    );
}

#[test]
fn a_machine_that_may_not_power_off_tries_again() {
    let machine = Machine::new();
    let boot = machine.with_agent(bootstrap());
    machine.refuse_power_off();
    machine.run("sh", &boot);
    assert_eq!(
        (machine.power_offs(), machine.read("slept").as_str()),
        (5, "60\n"),
        "after the agent"
    );
    std::fs::remove_file(machine.path("power-off")).unwrap();
    std::fs::remove_file(machine.path("var/lib/cml/online")).unwrap();
    machine.timer(0, "online");
    assert_eq!(
        (machine.power_offs(), machine.read("slept").as_str()),
        (5, "60\n60\n"),
        "at the deadline"
    );
}

#[test]
fn an_agent_that_fails_is_told_of() {
    let machine = Machine::new();
    let boot = machine.with_agent(bootstrap());
    machine.set("agent-fails");
    machine.run("sh", &boot);
    let console = machine.read("console");
    assert!(console.contains("detail=it ended with status 7"), "{console}");
    assert_eq!(machine.power_offs(), 1);
}

#[test]
fn an_agent_that_is_killed_is_started_once_more() {
    for (deaths, starts, ends) in [(1, 2, "agent ok"), (9, 2, "agent fail")] {
        let machine = Machine::new();
        let boot = machine.with_agent(bootstrap());
        machine.write("agent-dies", &deaths.to_string());
        // A shell tells of a child that was killed.
        machine.said("sh", &boot);
        assert_eq!(machine.read("seen/starts").lines().count(), starts);
        let phases = machine.phases();
        let told = phases.iter().rev().find(|phase| phase.starts_with(ends));
        assert!(told.is_some() && phases.contains(&"agent begin".to_owned()), "{phases:?}");
        assert_eq!(machine.power_offs(), 1);
    }
}

#[test]
fn a_pod_ends_with_its_agent_and_powers_nothing_off() {
    for shell in shells() {
        let machine = Machine::new();
        let boot = machine.with_agent(Bootstrap {
            cloud: Kubernetes,
            boot_deadline: i64::from(u32::MAX),
            login: None,
            ..hostile()
        });
        machine.run(&shell, &boot);
        assert_eq!(machine.read("seen/spec"), HOSTILE, "{shell}");
        assert_eq!(machine.phases(), ["boot begin", "boot ok", "agent begin", "agent ok"], "{shell}");
        assert!(!machine.path("var/lib/cml/power-off-timer").exists(), "{shell}");
        assert_eq!(machine.power_offs(), 0, "{shell}");
    }
}

#[test]
fn a_pod_that_nobody_waits_for_any_more_ends_at_once() {
    let machine = Machine::new();
    let boot = machine.with_agent(Bootstrap {
        cloud: Kubernetes,
        boot_deadline: 1,
        ..bootstrap()
    });
    machine.run("sh", &boot);
    assert_eq!(machine.phases(), ["boot begin", "boot fail"]);
    assert!(!machine.path("seen").exists() && machine.served() == 0);
    assert_eq!(machine.power_offs(), 0);
}

proptest! {
    #[test]
    fn a_shell_reads_a_quoted_value_as_it_is(value in "[^\0]{0,200}") {
        let output = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(&value))).output().unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&output.stdout), value);
    }
}
