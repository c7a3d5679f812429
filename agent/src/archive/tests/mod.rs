#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bombs;
pub mod server;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use common::error::Report;
use common::secret::Secret;
use tar::{EntryType, Header};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use server::{Server, answer, entry, noise, pack, sha256, whole};

use super::{Destination, Form, Source, install};
use crate::user::User;

const BUDGET: Duration = Duration::from_secs(30);

fn runner() -> Vec<u8> {
    pack(vec![
        entry(EntryType::Directory, "./", "", 0o755, b""),
        entry(EntryType::Regular, "./config.sh", "", 0o755, b"#!/bin/sh\n"),
        entry(EntryType::Directory, "./bin/", "", 0o750, b""),
        entry(EntryType::Regular, "./bin/Runner.Listener", "", 0o6755, &noise(3 << 20)),
        entry(EntryType::Regular, "./externals/node/bin/node", "", 0o755, b"node"),
        entry(EntryType::Symlink, "./externals/node/npm", "../node/bin/node", 0o777, b""),
        entry(EntryType::Link, "./externals/hard", "./externals/node/bin/node", 0o755, b""),
    ])
}

fn here(dir: &Path) -> Destination<'_> {
    Destination {
        dir,
        owner: None,
        replace: false,
    }
}

async fn get(source: &Source, destination: Destination<'_>) -> anyhow::Result<()> {
    install(&common::http::client().unwrap(), source, destination, BUDGET).await
}

async fn fails(source: &Source, dir: &Path) -> String {
    let error = get(source, here(dir)).await.expect_err("it is refused");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "something of it is left");
    let report = Report(&error).to_string();
    assert!(!report.contains("canary"), "{report}");
    report
}

#[tokio::test]
async fn a_runner_is_unpacked_as_it_was_packed() {
    let archive = runner();
    let server = Server::start({
        let archive = archive.clone();
        move |_, _| whole(&archive)
    })
    .await;
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("new/runner");
    let mut source = server.source();
    source.sha256 = Some(sha256(&archive).to_uppercase());
    source.token = Some(Secret::new("download-token"));
    get(&source, here(&root)).await.unwrap();
    assert_eq!(fs::read(root.join("bin/Runner.Listener")).unwrap(), noise(3 << 20));
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("bin"), mode("bin/Runner.Listener"), mode("config.sh")), (0o750, 0o755, 0o755));
    assert_eq!(fs::read_to_string(root.join("externals/node/npm")).unwrap(), "node");
    assert_eq!(fs::metadata(root.join("externals/hard")).unwrap().nlink(), 2);
    assert!(!root.join(".partial").exists());
    let requests = server.requests.lock().unwrap().join("");
    assert!(requests.contains("authorization: Bearer download-token"), "{requests}");
    assert!(requests.contains("accept-encoding: identity"), "{requests}");
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let archive = runner();
    let bytes = archive.clone();
    let server = Server::start(move |number, _| match number {
        0 => answer("200 OK", "ETag: \"one\"\r\n", &bytes, 1_000_000),
        1 => {
            let range = format!(
                "ETag: \"one\"\r\nContent-Range: bytes 1000000-{}/{}\r\n",
                bytes.len() - 1,
                bytes.len()
            );
            answer("206 Partial Content", &range, &bytes[1_000_000..], 500_000)
        }
        // A server that does not know ranges sends all of it again.
        _ => answer("200 OK", "ETag: \"one\"\r\n", &bytes, bytes.len()),
    })
    .await;
    let dir = TempDir::new().unwrap();
    let mut source = server.source();
    source.sha256 = Some(sha256(&archive));
    get(&source, here(dir.path())).await.unwrap();
    assert_eq!(fs::read(dir.path().join("bin/Runner.Listener")).unwrap(), noise(3 << 20));
    let requests = server.requests.lock().unwrap();
    assert_eq!(requests.len(), 3);
    assert!(
        requests[1].contains("range: bytes=1000000-\r\n") && requests[1].contains("if-range: \"one\""),
        "{}",
        requests[1]
    );
    assert!(requests[2].contains("range: bytes=1500000-\r\n"), "{}", requests[2]);
}

#[tokio::test]
async fn a_file_that_changes_between_two_tries_is_not_mixed() {
    let archive = runner();
    let server = Server::start(move |number, _| {
        let tag = format!("ETag: \"{number}\"\r\n");
        answer("200 OK", &tag, &archive, if number == 0 { 1_000_000 } else { archive.len() })
    })
    .await;
    let dir = TempDir::new().unwrap();
    let report = fails(&server.source(), dir.path()).await;
    assert!(report.contains("has changed on the server"), "{report}");
    assert_eq!(server.requests.lock().unwrap().len(), 2, "and asking again would not help");
}

