//! The embedded store: objects and containers of this node on disk, by sled.

use std::path::Path;

use causeway_model::{EndpointEvent, EndpointKey, Object, ObjectKey, ObjectKind};

/// Who an object came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `causeway apply`.
    Api,
    /// A file of the manifest directory, by name: the object goes when the file has it no longer.
    Manifest(String),
}

/// A stored object.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The object, with all that was allocated.
    pub object: Object,
    /// Who it came from.
    pub origin: Origin,
}

/// Failure of the store.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct Error {
    /// What failed, with the path.
    pub action: String,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// The store below a state directory. One opener at a time: a second one is refused at once.
#[derive(Debug)]
pub struct Store {
    #[expect(dead_code, reason = "until it is read")]
    db: sled::Db,
}

impl Store {
    /// Opens `STATE_DIR/store`, made where absent.
    ///
    /// # Errors
    /// Damaged (named as such, with the remedy), locked by another daemon, disk full, permissions.
    pub fn open(_state_dir: &Path) -> Result<Self, Error> {
        todo!()
    }

    /// All objects. One that does not decode is left where it is and named in the second list.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn objects(&self) -> Result<(Vec<Stored>, Vec<String>), Error> {
        todo!()
    }

    /// Stores objects and deletes others, all or nothing, on disk when it returns.
    ///
    /// # Errors
    /// See [`Error`]; then nothing is stored.
    pub fn write(&self, _put: &[Stored], _delete: &[(ObjectKind, ObjectKey)]) -> Result<(), Error> {
        todo!()
    }

    /// The last event of every container of this boot. Events of other boots are deleted.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn containers(&self, _boot_id: &str) -> Result<Vec<EndpointEvent>, Error> {
        todo!()
    }

    /// Stores the last event of a container (an ADD) or deletes it (a DEL). On disk at the next
    /// [`Store::flush`]: a lost event of a lost machine concerns a lost container.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn put_container(&self, _event: &EndpointEvent) -> Result<(), Error> {
        todo!()
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn delete_container(&self, _key: &EndpointKey) -> Result<(), Error> {
        todo!()
    }

    /// Makes sure that all is on disk.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn flush(&self) -> Result<(), Error> {
        todo!()
    }
}
