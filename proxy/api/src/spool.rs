//! The spool: the last event of each container that could not be delivered, a file each.
//!
//! `causeway-service` writes a file atomically when the daemon does not answer; whoever delivers
//! the event removes the file, if it is still the same one. A file holds the last state, not a
//! history, so replaying any prefix or all of it again gives the same containers.

use std::io;
use std::path::{Path, PathBuf};

use causeway_model::{EndpointEvent, EndpointKey};

/// The spool directory.
#[derive(Clone, Debug)]
pub struct Spool {
    #[expect(dead_code, reason = "until it is read")]
    path: PathBuf,
}

impl Spool {
    /// The spool at a path, made with the first file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Writes an event, replacing an older one of its container.
    ///
    /// # Errors
    /// Disk full, permissions.
    pub fn put(&self, _event: &EndpointEvent) -> io::Result<()> {
        todo!()
    }

    /// All events in the order of their `seq`, and names of files that do not decode (moved aside
    /// as `NAME.bad`).
    ///
    /// # Errors
    /// The directory can not be read. Its absence is an empty spool.
    pub fn events(&self) -> io::Result<(Vec<EndpointEvent>, Vec<String>)> {
        todo!()
    }

    /// Removes the file of an event unless a newer one stands there by now.
    ///
    /// # Errors
    /// Permissions.
    pub fn remove(&self, _event: &EndpointEvent) -> io::Result<()> {
        todo!()
    }

    /// The event of a container, where one waits.
    ///
    /// # Errors
    /// It can not be read.
    pub fn get(&self, _key: &EndpointKey) -> io::Result<Option<EndpointEvent>> {
        todo!()
    }
}
