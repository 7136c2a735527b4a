//! The CNI error object and its codes.

use crate::Version;

/// Error codes: the specification's table (section "Error") and Causeway's own from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 1: `cniVersion` not supported, or a command the version does not know.
    IncompatibleVersion,
    /// 2: a field's value is not supported, or two options exclude each other.
    UnsupportedField,
    /// 3: container unknown; the runtime need not send DEL.
    UnknownContainer,
    /// 4: a needed environment variable is missing or invalid.
    InvalidEnvironment,
    /// 5: input or output failed (state file, netns, netlink, exec).
    Io,
    /// 6: JSON that does not decode.
    Decode,
    /// 7: the configuration decodes but is not valid.
    InvalidConfig,
    /// 8: the network namespace is not usable.
    InvalidNetns,
    /// 11: transient; the runtime should try again later.
    TryAgainLater,
    /// 50: STATUS: the plugin cannot serve ADD.
    NotAvailable,
    /// 51: STATUS: as 50, and running containers may have limited connectivity.
    NotAvailableLimited,
    /// 100: no address left in a pool.
    PoolExhausted,
    /// 101: the requested address cannot be had.
    AddressUnavailable,
    /// 102: the host port belongs to another container.
    PortInUse,
    /// 103: the lease store is damaged.
    StoreDamaged,
    /// 104: the daemon is required but cannot be reached.
    DaemonUnreachable,
    /// 999: anything else.
    Internal,
    /// A code reported by a delegate that has no name here.
    Other(u32),
}

impl Code {
    /// The number in `code`.
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::NotAvailableLimited => 51,
            Self::PoolExhausted => 100,
            Self::AddressUnavailable => 101,
            Self::PortInUse => 102,
            Self::StoreDamaged => 103,
            Self::DaemonUnreachable => 104,
            Self::Internal => 999,
            Self::Other(number) => number,
        }
    }

    /// The code with this number; [`Code::Other`] if it has no name.
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::IncompatibleVersion,
            2 => Self::UnsupportedField,
            3 => Self::UnknownContainer,
            4 => Self::InvalidEnvironment,
            5 => Self::Io,
            6 => Self::Decode,
            7 => Self::InvalidConfig,
            8 => Self::InvalidNetns,
            11 => Self::TryAgainLater,
            50 => Self::NotAvailable,
            51 => Self::NotAvailableLimited,
            100 => Self::PoolExhausted,
            101 => Self::AddressUnavailable,
            102 => Self::PortInUse,
            103 => Self::StoreDamaged,
            104 => Self::DaemonUnreachable,
            999 => Self::Internal,
            other => Self::Other(other),
        }
    }
}

/// A failure as the runtime will read it. `Display` is `msg`, and `: details` if there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Which kind of failure.
    pub code: Code,
    /// One sentence that a user can act on: field, value, remedy.
    pub msg: String,
    /// The chain of causes, or the offending value. May be empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with `details`.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// An error whose details are the cause chain of `source` ("a: b: c").
    pub fn caused(code: Code, msg: impl Into<String>, source: &dyn std::error::Error) -> Self {
        let mut chain = source.to_string();
        let mut next = source.source();
        while let Some(cause) = next {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            next = cause.source();
        }
        Self::new(code, msg).details(chain)
    }
}

impl Error {
    /// The error object of the specification, all four members (row C16).
    pub(crate) fn to_json(&self, version: Version) -> serde_json::Value {
        serde_json::json!({
            "cniVersion": version.as_str(),
            "code": self.code.number(),
            "msg": self.msg,
            "details": self.details,
        })
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