#[tokio::test]
async fn a_connection_that_always_breaks_is_given_up_with_the_budget() {
    let archive = runner();
    let server = Server::start(move |_, _| answer("200 OK", "", &archive, 1_000_000)).await;
    let dir = TempDir::new().unwrap();
    let client = common::http::client().unwrap();
    let error = install(&client, &server.source(), here(dir.path()), Duration::from_secs(1))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("broke off after 1000000 of "), "{error:#}");
    assert!(server.requests.lock().unwrap().len() > 1);
}

#[tokio::test]
async fn a_wrong_checksum_is_refused_and_named() {
    let archive = runner();
    let found = sha256(&archive);
    let server = Server::start(move |_, _| whole(&archive)).await;
    let dir = TempDir::new().unwrap();
    let mut source = server.source();
    source.sha256 = Some("0".repeat(64));
    let report = fails(&source, dir.path()).await;
    assert!(
        report.contains("SHA-256") && report.contains(&found) && report.contains("--runner-sha256"),
        "{report}"
    );
    source.sha256 = Some("0".repeat(63));
    let error = get(&source, here(dir.path())).await.unwrap_err();
    assert!(Report(&error).to_string().contains("is not a SHA-256"));
    assert_eq!(
        server.requests.lock().unwrap().len(),
        1,
        "a sum that cannot be right is refused before anything is sent"
    );
}

#[tokio::test]
async fn truncated_and_damaged_archives_are_refused() {
    let archive = runner();
    let mut damaged = archive.clone();
    damaged[1_500_000] ^= 0x55;
    let mut wrong_sum = archive.clone();
    let end = wrong_sum.len() - 6;
    wrong_sum[end] ^= 1;
    let cases = [
        (archive[..archive.len() / 2].to_vec(), "ends too early"),
        (archive[..archive.len() - 1].to_vec(), "ends too early"),
        (damaged, "unpacking"),
        (wrong_sum, "damaged"),
        (b"<html>a login page</html>".to_vec(), "--runner-url must be that of a .tar.gz"),
        (Vec::new(), "ends too early"),
    ];
    for (body, expected) in cases {
        let server = Server::start(move |_, _| whole(&body)).await;
        let dir = TempDir::new().unwrap();
        let report = fails(&server.source(), dir.path()).await;
        assert!(report.contains(expected), "{report}");
    }
}

