//! Errors of kernel and plugins as CNI errors: the one place that knows the codes.

use std::fmt::Display;

use causeway_kernel::NetnsError;
use cni_plugin::{Code, Error};

/// A line for people on stderr; the operation goes on.
pub(crate) fn warn(message: &dyn Display) {
    causeway_kernel::warn("causeway-bridge", message);
}

/// Code 11 if the same call may go through later, else 5.
pub(crate) fn kernel(error: causeway_kernel::Error) -> Error {
    let code = if error.is_transient() { Code::TryAgainLater } else { Code::Io };
    Error::caused(code, format!("cannot {}", error.action), &error.source)
}

/// Code 8 for what is not a namespace (any more), 5 for what could not be opened.
pub(crate) fn netns(error: NetnsError) -> Error {
    let (code, remedy) = match &error {
        NetnsError::NotFound { .. } | NetnsError::NotANetns { .. } => {
            (Code::InvalidNetns, "; CNI_NETNS must name the container's network namespace")
        }
        NetnsError::Io { .. } => (Code::Io, ""),
    };
    let source = std::error::Error::source(&error);
    let msg = format!("{error}{remedy}");
    match source {
        Some(source) => Error::caused(code, msg, source),
        None => Error::new(code, msg),
    }
}

/// All errors as one: the code of the first, every message.
pub(crate) fn collected(errors: Vec<Error>) -> Result<(), Error> {
    let mut errors = errors.into_iter();
    let Some(mut all) = errors.next() else { return Ok(()) };
    for error in errors {
        all.msg = format!("{}; {}", all.msg, error.msg);
        if !error.details.is_empty() {
            all.details = if all.details.is_empty() {
                error.details
            } else {
                format!("{}; {}", all.details, error.details)
            };
        }
    }
    Err(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: F41
    #[test]
    fn what_may_go_through_later_has_code_11() {
        let code = |errno| kernel(causeway_kernel::Error::errno("list links", errno)).code;
        for errno in [libc::EINTR, libc::ENOBUFS, libc::EBUSY, libc::EAGAIN] {
            assert_eq!(code(errno), Code::TryAgainLater);
        }
        for errno in [libc::EEXIST, libc::ENODEV, libc::EPERM] {
            assert_eq!(code(errno), Code::Io);
        }
    }
}
