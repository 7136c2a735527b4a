//! Errors by errno.

/// A refused transaction or a failed query.
#[derive(Debug, thiserror::Error)]
#[error("nftables: {action}")]
pub struct Error {
    /// The operation that the kernel refused, in nft's words.
    pub action: String,
    /// Position of that operation in the batch, if it is known.
    pub op: Option<usize>,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

/// Result of nftables operations.
pub type Result<T> = std::result::Result<T, Error>;

/// `source` came of no operation of a batch.
pub(crate) fn failed(action: impl Into<String>, source: std::io::Error) -> Error {
    Error { action: action.into(), op: None, source }
}

impl Error {
    /// `ENOENT`: table, chain, set, element or rule absent.
    pub fn is_not_found(&self) -> bool {
        self.source.raw_os_error() == Some(libc::ENOENT)
    }

    /// `EEXIST`
    pub fn is_exists(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EEXIST)
    }

    /// `ERESTART`, `EBUSY`, `EAGAIN`, `EINTR`, `ENOBUFS`: try again.
    pub fn is_transient(&self) -> bool {
        const ERESTART: i32 = 85;
        matches!(
            self.source.raw_os_error(),
            Some(ERESTART | libc::EBUSY | libc::EAGAIN | libc::EINTR | libc::ENOBUFS)
        )
    }

    /// `EOPNOTSUPP`, `EAFNOSUPPORT`, `EPROTONOSUPPORT`: this kernel lacks it.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
        )
    }
}