#[tokio::test]
async fn what_the_server_refuses_is_said_with_a_hint() {
    for (status, hint) in [("404 Not Found", "--runner-version"), ("401 Unauthorized", "without a login")] {
        let server = Server::start(move |_, _| answer(status, "", b"no", 2)).await;
        let dir = TempDir::new().unwrap();
        let report = fails(&server.source(), dir.path()).await;
        assert!(report.contains(status) && report.contains(hint), "{report}");
        assert_eq!(server.requests.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn hostile_entries_are_refused() {
    use EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let dir = TempDir::new().unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let outside = outside.to_str().unwrap();
    let cases: Vec<Vec<(Header, Vec<u8>)>> = vec![
        vec![entry(Regular, "../escaped", "", 0o644, b"x")],
        vec![entry(Regular, "a/../../escaped", "", 0o644, b"x")],
        vec![entry(Regular, outside, "", 0o644, b"x")],
        vec![entry(Directory, "../escaped/", "", 0o755, b"")],
        vec![entry(Symlink, "a", "/etc/passwd", 0o777, b"")],
        vec![entry(Symlink, "a/b", "../../outside", 0o777, b"")],
        vec![entry(Symlink, "a", "b/../../outside", 0o777, b"")],
        // Through a link that by itself is harmless.
        vec![
            entry(Directory, "d/", "", 0o755, b""),
            entry(Symlink, "l", "d", 0o777, b""),
            entry(Regular, "l/x", "", 0o644, b"x"),
        ],
        vec![entry(Symlink, "l", "d", 0o777, b""), entry(Directory, "l/", "", 0o755, b"")],
        vec![entry(Link, "a", outside, 0o644, b"")],
        vec![entry(Link, "a", "../outside", 0o644, b"")],
        vec![entry(Symlink, "l", "x", 0o777, b""), entry(Link, "a", "l", 0o644, b"")],
        vec![entry(Char, "null", "", 0o666, b"")],
        vec![entry(Block, "disk", "", 0o666, b"")],
        vec![entry(Fifo, "pipe", "", 0o666, b"")],
        vec![entry(Directory, "d/", "", 0o755, b""), entry(Regular, "d", "", 0o644, b"x")],
    ];
    for (number, entries) in cases.into_iter().enumerate() {
        let body = pack(entries);
        let server = Server::start(move |_, _| whole(&body)).await;
        let root = dir.path().join(format!("root-{number}"));
        let report = fails(&server.source(), &root).await;
        assert!(report.contains("damaged or hostile"), "case {number}: {report}");
        assert_eq!(fs::read_to_string(outside).unwrap(), "mine", "case {number}");
        assert!(!dir.path().join("escaped").exists(), "case {number}");
    }
}

#[tokio::test]
async fn the_work_of_earlier_jobs_stays_and_foreign_files_are_not_touched() {
    let archive = runner();
    let server = Server::start(move |_, _| whole(&archive)).await;
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("_work/cache")).unwrap();
    fs::create_dir_all(dir.path().join("bin/old")).unwrap();
    let error = get(&server.source(), here(dir.path())).await.unwrap_err();
    assert!(Report(&error).to_string().contains("--workdir"), "{error:#}");
    assert!(dir.path().join("bin/old").exists() && !dir.path().join("config.sh").exists() && !dir.path().join(".partial").exists());
    let destination = Destination {
        replace: true,
        ..here(dir.path())
    };
    get(&server.source(), destination).await.unwrap();
    assert!(dir.path().join("_work/cache").exists() && dir.path().join("bin/Runner.Listener").exists());
    assert!(!dir.path().join("bin/old").exists());
}

#[tokio::test]
async fn an_entry_that_would_take_the_place_of_all_others_removes_nothing() {
    let body = pack(vec![
        entry(EntryType::Regular, "bin/new", "", 0o755, b"x"),
        entry(EntryType::Regular, ".partial", "", 0o644, b"x"),
    ]);
    let server = Server::start(move |_, _| whole(&body)).await;
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("bin/old")).unwrap();
    let destination = Destination {
        replace: true,
        ..here(dir.path())
    };
    let error = get(&server.source(), destination).await.unwrap_err();
    assert!(Report(&error).to_string().contains("damaged or hostile"), "{error:#}");
    assert!(dir.path().join("bin/old").exists() && !dir.path().join(".partial").exists());
}

#[tokio::test]
async fn it_belongs_to_the_job_user() {
    if !nix::unistd::Uid::effective().is_root() {
        crate::user::skip("it_belongs_to_the_job_user", "needs root");
        return;
    }
    let archive = runner();
    let server = Server::start(move |_, _| whole(&archive)).await;
    let dir = TempDir::new().unwrap();
    let user = User {
        name: "nobody-has-this-name".into(),
        uid: 61_235,
        gid: 61_236,
        home: "/".into(),
    };
    let destination = Destination {
        owner: Some(&user),
        ..here(dir.path())
    };
    get(&server.source(), destination).await.unwrap();
    for path in [
        "",
        "bin",
        "bin/Runner.Listener",
        "externals",
        "externals/node/bin",
        "externals/node/npm",
    ] {
        let found = fs::symlink_metadata(dir.path().join(path)).unwrap();
        assert_eq!((found.uid(), found.gid()), (61_235, 61_236), "{path}");
    }
}

#[tokio::test]
async fn a_full_disk_says_so() {
    // The only full disk that every machine has; what is written to it must not matter.
    let error = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .write_all(b"x")
        .unwrap_err();
    let report = Report(&super::explain(error)).to_string();
    assert!(
        report.contains("the disk is full") && report.contains("--cloud-hdd-size"),
        "{report}"
    );
}

#[tokio::test]
async fn the_budget_ends_a_stalled_download() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = Source {
        url: format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap(),
        sha256: None,
        token: None,
        form: Form::TarGz,
    };
    let stalled = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        connection.read_u8().await.unwrap();
        connection
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n\x1f\x8b")
            .await
            .unwrap();
        connection
    });
    let dir = TempDir::new().unwrap();
    let client = common::http::client().unwrap();
    let error = install(&client, &source, here(dir.path()), Duration::from_secs(1))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("broke off after 2 of 1000 bytes"), "{error:#}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(stalled.await.unwrap());
}

#[tokio::test]
async fn a_program_that_is_no_archive_is_one_executable_file() {
    let program = noise(1 << 20);
    let answer = whole(&program);
    let server = Server::start(move |_, _| answer.clone()).await;
    let dir = TempDir::new().unwrap();
    let mut source = Source {
        sha256: Some(sha256(&program)),
        form: Form::Program("runner"),
        ..server.source()
    };
    get(&source, here(dir.path())).await.unwrap();
    let path = dir.path().join("runner");
    assert_eq!(fs::read(&path).unwrap(), program);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    // A wrong one leaves nothing.
    source.sha256 = Some(sha256(b"another"));
    let said = fails(&source, TempDir::new().unwrap().path()).await;
    assert!(said.contains("it is not used"), "{said}");
}
