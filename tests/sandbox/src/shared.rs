//! What several tasks of a server use at once.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

/// Locks, whoever has panicked meanwhile.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a file that others append to as well.
pub fn appending(path: &Path) -> Result<Mutex<File>> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map(Mutex::new).with_context(|| format!("opening {}", path.display()))
}
