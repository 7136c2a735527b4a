//! The one place that turns errors of kernel and programs into CNI errors.

use cni_plugin::{Code, Error};

/// A kernel operation failed: code 11 if the same call may go through later, else 5.
pub(crate) fn kernel(msg: impl Into<String>, error: &causeway_kernel::Error) -> Error {
    Error::caused(if error.is_transient() { Code::TryAgainLater } else { Code::Io }, msg, error)
}

/// An nftables operation failed: code 11 if the same call may go through later, else 5.
pub(crate) fn nft(error: &causeway_nft::Error) -> Error {
    let code = if error.is_transient() { Code::TryAgainLater } else { Code::Io };
    let msg = if error.is_unsupported() {
        "host ports need nf_tables with NAT in this kernel (CONFIG_NF_TABLES, CONFIG_NFT_NAT)"
    } else {
        "change the host ports in nftables"
    };
    Error::caused(code, msg, error)
}

/// Errors of a removal that goes on after each.
#[derive(Debug, Default)]
pub(crate) struct Collected(Vec<Error>);

impl Collected {
    /// Keeps the error of `result`, and passes the value on.
    pub(crate) fn keep<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }

    /// Keeps several.
    pub(crate) fn extend(&mut self, errors: impl IntoIterator<Item = Error>) {
        self.0.extend(errors);
    }

    /// All of them as one, with the code of the first.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let Some(first) = self.0.first() else { return Ok(()) };
        if let [only] = self.0.as_slice() {
            return Err(only.clone());
        }
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        let msg = format!("{} (and {} more)", first.msg, self.0.len() - 1);
        Err(Error::new(first.code, msg).details(all.join("; ")))
    }
}

/// stderr is for people: operations go on.
pub(crate) fn warn(message: &str) {
    causeway_kernel::warn("causeway-service", &message);
}
