//! A `.tar.gz` out of a queue of pieces into a directory that nobody else writes to. What could leave the directory, or be more than
//! files, directories and links, is refused.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc::Receiver;

/// Of the tar stream: a file's bytes are copied in pieces of this size.
const BUFFER: usize = 64 << 10;
/// No set-user-id, set-group-id or sticky bits.
const MODE: u32 = 0o777;
/// A directory that its owner cannot use cannot be filled.
const DIRECTORY: u32 = 0o700;
/// Of a directory that the archive does not name itself.
const UNNAMED_DIRECTORY: u32 = 0o755;

/// Of a program that is a single file.
const PROGRAM: u32 = 0o755;

/// The most that stands between the contents of two entries, in bytes: a head, padding, long names, which are read into memory.
const HEAD: u64 = 1 << 20;

/// The most that an archive may unpack to: a small download can be a disk full of zeros.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of all contents, in bytes.
    pub bytes: u64,
    /// How many there may be, each of which takes an inode.
    pub entries: u64,
}

impl Limits {
    /// Many times what any forge's runner has.
    pub const RUNNER: Self = Self {
        bytes: 8 << 30,
        entries: 1 << 20,
    };
}

/// User and group.
pub type Owner = Option<(u32, u32)>;

/// Unpacks everything below `root`, which is empty. Blocking. The queue is read to its end, so that the sender has seen all of it.
pub fn extract(queue: Receiver<Vec<u8>>, root: &Path, owner: Owner, limits: Limits) -> io::Result<()> {
    let mut stream = Queue::new(queue);
    let decoder = MultiGzDecoder::new(&mut stream);
    let ration = Rc::new(Cell::new(HEAD));
    let mut archive = Archive::new(Rationed {
        stream: BufReader::with_capacity(BUFFER, decoder),
        left: Rc::clone(&ration),
    });
    let mut tree = Tree {
        root,
        owner,
        left: limits,
        made: HashSet::new(),
        buffer: vec![0; BUFFER],
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        // All of it is read or skipped before the next head.
        ration.set(entry.size().saturating_add(HEAD));
        tree.add(&mut entry)?;
    }
    // What follows the last entry is padding; the checksums of gzip come after it.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

/// Writes all of it into a new file, a program. Blocking.
pub fn save(queue: Receiver<Vec<u8>>, path: &Path, owner: Owner) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PROGRAM).open(path)?;
    io::copy(&mut Queue::new(queue), &mut file)?;
    // Our umask was applied.
    file.set_permissions(Permissions::from_mode(PROGRAM))?;
    owner.map_or(Ok(()), |(user, group)| lchown(path, Some(user), Some(group)))
}

