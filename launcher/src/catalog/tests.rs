#![allow(clippy::unwrap_used)]

use common::error::{Class, Report};
use common::forge::Platform;
use common::spec::CloudKind::{Aws, Gcp};

use super::{Candidate, Place, entry, image, region, resolve, warnings};

fn natives(kind: &str, gpu: Option<&str>) -> Vec<String> {
    resolve(Aws, kind, gpu)
        .unwrap()
        .into_iter()
        .map(|candidate| candidate.native)
        .collect()
}

fn refusal(kind: &str, gpu: Option<&str>) -> String {
    let error = resolve(Aws, kind, gpu).unwrap_err();
    assert_eq!(Report(&error).class(), Class::Usage);
    Report(&error).to_string()
}

#[test]
fn a_size_is_several_types_in_order() {
    assert_eq!(natives("m", None), ["m7i.2xlarge", "m6i.2xlarge", "m5.2xlarge"]);
    assert_eq!(natives("m", Some("nogpu")), natives("m", None));
    assert_eq!(natives("m", Some("t4")), ["g4dn.xlarge"]);
    assert_eq!(natives("m+t4", None), ["g4dn.xlarge"]);
    assert_eq!(natives("m+t4", Some("T4")), ["g4dn.xlarge"]);
    assert_eq!(natives("l", Some("tesla")), natives("l+v100", None));
    let candidate = &resolve(Aws, "m", Some("a10g")).unwrap()[0];
    assert_eq!(candidate.gpu.as_deref(), Some("a10"));
}

#[test]
fn native_types_pass_through_and_their_family_says_the_processor() {
    let x64 = [
        "t2.micro",
        "t3.micro",
        "m5.2xlarge",
        "m7i-flex.large",
        "c6id.large",
        "g4dn.xlarge",
        "g6e.2xlarge",
        "gr6.4xlarge",
        "p5.48xlarge",
        "p6-b200.48xlarge",
        "u7i-12tb.224xlarge",
        "hpc6id.32xlarge",
    ];
    let arm64 = [
        "a1.large",
        "t4g.micro",
        "m7g.medium",
        "c7gn.large",
        "r6gd.large",
        "im4gn.large",
        "is4gen.large",
        "i4g.large",
        "x2gd.large",
        "hpc7g.4xlarge",
        "g5g.xlarge",
        "p6e-gb200.36xlarge",
    ];
    for (types, arch) in [(&x64, Platform::X64), (&arm64, Platform::Arm64)] {
        for native in types {
            let candidates = resolve(Aws, native, None).unwrap();
            assert_eq!((candidates[0].native.as_str(), candidates[0].arch), (*native, arch));
            assert_eq!(candidates.len(), 1);
        }
    }
    let gpu = |native| resolve(Aws, native, Some("nogpu")).unwrap().remove(0).gpu;
    assert_eq!(gpu("g4dn.xlarge").as_deref(), Some("t4"));
    assert_eq!(gpu("p9z.xlarge").as_deref(), Some("p9z"), "a GPU that is newer than the data");
    assert_eq!(gpu("t4g.micro"), None);
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let wishes = [("m", Some("rtx")), ("m", Some("a100")), ("xxl", None), ("m+t4", Some("v100"))];
    insta::assert_snapshot!("refused", wishes.map(|(kind, gpu)| refusal(kind, gpu)).join("\n\n"));
    assert!(resolve(Gcp, "m", None).is_err());
}

#[test]
fn retired_and_useless_names_are_warned_of() {
    let warned = |kind, gpu| warnings(Aws, kind, gpu).unwrap().join("\n");
    for (kind, gpu) in [
        ("m", None),
        ("m", Some("t4")),
        ("m+a10g", None),
        ("g4dn.xlarge", Some("t4")),
        ("t3.micro", Some("nogpu")),
    ] {
        assert_eq!(warned(kind, gpu), "", "{kind} {gpu:?}");
    }
    let wishes = [("m", Some("tesla")), ("l+k80", None), ("t3.micro", Some("t4"))];
    insta::assert_snapshot!(
        "warned",
        wishes.map(|(kind, gpu)| warned(kind, gpu)).join(
            "
"
        )
    );
}

