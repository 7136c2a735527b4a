//! The spool: the last event of each container that could not be delivered, one file each.
//!
//! ```text
//! spool/NETWORK.ID.IFNAME-HASH.json          written by causeway-service (put), taken back (withdraw)
//! spool/claimed/NETWORK.ID.IFNAME-HASH.json  taken over by causewayd (events), until stored (remove)
//! ```
//!
//! Every step is one rename or one unlink, so a kill at any instant leaves the old state or the new
//! one, and nobody waits for a lock. An event is either claimed or withdrawn, never both: that is
//! how `causeway-service` knows whether the daemon can have read it. The directory `claimed` is made by
//! the first reader: without it no daemon has ever looked.
//!
//! A file contains the last state, not a history, so replaying any part or all of it again gives
//! the same containers.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use causeway_host::FileLock;
use causeway_host::file::{self, Outlives};
use causeway_model::{EndpointEvent, EndpointKey};
use causeway_ruleset::name;

/// Where the spool is unless told otherwise.
pub const DEFAULT_SPOOL: &str = "/var/lib/causeway/spool";

/// Ending of an event's file; the daemon reads no other.
const EVENT: &str = "json";
/// Ending of what is being written.
const TEMPORARY: &str = "tmp";
const CLAIMED: &str = "claimed";

/// The spool directory.
#[derive(Clone, Debug)]
pub struct Spool {
    path: PathBuf,
}

impl Spool {
    /// The spool at a path, made with the first file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Its path: what the daemon watches.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an event, replacing an older one of its container. One writer per container at a
    /// time: call it under the attachment's lock. It survives the writer, not a power cut: a
    /// machine that loses its power loses its containers.
    ///
    /// # Errors
    /// Disk full, permissions.
    pub fn put(&self, event: &EndpointEvent) -> io::Result<()> {
        let bytes = serde_json::to_vec(event)?;
        let path = self.file(&event.key);
        let temporary = path.with_extension(TEMPORARY);
        // The directory may be removed, and temporary files are, by other processes.
        file::in_folder(&self.path, || self.write(&temporary, &path, &bytes))
    }

    /// Takes back the event of a container. Returns whether there was one, which no daemon can have
    /// read then. Call it under the attachment's lock.
    ///
    /// # Errors
    /// Permissions.
    pub fn withdraw(&self, key: &EndpointKey) -> io::Result<bool> {
        let path = self.file(key);
        unlink(&path.with_extension(TEMPORARY))?;
        unlink(&path)
    }

    /// Whether a daemon has ever read this spool.
    pub fn was_read(&self) -> bool {
        self.claimed().is_dir()
    }

    /// Takes over what waits: all events that were taken over and not removed so far, one a
    /// container, in the order of their `seq`, and the names of files that do not decode (moved
    /// aside as `claimed/NAME.bad`). Temporary files of killed writers go. For the daemon alone;
    /// it asks once at its start, even if it expects nothing ([`Spool::was_read`]).
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn events(&self) -> io::Result<(Vec<EndpointEvent>, Vec<String>)> {
        let claimed = self.claimed();
        file::make_folder(&claimed)?;
        self.remove_left_over();
        for name in names(&self.path, EVENT)? {
            match std::fs::rename(self.path.join(&name), claimed.join(&name)) {
                // Withdrawn since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        let mut events = Vec::new();
        let mut bad = Vec::new();
        for name in names(&claimed, EVENT)? {
            let path = claimed.join(&name);
            match read(&path) {
                Ok(event) => events.extend(event),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    std::fs::rename(&path, path.with_extension("json.bad"))?;
                    bad.push(name);
                }
                Err(error) => return Err(error),
            }
        }
        events.sort_by_key(|event| event.seq);
        Ok((events, bad))
    }

    /// Removes an event that was taken over and is stored by now, unless a newer one of its
    /// container was taken over meanwhile. For the daemon alone.
    ///
    /// # Errors
    /// Permissions.
    pub fn remove(&self, event: &EndpointEvent) -> io::Result<()> {
        let path = self.claimed().join(file_name(&event.key));
        if read(&path)?.is_some_and(|claimed| claimed.seq <= event.seq) {
            unlink(&path)?;
        }
        Ok(())
    }

    /// The event of a container that waits to be claimed.
    ///
    /// # Errors
    /// It cannot be read; `InvalidData` if it does not decode.
    pub fn get(&self, key: &EndpointKey) -> io::Result<Option<EndpointEvent>> {
        read(&self.file(key))
    }

    fn claimed(&self) -> PathBuf {
        self.path.join(CLAIMED)
    }

    fn file(&self, key: &EndpointKey) -> PathBuf {
        self.path.join(file_name(key))
    }

    fn write(&self, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Says that a writer is at work; without it only the cleaner's patience is less.
        let _writing = FileLock::join(File::open(&self.path)?);
        file::replace(path, temporary, bytes, 0o600, Outlives::Process)
    }

    /// Temporary files are removed while no writer is at work.
    fn remove_left_over(&self) {
        let taken = File::open(&self.path).and_then(FileLock::try_take);
        if let Ok(Some(_cleaning)) = taken {
            for name in names(&self.path, TEMPORARY).unwrap_or_default() {
                drop(std::fs::remove_file(self.path.join(name)));
            }
        }
    }
}

/// Never `.`, `..` nor with a slash: container ids and networks hold letters, digits and `_.-`,
/// interface names are at most 15 bytes, and other characters of a name are replaced. The hash
/// tells those apart that are cut or replaced alike.
fn file_name(key: &EndpointKey) -> String {
    /// What people read of a name that may be as long as it likes.
    const SHOWN: usize = 40;
    let EndpointKey { network, container_id, ifname } = key;
    let readable = |text: &str| -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-@+=".contains(c);
        text.chars().take(SHOWN).map(|c| if plain(c) { c } else { '_' }).collect()
    };
    let hash = name::hash_hex(&[network, container_id, ifname], 16);
    let (network, id, ifname) = (readable(network), readable(container_id), readable(ifname));
    format!("{network}.{id}.{ifname}-{hash}.{EVENT}")
}

/// An event; `None` if there is no file.
fn read(path: &Path) -> io::Result<Option<EndpointEvent>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    let event = serde_json::from_slice(&bytes);
    event.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether there was something to remove.
fn unlink(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        // No directory is no file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// File names with an ending, ordered; none if there is no directory.
fn names(folder: &Path, ending: &str) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let ends = Path::new(&name).extension().is_some_and(|found| found == ending);
        names.extend(name.to_str().filter(|_| ends).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
