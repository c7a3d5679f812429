#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use common::http;
use common::spec::CloudKind;
use proptest::prelude::*;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{pass, proxy};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Paths of each cloud: what its SDKs ask for to be the role, and what jobs must not see.
const PASSED: [(CloudKind, &str); 14] = [
    (CloudKind::Aws, "/latest/meta-data/iam/security-credentials/"),
    (CloudKind::Aws, "/latest/meta-data/iam/security-credentials/trainer"),
    (CloudKind::Aws, "/latest/meta-data/iam/security-credentials-extended/trainer"),
    (CloudKind::Aws, "/latest/meta-data/placement/availability-zone"),
    (CloudKind::Aws, "/latest/dynamic/instance-identity/document"),
    (CloudKind::Gcp, "/"),
    (CloudKind::Gcp, "/computeMetadata/v1/instance/service-accounts/?recursive=true"),
    (
        CloudKind::Gcp,
        "/computeMetadata/v1/instance/service-accounts/default/token?scopes=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform",
    ),
    (
        CloudKind::Gcp,
        "/computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Fexample.org",
    ),
    (CloudKind::Gcp, "/computeMetadata/v1/instance/zone?alt=text"),
    (CloudKind::Gcp, "/computeMetadata/v1/project/project-id"),
    (
        CloudKind::Azure,
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F",
    ),
    (
        CloudKind::Azure,
        "/metadata/instance/compute/location?api-version=2021-02-01&format=text",
    ),
    (CloudKind::Azure, "/metadata/versions"),
];
const REFUSED: [(CloudKind, &str); 39] = [
    (CloudKind::Aws, "/latest/user-data"),
    (CloudKind::Aws, "/latest/user-data/"),
    (CloudKind::Aws, "//latest/user-data"),
    (CloudKind::Aws, "/latest/meta-data/iam/security-credentials/../../../user-data"),
    (
        CloudKind::Aws,
        "/latest/meta-data/iam/security-credentials/..%2f..%2f..%2fuser-data",
    ),
    (
        CloudKind::Aws,
        "/latest/meta-data/iam/security-credentials/%2e%2e/%2e%2e/%2e%2e/user-data",
    ),
    (CloudKind::Aws, "/latest/meta-data/placement/..\\..\\..\\user-data"),
    (CloudKind::Aws, "/latest/meta-data/placement/./region"),
    (CloudKind::Aws, "/latest/meta-data/placement/...//region"),
    (CloudKind::Aws, "/latest/meta-data/placement/region?x=1"),
    (CloudKind::Aws, "/2009-04-04/user-data"),
    (CloudKind::Aws, "/latest/"),
    (CloudKind::Aws, "/latest/meta-data/"),
    (
        CloudKind::Aws,
        "/latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
    ),
    (CloudKind::Aws, "/latest/meta-data/managed-ssh-keys/signer-cert"),
    (CloudKind::Aws, "/latest/meta-data/public-keys/"),
    (CloudKind::Aws, "/latest/dynamic/instance-identity/pkcs7"),
    (CloudKind::Aws, "/latest/dynamic/instance-identity/signature"),
    (CloudKind::Aws, "/latest/api/token"),
    (CloudKind::Aws, "latest/meta-data/ami-id"),
    (CloudKind::Aws, "http://169.254.169.254/latest/meta-data/ami-id"),
    (CloudKind::Aws, ""),
    (CloudKind::Gcp, "/?recursive=true"),
    (CloudKind::Gcp, "/computeMetadata/v1/?recursive=true"),
    (CloudKind::Gcp, "/computeMetadata/v1/instance/"),
    (CloudKind::Gcp, "/computeMetadata/v1/instance/?recursive=true"),
    (CloudKind::Gcp, "/computeMetadata/v1/instance/attributes/startup-script"),
    (CloudKind::Gcp, "/computeMetadata/v1/project/attributes/ssh-keys"),
    (
        CloudKind::Gcp,
        "/computeMetadata/v1/instance/service-accounts/default/identity?audience=x&format=full",
    ),
    (
        CloudKind::Gcp,
        "/computeMetadata/v1/instance/service-accounts/default/identity?audience=x&%66ormat=full",
    ),
    (
        CloudKind::Gcp,
        "/computeMetadata/v1/instance/service-accounts/default/identity/?format=full&audience=x",
    ),
    (CloudKind::Gcp, "/computeMetadata/v1beta1/instance/attributes/startup-script"),
    (
        CloudKind::Gcp,
        "/computeMetadata/v1/instance/service-accounts/../attributes/startup-script",
    ),
    (CloudKind::Azure, "/metadata/instance?api-version=2021-02-01"),
    (CloudKind::Azure, "/metadata/instance/compute?api-version=2021-02-01"),
    (
        CloudKind::Azure,
        "/metadata/instance/compute/userData?api-version=2021-02-01&format=text",
    ),
    (CloudKind::Azure, "/metadata/attested/document?api-version=2021-02-01"),
    (CloudKind::Azure, "/metadata/scheduledevents?api-version=2020-07-01"),
    (CloudKind::Kubernetes, "/"),
];

