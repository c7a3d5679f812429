//! The metadata service of an instance, by raw HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod wire;

use std::collections::BTreeMap;

use sandbox::imds::{Metadata, serve};
use wire::request;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

fn metadata() -> Metadata {
    let form = [("InstanceType", "g6.xlarge"), ("ImageId", "ami-1"), ("UserData", "eA==")];
    let form: BTreeMap<String, String> = form.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    Metadata::new("i-1", "us-west-1b", &form)
}

#[tokio::test]
async fn nothing_is_told_without_a_token() {
    let service = serve(metadata()).await.unwrap();
    let url = service.url();
    for path in ["meta-data/instance-id", "dynamic/instance-identity/document", "user-data"] {
        let url = format!("{url}/latest/{path}");
        assert_eq!(request("GET", &url, &[], "").await.unwrap().0, 401, "{path}");
        assert_eq!(request("GET", &url, &[(TOKEN, "wrong")], "").await.unwrap().0, 401, "{path}");
    }
    let token = format!("{url}/latest/api/token");
    for headers in [&[][..], &[(TTL, "0")], &[(TTL, "21601")], &[(TTL, "soon")]] {
        assert_eq!(request("PUT", &token, headers, "").await.unwrap().0, 400, "{headers:?}");
    }
    assert_eq!(request("PUT", &token, &[(TTL, "21600")], "").await.unwrap().0, 200);
}

#[tokio::test]
async fn it_tells_what_the_instance_is() {
    let service = serve(metadata()).await.unwrap();
    let url = service.url();
    let (_, token) = request("PUT", &format!("{url}/latest/api/token"), &[(TTL, "60")], "")
        .await
        .unwrap();
    let get = async |path: &str| {
        request("GET", &format!("{url}/latest/{path}"), &[(TOKEN, &token)], "")
            .await
            .unwrap()
    };
    let told = [
        ("instance-id", "i-1"),
        ("instance-type", "g6.xlarge"),
        ("ami-id", "ami-1"),
        ("placement/availability-zone", "us-west-1b"),
        ("placement/region", "us-west-1"),
        ("instance-life-cycle", "on-demand"),
    ];
    for (path, value) in told {
        assert_eq!(get(&format!("meta-data/{path}")).await, (200, value.to_owned()), "{path}");
    }
    assert_eq!(get("meta-data/spot/instance-action").await.0, 404);
    assert_eq!(get("user-data").await.1, "x");
    let document: serde_json::Value = serde_json::from_str(&get("dynamic/instance-identity/document").await.1).unwrap();
    assert_eq!((&document["instanceId"], &document["region"]), (&"i-1".into(), &"us-west-1".into()));
}
