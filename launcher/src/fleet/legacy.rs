//! Machines that the tool left behind which this one replaces, known by their names alone: those end in a checksum. Pure.
//!
//! Since December 2022 (v0.11.14 of [its provider][source]) a runner's machine is called `cml-NAME-SALT-CHECKSUM`, and since December 2021 (v0.9.3) a task's
//! `tpi-NAME-SALT-CHECKSUM`, the latter with four more characters on Google Cloud, where a group makes the machines. Runners before were called `iterative-`
//! and some random characters, which prove nothing.
//!
//! [source]: https://github.com/iterative/terraform-provider-iterative/blob/main/task/common/identifier.go

use common::spec::CloudKind;
use jiff::Timestamp;
use ring::digest;

use super::{machine, table};
use crate::cloud::{Instance, Life};

/// No name is longer.
const LONGEST: usize = 50;
/// The characters of the salt, and of the checksum.
const PART: usize = 8;
/// The characters that a managed group of Google's adds to the name of each of its machines.
const OF_GROUP: usize = 4;
const BASE: u16 = 36;

/// What made a machine, which is what has to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `cml runner`: the machine stands alone.
    Runner,
    /// Its tasks: on some clouds a group makes the machine again that somebody removes.
    Task,
}

/// A machine that the old tool made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    kind: Kind,
    /// The old tool's own name for it.
    name: String,
    instance: Instance,
}

impl Leftover {
    /// None where nothing proves that the old tool made it, or where nothing is left of it.
    pub fn of(instance: Instance) -> Option<Self> {
        if instance.tags.contains_key("cml") || instance.life == Life::Gone {
            return None;
        }
        let tags = ["Id", "Name"].iter().filter_map(|key| instance.tags.get(*key)).map(String::as_str);
        let (kind, name) = tags.chain(instance.id.rsplit('/').next()).find_map(read)?;
        Some(Self {
            kind,
            name: name.to_owned(),
            instance,
        })
    }

