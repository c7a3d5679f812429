//! A real machine whose owner has an authority of their own.

use sandbox::cloud::Kind;
use sandbox::proxy::Proxy;

use super::super::{bootable, boots, journal};

/// Programs that read a variable find it there, and all others in the system's own list.
const TRUSTS: &str = "for file in /etc/ssl/certs/ca-certificates.crt \"$SSL_CERT_FILE\" \"$NODE_EXTRA_CA_CERTS\"; do
      grep -qF 'LINE' \"$file\" || { echo \"$file does not have it\"; exit 1; }
    done
    [ \"$(grep -c BEGIN \"$SSL_CERT_FILE\")\" -gt 50 ] || exit 1
    echo trusted by all";

#[tokio::test]
async fn a_machine_trusts_whom_its_launcher_was_told_to() {
    let Some(image) = bootable("a_machine_trusts_whom_its_launcher_was_told_to") else {
        return;
    };
    let scene = boots(image, Kind::Aws).await;
    let authority = Proxy::start(None, &[]).await.unwrap().certificate();
    let file = scene.world.dir().join("authority.pem");
    std::fs::write(&file, &authority).unwrap();
    let line = authority.lines().nth(2).unwrap();
    let run = scene.job(&TRUSTS.replace("LINE", line));
    scene.launch(&[&format!("--ca-certificates={}", file.display())]).await.succeeded();
    let conclusion = scene.conclusion(run).await;
    assert_eq!(conclusion, "success", "{}\n{}", journal(&scene), scene.timeline());
    assert!(scene.timeline().contains("trusted by all"));
    scene.end().await;
}
