//! Network namespaces. A namespace belongs to a thread: nothing here outlives the call that
//! entered it.

use std::fs::File;

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

/// Why a path is not a usable network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The path does not exist (any more).
    #[error("network namespace {path} does not exist")]
    NotFound {
        /// The path as given.
        path: String,
    },
    /// The path exists, and is not a network namespace (plain file, tmpfs, other namespace type).
    #[error("{path} is not a network namespace")]
    NotANetns {
        /// The path as given.
        path: String,
    },
    /// It could not be opened or entered.
    #[error("open network namespace {path}")]
    Io {
        /// The path as given.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        todo!()
    }

    /// Opens `path`, and checks by filesystem magic and `NS_GET_NSTYPE` that it is a network
    /// namespace.
    ///
    /// # Errors
    /// See [`NetnsError`].
    pub fn open(path: &str) -> Result<Self, NetnsError> {
        let _ = path;
        todo!()
    }

    /// Whether both are the same namespace (device and inode).
    pub fn is_same(&self, other: &Self) -> bool {
        let _ = (other, &self.file);
        todo!()
    }

    /// Runs `work` on a thread inside the namespace; the caller's thread stays where it is.
    ///
    /// # Errors
    /// `setns` failed.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let _ = work;
        todo!()
    }
}
