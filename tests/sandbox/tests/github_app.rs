//! The sandbox's GitHub App by plain HTTP: what it takes for a proof, and what its tokens may do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hub;

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hub::{Hub, REPO};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use sandbox::github::Options;
use sandbox::github::app::{self, CLIENT_ID, KEY, NUMBER};
use sandbox::standin::http::send;
use serde_json::{Value, json};

/// A proof that says this.
fn proof(issuer: &Value, made: i64, expires: i64) -> String {
    let text: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let key = KeyPair::from_der(&STANDARD.decode(text).unwrap()).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let claims = json!({ "iss": issuer, "iat": now + made, "exp": now + expires });
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({ "alg": "RS256" })), part(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn good() -> String {
    proof(&json!(CLIENT_ID), -60, 300)
}

/// The status and the body of an answer.
async fn ask(hub: &Hub, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("user-agent", "test/1")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = send(method, &hub.api(path), &headers, &body).await.unwrap();
    (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
}

async fn mint(hub: &Hub, body: &Value) -> (u16, Value) {
    let (status, installation) = ask(hub, &good(), "GET", &format!("{REPO}/installation"), &Value::Null).await;
    assert_eq!(status, 200, "{installation}");
    let path = format!("/app/installations/{}/access_tokens", installation["id"]);
    ask(hub, &good(), "POST", &path, body).await
}

#[tokio::test]
async fn only_a_proof_that_is_good_now_is_taken() {
    let hub = Hub::new().await;
    let good_one = good();
    let (signed, _) = good_one.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 256]));
    for (token, status, says) in [
        (good(), 200, ""),
        (proof(&json!(NUMBER), 0, 600), 200, ""),
        (proof(&json!(NUMBER.to_string()), -60, 300), 200, ""),
        (proof(&json!("Iv1.another"), -60, 300), 404, "Integration not found"),
        (proof(&json!(CLIENT_ID), 60, 300), 401, "('iat')"),
        (
            proof(&json!(CLIENT_ID), -700, -1),
            401,
            "future time at which the assertion expires",
        ),
        (proof(&json!(CLIENT_ID), -60, 700), 401, "too far in the future"),
        (forged, 401, "could not be decoded"),
        (hub.github.token().to_owned(), 401, "could not be decoded"),
    ] {
        for path in [&format!("{REPO}/installation"), "/orgs/octo/installation"] {
            let (answered, body) = ask(&hub, &token, "GET", path, &Value::Null).await;
            assert!(answered == status && body.to_string().contains(says), "{answered} {body}");
        }
    }
    let (status, _) = ask(&hub, &good(), "GET", &format!("{REPO}/actions/runners"), &Value::Null).await;
    assert_eq!(status, 401, "a proof is no token");
}

#[tokio::test]
async fn a_token_does_what_it_was_made_for_and_nothing_else() {
    let hub = Hub::new().await;
    let runners = format!("{REPO}/actions/runners");
    for (body, allowed) in [
        (
            json!({ "repositories": ["train"], "permissions": { "administration": "write" } }),
            [true, true, false, false],
        ),
        (json!({ "permissions": { "administration": "read" } }), [true, false, false, false]),
        (
            json!({ "permissions": { "organization_self_hosted_runners": "write" } }),
            [false, false, true, false],
        ),
        (
            json!({ "repositories": ["train"], "permissions": { "actions": "write" } }),
            [false, false, false, true],
        ),
        (Value::Null, [true; 4]),
    ] {
        let (status, minted) = mint(&hub, &body).await;
        assert_eq!(status, 201, "{minted}");
        let token = minted["token"].as_str().unwrap();
        let asked = [
            ("GET", runners.clone()),
            ("POST", format!("{runners}/registration-token")),
            ("GET", "/orgs/octo/actions/runners".into()),
            ("GET", format!("{REPO}/actions/runs")),
        ];
        for ((method, path), allowed) in asked.into_iter().zip(allowed) {
            let (status, said) = ask(&hub, token, method, &path, &Value::Null).await;
            assert_eq!(status < 300, allowed, "{body}: {method} {path}: {status} {said}");
            assert!(allowed || said["message"] == "Resource not accessible by integration", "{said}");
        }
    }
}

#[tokio::test]
async fn what_was_not_granted_is_not_given_and_a_token_ends() {
    let hub = Hub::with(Options {
        app: app::Options {
            permissions: app::grants(&["administration"]),
            token_life: Duration::ZERO,
            ..app::Options::default()
        },
        // One of the bodies is none.
        record: None,
        ..Options::default()
    })
    .await;
    for body in [
        json!({ "permissions": { "actions": "read" } }),
        json!({ "repositories": ["other"] }),
        json!({ "repository": ["train"] }),
    ] {
        assert_eq!(mint(&hub, &body).await.0, 422, "{body}");
    }
    let (_, minted) = mint(&hub, &Value::Null).await;
    let (status, said) = ask(
        &hub,
        minted["token"].as_str().unwrap(),
        "GET",
        &format!("{REPO}/actions/runners"),
        &Value::Null,
    )
    .await;
    assert_eq!((status, &said["message"]), (401, &json!("Bad credentials")));
}
