//! A GitHub App: its id and its private key, which signs what proves that we are it.
//!
//! Source: <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::error::{Class, Failure};
use common::secret::Secret;
use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use zeroize::{Zeroize as _, Zeroizing};

/// How a key begins that stands where a file's name might.
pub const PEM: &str = "-----BEGIN";

/// How far in the past a proof was made, for GitHub's clock may be behind ours: GitHub's own advice.
const SLACK: SignedDuration = SignedDuration::from_secs(60);

/// How long a proof is good for: longer than a request is repeated, and so far below GitHub's ten minutes that a clock which is fast by some of
/// them does no harm.
const LIFE: SignedDuration = SignedDuration::from_mins(5);

/// A GitHub App that can prove that it is.
#[derive(Clone)]
pub struct App {
    id: String,
    key: Arc<KeyPair>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("id", &self.id).finish_non_exhaustive()
    }
}

impl App {
    /// Reads the key: its PEM itself, a file's name, or `-` for standard input. `source` is how it was given.
    pub fn new(id: &str, key: &Secret, source: &str) -> Result<Self> {
        let pem = if key.expose().starts_with(PEM) {
            key.clone()
        } else {
            read(Path::new(key.expose())).with_context(|| {
                Failure::new(Class::Usage, format!("the file that `{source}` names cannot be read"))
                    .hint("it is the .pem file that GitHub gave when the key was made, or the whole text in it")
            })?
        };
        Ok(Self {
            id: id.to_owned(),
            key: Arc::new(key_pair(&pem, source)?),
        })
    }

    /// Proves for some minutes that we are this App.
    pub fn proof(&self, now: Timestamp) -> Result<Secret> {
        let claims = json!({
            "iat": now.checked_sub(SLACK)?.as_second(),
            "exp": now.checked_add(LIFE)?.as_second(),
            "iss": self.id,
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        let made = self
            .key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
        made.map_err(|_| anyhow::anyhow!("the GitHub App's private key does not sign"))?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

fn read(file: &Path) -> Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.read_to_string(&mut text)?;
    }
    Ok(Secret::new(text.trim()))
}

/// GitHub gives PKCS#1; whoever has it converted has PKCS#8. What is wrong with a key is told without a word of it.
fn key_pair(pem: &Secret, source: &str) -> Result<KeyPair> {
    let refuse = |why: &str| {
        Failure::new(Class::Usage, format!("`{source}` is no RSA private key: {why}"))
            .hint("take the .pem file that GitHub gave when the key was made, with all of its lines")
    };
    let mut der = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| refuse("its PEM cannot be read"))?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
        _ => return Err(refuse("it is of another kind").into()),
    };
    der.zeroize();
    pair.map_err(|error| refuse(&error.to_string()).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use common::error::Report;
    use common::secret::Secret;
    use ring::rsa::PublicKeyComponents;
    use ring::signature::RSA_PKCS1_2048_8192_SHA256;
    use serde_json::Value;

    use super::App;

    /// Of the tests' own App, in both forms.
    const PKCS1: &str = include_str!("../../../tests/sandbox/src/github/app.pem");
    const PKCS8: &str = include_str!("../../../tests/sandbox/src/github/app.pkcs8.pem");

    fn refusal(key: &str) -> String {
        Report(&App::new("1", &Secret::new(key), "--app-private-key").unwrap_err()).to_string()
    }

    #[test]
    fn a_proof_is_signed_and_says_who_and_for_how_long() {
        for key in [PKCS1, PKCS8] {
            let app = App::new("Iv1.app", &Secret::new(key), "X").unwrap();
            let proof = app.proof("2026-03-04T05:06:07Z".parse().unwrap()).unwrap();
            let (signed, signature) = proof.expose().rsplit_once('.').unwrap();
            let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
            let public: PublicKeyComponents<Vec<u8>> = app.key.public().into();
            public
                .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &decode(signature))
                .unwrap();
            let read = |part: &str| serde_json::from_slice::<Value>(&decode(part)).unwrap();
            let (head, claims) = signed.split_once('.').unwrap();
            assert_eq!(read(head)["alg"], "RS256");
            let claims = read(claims);
            assert_eq!((&claims["iss"], &claims["iat"]), (&"Iv1.app".into(), &1_772_600_707.into()));
            assert_eq!(claims["exp"], 1_772_600_767 + 300);
        }
    }

    #[test]
    fn a_key_is_read_from_a_file_and_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), PKCS1).unwrap();
        let named = Secret::new(file.path().to_str().unwrap());
        let app = App::new("1", &named, "X").unwrap();
        assert_eq!(format!("{app:?}"), "App { id: \"1\", .. }");
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        let half: String = PKCS1.lines().take(9).collect::<Vec<_>>().join("\n");
        let other = "-----BEGIN EC PRIVATE KEY-----\nY2FuYXJ5\n-----END EC PRIVATE KEY-----";
        let broken = "-----BEGIN RSA PRIVATE KEY-----\nY2FuYXJ5\n-----END RSA PRIVATE KEY-----";
        for (key, says) in [
            (half.as_str(), "its PEM cannot be read"),
            (other, "it is of another kind"),
            (broken, "InvalidEncoding"),
            ("/nowhere/app.pem", "the file that `--app-private-key` names cannot be read"),
        ] {
            let report = refusal(key);
            assert!(report.contains(says) && report.contains("hint"), "{report}");
            assert!(!report.contains("Y2FuYXJ5") && !report.contains("MII"), "{report}");
        }
    }
}
