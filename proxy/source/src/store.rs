//! The embedded store: objects and containers of this node on disk, by sled.
//!
//! One tree. Keys: `o`, a letter for the kind, namespace, zero, name; `c`, network, zero, container
//! id, zero, interface; `meta`; and what other nodes are (see `cluster`). Values are JSON: objects as Kubernetes writes them in an envelope
//! that says who they came from, events as the plugin sent them.
//!
//! After a failure (a full disk) sled takes no more writes. The files are opened again then, and
//! hold what was flushed.

mod cluster;
mod disk;
mod recover;
mod value;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use causeway_model::{EndpointEvent, EndpointKey, ObjectKey, ObjectKind};

use crate::stored::{self, Stored};

use causeway_host::{SealedLock, sealed};
use disk::Depth;

pub use recover::Recovered;

/// How often a database is used for the sake of its memory: some hundredths of a second.
const USES: usize = 20_000;

/// Failure of the store.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct Error {
    /// What failed, with the path.
    pub action: String,
    /// Why: `InvalidData` if the store is damaged, `WouldBlock` if it is in use.
    #[source]
    pub source: io::Error,
}

/// Why the store takes no more writes below this state directory, in words that begin with the
/// disk: it is full, or read-only. `None`: it takes them.
pub fn disk_trouble(state_dir: &Path) -> Option<String> {
    disk::trouble(state_dir)
}

/// The directories of damaged stores below this state directory, in whose place a new one began.
pub fn lost_stores(state_dir: &Path) -> Vec<PathBuf> {
    recover::lost(state_dir)
}

/// The store below a state directory. One opener at a time: a second one is refused at once.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// `None` after a failure.
    db: RefCell<Option<sled::Db>>,
    lock: SealedLock,
    recovered: Option<Recovered>,
}

impl Store {
    /// Opens `STATE_DIR/store`, made if absent (0700). Beside it is `store.lock`. Damaged files
    /// are recovered or moved aside: see [`Store::recovered`].
    ///
    /// # Errors
    /// Locked by another daemon, disk full, permissions.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let path = state_dir.join("store");
        let lock = disk::lock(state_dir, &path)?;
        let (db, recovered) = recover::open(&path, &lock)?;
        Ok(Self { path, db: RefCell::new(Some(db)), lock, recovered })
    }

    /// What was done for damaged files when this was opened.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_ref()
    }

    /// All objects. One that does not decode is left where it is and named in the second list.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn objects(&self) -> Result<(Vec<Stored>, Vec<String>), Error> {
        self.with("read", |db| {
            let (mut objects, mut unreadable) = (Vec::new(), Vec::new());
            for entry in db.scan_prefix(value::OBJECTS) {
                let (key, bytes) = entry?;
                match stored::decode(&bytes) {
                    Ok(stored) => objects.push(stored),
                    Err(why) => unreadable.push(format!("{}: {why}", value::name(&key))),
                }
            }
            Ok((objects, unreadable))
        })
    }

    /// Stores some objects and deletes others, all or nothing, on disk when it returns.
    ///
    /// # Errors
    /// See [`Error`]; then nothing is stored.
    pub fn write(&self, put: &[Stored], delete: &[(ObjectKind, ObjectKey)]) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        let mut size = 0;
        for (kind, key) in delete {
            batch.remove(value::object_key(*kind, key));
        }
        for stored in put {
            let bytes = stored::encode(stored);
            size += bytes.len();
            batch.insert(value::object_key(stored.object.kind(), stored.object.key()), bytes);
        }
        disk::require_space(&self.path, size)?;
        let generation = self.with("write", |db| {
            let generation = disk::generation(db)?.unwrap_or(0) + 1;
            batch.insert(disk::META_KEY, disk::meta(generation));
            db.apply_batch(batch)?;
            db.flush()?;
            Ok(generation)
        })?;
        disk::sync(&sealed::log(&self.path))?;
        self.lock.write_seal(generation);
        Ok(())
    }

    /// The last event of every container of this boot. Events of other boots are deleted.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn containers(&self, boot_id: &str) -> Result<Vec<EndpointEvent>, Error> {
        self.with("read", |db| {
            let mut events = Vec::new();
            for entry in db.scan_prefix(value::CONTAINERS) {
                let (key, bytes) = entry?;
                match value::decode_event(&bytes) {
                    Some(event) if event.boot_id == boot_id => events.push(event),
                    Some(_) | None => drop(db.remove(key)?),
                }
            }
            Ok(events)
        })
    }

    /// Stores the last event of a container (per ADD). It survives a kill from the next
    /// [`Store::flush`] on, which is to be called before the event is answered.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn put_container(&self, event: &EndpointEvent) -> Result<(), Error> {
        let bytes = value::encode_event(event);
        disk::require_space(&self.path, bytes.len())?;
        self.with("write", |db| db.insert(value::container_key(&event.key), bytes)).map(drop)
    }

    /// Forgets a container, for good after the next [`Store::flush`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_container(&self, key: &EndpointKey) -> Result<(), Error> {
        self.with("write", |db| db.remove(value::container_key(key))).map(drop)
    }

    /// Makes sure that all survives a kill.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn flush(&self) -> Result<(), Error> {
        self.with("write", |db| db.flush()).map(drop)
    }

    /// Gives back the memory that reading or writing much has taken: sled keeps every page that it
    /// has seen, whatever its cache may hold. Takes as long as [`Store::open`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn shrink(&self) -> Result<(), Error> {
        self.flush()?;
        drop(self.db.borrow_mut().take());
        // What nobody can see any more is freed bit by bit as the database is used.
        self.with("open", |db| (0..USES).try_for_each(|_| db.get(disk::META_KEY).map(drop)))
    }

    /// Works on the database; opens it again if the last work failed.
    fn with<T>(
        &self,
        what: &str,
        work: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, Error> {
        let mut db = self.db.borrow_mut();
        let open = match db.take() {
            Some(open) => open,
            None => {
                disk::await_closed(&self.path)?;
                disk::open(&self.path, self.lock.seal(), Depth::Meta)?
            }
        };
        let done = work(&open).map_err(|error| disk::convert(&self.path, what, error))?;
        *db = Some(open);
        Ok(done)
    }
}

#[cfg(test)]
mod tests;
