//! The lock that an agent on a user's own host holds as long as it lives: who starts a second one of its name, or looks after it, sees it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Its file, in the runner's state directory.
pub const NAME: &str = "lock";

/// It lies beside a credential.
const PRIVATE: u32 = 0o600;

/// Takes the lock of a state directory, unless another process has it: then none. A record lock belongs to the process: it stays over an exec if
/// the file does, its children do not hold it, and it ends with the process however that ends.
pub fn take(state: &Path) -> std::io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE)
        .open(state.join(NAME))?;
    match fcntl(&file, FcntlArg::F_SETLK(&whole())) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The process that holds the lock of a state directory, if another than this one does.
/// Not for the one that holds it: to close a file gives up all locks that a process has of it (fcntl(2)).
pub fn holder(state: &Path) -> Option<i32> {
    let file = OpenOptions::new().write(true).open(state.join(NAME)).ok()?;
    let mut held = whole();
    let asked = fcntl(&file, FcntlArg::F_GETLK(&mut held));
    (asked.is_ok() && held.l_pid > 0).then_some(held.l_pid)
}

/// The whole of a file, for one writer.
fn whole() -> libc::flock {
    libc::flock {
        #[allow(clippy::cast_possible_truncation, reason = "a constant of two bits")]
        l_type: libc::F_WRLCK as libc::c_short,
        #[allow(clippy::cast_possible_truncation, reason = "a constant of two bits")]
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
