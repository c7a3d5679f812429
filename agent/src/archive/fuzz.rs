//! Archives, given any bytes, and any entries.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::Destination;
use super::extract::{Limits, extract};
use super::place::Partial;

/// What an archive may hold here.
const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    entries: 50,
};
/// How gzip begins.
const MAGIC: &[u8] = &[0x1f, 0x8b];
/// What lies beside the directory, and is nobody else's.
const BESIDE: &str = "mine";

/// Any bytes as an archive, or as what is in one.
pub fn archive(data: &[u8]) {
    let world = World::new();
    if data.starts_with(MAGIC) {
        world.unpack(data);
    } else {
        world.unpack(&packed(data));
    }
}

/// Any entries, as lines of `KIND NAME LINK SIZE CONTENT`, apart by tabs, of which `^` in a name or link is the absolute path of what lies beside the
/// directory. One that names what is outside is not unpacked.
pub fn archive_entries(data: &[u8]) {
    let world = World::new();
    let beside = world.0.path().join(BESIDE);
    let mut stream = Vec::new();
    let mut leaves = false;
    for line in data.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b'\t');
        let mut field = || fields.next().unwrap_or_default();
        let kind = field().first().copied().unwrap_or(b'0');
        let mut path = || {
            String::from_utf8_lossy(field())
                .replace('^', beside.to_str().unwrap())
                .replace('\0', "")
        };
        let (name, link) = (path(), path());
        let claimed = std::str::from_utf8(field()).ok().and_then(|size| size.parse::<u64>().ok());
        let content = field();
        let is_plain = !matches!(kind, b'L' | b'K' | b'x' | b'g');
        leaves |= is_plain && (name.starts_with('/') || name.split('/').any(|part| part == ".."));
        for (kind, text) in [(b'L', &name), (b'K', &link)] {
            // What a head has no room for stands before it.
            if text.len() > 100 {
                stream.extend(entry(kind, "././@LongLink", "", None, text.as_bytes()));
            }
        }
        stream.extend(entry(kind, &name, &link, claimed, content));
    }
    stream.extend([0; 1024]);
    assert!(!(world.unpack(&packed(&stream)) && leaves), "an entry outside was unpacked");
}

fn entry(kind: u8, name: &str, link: &str, claimed: Option<u64>, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o6755);
    header.set_size(claimed.unwrap_or(content.len() as u64));
    let gnu = header.as_gnu_mut().unwrap();
    for (to, text) in [(&mut gnu.name, name), (&mut gnu.linkname, link)] {
        to.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
    }
    header.set_cksum();
    let padding = content.len().next_multiple_of(512) - content.len();
    [header.as_bytes(), content, &vec![0; padding]].concat()
}

fn packed(stream: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(stream).unwrap();
    encoder.finish().unwrap()
}

/// A directory for a runner, in which an older one is, and what lies beside it.
struct World(TempDir);

impl World {
    fn new() -> Self {
        let world = TempDir::new_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
        fs::write(world.path().join(BESIDE), BESIDE).unwrap();
        fs::set_permissions(world.path().join(BESIDE), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir_all(world.path().join("runner/bin")).unwrap();
        fs::write(world.path().join("runner/bin/old"), "old").unwrap();
        Self(world)
    }

    fn runner(&self) -> PathBuf {
        self.0.path().join("runner")
    }

    /// Whether all of it was unpacked; then it is all in its place, and else all is as before.
    fn unpack(&self, archive: &[u8]) -> bool {
        let runner = self.runner();
        let (sender, receiver) = mpsc::channel(2);
        // In two pieces.
        let (first, second) = archive.split_at(archive.len() / 2);
        sender.try_send(first.to_vec()).unwrap();
        sender.try_send(second.to_vec()).unwrap();
        drop(sender);
        let partial = Partial::create(&runner).unwrap();
        let destination = Destination {
            dir: &runner,
            owner: None,
            replace: true,
        };
        let extracted = extract(receiver, partial.path(), None, LIMITS);
        let placed = extracted.map_err(anyhow::Error::from).and_then(|()| partial.move_into(destination));
        let done = placed.is_ok();
        self.check(done);
        done
    }

    fn check(&self, done: bool) {
        let mut beside: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, [BESIDE, "runner"], "something was made outside");
        let path = self.0.path().join(BESIDE);
        let found = fs::symlink_metadata(&path).unwrap();
        assert!(found.is_file() && found.mode() & 0o7777 == 0o600 && found.nlink() == 1, "{found:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), BESIDE);
        let runner = self.runner();
        assert!(!runner.join(".partial").exists());
        let mut found = Found::default();
        found.look(&runner, &runner);
        if !done {
            assert_eq!(found.names, [runner.join("bin"), runner.join("bin/old")]);
        }
        assert!(found.bytes <= LIMITS.bytes + 3, "{} bytes were unpacked", found.bytes);
    }
}

/// What is in a directory.
#[derive(Default)]
struct Found {
    names: Vec<PathBuf>,
    bytes: u64,
}

impl Found {
    fn look(&mut self, dir: &Path, root: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            self.names.push(path.clone());
            if found.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                let stays = target.components().try_fold(
                    path.strip_prefix(root).unwrap().components().count() - 1,
                    |depth, part| match part {
                        Component::Normal(_) => Some(depth + 1),
                        Component::CurDir => Some(depth),
                        Component::ParentDir => depth.checked_sub(1),
                        Component::RootDir | Component::Prefix(_) => None,
                    },
                );
                assert!(stays.is_some(), "{} leads to {}", path.display(), target.display());
                // The same through other links. One that leads to nothing, or in a circle, leads nowhere else.
                assert!(
                    path.canonicalize().map_or(true, |target| target.starts_with(root)),
                    "{} leads outside",
                    path.display()
                );
                continue;
            }
            assert!(found.is_dir() || found.is_file(), "{} is a device", path.display());
            assert_eq!(found.mode() & 0o7000, 0, "{}", path.display());
            if found.is_dir() {
                self.look(&path, root);
            } else {
                self.bytes += found.len() / found.nlink();
            }
        }
    }
}
