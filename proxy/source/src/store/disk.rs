//! Opening, locking and judging sled's files.
//!
//! A sealed lock stands beside the database ([`causeway_host::sealed`]): a database that does not
//! know the write of the seal has been cut short.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use causeway_host::{FileLock, SealedLock, Wait, file, sealed};

use super::Error;

/// Where the number of the last write is.
pub(super) const META_KEY: &[u8] = b"meta";

/// Of the page cache: objects are read once, at start.
const CACHE: u64 = 8 * 1024 * 1024;
/// Damaged files can make sled panic in a thread of its own, and its other threads then wait for
/// ever.
const OPEN_TIME: Duration = Duration::from_secs(30);
/// sled's threads let go of a database a moment after it was dropped.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// What sled may write beside the values: segments, snapshots.
const RESERVE: u64 = 2 * 1024 * 1024;

/// Takes the lock of the store of a state directory, creating file and directories as needed.
pub(super) fn lock(state_dir: &Path, store: &Path) -> Result<SealedLock, Error> {
    let path = state_dir.join("store.lock");
    let failed = |source| Error { action: format!("open {}", path.display()), source };
    file::make_folder(store)
        .map_err(|source| Error { action: format!("create {}", store.display()), source })?;
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(failed)?;
    let Some(lock) = FileLock::try_take(file).map_err(failed)? else {
        let by = |pid| format!(" (process {pid})");
        let holder = SealedLock::holder(&path).map_or_else(String::new, by);
        let action = format!(
            "the store {} is in use by another causewayd{holder}; stop it, or give this one \
             another --state-dir",
            store.display()
        );
        return Err(Error { action, source: io::ErrorKind::WouldBlock.into() });
    };
    let lock = SealedLock::new(lock);
    let empty = store.read_dir().map(|mut entries| entries.next().is_none());
    if empty.map_err(|source| failed_at(store, "open", source))? {
        // The seal was that of files which an operator has moved away.
        lock.write_seal(0);
    }
    Ok(lock)
}

/// How much is read of a database that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Which write was the last.
    Meta,
    /// All of it, so that damage is found before anything is relied on.
    All,
}

/// Opens sled's files, created as needed, and compares them with the seal.
///
/// # Errors
/// `InvalidData` if they are damaged.
pub(super) fn open(path: &Path, seal: Option<u64>, depth: Depth) -> Result<sled::Db, Error> {
    let folder = path.to_owned();
    let (send, receive) = mpsc::channel();
    let worker = std::thread::Builder::new().name("store".into()).spawn(move || {
        // Nobody listens after the time is over.
        drop(send.send(open_files(&folder, depth)));
    });
    let worker = worker.map_err(|source| failed_at(path, "open", source))?;
    let db = match receive.recv_timeout(OPEN_TIME) {
        Ok(opened) => opened?,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            return Err(damaged(
                path,
                &format!("sled did not respond for {} s", OPEN_TIME.as_secs()),
            ));
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = worker.join().err();
            let text = panic.as_ref().and_then(|panic| panic.downcast_ref::<String>());
            return Err(damaged(path, text.map_or("sled gave up", String::as_str)));
        }
    };
    let found = generation(&db).map_err(|error| convert(path, "read", error))?;
    match (seal, found) {
        (Some(seal), found) if found.unwrap_or(0) < seal => {
            let found = found.unwrap_or(0);
            Err(damaged(path, &format!("it was truncated: it has {found} of {seal} writes")))
        }
        (_, _) => Ok(db),
    }
}

fn open_files(path: &Path, depth: Depth) -> Result<sled::Db, Error> {
    wait_for_last_opener(path).map_err(|source| failed_at(path, "open", source))?;
    sealed::remove_unfinished(path).map_err(|found| failed_at(path, "open", found.source))?;
    if !sealed::log(path).exists() && sealed::exists(path) {
        return Err(damaged(path, "there is a snapshot without its log"));
    }
    let opened = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None)
        .open();
    let db = opened.map_err(|error| convert(path, "open", error))?;
    if depth == Depth::All {
        for entry in db.iter() {
            entry.map_err(|error| convert(path, "read", error))?;
        }
    }
    Ok(db)
}

