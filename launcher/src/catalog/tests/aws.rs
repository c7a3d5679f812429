#![allow(clippy::unwrap_used)]

use common::error::{Class, Report};
use common::forge::Platform;
use common::spec::CloudKind::Aws;

use crate::catalog::{Place, image, region, resolve, warnings};

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
    insta::assert_snapshot!("warned", wishes.map(|(kind, gpu)| warned(kind, gpu)).join("\n"));
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
fn images_are_looked_for_by_the_account_that_published_them() {
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
