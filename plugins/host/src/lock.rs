//! Locks that die with their process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::FdFlags;

use crate::clock::Deadline;
use crate::{Error, Result, file};

/// An exclusive `flock` on a file, released when dropped or when the process dies.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    /// Children that were started meanwhile keep the lock.
    shared: bool,
}

/// What came of waiting for a lock.
#[derive(Debug)]
pub enum Wait {
    /// It is ours.
    Locked(FileLock),
    /// Another process has it still.
    TimedOut,
    /// No thread could be started to wait in.
    NoThread(io::Error),
}

impl FileLock {
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
            let lock = match Self::take(file, deadline.remaining()).map_err(failed)? {
                Wait::Locked(lock) => lock,
                Wait::NoThread(source) => return Err(failed(source)),
                Wait::TimedOut => {
                    let action = format!(
                        "lock {}: another process has held it for {} ms",
                        path.display(),
                        wait.as_millis()
                    );
                    return Err(Error::errno(action, libc::ETIMEDOUT));
                }
            };
            if still_named(&lock, path).map_err(failed)? {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock of an open file at once; `None` if another process has it.
    ///
    /// # Errors
    /// The file cannot be locked at all.
    pub fn try_take(file: File) -> io::Result<Option<Self>> {
        let lock = Self { file, shared: false };
        Ok(lock.lock_now()?.then_some(lock))
    }

    fn lock_now(&self) -> io::Result<bool> {
        match self.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the lock of an open file: at once, or within `wait`.
    ///
    /// # Errors
    /// The file cannot be locked at all.
    pub fn take(file: File, wait: Duration) -> io::Result<Wait> {
        let lock = Self { file, shared: false };
        if lock.lock_now()? {
            return Ok(Wait::Locked(lock));
        }
        if wait.is_zero() {
            return Ok(Wait::TimedOut);
        }
        // flock(2) knows no time limit, so a thread waits.
        let handover = Arc::new(Handover::default());
        let theirs = Arc::clone(&handover);
        let waiter = move || {
            let taken = loop {
                match lock.lock() {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result.map(|()| lock),
                }
            };
            theirs.give(taken);
        };
        if let Err(error) = std::thread::Builder::new().name("flock".to_owned()).spawn(waiter) {
            return Ok(Wait::NoThread(error));
        }
        handover.receive(wait).map_or(Ok(Wait::TimedOut), |taken| taken.map(Wait::Locked))
    }

    /// Takes the lock of a file that another program made; `None` if there is no such file.
    ///
    /// # Errors
    /// It can be neither opened nor locked.
    pub fn take_existing(path: &Path, wait: Duration) -> io::Result<Option<Wait>> {
        match File::open(path) {
            Ok(file) => Self::take(file, wait).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of an open file beside others that have it so; `None` if one has it alone.
    ///
    /// # Errors
    /// The file cannot be locked at all.
    pub fn join(file: File) -> io::Result<Option<Self>> {
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { file, shared: false })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Has programs that are started from now on hold the lock too, each until it ends: whoever
    /// waits for the lock waits for a child that outlives us as well (row F7).
    ///
    /// # Errors
    /// The descriptor's flag could not be changed.
    pub fn share_with_children(mut self) -> Result<Self> {
        let set = rustix::io::fcntl_setfd(&self.file, FdFlags::empty());
        set.map_err(|error| Error {
            action: "share a lock with children".to_owned(),
            source: error.into(),
        })?;
        self.shared = true;
        Ok(self)
    }

    /// Whether another process holds the lock of `path` at this moment. Creates nothing.
    pub fn is_held(path: &Path) -> bool {
        // A shared lock, so that those who ask do not take each other for holders.
        File::open(path).is_ok_and(|file| matches!(Self::join(file), Ok(None)))
    }
}

/// What passes from the thread that waits for a lock to the one that wants it. Not a channel: the
/// receiver of one may spin until the sender has run, and a sender on the same processor does not
/// run while a receiver with a real-time policy spins (`causeway-ipam`, for most of a second).
#[derive(Debug, Default)]
struct Handover {
    state: Mutex<Handed>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Handed {
    taken: Option<io::Result<FileLock>>,
    /// Nobody waits any more.
    given_up: bool,
}

impl Handover {
    /// What comes too late is dropped, which releases it.
    fn give(&self, taken: io::Result<FileLock>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.given_up {
            state.taken = Some(taken);
            self.changed.notify_one();
        }
    }

    fn receive(&self, wait: Duration) -> Option<io::Result<FileLock>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, wait, |state| state.taken.is_none());
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.given_up = true;
        state.taken.take()
    }
}

impl Deref for FileLock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
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
        Some(folder) if !folder.as_os_str().is_empty() => file::in_folder(folder, open),
        Some(_) | None => open(),
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
