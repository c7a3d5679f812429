//! Archives that are small to download and large to unpack.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::extract::{Limits, extract};
use super::fails;
use super::server::{Server, entry, pack, whole};

/// More than may stand between two entries.
const LONG: usize = 3 << 20;

fn file(name: &str, body: &[u8]) -> (Header, Vec<u8>) {
    entry(EntryType::Regular, name, "", 0o644, body)
}

/// An entry that says it has more than it has.
fn claims(kind: EntryType, size: u64) -> Vec<u8> {
    let (mut header, _) = entry(kind, "x", "", 0o644, b"");
    header.set_size(size);
    header.set_cksum();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(header.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn what_would_fill_the_memory_or_the_disk_is_refused() {
    let long_name = |kind| vec![entry(kind, "././@LongLink", "", 0o644, &vec![b'a'; LONG]), file("a", b"x")];
    let mut padded = pack(vec![file("a", b"x")]);
    let mut padding = GzEncoder::new(Vec::new(), Compression::fast());
    padding.write_all(&vec![0; LONG]).unwrap();
    padded.extend(padding.finish().unwrap());
    let cases = [
        ("a long name", pack(long_name(EntryType::GNULongName))),
        ("a long link", pack(long_name(EntryType::GNULongLink))),
        ("long attributes", pack(long_name(EntryType::XHeader))),
        ("a large file", claims(EntryType::Regular, Limits::RUNNER.bytes + 1)),
        ("a large directory", claims(EntryType::Directory, Limits::RUNNER.bytes + 1)),
        ("what no archive can hold", claims(EntryType::Regular, u64::MAX)),
        ("an end that does not end", padded),
    ];
    for (what, body) in cases {
        let server = Server::start(move |_, _| whole(&body)).await;
        let dir = TempDir::new().unwrap();
        let report = fails(&server.source(), dir.path()).await;
        assert!(report.contains("damaged or hostile"), "{what}: {report}");
    }
}

#[test]
fn all_entries_together_count() {
    let archive = pack(vec![
        file("a", b"four"),
        file("b", b"five!"),
        entry(EntryType::Directory, "d/", "", 0o755, b""),
    ]);
    let unpacked = |bytes, entries| {
        let dir = TempDir::new().unwrap();
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(archive.clone()).unwrap();
        drop(sender);
        let done = extract(receiver, dir.path(), None, Limits { bytes, entries });
        assert!(done.is_err() || fs::read_dir(dir.path()).unwrap().count() == 3);
        done.map_err(|error| error.to_string())
    };
    assert_eq!(unpacked(9, 3), Ok(()));
    assert_eq!(unpacked(8, 3), Err("entry b: it is more than an archive may hold".into()));
    assert_eq!(unpacked(9, 2), Err("entry d/: it is more than an archive may hold".into()));
}
