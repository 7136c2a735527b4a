//! Errors by errno.

/// A failed operation on this node. `Display` says what was tried and with which object; the cause
/// is the source.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct Error {
    /// What was tried, with names and values: `create bridge cw0`.
    pub action: String,
    /// Why it failed.
    #[source]
    pub source: std::io::Error,
}

/// Result of such operations.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error for `action` with an errno (positive).
    pub fn errno(action: impl Into<String>, errno: i32) -> Self {
        Self { action: action.into(), source: std::io::Error::from_raw_os_error(errno) }
    }

    /// The errno, if there is one.
    pub fn raw(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// `EEXIST`
    pub fn is_exists(&self) -> bool {
        self.raw() == Some(libc::EEXIST)
    }

    /// `ENODEV`, `ENOENT`, `ESRCH`, `EADDRNOTAVAIL`: the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.raw(),
            Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO)
        )
    }

    /// `EAGAIN`, `EBUSY`, `EINTR`, `ENOBUFS`, `ETIMEDOUT`: the same call may go through later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.raw(),
            Some(libc::EAGAIN | libc::EBUSY | libc::EINTR | libc::ENOBUFS | libc::ETIMEDOUT)
        )
    }
}
