//! Attachment records (DESIGN decision 8): what an attachment owns on this node, written before
//! the thing it names is made, so that DEL and GC need nothing else.
//!
//! `<runDir>/attachments/<kind>/<network>/<container id>-<ifname>.json`; a file name longer than
//! 255 bytes is shortened with a hash, and the record itself holds its key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{FileLock, Result};

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
        Self { root: run_dir.join("attachments").join(kind) }
    }

    /// Serialises operations on one attachment (row F12).
    ///
    /// # Errors
    /// `ETIMEDOUT` after `wait`; I/O errors.
    pub fn lock(&self, key: &RecordKey, wait: Duration) -> Result<FileLock> {
        let _ = (key, wait, &self.root);
        todo!()
    }

    /// Writes a record atomically (temporary file, rename). After kill -9 there is the old or the
    /// new one.
    ///
    /// # Errors
    /// I/O errors; nothing half-written stays.
    pub fn write<T: Serialize>(&self, key: &RecordKey, record: &T) -> Result<()> {
        let _ = (key, record);
        todo!()
    }

    /// The record of `key`, or `None`.
    ///
    /// # Errors
    /// Unreadable or undecodable, naming the file.
    pub fn read<T: DeserializeOwned>(&self, key: &RecordKey) -> Result<Option<T>> {
        let _ = key;
        todo!()
    }

    /// Removes a record and what the lock left beside it. Its absence is not an error.
    ///
    /// # Errors
    /// I/O errors.
    pub fn remove(&self, key: &RecordKey) -> Result<()> {
        let _ = key;
        todo!()
    }

    /// Keys of all records of `network`, ordered. Unreadable files are an error at the end, not a
    /// reason to stop: they come as the second value.
    ///
    /// # Errors
    /// The folder could not be read.
    pub fn list(&self, network: &str) -> Result<(Vec<RecordKey>, Vec<crate::Error>)> {
        let _ = network;
        todo!()
    }
}
