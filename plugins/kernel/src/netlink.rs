//! An rtnetlink connection to one namespace. Methods are grouped by object in `link.rs`,
//! `route.rs` and `neigh.rs`.

use crate::{Netns, Result};

/// An rtnetlink connection to one network namespace. Not `Send`: it owns its runtime.
#[derive(Debug)]
pub struct Netlink {
    _private: (),
}

impl Netlink {
    /// A connection to the namespace of the calling thread.
    ///
    /// # Errors
    /// The socket could not be made.
    pub fn open() -> Result<Self> {
        todo!()
    }

    /// A connection to `netns`.
    ///
    /// # Errors
    /// The namespace could not be entered, or the socket not be made.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        let _ = netns;
        todo!()
    }
}