/// Number of writes of objects that the database knows; `None` before the first.
pub(super) fn generation(db: &sled::Db) -> sled::Result<Option<u64>> {
    let Some(bytes) = db.get(META_KEY)? else { return Ok(None) };
    match <[u8; 8]>::try_from(&bytes[..]) {
        Ok(bytes) => Ok(Some(u64::from_be_bytes(bytes))),
        Err(_) => Err(sled::Error::Unsupported("its number of writes is not readable".into())),
    }
}

/// Value of [`META_KEY`].
pub(super) fn meta(generation: u64) -> Vec<u8> {
    generation.to_be_bytes().to_vec()
}

/// Refuses a write that may not fit: sled is out of order once one has failed.
pub(super) fn require_space(path: &Path, size: usize) -> Result<(), Error> {
    let free = free(path).map_err(|source| failed_at(path, "write", source))?;
    if free >= RESERVE + 2 * size as u64 {
        return Ok(());
    }
    Err(failed_at(path, "write", io::Error::from_raw_os_error(libc::ENOSPC)))
}

/// Bytes that a file may still take on the disk of `path`.
fn free(path: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(path)?;
    if space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Err(io::Error::from_raw_os_error(libc::EROFS));
    }
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// See [`super::disk_trouble`].
pub(super) fn trouble(folder: &Path) -> Option<String> {
    const KIB: u64 = 1024;
    let what = match free(folder) {
        Ok(free) if free >= RESERVE => return None,
        Ok(free) => format!("is full ({} KiB free, {} KiB needed)", free / KIB, RESERVE / KIB),
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => "is read-only".to_owned(),
        Err(error) => format!("cannot be checked for free space ({error})"),
    };
    Some(format!("the disk of {} {what}", folder.display()))
}

/// Waits for the disk itself: sled's flush does not wait for the file's length.
pub(super) fn sync(path: &Path) -> Result<(), Error> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| failed_at(path, "sync", source))
}

/// sled's error as ours.
pub(super) fn convert(path: &Path, what: &str, error: sled::Error) -> Error {
    use sled::Error as E;
    match error {
        // A file that ends before what it must hold was cut.
        E::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            failed_at(path, what, source)
        }
        other @ (E::Io(_)
        | E::Corruption { .. }
        | E::Unsupported(_)
        | E::ReportableBug(_)
        | E::CollectionNotFound(_)) => damaged(path, &other.to_string()),
    }
}

pub(super) fn failed_at(path: &Path, what: &str, source: io::Error) -> Error {
    let hint = if source.raw_os_error() == Some(libc::ENOSPC) {
        "; free some space on its disk"
    } else {
        ""
    };
    Error { action: format!("{what} the store {}{hint}", path.display()), source }
}

fn damaged(path: &Path, why: &str) -> Error {
    let action = format!("the store {} is damaged; restart causewayd", path.display());
    Error { action, source: io::Error::new(io::ErrorKind::InvalidData, why) }
}

/// The lock of the state directory is ours, so whoever has the files open is on the way out.
fn wait_for_last_opener(path: &Path) -> io::Result<()> {
    match FileLock::take_existing(&sealed::log(path), CLOSE_WAIT)? {
        None | Some(Wait::Locked(_)) => Ok(()),
        Some(Wait::TimedOut) => Err(io::ErrorKind::WouldBlock.into()),
        Some(Wait::NoThread(source)) => Err(source),
    }
}

/// Waits until the database that was dropped just now is closed: sled's threads hold its lock a
/// moment longer, and sled does not wait. The lock of the state directory keeps all others out.
pub(super) fn await_closed(path: &Path) -> Result<(), Error> {
    let failed = |source| failed_at(path, "open", source);
    match File::open(sealed::log(path)) {
        // Closing alone would leave it with a program that another thread starts at this moment.
        Ok(file) => file.lock().and_then(|()| file.unlock()).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between fork and exec a program that another thread starts has all files of this one.
    #[test]
    fn a_lock_that_is_dropped_is_free_even_if_a_child_has_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("store");
        let held = lock(folder.path(), &store).expect("the lock");
        let inherited = held.try_clone().expect("another descriptor");
        lock(folder.path(), &store).expect_err("held");
        drop(held);
        drop(lock(folder.path(), &store).expect("free"));
        drop(inherited);
    }
}
