//! Attachment records (DESIGN decision 8): what an attachment owns on this node, written before
//! the thing it names is made, so that DEL and GC need nothing else.
//!
//! `<runDir>/attachments/<kind>/<network>/<container id>:<ifname>.json`, where bytes other than
//! letters, digits and `_ . - @ + =` are written as `%XX`; a file name longer than 255 bytes is
//! shortened with a hash, and the record itself holds its key. Beside it, while an operation runs,
//! lies `<container id>:<ifname>.lock`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::file::{self, Outlives};
use crate::{Error, FileLock, Result, paths};

/// A record as it lies on disk.
#[derive(Serialize, serde::Deserialize)]
struct Stored<T> {
    key: RecordKey,
    record: T,
}

/// The part of a record that names it.
#[derive(serde::Deserialize)]
struct StoredKey {
    key: RecordKey,
}

/// Whose record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
pub struct RecordKey {
    /// Network name.
    pub network: String,
    /// Container id.
    pub container_id: String,
    /// Interface name inside the container.
    pub ifname: String,
}

/// The records of one kind (`bridge`, `service`) below a run directory.
#[derive(Clone, Debug)]
pub struct Records {
    root: PathBuf,
}

impl Records {
    /// Records of `kind` below `run_dir`. Touches nothing yet.
    pub fn new(run_dir: &Path, kind: &str) -> Self {
        Self { root: paths::attachments(run_dir).join(kind) }
    }

    /// Serialises operations on one attachment (row F12).
    ///
    /// # Errors
    /// `ETIMEDOUT` after `wait`; I/O errors.
    pub fn lock(&self, key: &RecordKey, wait: Duration) -> Result<FileLock> {
        FileLock::acquire(&self.file(key, ".lock"), wait)
    }

    /// Whether an operation on this attachment runs right now.
    pub fn is_busy(&self, key: &RecordKey) -> bool {
        FileLock::is_held(&self.file(key, ".lock"))
    }

    /// Writes a record atomically (temporary file, rename). After kill -9 there is the old or the
    /// new one, and perhaps the temporary file, which [`Records::remove`] takes along. Call it
    /// while holding the lock of `key`.
    ///
    /// # Errors
    /// I/O errors; nothing half-written stays.
    pub fn write<T: Serialize>(&self, key: &RecordKey, record: &T) -> Result<()> {
        let path = self.file(key, ".json");
        let failed = |source| Error { action: format!("write record {}", path.display()), source };
        let stored = Stored { key: key.clone(), record };
        let bytes = serde_json::to_vec(&stored).map_err(|error| failed(error.into()))?;
        let folder = self.folder(&key.network);
        let temporary = self.file(key, ".tmp");
        let write = || file::replace(&path, &temporary, &bytes, 0o600, Outlives::Process);
        file::in_folder(&folder, write).map_err(failed)
    }

    /// The record of `key`, or `None`.
    ///
    /// # Errors
    /// Unreadable or undecodable, naming the file.
    pub fn read<T: DeserializeOwned>(&self, key: &RecordKey) -> Result<Option<T>> {
        let path = self.file(key, ".json");
        let stored: Option<Stored<T>> = read_json(&path)?;
        Ok(stored.filter(|stored| stored.key == *key).map(|stored| stored.record))
    }

    /// Removes a record and what the lock left beside it. Its absence is not an error. Call it
    /// while holding the lock of `key`: whoever waits for it then takes a new one.
    ///
    /// # Errors
    /// I/O errors.
    pub fn remove(&self, key: &RecordKey) -> Result<()> {
        for suffix in [".json", ".tmp", ".lock"] {
            let path = self.file(key, suffix);
            absent_is_fine(std::fs::remove_file(&path)).map_err(|source| Error {
                action: format!("remove record {}", path.display()),
                source,
            })?;
        }
        // Goes only while empty; whoever writes makes it again.
        drop(std::fs::remove_dir(self.folder(&key.network)));
        Ok(())
    }

