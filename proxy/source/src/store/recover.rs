//! Damaged files: recovery from their log, or a new store in their place.
//!
//! sled refuses a database whose snapshot is damaged, though a snapshot only spares it reading the
//! log, which holds all. So the files are tried without it, and the seal says whether the log knows
//! the last write. If it does not, all files are moved aside and the store starts over: a node
//! that serves what it gets from elsewhere is worth more than one that waits for its administrator.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use causeway_host::{SealedLock, sealed};

use super::Error;
use super::disk::{self, Depth, failed_at};

/// What was done for damaged files, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The log holds all that was written; a snapshot was of no use.
    Whole(String),
    /// The files were moved aside and the store began again.
    Lost(String),
}

/// Names of directories that damaged stores were moved to, before a number.
const ASIDE: &str = "store.damaged-";

/// Opens the store as [`disk::open`] does, damaged files, too. All of it is read once.
///
/// # Errors
/// As [`disk::open`], but not for damage.
pub(super) fn open(path: &Path, lock: &SealedLock) -> Result<(sled::Db, Option<Recovered>), Error> {
    let aside = sealed::put_damaged_snapshots_aside(path)
        .map_err(|found| failed_at(path, "open", found.source))?;
    match disk::open(path, lock.seal(), Depth::All) {
        Ok(db) => Ok((
            db,
            aside.map(|name| {
                let name = name.display();
                Recovered::Whole(format!("{name} was damaged; its log is intact, nothing is lost"))
            }),
        )),
        Err(error) if error.source.kind() == io::ErrorKind::InvalidData => {
            let (db, done) = replace(path, lock, &error.source.to_string())?;
            Ok((db, Some(done)))
        }
        Err(error) => Err(error),
    }
}

/// The stores that were moved aside and are there still.
pub(super) fn lost(state_dir: &Path) -> Vec<PathBuf> {
    let entries = state_dir.read_dir().into_iter().flatten().flatten();
    let aside = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(ASIDE.as_bytes());
    let mut found: Vec<_> =
        entries.filter(|entry| aside(&entry.file_name())).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Puts what the log tells in the place of damaged files, or an empty store.
fn replace(path: &Path, lock: &SealedLock, why: &str) -> Result<(sled::Db, Recovered), Error> {
    let failed = |source| failed_at(path, "replace", source);
    // In a copy: threads of a sled that gave up may have the files open for good.
    let copy = path.with_extension("retry");
    let whole = copy_log(path, &copy).is_ok() && is_whole(&copy, lock);
    let place = unused(path.parent().unwrap_or(path));
    std::fs::rename(path, &place).map_err(failed)?;
    if whole {
        std::fs::rename(&copy, path).map_err(failed)?;
    } else {
        // What stays of it is removed by the next attempt.
        drop(std::fs::remove_dir_all(&copy));
        DirBuilder::new().mode(0o700).create(path).map_err(failed)?;
        lock.write_seal(0);
    }
    if let Some(folder) = path.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    let db = disk::open(path, lock.seal(), Depth::Meta)?;
    if whole {
        // All it told is in its successor. Files that stay take room, no more.
        drop(std::fs::remove_dir_all(&place));
        let text = format!("the store was damaged ({why}); its log is intact, nothing is lost");
        return Ok((db, Recovered::Whole(text)));
    }
    let place = place.display();
    let text = format!(
        "the store was damaged ({why}) and was recreated; the damaged files are in {place}"
    );
    Ok((db, Recovered::Lost(text)))
}

/// Whether the log knows the last write, and all of it can be read.
fn is_whole(copy: &Path, lock: &SealedLock) -> bool {
    // Without a seal an empty log would do.
    let Some(seal) = lock.seal() else { return false };
    match disk::open(copy, Some(seal), Depth::All) {
        Ok(db) => {
            drop(db);
            disk::await_closed(copy).is_ok()
        }
        Err(_) => false,
    }
}

/// Copies what sled needs to read its log from the start: neither snapshots nor its settings, which
/// are those that it is opened with.
fn copy_log(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let is_snapshot = name.as_encoded_bytes().windows(5).any(|part| part == b"snap.");
        if is_snapshot || name == "conf" {
            continue;
        }
        let target = to.join(&name);
        // Large values are files of a directory, `blobs`.
        if entry.file_type()?.is_dir() {
            copy_log(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

/// The first name for a damaged store that nothing has.
fn unused(state_dir: &Path) -> PathBuf {
    let names = (1_u32..).map(|number| state_dir.join(format!("{ASIDE}{number}")));
    names.into_iter().find(|name| name.symlink_metadata().is_err()).unwrap_or_default()
}
