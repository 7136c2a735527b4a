//! nftables by netlink: IR to bytes and back, one transaction per batch, read back, errors by
//! errno.

mod client;
mod codec;
mod error;
#[cfg(feature = "fake")]
mod fake;
mod foreign;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod monitor;
pub mod owned;
mod socket;
mod subscriptions;
mod uapi;
mod wire;

pub use client::{Client, LastClient, closing_waits, does_one_operation, is_one_operation};
pub use error::{Error, Result};
#[cfg(feature = "fake")]
pub use fake::Fake;
pub use monitor::{Change, Monitor};
pub use owned::OwnedTable;
pub use subscriptions::Pause;
