//! A verified tree takes its place: entry by entry, so that what else is in the directory (the work of earlier jobs) stays.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use common::error::{Class, Failure};

use super::Destination;

/// Where it is unpacked: in the directory itself, so that it is on its file system.
const NAME: &str = ".partial";
/// Moved last and removed first: where it is, all is.
const LAST: &str = "bin";
/// Only we see what is not verified.
const PRIVATE: u32 = 0o700;
/// Whoever runs what is in it must reach it.
const SHARED: u32 = 0o755;

/// A directory for what is not verified yet; removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Partial(PathBuf);

impl Partial {
    /// Makes it, and the directory that it will be moved into.
    pub fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let make = || {
            fs::create_dir_all(dir)?;
            remove(&path)?;
            fs::DirBuilder::new().mode(PRIVATE).create(&path)
        };
        make().with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Moves its entries to where they belong.
    pub fn move_into(self, destination: Destination<'_>) -> Result<()> {
        let dir = destination.dir;
        let mut names = fs::read_dir(&self.0)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<OsString>>>())
            .with_context(|| format!("reading {}", self.0.display()))?;
        if names.iter().any(|name| name == OsStr::new(NAME)) {
            // Where it goes, all of it is now.
            let message = format!("the archive is damaged or hostile: it is not used, as it holds a `{NAME}`");
            return Err(Failure::new(Class::Unexpected, message)
                .hint("--runner-url must be that of a runner")
                .into());
        }
        names.sort_by_key(|name| name == OsStr::new(LAST));
        if let Some(taken) = names.iter().find(|name| fs::symlink_metadata(dir.join(name)).is_ok())
            && !destination.replace
        {
            let message = format!("{} is there already, and is not the runner's", dir.join(taken).display());
            return Err(Failure::new(Class::Usage, message)
                .hint("give the runner a directory of its own with --workdir")
                .into());
        }
        let place = || {
            for name in names.iter().rev() {
                remove(&dir.join(name))?;
            }
            for name in &names {
                fs::rename(self.0.join(name), dir.join(name))?;
            }
            if let Some(owner) = destination.owner {
                fs::set_permissions(dir, fs::Permissions::from_mode(SHARED))?;
                lchown(dir, Some(owner.uid), Some(owner.gid))?;
            }
            Ok::<_, io::Error>(())
        };
        place().with_context(|| format!("moving the unpacked archive into {}", dir.display()))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!("{} cannot be removed: {error}", self.0.display());
        }
    }
}

/// Removes whatever is there, without following links.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
