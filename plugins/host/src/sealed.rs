//! What stands beside a sled database to make it trustworthy: a lock that says who holds it and
//! which write was the last, and what to do with the files of a killed or careless opener.
//!
//! sled has one opener per path and refuses a second one without saying who the first is. It takes
//! a torn end of its log for the end, so a log cut short opens without complaint: the seal says
//! which write such a log has to know. Nothing here needs sled itself.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::FileLock;

/// Where the seal begins in the lock's file; before it stands the process id.
const SEAL_AT: u64 = 16;
/// Bytes of the seal: 20 digits, a space, 8 hexadecimal digits, a newline.
const SEAL_LEN: usize = 30;

/// The lock of a database, whose file holds its seal.
#[derive(Debug)]
pub struct SealedLock(FileLock);

impl SealedLock {
    /// Where the seal ends: what comes after it in the file is the database's own affair.
    pub const END: u64 = SEAL_AT + SEAL_LEN as u64;

    /// Signs a file whose lock was taken.
    pub fn new(lock: FileLock) -> Self {
        // It only serves messages; the lock holds without it.
        drop(lock.write_at(format!("{:<15}\n", std::process::id()).as_bytes(), 0));
        Self(lock)
    }

    /// Who has or had the lock of `path`, by what the file says.
    pub fn holder(path: &Path) -> Option<u32> {
        let mut bytes = [0; 15];
        File::open(path).ok()?.read_exact_at(&mut bytes, 0).ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// The number of the last write that was on disk for certain; `None` when none is recorded.
    pub fn seal(&self) -> Option<u64> {
        let mut bytes = [0; SEAL_LEN];
        self.0.read_exact_at(&mut bytes, SEAL_AT).ok()?;
        let text = std::str::from_utf8(&bytes).ok()?;
        let (digits, crc) = text.trim_end().split_once(' ')?;
        let crc = u32::from_str_radix(crc, 16).ok()?;
        (crc32fast::hash(digits.as_bytes()) == crc).then(|| digits.parse().ok())?
    }

    /// Records the number of a write that is on disk. A failure leaves the older number, which is
    /// true as well; so no flush is needed either.
    pub fn write_seal(&self, generation: u64) {
        let digits = format!("{generation:020}");
        let crc = crc32fast::hash(digits.as_bytes());
        drop(self.0.write_at(format!("{digits} {crc:08x}\n").as_bytes(), SEAL_AT));
    }
}

impl Deref for SealedLock {
    type Target = FileLock;

    fn deref(&self) -> &FileLock {
        &self.0
    }
}

/// A file of a database that could not be put in order.
#[derive(Debug)]
pub struct Disorder {
    /// `read`, `rename`, `remove`.
    pub action: &'static str,
    /// Which file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// The log in sled's directory. sled's threads hold its lock a moment after the database was dropped,
/// and sled gives up at once then.
pub fn log(folder: &Path) -> PathBuf {
    folder.join("db")
}

/// sled's snapshots in `folder`, without those that a killed process began.
pub fn snapshots(folder: &Path) -> Vec<PathBuf> {
    let is_finished = |path: &PathBuf| !path.as_os_str().as_encoded_bytes().ends_with(UNFINISHED);
    all_snapshots(folder).filter(is_finished).collect()
}

fn all_snapshots(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"snap."))
        .map(|entry| entry.path())
}

/// Whether `folder` holds a database. It may be damaged: without its [`log`] there is a snapshot,
/// finished or not, beside which sled would make an empty one.
pub fn exists(folder: &Path) -> bool {
    log(folder).exists() || all_snapshots(folder).next().is_some()
}

/// Ending of a snapshot that is being written.
const UNFINISHED: &[u8] = b".generating";

/// Removes what a killed process has begun and not finished. sled writes a snapshot under a name
/// of its own and then renames it, but reads the unfinished one too, and its settings before it
/// makes the log; what it needs is still there under the proper name, or was never used.
///
/// # Errors
/// A file stays. A directory that cannot be read is for sled to name.
pub fn remove_unfinished(folder: &Path) -> Result<(), Disorder> {
    let log_exists = log(folder).exists();
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.ends_with(UNFINISHED) || (name == b"conf" && !log_exists) {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(|source| Disorder {
                action: "remove",
                path,
                source,
            })?;
        }
    }
    Ok(())
}

/// Puts damaged snapshots aside and names the last one: sled refuses the whole database for one,
/// although the log beside it holds all that the snapshot tells, only slower to read.
///
/// # Errors
/// One cannot be read or renamed.
pub fn put_damaged_snapshots_aside(folder: &Path) -> Result<Option<PathBuf>, Disorder> {
    let mut found = None;
    for path in snapshots(folder) {
        let failed = |action| {
            let path = path.clone();
            move |source| Disorder { action, path, source }
        };
        if snapshot_is_whole(&std::fs::read(&path).map_err(failed("read"))?) {
            continue;
        }
        let mut name = std::ffi::OsString::from("damaged-");
        name.push(path.file_name().unwrap_or_default());
        let aside = folder.join(name);
        std::fs::rename(&path, &aside).map_err(failed("rename"))?;
        found = Some(aside);
    }
    Ok(found)
}

/// Whether the checksum of a snapshot is that of its content: content, its length in 8 bytes, its
/// CRC-32 in 4 (`read_snapshot` of sled 0.34).
fn snapshot_is_whole(bytes: &[u8]) -> bool {
    let Some((content, ends)) = bytes.split_last_chunk::<12>() else { return false };
    !content.is_empty() && crc32fast::hash(content).to_le_bytes() == ends[8..]
}

#[cfg(test)]
mod tests;