    /// Keys of all records of `network`, ordered. A damaged record is known by the name of its file;
    /// if that does not tell, it is an error at the end, not a reason to stop: these come as the
    /// second value. Temporary files of killed processes go.
    ///
    /// # Errors
    /// The directory could not be read.
    pub fn list(&self, network: &str) -> Result<(Vec<RecordKey>, Vec<Error>)> {
        list_folder(&self.folder(network))
    }

    /// Every record that can be read, of every network, with its key. What is damaged or removed
    /// meanwhile is left out.
    ///
    /// # Errors
    /// A directory could not be read.
    pub fn readable<T: DeserializeOwned>(&self) -> Result<Vec<(RecordKey, T)>> {
        let mut records = Vec::new();
        for path in self.files() {
            records.extend(keyed(&path?));
        }
        Ok(records)
    }

    /// What [`Records::readable`] tells, without what lies in directories that cannot be read.
    pub fn readable_in_part<T: DeserializeOwned>(&self) -> Vec<(RecordKey, T)> {
        self.files().flatten().filter_map(|path| keyed(&path)).collect()
    }

    /// Keys of at most `most` records, of any network, other than that of `key`. Which ones is the file
    /// system's choice, from a place on that `key` decides.
    ///
    /// # Errors
    /// A directory could not be read.
    pub fn some_beside(&self, key: &RecordKey, most: usize) -> Result<Vec<RecordKey>> {
        let mut paths = self.files().collect::<Result<Vec<PathBuf>>>()?;
        let count = u128::try_from(paths.len().max(1)).unwrap_or(1);
        let start = fnv1a(key.container_id.as_bytes()) % count;
        paths.rotate_left(usize::try_from(start).unwrap_or_default());
        let read = |path: &PathBuf| Some(read_json::<StoredKey>(path).ok()??.key);
        Ok(paths.iter().filter_map(read).filter(|other| other != key).take(most).collect())
    }

    /// Keys of all records of a container, of any network, ordered. Reads the records whose file
    /// has the container's name, or a name that was shortened.
    ///
    /// # Errors
    /// A directory could not be read. Unreadable records are left out.
    pub fn of_container(&self, container_id: &str) -> Result<Vec<RecordKey>> {
        let mut keys = Vec::new();
        let start = format!("{}:", escape(container_id));
        for path in self.files() {
            let path = path?;
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if (name.starts_with(&start) || name.contains('~'))
                && let Ok(Some(stored)) = read_json::<StoredKey>(&path)
            {
                keys.push(stored.key);
            }
        }
        keys.retain(|key| key.container_id == container_id);
        keys.sort();
        Ok(keys)
    }

    /// All records of every network.
    ///
    /// # Errors
    /// A directory or a record that is unreadable or does not decode, naming it.
    pub fn all<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let mut records = Vec::new();
        for path in self.files() {
            // One that was removed since the directory was read is none.
            let stored: Option<Stored<T>> = read_json(&path?)?;
            records.extend(stored.map(|stored| stored.record));
        }
        Ok(records)
    }

    /// Whether there is no record at all, of any network: the last attachment of this kind is gone.
    /// Reads no further than the first.
    ///
    /// # Errors
    /// A directory could not be read.
    pub fn is_empty(&self) -> Result<bool> {
        self.files().next().transpose().map(|first| first.is_none())
    }

    /// Whether there are more than `count` records, of any network. Stops at the first one too many;
    /// what cannot be read is none.
    pub fn exceed(&self, count: usize) -> bool {
        self.files().flatten().nth(count).is_some()
    }

    /// Files of records, of every network, read as they are asked for.
    fn files(&self) -> impl Iterator<Item = Result<PathBuf>> {
        let folders =
            listing(&self.root).filter(|folder| folder.as_ref().map_or(true, |f| f.is_dir()));
        let paths = folders.flat_map(|folder| match folder {
            Ok(folder) => listing(&folder),
            Err(error) => Box::new(std::iter::once(Err(error))),
        });
        paths.filter(|path| path.as_ref().map_or(true, |path| is_record(path)))
    }

    fn folder(&self, network: &str) -> PathBuf {
        self.root.join(file_name(network, ""))
    }

    fn file(&self, key: &RecordKey, suffix: &str) -> PathBuf {
        let name = format!("{}:{}", escape(&key.container_id), escape(&key.ifname));
        self.folder(&key.network).join(shorten(name, suffix))
    }
}

