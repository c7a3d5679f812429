//! The names of Kubernetes.

use common::error::{Class, Report};
use common::spec::CloudKind::Kubernetes;

use crate::catalog::{image, region, resolve};

fn native(cloud_type: &str, gpu: Option<&str>) -> (String, Option<String>) {
    let mut found = resolve(Kubernetes, cloud_type, gpu).unwrap();
    assert_eq!(found.len(), 1, "{cloud_type}");
    let found = found.remove(0);
    (found.native, found.gpu)
}

#[test]
fn sizes_are_generic_or_written_out_and_no_gpu_is_lost() {
    for (cloud_type, gpu, expected) in [
        ("m", None, "8-32000"),
        ("m", Some("nogpu"), "8-32000"),
        ("m", Some("t4"), "4-16000+t4*1"),
        ("l+v100", None, "32-256000+v100*4"),
        ("m", Some("tesla"), "8-64000+v100*1"),
        ("2-4000", None, "2-4000"),
        ("2-4000", Some("t4"), "2-4000+t4*1"),
        ("2-4000+nvidia-tesla-t4*2", None, "2-4000+nvidia-tesla-t4*2"),
        ("2-4000+nvidia", None, "2-4000+nvidia*1"),
        ("2-4000+nvidia*1", Some("t4"), "2-4000+nvidia*1"),
    ] {
        let (found, of) = native(cloud_type, gpu);
        assert_eq!(found, expected, "{cloud_type} {gpu:?}");
        let promised = expected.split_once('+').and_then(|(_, gpu)| gpu.split_once('*'));
        assert_eq!(of.as_deref(), promised.map(|(gpu, _)| gpu), "{cloud_type} {gpu:?}");
    }
}

#[test]
fn what_is_no_size_is_refused() {
    for wrong in [
        "0-1000",
        "8",
        "8-",
        "8-32G",
        "8-32000+*1",
        "8-32000+t4*0",
        "8-32000+a b*1",
        "m7i.2xlarge",
        "-1-2",
    ] {
        let error = resolve(Kubernetes, wrong, None).unwrap_err();
        assert_eq!(Report(&error).class(), Class::Usage, "{wrong}");
    }
}

#[test]
fn a_region_is_any_node_or_a_selector() {
    assert_eq!(region(Kubernetes, "us-west").unwrap().region, "kubernetes.io/os=linux");
    assert_eq!(region(Kubernetes, "pool=ci,disk=ssd").unwrap().region, "pool=ci,disk=ssd");
    assert!(region(Kubernetes, "us-east-1").is_err());
}

#[test]
fn a_gpu_decides_on_the_image() {
    assert!(image(Kubernetes, true).unwrap().owner.ends_with("nvidia"));
    assert!(image(Kubernetes, false).unwrap().owner.starts_with("ghcr.io"));
}
