//! Opening, locking and judging sled's files.
//!
//! sled has one opener per path and refuses a second one without saying who the first is, and it
//! takes a torn end of its log for the end. So a lock of our own stands beside the database: its
//! file says who holds it and which write was the last (the seal), and a database that does not
//! know that write has been cut short. As `causeway-ipam` does it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

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
/// Where the seal begins in the lock's file; before it stands the process id.
const SEAL_AT: u64 = 16;
/// 20 digits, a space, 8 hexadecimal digits, a newline.
const SEAL_LEN: usize = 30;

/// The lock of a state directory's store, held until dropped.
#[derive(Debug)]
pub(super) struct StateLock {
    file: File,
}

impl StateLock {
    /// Takes the lock, creating file and directories as needed.
    pub(super) fn acquire(state_dir: &Path, store: &Path) -> Result<Self, Error> {
        let path = state_dir.join("store.lock");
        let failed = |source| Error { action: format!("open {}", path.display()), source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(store)
            .map_err(|source| Error { action: format!("create {}", store.display()), source })?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        if let Err(error) = file.try_lock() {
            if let TryLockError::Error(source) = error {
                return Err(failed(source));
            }
            let holder = holder(&file).map_or_else(String::new, |pid| format!(" (process {pid})"));
            let action = format!(
                "the store {} is in use by another causewayd{holder}; stop it, or give this one \
                 another --state-dir",
                store.display()
            );
            return Err(Error { action, source: io::ErrorKind::WouldBlock.into() });
        }
        // For the message of those who come later; the lock holds without it.
        drop(file.write_at(format!("{:<15}\n", std::process::id()).as_bytes(), 0));
        let lock = Self { file };
        let empty = store.read_dir().map(|mut entries| entries.next().is_none());
        if empty.map_err(|source| failed_at(store, "open", source))? {
            // The seal was that of files which an operator has moved away.
            lock.write_seal(0);
        }
        Ok(lock)
    }

    /// The number of the last write that was on disk for certain. `None`: it is not readable.
    pub(super) fn seal(&self) -> Option<u64> {
        let mut bytes = [0; SEAL_LEN];
        self.file.read_exact_at(&mut bytes, SEAL_AT).ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let (digits, crc) = text.trim_end().split_once(' ')?;
        let crc = u32::from_str_radix(crc, 16).ok()?;
        (crc32fast::hash(digits.as_bytes()) == crc).then(|| digits.parse().ok())?
    }

    /// Records the number of a write that is on disk. A failure leaves the older number, which is
    /// true as well.
    pub(super) fn write_seal(&self, generation: u64) {
        let digits = format!("{generation:020}");
        let crc = crc32fast::hash(digits.as_bytes());
        drop(self.file.write_at(format!("{digits} {crc:08x}\n").as_bytes(), SEAL_AT));
    }
}

impl Drop for StateLock {
    /// Closing alone would leave the lock with a program that is being started at this moment.
    fn drop(&mut self) {
        drop(self.file.unlock());
    }
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
    wait_for_last_opener(&path.join("db")).map_err(|source| failed_at(path, "open", source))?;
    remove_unfinished(path).map_err(|source| failed_at(path, "open", source))?;
    let log_exists = path.join("db").exists();
    if !log_exists && has_snapshot(path) {
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
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a statvfs is plain numbers, for which zero is valid.
    let mut space: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated name and a statvfs that live through the call.
    if unsafe { libc::statvfs(name.as_ptr(), &raw mut space) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if space.f_flag & libc::ST_RDONLY != 0 {
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
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => return file.unlock(),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (send, receive) = mpsc::channel();
    let wait = move || drop(send.send(await_lock(&file)));
    drop(std::thread::Builder::new().name("lock".into()).spawn(wait)?);
    receive.recv_timeout(CLOSE_WAIT).unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()))
}

/// sled writes a snapshot under a name of its own and then renames it, but reads the unfinished one
/// of a killed process too, and writes its settings before it makes the log. What it needs is there
/// under the proper name, or was never used.
fn remove_unfinished(path: &Path) -> io::Result<()> {
    let log_exists = path.join("db").exists();
    for entry in path.read_dir()? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".generating") || (bytes == b"conf" && !log_exists) {
            std::fs::remove_file(path.join(&name))?;
        }
    }
    Ok(())
}

fn has_snapshot(path: &Path) -> bool {
    let entries = path.read_dir().into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"snap."))
}

fn holder(file: &File) -> Option<u32> {
    let mut bytes = [0; 15];
    file.read_exact_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

/// Waits until the database that was dropped just now is closed: sled's threads hold its lock a
/// moment longer, and sled does not wait. The lock of the state directory keeps all others out.
pub(super) fn await_closed(path: &Path) -> Result<(), Error> {
    let failed = |source| failed_at(path, "open", source);
    match File::open(path.join("db")) {
        Ok(file) => await_lock(&file).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Waits until nobody has the lock of `file`. Closing alone would leave it with a program that
/// another thread starts at this moment.
fn await_lock(file: &File) -> io::Result<()> {
    file.lock()?;
    file.unlock()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between fork and exec a program that another thread starts has all files of this one.
    #[test]
    fn a_lock_that_is_dropped_is_free_even_if_a_child_has_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("store");
        let lock = StateLock::acquire(folder.path(), &store).expect("the lock");
        let inherited = lock.file.try_clone().expect("another descriptor");
        StateLock::acquire(folder.path(), &store).expect_err("held");
        drop(lock);
        drop(StateLock::acquire(folder.path(), &store).expect("free"));
        drop(inherited);
    }
}
