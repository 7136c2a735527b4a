//! The CNI contract, specification 0.1.0 to 1.1.0: request, result, versions, errors, dispatch,
//! and delegation as a value.
//!
//! Pure (invariant I1): an environment map and stdin bytes go in, a [`Reply`] comes out. Nothing
//! here reads the process environment, a clock or a file, and nothing prints.
#![forbid(unsafe_code)]

mod about;
mod address;
mod delegate;
mod dispatch;
mod environment;
mod error;
mod json;
pub mod lenient;
mod request;
mod result;
#[cfg(test)]
mod testing;
mod version;

pub use about::About;
pub use delegate::{Invocation, find_plugin_candidates};
pub use dispatch::{Plugin, Reply, dispatch, read_all};
pub use environment::{Attachment, CniArgs, Command, Environment, environment_of};
pub use error::{Code, Error};
pub use request::Request;
pub use result::{CniResult, Dns, Interface, Ip, Route};
pub use version::Version;
