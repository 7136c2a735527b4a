//! Locks that die with their process.

use std::path::Path;
use std::time::Duration;

use crate::Result;

/// An exclusive `flock` on a file, released when dropped or when the process dies.
#[derive(Debug)]
pub struct FileLock {
    _file: std::fs::File,
}

impl FileLock {
    /// Takes the lock of `path`, creating file and parent folders (0700) as needed.
    ///
    /// # Errors
    /// `ETIMEDOUT` ([`crate::Error::is_transient`]) after `wait`; I/O errors.
    pub fn acquire(path: &Path, wait: Duration) -> Result<Self> {
        let _ = (path, wait);
        todo!()
    }
}
