//! nftables by netlink: IR to bytes and back, one transaction a batch, read back, errors by errno.

mod client;
mod error;

pub use client::Client;
pub use error::{Error, Result};