#[test]
fn regions_and_zones() {
    let place = |region: &str, zone: Option<&str>| Place {
        region: region.to_owned(),
        zone: zone.map(str::to_owned),
    };
    for (name, expected) in [
        ("us-west", place("us-west-1", None)),
        ("us-east", place("us-east-1", None)),
        ("eu-north", place("eu-north-1", None)),
        ("eu-central-1", place("eu-central-1", None)),
        ("us-east-1a", place("us-east-1", Some("us-east-1a"))),
        ("us-gov-west-1", place("us-gov-west-1", None)),
        ("eusc-de-east-1b", place("eusc-de-east-1", Some("eusc-de-east-1b"))),
        ("us-west-2-lax-1a", place("us-west-2", Some("us-west-2-lax-1a"))),
        ("us-east-1-wl1-bos-wlz-1", place("us-east-1", Some("us-east-1-wl1-bos-wlz-1"))),
    ] {
        assert_eq!(region(Aws, name).unwrap(), expected, "{name}");
    }
    for name in [
        "",
        "mars",
        "us",
        "1",
        "us-1",
        "us-east-1A",
        "us-east-1/a",
        "us-east1",
        "us-east-1ab",
    ] {
        assert!(region(Aws, name).is_err(), "{name}");
    }
}

#[test]
fn the_data_holds_together() {
    let (catalog, entry) = entry(Aws).unwrap();
    let gpus = entry.gpus();
    for key in entry.retired.keys().chain(catalog.aliases.values()) {
        assert!(gpus.contains(key), "{key} has no rows");
    }
    for (key, types) in &entry.types {
        assert!(!types.is_empty(), "{key}");
        for native in types {
            let Candidate { arch, gpu, .. } = entry.candidate(native);
            assert_eq!(arch, Platform::X64, "{native}: a generic size is for programs built for x86-64");
            assert_eq!(gpu.is_some(), key.contains('+'), "{key}: {native}");
            let promised = key
                .split_once('+')
                .map(|(_, gpu)| gpu.to_owned())
                .filter(|gpu| !entry.retired.contains_key(gpu));
            assert!(promised.is_none() || promised == gpu, "{key}: {native} has {gpu:?}");
        }
    }
    for generic in entry.regions.keys() {
        region(Aws, generic).unwrap();
    }
    for gpu in [false, true] {
        let image = image(Aws, gpu).unwrap();
        assert!(
            image.owner.chars().all(|c| c.is_ascii_digit()),
            "an owner is an account, not a name"
        );
        assert_ne!(image.pattern(Platform::X64), image.pattern(Platform::Arm64));
        assert_eq!(image.user, "ubuntu");
    }
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/clouds.md");

/// The tables of docs/clouds.md: `UPDATE_GOLDEN=1` rewrites them.
#[test]
fn the_document_is_what_the_data_says() {
    let (catalog, entry) = entry(Aws).unwrap();
    let mut lines = vec![
        "| `--cloud-type` | `--cloud-gpu` | tried in order |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    let mut keys: Vec<&String> = entry.types.keys().collect();
    keys.sort_by_key(|key| {
        let (size, gpu) = key.split_once('+').unwrap_or((key, ""));
        (gpu, ["s", "m", "l", "xl"].iter().position(|known| *known == size))
    });
    for key in keys {
        let (size, gpu) = key.split_once('+').unwrap_or((key, ""));
        lines.push(format!("| {size} | {gpu} | {} |", entry.types[key].join(", ")));
    }
    lines.push(String::new());
    for (alias, gpu) in &catalog.aliases {
        lines.push(format!("- `{alias}` is another name of `{gpu}`."));
    }
    for (gpu, instead) in &entry.retired {
        lines.push(format!("- `{gpu}`: {instead}."));
    }
    lines.extend(["", "| `--cloud-region` | region |", "|---|---|"].map(str::to_owned));
    lines.extend(entry.regions.iter().map(|(generic, native)| format!("| {generic} | {native} |")));
    lines.extend(["", "| image | owner | name |", "|---|---|---|"].map(str::to_owned));
    for (what, image) in [("without a GPU", &entry.images.plain), ("with a GPU", &entry.images.gpu)] {
        for arch in [Platform::X64, Platform::Arm64] {
            lines.push(format!(
                "| {what}, {} | {} | `{}` |",
                arch.github(),
                image.owner,
                image.pattern(arch)
            ));
        }
    }
    let (begin, end) = ("by `make golden` -->\n", "<!-- end -->");
    let kept = std::fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = kept.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    let text = format!("{before}{begin}{}\n{end}{after}", lines.join("\n"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(DOCUMENT, &text).unwrap();
    }
    let kept = std::fs::read_to_string(DOCUMENT).unwrap();
    assert!(kept == text, "docs/clouds.md is not what the catalog says: run `make golden`");
}