/// Whether this is the name of a record's file.
fn is_record(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// Paths in a directory, read as they are asked for; none if it does not exist.
fn listing(folder: &Path) -> Box<dyn Iterator<Item = Result<PathBuf>>> {
    let entries = match open_folder(folder) {
        Ok(entries) => entries.into_iter().flatten(),
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let folder = folder.to_owned();
    Box::new(entries.map(move |entry| {
        entry.map(|entry| entry.path()).map_err(|source| unlisted(&folder, source))
    }))
}

fn open_folder(folder: &Path) -> Result<Option<std::fs::ReadDir>> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(|source| unlisted(folder, source)),
    }
}

fn unlisted(folder: &Path, source: io::Error) -> Error {
    Error { action: format!("list records in {}", folder.display()), source }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let failed = |source| Error { action: format!("read record {}", path.display()), source };
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(failed)?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into()))
}

/// A record with its key; `None` if it is damaged or gone.
fn keyed<T: DeserializeOwned>(path: &Path) -> Option<(RecordKey, T)> {
    let stored: Stored<T> = read_json(path).ok()??;
    Some((stored.key, stored.record))
}

fn list_folder(folder: &Path) -> Result<(Vec<RecordKey>, Vec<Error>)> {
    let mut keys = Vec::new();
    let mut errors = Vec::new();
    for path in listing(folder) {
        let path = path?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => match read_json::<StoredKey>(&path) {
                Ok(Some(stored)) => keys.push(stored.key),
                // Removed since the directory was read.
                Ok(None) => {}
                Err(error) => match key_of(&path) {
                    Some(key) => keys.push(key),
                    None => errors.push(error),
                },
            },
            Some("tmp") => remove_left_over(&path),
            _ => {}
        }
    }
    keys.sort();
    Ok((keys, errors))
}

/// Removes the temporary file of a killed process: one whose attachment nobody works on.
fn remove_left_over(temporary: &Path) {
    let lock = temporary.with_extension("lock");
    // Held by a living process: it renames or removes the file itself.
    if let Ok(_held) = FileLock::acquire(&lock, Duration::ZERO) {
        drop(std::fs::remove_file(temporary));
        drop(std::fs::remove_file(lock));
    }
}

fn file_name(text: &str, suffix: &str) -> String {
    shorten(escape(text), suffix)
}

/// The key that the name of a record's file and directory tell; `None` if one is shortened.
fn key_of(path: &Path) -> Option<RecordKey> {
    let network = unescape(path.parent()?.file_name()?.to_str()?)?;
    let (container_id, ifname) = path.file_stem()?.to_str()?.split_once(':')?;
    Some(RecordKey { network, container_id: unescape(container_id)?, ifname: unescape(ifname)? })
}

/// What [`escape`] wrote as `text`; `None` if it did not.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    let original = String::from_utf8(bytes).ok()?;
    (escape(&original) == text).then_some(original)
}

/// Never `.`, `..`, empty or with a slash.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (place, byte) in text.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"_-@+=".contains(&byte);
        if plain || (byte == b'.' && place > 0) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    if escaped.is_empty() { "%".to_owned() } else { escaped }
}

/// At most `NAME_MAX` bytes: a longer name ends in `~` and its hash, a byte that `escape` never
/// writes.
fn shorten(name: String, suffix: &str) -> String {
    /// `NAME_MAX` (linux/limits.h).
    const LONGEST: usize = 255;
    /// 128 bits in hexadecimal, and the mark.
    const HASH: usize = 33;
    /// The longest suffix, `.json`: the files of one record differ in nothing else.
    const SUFFIX: usize = 5;
    if name.len() + SUFFIX <= LONGEST {
        return name + suffix;
    }
    // `name` is ASCII: any byte is a boundary.
    let kept = &name[..LONGEST - HASH - SUFFIX];
    format!("{kept}~{:032x}{suffix}", fnv1a(name.as_bytes()))
}

/// FNV-1a of 128 bits: the same in every build, unlike the standard library's hashers.
fn fnv1a(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

#[cfg(test)]
mod tests;