/// The queue as a stream.
struct Queue {
    next: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Queue {
    fn new(next: Receiver<Vec<u8>>) -> Self {
        Self {
            next,
            piece: Vec::new(),
            at: 0,
        }
    }
}

impl BufRead for Queue {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.piece.len() {
            let Some(piece) = self.next.blocking_recv() else {
                return Ok(&[]);
            };
            (self.piece, self.at) = (piece, 0);
        }
        Ok(self.piece.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Queue {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

/// A stream of which only so much may be read: what reads it keeps some of it in memory.
struct Rationed<R> {
    stream: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(into)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left
            .set(left.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what stands before an entry is too long"))?);
        Ok(read)
    }
}

fn hostile(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("entry {}: {why}", path.display()))
}

/// The part of a path that counts: none if it could leave the directory.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut kept = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => kept.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(kept)
}

/// Whether a symbolic link in a real directory that is `depth` levels deep stays inside: as many `..` as levels, only at the beginning. What
/// follows may lead through other links, each of which stays inside too.
fn stays_inside(target: &Path, depth: usize) -> bool {
    let ups = target.components().take_while(|part| *part == Component::ParentDir).count();
    let rest = target.components().skip(ups);
    ups <= depth
        && rest
            .into_iter()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

struct Tree<'a> {
    root: &'a Path,
    owner: Owner,
    /// How much more there may be.
    left: Limits,
    /// Directories that are known to be real ones, not links.
    made: HashSet<PathBuf>,
    buffer: Vec<u8>,
}

impl Tree<'_> {
    fn add<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let named = entry.path()?.into_owned();
        self.count(entry.size())
            .ok_or_else(|| hostile(&named, "it is more than an archive may hold"))?;
        let relative = inside(&named).ok_or_else(|| hostile(&named, "its name leaves the directory"))?;
        let mode = entry.header().mode()? & MODE;
        if kind == EntryType::Directory {
            return self.directory(&relative, mode);
        }
        let (Some(parent), Some(_)) = (relative.parent(), relative.file_name()) else {
            return Err(hostile(&named, "it has no name"));
        };
        self.parents(parent)?;
        let path = self.root.join(&relative);
        match fs::symlink_metadata(&path) {
            // Later entries replace earlier ones.
            Ok(found) if !found.is_dir() => fs::remove_file(&path)?,
            Ok(_) => return Err(hostile(&named, "it replaces a directory")),
            Err(_) => {}
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => self.file(entry, &path, mode)?,
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name()?.ok_or_else(|| hostile(&named, "it links to nothing"))?;
                self.link(kind, &path, &target, parent.components().count())
                    .map_err(|error| io::Error::new(error.kind(), format!("entry {}: {error}", named.display())))?;
            }
            _ => return Err(hostile(&named, "it is neither a file, a directory nor a link")),
        }
        self.own(&path)
    }

    fn count(&mut self, bytes: u64) -> Option<()> {
        self.left.entries = self.left.entries.checked_sub(1)?;
        self.left.bytes = self.left.bytes.checked_sub(bytes)?;
        Some(())
    }

    fn file<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path, mode: u32) -> io::Result<()> {
        // Never through a link: the name is new.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        let size = entry.size();
        let mut copied = 0;
        loop {
            match entry.read(&mut self.buffer)? {
                0 => break,
                read => {
                    file.write_all(self.buffer.get(..read).unwrap_or_default())?;
                    copied += read as u64;
                }
            }
        }
        if copied != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Our umask was applied.
        file.set_permissions(Permissions::from_mode(mode))
    }

    fn link(&self, kind: EntryType, path: &Path, target: &Path, depth: usize) -> io::Result<()> {
        if kind == EntryType::Symlink {
            if !stays_inside(target, depth) {
                return Err(hostile(target, "a link to it leaves the directory"));
            }
            return symlink(target, path);
        }
        let relative = inside(target).ok_or_else(|| hostile(target, "a link to it leaves the directory"))?;
        let parent = relative.parent().unwrap_or(Path::new(""));
        let real = parent.as_os_str().is_empty() || self.made.contains(parent);
        let source = self.root.join(&relative);
        if !real || !fs::symlink_metadata(&source)?.is_file() {
            return Err(hostile(target, "a hard link to it, which is no file of this archive"));
        }
        fs::hard_link(source, path)
    }

    /// An entry that is a directory: it may be there already.
    fn directory(&mut self, relative: &Path, mode: u32) -> io::Result<()> {
        self.parents(relative)?;
        if relative.as_os_str().is_empty() {
            return Ok(());
        }
        fs::set_permissions(self.root.join(relative), Permissions::from_mode(mode | DIRECTORY))
    }

    /// Makes a directory and those above it; none of them may be a link.
    fn parents(&mut self, relative: &Path) -> io::Result<()> {
        if relative.as_os_str().is_empty() || self.made.contains(relative) {
            return Ok(());
        }
        self.parents(relative.parent().unwrap_or(Path::new("")))?;
        let path = self.root.join(relative);
        fs::create_dir(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => hostile(relative, "it is no directory, but others are below it"),
            _ => error,
        })?;
        fs::set_permissions(&path, Permissions::from_mode(UNNAMED_DIRECTORY))?;
        self.own(&path)?;
        self.made.insert(relative.into());
        Ok(())
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        self.owner.map_or(Ok(()), |(user, group)| lchown(path, Some(user), Some(group)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::stays_inside;

    #[test]
    fn only_links_that_cannot_leave_are_made() {
        for (target, depth) in [("a", 0), ("./a/b", 0), ("../a", 1), ("../../a", 2)] {
            assert!(stays_inside(Path::new(target), depth), "{target} at {depth}");
        }
        for (target, depth) in [("/a", 3), ("..", 0), ("../../a", 1), ("a/../../b", 1), ("a/..", 1), ("/", 1)] {
            assert!(!stays_inside(Path::new(target), depth), "{target} at {depth}");
        }
    }
}
