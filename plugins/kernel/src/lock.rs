//! Locks that die with their process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::clock::Deadline;
use crate::{Error, Result};

/// An exclusive `flock` on a file, released when dropped or when the process dies.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    /// Children that were started meanwhile keep the lock.
    shared: bool,
}

impl Drop for FileLock {
    /// Closing alone would leave the lock with a program that another thread starts at this moment:
    /// between fork and exec it has all files of this process.
    fn drop(&mut self) {
        if !self.shared {
            drop(self.file.unlock());
        }
    }
}

impl FileLock {
    /// Has programs that are started from now on hold the lock too, each until it ends: whoever
    /// waits for the lock waits for a child that outlives us as well (row F7).
    ///
    /// # Errors
    /// The descriptor's flag could not be changed.
    pub fn share_with_children(mut self) -> Result<Self> {
        // SAFETY: the descriptor is open; the command takes a flag.
        if unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETFD, 0) } == 0 {
            self.shared = true;
            return Ok(self);
        }
        let source = io::Error::last_os_error();
        Err(Error { action: "share a lock with children".to_owned(), source })
    }

    /// Takes the lock of `path`, creating file and parent directories (0700) as needed. Whoever
    /// waits is woken by the kernel in the order of arrival.
    ///
    /// The file may be removed by whoever holds its lock: the lock taken is always that of the
    /// file `path` names at that moment.
    ///
    /// # Errors
    /// `ETIMEDOUT` ([`crate::Error::is_transient`]) after `wait`; I/O errors.
    pub fn acquire(path: &Path, wait: Duration) -> Result<Self> {
        let deadline = Deadline::after(wait);
        let failed = |source| Error { action: format!("lock {}", path.display()), source };
        loop {
            let file = create(path).map_err(failed)?;
            let Some(lock) = lock(file, deadline).map_err(failed)? else {
                let action = format!(
                    "lock {}: another process has held it for {} ms",
                    path.display(),
                    wait.as_millis()
                );
                return Err(Error::errno(action, libc::ETIMEDOUT));
            };
            if still_named(&lock.file, path).map_err(failed)? {
                return Ok(lock);
            }
        }
    }

    /// Whether another process holds the lock of `path` at this moment. Creates nothing.
    pub fn is_held(path: &Path) -> bool {
        // A shared lock, so that those who ask do not take each other for holders.
        File::open(path).is_ok_and(|file| match file.try_lock_shared() {
            Ok(()) => file.unlock().is_err(),
            Err(error) => matches!(error, TryLockError::WouldBlock),
        })
    }
}

/// Creates directories of mode 0700, each as far as it is missing.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Runs `create` in a directory that another process may remove while it is empty.
pub(crate) fn in_folder<T>(folder: &Path, create: impl Fn() -> io::Result<T>) -> io::Result<T> {
    /// Each further attempt needs another process to have removed the directory in between.
    const ATTEMPTS: u32 = 1000;
    let mut attempt = 1;
    loop {
        match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {
                match create_folder(folder) {
                    // It or its parent came and went while it was being made.
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                        ) => {}
                    result => result?,
                }
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        match options.open(path) {
            // One that is there can be locked all the same, so that DEL does what it can.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path),
            result => result,
        }
    };
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => in_folder(folder, open),
        Some(_) | None => open(),
    }
}

/// The lock, or `None` when time is up.
fn lock(file: File, deadline: Deadline) -> io::Result<Option<FileLock>> {
    let lock = FileLock { file, shared: false };
    match lock.file.try_lock() {
        Ok(()) => return Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // flock(2) knows no time limit, so a thread waits. If it gets the lock too late, nobody
    // receives it any more, and dropping it releases it.
    let (sender, receiver) = mpsc::sync_channel(0);
    let waiter = move || drop(sender.send(lock.file.lock().map(|()| lock)));
    drop(std::thread::Builder::new().name("flock".to_owned()).spawn(waiter)?);
    match receiver.recv_timeout(deadline.remaining()) {
        Ok(locked) => locked.map(Some),
        Err(_) => Ok(None),
    }
}

/// Whether `path` still names `file`: its holder may have removed it while we waited.
fn still_named(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