fn passes(cloud: CloudKind, method: &Method, target: &str) -> bool {
    pass::passes(cloud, method, target, &HeaderMap::new())
}

#[test]
fn jobs_are_told_of_their_role_and_of_nothing_that_is_the_machines() {
    for (cloud, target) in PASSED {
        assert!(passes(cloud, &Method::GET, target), "{cloud} {target}");
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::CONNECT] {
            assert!(!passes(cloud, &method, target), "{cloud} {method} {target}");
        }
        let forwarded: HeaderMap = [("x-forwarded-for".parse().unwrap(), "10.0.0.1".parse().unwrap())]
            .into_iter()
            .collect();
        assert!(!pass::passes(cloud, &Method::GET, target, &forwarded));
    }
    for (cloud, target) in REFUSED {
        assert!(!passes(cloud, &Method::GET, target), "{cloud} {target}");
    }
    assert!(passes(CloudKind::Aws, &Method::PUT, "/latest/api/token"));
    assert!(!passes(CloudKind::Azure, &Method::POST, "/metadata/scheduledevents"));
}

proptest! {
    /// However a path is written: what the service would take it for, once it has read it, is on the list too.
    #[test]
    fn no_spelling_leads_past_the_list(parts in prop::collection::vec("(user-data|attributes|\\.\\.|\\.|%2e%2e|latest|meta-data|placement|instance|computeMetadata|v1|service-accounts|[%/\\\\?#;.a-z]{0,6})", 0..8)) {
        let target = format!("/{}", parts.join("/"));
        for cloud in [CloudKind::Aws, CloudKind::Gcp, CloudKind::Azure] {
            if passes(cloud, &Method::GET, &target) {
                let read = url::Url::parse(&format!("http://x{target}")).unwrap();
                prop_assert_eq!(read.path(), target.split('?').next().unwrap());
                prop_assert!(!["user-data", "attributes", "pkcs7", "userData"].iter().any(|word| read.path().contains(word)));
            }
        }
    }
}

/// A service that says what it was asked with, and that tells its secret to whoever gets through.
async fn service() -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let app = Router::new().fallback(move |request: Request| async move {
        let names: Vec<&str> = request.headers().keys().map(reqwest::header::HeaderName::as_str).collect();
        let line = format!("{} {} {}", request.method(), request.uri(), names.join(","));
        seen.lock().unwrap().push(line);
        ([("metadata-flavor", "Google"), ("x-secret", "s3cret")], "credentials")
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (format!("http://{address}"), asked)
}

async fn proxied(service: String, cloud: CloudKind) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(proxy::serve(listener, service, cloud).unwrap());
    address
}

#[tokio::test]
async fn what_is_passed_reaches_the_service_with_its_own_headers_and_nothing_else_does() {
    let (service, asked) = service().await;
    let address = proxied(service, CloudKind::Gcp).await;
    let client = http::local(PATIENCE).unwrap();
    let path = "computeMetadata/v1/instance/service-accounts/default/token";
    let answer = client.get(format!("http://{address}/{path}"));
    let answer = answer
        .header("metadata-flavor", "Google")
        .header("cookie", "a=b")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status(), answer.headers().contains_key("metadata-flavor")),
        (StatusCode::OK, true)
    );
    assert!(!answer.headers().contains_key("x-secret"), "only headers that are known");
    assert_eq!(answer.text().await.unwrap(), "credentials");
    let answer = client.get(format!("http://{address}/computeMetadata/v1/instance/attributes/startup-script"));
    let answer = answer.header("metadata-flavor", "Google").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(answer.text().await.unwrap().contains("--job-metadata"), "it says why");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].contains("metadata-flavor") && !asked[0].contains("cookie"), "{asked:?}");
}

#[tokio::test]
async fn who_asks_as_one_asks_a_proxy_is_refused() {
    let (service, asked) = service().await;
    let address = proxied(service, CloudKind::Aws).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET http://169.254.169.254/latest/meta-data/ami-id HTTP/1.1\r\nhost: 169.254.169.254\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_service_that_is_not_there_is_said_to_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let address = proxied(gone, CloudKind::Aws).await;
    let client = http::local(PATIENCE).unwrap();
    let answer = client
        .get(format!("http://{address}/latest/meta-data/ami-id"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
}