    /// One line: what it is, and how a person removes it.
    pub fn line(&self, cloud: CloudKind, now: Timestamp) -> String {
        let Instance {
            id, kind, region, zone, ..
        } = &self.instance;
        let age = machine::age(&self.instance, now).map(|age| format!("{} old", table::age(age)));
        let facts = [
            Some(id).filter(|id| **id != self.name).cloned(),
            Some(kind).filter(|kind| !kind.is_empty()).cloned(),
            Some(zone.as_ref().unwrap_or(region).clone()),
            age,
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        format!(
            "{} ({}): left by the old `cml`, not touched; remove it with `{}`\n",
            self.name,
            facts.join(", "),
            self.removal(cloud)
        )
    }

    fn removal(&self, cloud: CloudKind) -> String {
        let (name, region) = (&self.name, &self.instance.region);
        match (self.kind, cloud) {
            (Kind::Task, CloudKind::Aws) => {
                format!("aws autoscaling delete-auto-scaling-group --force-delete --region {region} --auto-scaling-group-name {name}")
            }
            (Kind::Task, CloudKind::Gcp) => {
                let zone = self.instance.zone.as_ref().unwrap_or(region);
                format!("gcloud compute instance-groups managed delete {name} --zone {zone}")
            }
            _ => self.instance.removal(cloud),
        }
    }
}

/// The old tool's name in the name of a machine, if its checksum is right.
fn read(name: &str) -> Option<(Kind, &str)> {
    if let Some(rest) = name.strip_prefix("cml-") {
        return is_checked(name, rest).then_some((Kind::Runner, name));
    }
    let of_group = || {
        name.rsplit_once('-')
            .filter(|(_, own)| own.len() == OF_GROUP)
            .map(|(group, _)| group)
    };
    let candidates = [Some(name), of_group()];
    let task = candidates.into_iter().flatten().find(|name| {
        let rest = name.strip_prefix("tpi-");
        rest.is_some_and(|rest| is_checked(name, rest))
    });
    task.map(|name| (Kind::Task, name))
}

/// Whether `NAME-SALT-CHECKSUM` fits together.
fn is_checked(whole: &str, rest: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_part = |part: &str| part.len() == PART && part.chars().all(is_plain);
    let mut parts = rest.rsplitn(3, '-');
    let (Some(checksum), Some(salt), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let is_name = name.starts_with(is_plain) && name.ends_with(is_plain) && name.chars().all(|c| is_plain(c) || c == '-');
    whole.len() <= LONGEST && is_name && is_part(salt) && is_part(checksum) && self::checksum(&format!("{name}{salt}")) == checksum
}

/// The first digits of the SHA-256 as one number in base 36, which has no leading zeros.
fn checksum(text: &str) -> String {
    let mut number = digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec();
    let mut digits = Vec::new();
    while number.iter().any(|byte| *byte != 0) {
        let mut rest = 0;
        for byte in &mut number {
            let part = rest << u8::BITS | u16::from(*byte);
            // Less than 256, since the rest is less than the base.
            *byte = u8::try_from(part / BASE).unwrap_or(u8::MAX);
            rest = part % BASE;
        }
        digits.extend(char::from_digit(rest.into(), BASE.into()));
    }
    digits.iter().rev().take(PART).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use common::spec::CloudKind;
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{Kind, Leftover, checksum, read};
    use crate::cloud::{Instance, Life};
    use crate::launch::tests::world::instance;

    /// The first two are the old tool's [own][tests] examples, the others what its code made, compiled and run.
    ///
    /// [tests]: https://github.com/iterative/terraform-provider-iterative/blob/main/task/common/identifier_test.go
    const TRUE: [&str; 5] = [
        "tpi-test-3z4xlzwq-3u0vweb4",
        "tpi-hello-world-5kz6ldls-57wo7rsp",
        "cml-cml-qvatfz183y-189owb5f-4cqojpqf",
        "cml-trainer-of-octo-60gquy09-41ecrbxb",
        "cml-a-name-that-is-cut-after-28-5c5frrhh-xv307p8m",
    ];

    #[test]
    fn names_with_a_right_checksum_are_the_old_tools() {
        for name in TRUE {
            let kind = if name.starts_with("cml-") { Kind::Runner } else { Kind::Task };
            assert_eq!(read(name), Some((kind, name)));
        }
        assert_eq!(
            read("tpi-test-3z4xlzwq-3u0vweb4-x7k2"),
            Some((Kind::Task, "tpi-test-3z4xlzwq-3u0vweb4"))
        );
    }

    #[test]
    fn near_misses_are_somebody_elses() {
        let long = format!("cml-{}-3z4xlzwq-", "a".repeat(29));
        let long = long.clone() + &checksum(&format!("{}3z4xlzwq", "a".repeat(29)));
        for name in [
            "cml-cml-qvatfz183y-189owb5f-4cqojpqg",
            "cml-cml-qvatfz183z-189owb5f-4cqojpqf",
            "cml-cml-qvatfz183y-189owb5g-4cqojpqf",
            "cml-cml-qvatfz183y-4cqojpqf-189owb5f",
            "tpi-test-3z4xlzwq-3u0vweb",
            "tpi-test-3z4xlzwq-3u0vweb4-",
            "tpi-test-3z4xlzwq-3u0vweb4-x7k2p",
            "TPI-test-3z4xlzwq-3u0vweb4",
            "tpi-Test-3z4xlzwq-3u0vweb4",
            "ips-test-3z4xlzwq-3u0vweb4",
            "cml-trainer-of-octo-60gquy09-41ecrbxb-x7k2",
            "tpi--3z4xlzwq-3u0vweb4",
            "iterative-kwe52fn3orgf",
            // Ours: runners, what Google Cloud and Kubernetes make of them, a launch's id.
            "cml-0a1b2c3d4e",
            "cml-0a1b2c3d4e-mnopqrst",
            "cml-0a1b2c3d4e-ghijklmnopqr",
            "cml-AbCdEfGhIjKlMnOpQrSt",
            "cml-",
            "cml",
            "",
            "läufer-läufer-läufer",
            &long,
        ] {
            assert_eq!(read(name), None, "{name}");
        }
    }

    #[test]
    fn a_number_has_no_leading_zeros() {
        // Its digest begins with two zero bytes.
        assert_eq!(checksum("88484"), "2wz4dey1");
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_no_panic(name in "(cml|tpi)-[-a-zé]{0,40}") {
            prop_assert_eq!(read(&name), None);
        }
    }

    fn called(id: &str, tags: &[(&str, &str)]) -> Instance {
        Instance {
            id: id.into(),
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..instance()
        }
    }

    #[test]
    fn what_is_ours_or_gone_is_not_left_behind() {
        let of = |tags: &[(&str, &str)], life| {
            Leftover::of(Instance {
                life,
                ..called("i-1", tags)
            })
            .is_some()
        };
        assert!(of(&[("Name", TRUE[2])], Life::Live));
        assert!(of(&[("Name", "trainer"), ("Id", TRUE[2])], Life::Stopped));
        assert!(!of(&[("Name", TRUE[2])], Life::Gone));
        assert!(!of(&[("Name", TRUE[2]), ("cml", "0.1.0")], Life::Live));
        assert!(!of(&[("Other", TRUE[2])], Life::Live));
    }

    #[test]
    fn each_is_told_with_the_command_that_removes_it() {
        let (now, unknown) = ("2026-03-04T07:11:07Z".parse().unwrap(), String::new());
        let google = format!("us-west1-b/{}-x7k2", TRUE[0]);
        let bare = Instance {
            kind: unknown.clone(),
            launched_at: unknown,
            zone: None,
            ..called(TRUE[2], &[])
        };
        let told: String = [
            (CloudKind::Aws, called("i-1", &[("Id", TRUE[2])])),
            (CloudKind::Aws, called("i-1", &[("Name", TRUE[0])])),
            (CloudKind::Gcp, called(&format!("us-west1-b/{}", TRUE[2]), &[])),
            (CloudKind::Gcp, called(&google, &[])),
            (CloudKind::Azure, bare.clone()),
            (CloudKind::Kubernetes, bare),
        ]
        .into_iter()
        .map(|(cloud, instance)| Leftover::of(instance).unwrap().line(cloud, now))
        .collect();
        insta::assert_snapshot!("leftovers", told);
    }
}
