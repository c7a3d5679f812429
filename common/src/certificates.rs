//! Authorities that a private network trusts besides the system's own: `--ca-certificates`.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, RootCertStore};

use crate::error::{Class, Failure};

/// Characters of base64 in a line. Source: [RFC 7468](https://www.rfc-editor.org/rfc/rfc7468#section-2).
const LINE: usize = 64;

/// Whether a server showed a certificate whose authority is trusted by nobody here.
pub fn is_of_stranger(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

/// The failure that this is.
pub fn stranger() -> Failure {
    Failure::new(Class::Unexpected, "the server's certificate is of an authority that is not trusted here").hint(
        "if the server has a certificate of a private authority, or a proxy opens what is encrypted, give the authority's own one: `--ca-certificates=FILE` (PEM)",
    )
}

/// Certificates of authorities, each of which was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates(Vec<CertificateDer<'static>>);

impl Certificates {
    /// Reads a bundle. What else is in the file, such as a key, is left there.
    ///
    /// # Errors
    /// It cannot be read, or does not hold certificates in PEM.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |what| {
            Failure::new(Class::Usage, format!("`--ca-certificates`: {} {what}", path.display()))
                .hint("it takes a file of certificates in PEM (`-----BEGIN CERTIFICATE-----`); `openssl x509 -inform der -in FILE` makes one of DER")
        };
        let text = std::fs::read(path).with_context(|| refuse("cannot be read"))?;
        let read = CertificateDer::pem_slice_iter(&text).collect::<std::result::Result<Vec<_>, _>>();
        let certificates = read.map_err(|why| anyhow::anyhow!("{why}").context(refuse("is not PEM")))?;
        if certificates.is_empty() {
            return Err(refuse("holds no certificate").into());
        }
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store
                .add(certificate.clone())
                .with_context(|| refuse("holds a certificate that cannot be used"))?;
        }
        Ok(Self(certificates))
    }

    /// These and the system's own: those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set, else of the usual place.
    #[must_use]
    pub fn with_system(&self) -> Self {
        let mut all = rustls_native_certs::load_native_certs().certs;
        let more = self.0.iter().filter(|own| !all.contains(own)).cloned().collect::<Vec<_>>();
        all.extend(more);
        Self(all)
    }

    /// Each as PEM.
    pub fn each(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|certificate| pem(certificate))
    }

    /// All of them, as PEM.
    pub fn to_pem(&self) -> String {
        self.each().collect()
    }
}

fn pem(certificate: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let packed = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut rest = packed.as_str();
    while let Some((line, after)) = rest.split_at_checked(LINE.min(rest.len())).filter(|(line, _)| !line.is_empty()) {
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::{Path, PathBuf};

    use super::Certificates;
    use crate::error::{Class, Report};

    /// One authority, made for these tests.
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/authority.pem");

    fn written(name: &str, text: &str) -> PathBuf {
        let file = std::env::temp_dir().join(format!("cml-certificates-{name}-{}", std::process::id()));
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_bundle_reads_back_and_a_key_in_it_stays_where_it_is() {
        let own = std::fs::read_to_string(FILE).unwrap();
        let certificates = Certificates::read(Path::new(FILE)).unwrap();
        assert_eq!(certificates.to_pem(), own);
        let text = format!("# ours\n-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n{own}{own}");
        let file = written("key", &text);
        assert_eq!(Certificates::read(&file).unwrap().to_pem(), format!("{own}{own}"));
        assert_eq!(certificates.each().count(), 1);
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn the_systems_own_are_there_besides_each_once() {
        let certificates = Certificates::read(Path::new(FILE)).unwrap();
        let all = certificates.with_system();
        assert!(all.to_pem().ends_with(&certificates.to_pem()));
        assert_eq!(certificates.with_system().with_system(), all);
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_the_options_name() {
        let broken = "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n";
        let unended = "-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n";
        for (name, text) in [("none", "canary"), ("broken", broken), ("unended", unended)] {
            let file = written(name, text);
            let error = Certificates::read(&file).unwrap_err();
            let report = Report(&error).to_string();
            assert_eq!(Report(&error).class(), Class::Usage, "{report}");
            assert!(report.contains("--ca-certificates") && report.contains("openssl"), "{report}");
            assert!(!report.contains("canary") && !report.contains("Y2FuYXJ5"), "{report}");
            std::fs::remove_file(file).unwrap();
        }
    }
}
