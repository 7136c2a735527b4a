//! The lock of a network's store, and beside it the number of the last commit.
//!
//! The lock is an `flock` on `<dataDir>/.<network>.lock` and dies with its process. The file says
//! who holds it, for the message of those who wait in vain, and which commit was the last
//! ([`NetworkLock::seal`]): sled takes a torn end of its log for the end, so a log cut short would
//! otherwise open without complaint and hand out addresses that are in use. If a store had
//! nothing left, its files may be gone: the rest of this file says what goes on from there
//! ([`NetworkLock::emptied`]).
//!
//! The dot keeps the file apart from stores: no network's name begins with one (row C9).

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use causeway_host::{FileLock, SealedLock, Wait};

use crate::store::{Error, State};

/// Where the state of the store when it was last empty begins: [`EMPTY`] or [`USED`], CRC-32, a
/// space, JSON, a newline.
const NOTE_AT: u64 = SealedLock::END;
/// Nothing was written since.
const EMPTY: u8 = b'E';
/// Something may have been written since.
const USED: u8 = b'U';

/// The lock of one network's store, held until dropped.
#[derive(Debug)]
pub(crate) struct NetworkLock {
    file: SealedLock,
    data_dir: PathBuf,
    network: String,
}

impl NetworkLock {
    /// Takes the lock of `network` below `data_dir`, creating file and directory as needed.
    ///
    /// # Errors
    /// [`Error::Locked`] after `wait`; I/O errors.
    pub(crate) fn acquire(data_dir: &Path, network: &str, wait: Duration) -> Result<Self, Error> {
        let path = Self::path(data_dir, network);
        let io = |what| {
            let path = path.display().to_string();
            move |source| Error::Io { what, path, source }
        };
        std::fs::create_dir_all(data_dir).map_err(|source| Error::Io {
            what: "create",
            path: data_dir.display().to_string(),
            source,
        })?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io("open"))?;
        let lock = match FileLock::take(file, wait).map_err(io("lock"))? {
            Wait::Locked(lock) => lock,
            Wait::TimedOut => {
                let store = data_dir.join(network).display().to_string();
                let by = |pid| format!(" by process {pid}");
                let holder = SealedLock::holder(&path).map_or_else(String::new, by);
                return Err(Error::Locked { path: store, holder });
            }
            Wait::NoThread(source) => return Err(Error::Thread(source)),
        };
        let file = SealedLock::new(lock);
        Ok(Self { file, data_dir: data_dir.to_owned(), network: network.to_owned() })
    }

    /// Name of the network.
    pub(crate) fn network(&self) -> &str {
        &self.network
    }

    /// Directory of all stores.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Directory of the network's store.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.data_dir.join(&self.network)
    }

    /// See [`SealedLock::seal`].
    pub(crate) fn seal(&self) -> Option<u64> {
        self.file.seal()
    }

    /// The lock file of `network` below `data_dir`.
    pub(crate) fn path(data_dir: &Path, network: &str) -> PathBuf {
        data_dir.join(format!(".{network}.lock"))
    }

    /// Whether a file of this name is such a lock.
    pub(crate) fn is_lock(name: &str) -> bool {
        name.starts_with('.') && name.ends_with(".lock")
    }

    /// The state of the store if nothing is leased and no address rests; `None` from the first
    /// write on. Its files may be gone.
    pub(crate) fn emptied(&self) -> Option<State> {
        self.note().filter(|(flag, _)| *flag == EMPTY).and_then(|_| self.base())
    }

    /// What files that were recreated go on from while nothing is written: the last commit that is
    /// on disk for certain left an empty store.
    pub(crate) fn base(&self) -> Option<State> {
        self.note().map(|(_, state)| state).filter(|state| Some(state.generation) == self.seal())
    }

    /// Whether the store has been empty after it had leases, now or before.
    pub(crate) fn was_emptied(&self) -> bool {
        self.note().is_some()
    }

    fn note(&self) -> Option<(u8, State)> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 512];
        loop {
            let at = NOTE_AT + bytes.len() as u64;
            match self.file.read_at(&mut chunk, at) {
                Ok(0) => break,
                Ok(length) => bytes.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        let (flag, line) = bytes.split_first()?;
        let (crc, json) = std::str::from_utf8(line).ok()?.trim().split_once(' ')?;
        let crc = u32::from_str_radix(crc, 16).ok()?;
        let state = (crc32fast::hash(json.as_bytes()) == crc).then(|| serde_json::from_str(json));
        Some((*flag, state?.ok()?))
    }

    /// Records the state of a store that is empty.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write_emptied(&self, state: &State) -> Result<(), Error> {
        let json = serde_json::to_string(state).unwrap_or_default();
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        let written = self.file.set_len(NOTE_AT).and_then(|()| {
            self.write_seal(state.generation);
            self.file.write_all_at(line.as_bytes(), NOTE_AT + 1)?;
            self.file.write_all_at(&[EMPTY], NOTE_AT)
        });
        written.map_err(|source| self.not_written(source))
    }

    /// Says that the store may have leases from now on, whenever this process is killed.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn mark_used(&self) -> Result<(), Error> {
        self.file.write_all_at(&[USED], NOTE_AT).map_err(|source| self.not_written(source))
    }

    fn not_written(&self, source: io::Error) -> Error {
        let path = Self::path(&self.data_dir, &self.network).display().to_string();
        Error::Io { what: "write", path, source }
    }

    /// See [`SealedLock::write_seal`].
    pub(crate) fn write_seal(&self, generation: u64) {
        self.file.write_seal(generation);
    }
}

/// Takes the `flock` of another process's lock file; `None` when there is no such file.
///
/// # Errors
/// [`Error::Locked`] after `wait`; I/O errors.
pub(crate) fn foreign(path: &Path, wait: Duration) -> Result<Option<FileLock>, Error> {
    let failed = |source| Error::Io { what: "lock", path: path.display().to_string(), source };
    match FileLock::take_existing(path, wait).map_err(failed)? {
        None => Ok(None),
        Some(Wait::Locked(lock)) => Ok(Some(lock)),
        Some(Wait::TimedOut) => {
            Err(Error::Locked { path: path.display().to_string(), holder: String::new() })
        }
        Some(Wait::NoThread(source)) => Err(Error::Thread(source)),
    }
}

#[cfg(test)]
mod tests;
