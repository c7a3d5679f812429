#![allow(clippy::unwrap_used)]

use common::forge::Platform;
use common::spec::CloudKind::Azure;

use crate::catalog::{Place, image, region, resolve, warnings};

fn natives(kind: &str, gpu: Option<&str>) -> Vec<String> {
    let found = resolve(Azure, kind, gpu).unwrap();
    found.into_iter().map(|candidate| candidate.native).collect()
}

#[test]
fn a_size_is_several_types_in_order() {
    assert_eq!(natives("m", None), ["Standard_D8as_v5", "Standard_D8s_v5"]);
    assert_eq!(natives("m", Some("t4")), ["Standard_NC4as_T4_v3"]);
    assert_eq!(natives("xl", Some("tesla")), natives("xl+v100", None));
    for (kind, gpu) in [("xl", Some("t4")), ("xxl", None), ("m", Some("rtx"))] {
        assert!(resolve(Azure, kind, gpu).is_err(), "{kind} {gpu:?}");
    }
}

#[test]
fn native_types_say_their_processor_and_gpu() {
    for (native, arch, gpu) in [
        ("Standard_D8as_v5", Platform::X64, None),
        ("Standard_B1s", Platform::X64, None),
        ("Standard_DS1_v2", Platform::X64, None),
        ("Standard_D8ps_v5", Platform::Arm64, None),
        ("Standard_B2pts_v2", Platform::Arm64, None),
        ("Standard_M8-2ms", Platform::X64, None),
        ("Standard_FX4mds", Platform::X64, None),
        ("Standard_DC16ads_cc_v5", Platform::X64, None),
        ("Standard_NC4as_T4_v3", Platform::X64, Some("t4")),
        ("Standard_NC24ads_A100_v4", Platform::X64, Some("a100")),
        ("Standard_NC6s_v3", Platform::X64, Some("v100")),
        ("Standard_ND96asr_v4", Platform::X64, Some("a100")),
        ("Standard_ND96isr_H200_v5", Platform::X64, Some("h200")),
        ("Standard_ND128isr_NDR_GB200_v6", Platform::Arm64, Some("gb200")),
        ("Standard_NC99xyz_v9", Platform::X64, Some("nc_v9")),
        ("Standard_ND96isr_MI300X_v5", Platform::X64, None),
        ("Standard_NV4as_v4", Platform::X64, None),
        ("Standard_NP10s", Platform::X64, None),
    ] {
        let found = resolve(Azure, native, None).unwrap().remove(0);
        assert_eq!((found.native.as_str(), found.arch, found.gpu.as_deref()), (native, arch, gpu));
    }
    assert_eq!(natives("standard_D8as_v5", None), ["Standard_D8as_v5"]);
    for text in ["Standard_", "Standard_8", "Standard_D8/x", "D8as_v5", "m5.large"] {
        assert!(resolve(Azure, text, None).is_err(), "{text}");
    }
}

#[test]
fn retired_gpus_are_warned_of() {
    let warned = |kind, gpu| warnings(Azure, kind, gpu).unwrap();
    assert!(warned("m", Some("t4")).is_empty());
    assert!(warned("m", Some("tesla"))[0].contains("A100"));
    assert!(warned("l+k80", None)[0].contains("T4"));
}

#[test]
fn regions_and_zones() {
    let place = |region: &str, zone: Option<&str>| Place {
        region: region.to_owned(),
        zone: zone.map(str::to_owned),
    };
    for (name, expected) in [
        ("us-west", place("westus2", None)),
        ("eu-north", place("northeurope", None)),
        ("usgovvirginia", place("usgovvirginia", None)),
        ("eastus-1", place("eastus", Some("eastus-1"))),
    ] {
        assert_eq!(region(Azure, name).unwrap(), expected, "{name}");
    }
    for name in ["", "mars", "East US", "us-west-2", "eastus-4", "eastus-", "2eastus", "us-east1"] {
        assert!(region(Azure, name).is_err(), "{name}");
    }
}

#[test]
fn images_have_an_owner() {
    for gpu in [false, true] {
        let image = image(Azure, gpu).unwrap();
        assert!(["Canonical", "microsoft-dsvm"].contains(&image.owner.as_str()));
        assert_eq!(image.pattern(Platform::X64).split(':').count(), 3);
    }
}
