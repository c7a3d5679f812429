#![allow(clippy::unwrap_used)]

use common::error::{Class, Report};
use common::forge::Platform;
use common::spec::CloudKind::Gcp;

use crate::catalog::{Place, image, region, resolve, warnings};

fn natives(kind: &str, gpu: Option<&str>) -> Vec<String> {
    resolve(Gcp, kind, gpu)
        .unwrap()
        .into_iter()
        .map(|candidate| candidate.native)
        .collect()
}

#[test]
fn a_size_is_several_types_in_order() {
    assert_eq!(natives("m", None), ["e2-standard-8", "n2-standard-8", "n2d-standard-8"]);
    assert_eq!(natives("m", Some("t4")), ["custom-4-16384+nvidia-tesla-t4*1"]);
    assert_eq!(natives("m+t4", None), natives("m", Some("T4")));
    assert_eq!(natives("l", Some("tesla")), ["custom-32-262144-ext+nvidia-tesla-v100*4"]);
    assert_eq!(warnings(Gcp, "m", Some("k80")).unwrap().len(), 1);
}

#[test]
fn native_types_have_what_is_attached_to_them() {
    for (kind, gpu, native, own) in [
        ("n1-standard-4", None, "n1-standard-4", None),
        ("E2-Custom-8-32768", None, "e2-custom-8-32768", None),
        (
            "n1-standard-4+nvidia-tesla-t4*2",
            None,
            "n1-standard-4+nvidia-tesla-t4*2",
            Some("t4"),
        ),
        ("n1-standard-4+nvidia-tesla-t4", None, "n1-standard-4+nvidia-tesla-t4*1", Some("t4")),
        ("n1-standard-4+t4", None, "n1-standard-4+nvidia-tesla-t4*1", Some("t4")),
        ("n1-standard-4", Some("v100"), "n1-standard-4+nvidia-tesla-v100*1", Some("v100")),
        ("custom-8-53248", Some("tesla"), "custom-8-53248+nvidia-tesla-v100*1", Some("v100")),
        ("n1-standard-4", Some("nogpu"), "n1-standard-4", None),
        ("g2-standard-8", Some("l4"), "g2-standard-8", Some("l4")),
        ("a2-highgpu-1g", None, "a2-highgpu-1g", Some("a100")),
        (
            "n1-standard-8+nvidia-new-x1*4",
            None,
            "n1-standard-8+nvidia-new-x1*4",
            Some("nvidia-new-x1"),
        ),
    ] {
        let candidate = resolve(Gcp, kind, gpu).unwrap().remove(0);
        assert_eq!(
            (candidate.native.as_str(), candidate.gpu.as_deref()),
            (native, own),
            "{kind} {gpu:?}"
        );
        assert!(warnings(Gcp, kind, gpu).unwrap().is_empty(), "{kind} {gpu:?}");
    }
    for (kind, arch) in [
        ("t2a-standard-4", Platform::Arm64),
        ("c4a-standard-8", Platform::Arm64),
        ("c3d-standard-8", Platform::X64),
    ] {
        assert_eq!(resolve(Gcp, kind, None).unwrap()[0].arch, arch, "{kind}");
    }
    let without = warnings(Gcp, "e2-standard-8", Some("t4")).unwrap();
    assert!(without[0].contains("has no effect"), "{without:?}");
}

#[test]
fn what_is_not_there_is_refused() {
    for (kind, gpu) in [
        ("xxl", None),
        ("m", Some("a10")),
        ("n1-standard-4+nvidia-tesla-t4*0", None),
        ("n1-standard-4+nvidia-tesla-t4*x", None),
        ("m5.2xlarge", None),
    ] {
        let error = resolve(Gcp, kind, gpu).unwrap_err();
        assert_eq!(Report(&error).class(), Class::Usage, "{kind} {gpu:?}");
    }
}

#[test]
fn regions_and_zones() {
    let place = |region: &str, zone: Option<&str>| Place {
        region: region.to_owned(),
        zone: zone.map(str::to_owned),
    };
    for (name, expected) in [
        ("us-west", place("us-west1", None)),
        ("eu-west", place("europe-west1", None)),
        ("northamerica-northeast2", place("northamerica-northeast2", None)),
        ("us-west1-b", place("us-west1", Some("us-west1-b"))),
        ("us-central1-ai1a", place("us-central1", Some("us-central1-ai1a"))),
    ] {
        assert_eq!(region(Gcp, name).unwrap(), expected, "{name}");
    }
    for name in [
        "",
        "mars",
        "us-west-1",
        "us-west-1a",
        "us-west1-",
        "us-west1-B",
        "us-west1/b",
        "us1",
        "us-west1-b-c",
    ] {
        assert!(region(Gcp, name).is_err(), "{name}");
    }
}

#[test]
fn images_are_families_of_a_project() {
    for gpu in [false, true] {
        let image = image(Gcp, gpu).unwrap();
        assert!(image.owner.starts_with("ubuntu-os-"));
        assert_ne!(image.pattern(Platform::X64), image.pattern(Platform::Arm64));
    }
}
