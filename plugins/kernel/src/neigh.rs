//! Neighbours and the forwarding database.

use std::net::IpAddr;

use crate::{Mac, Netlink, Result};

/// An FDB entry of a vxlan device (`self`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    /// Inner destination; all zero is the flood list (head-end replication).
    pub mac: Mac,
    /// Remote VTEP.
    pub dst: IpAddr,
}

impl Netlink {
    /// Appends a permanent entry to the vxlan's FDB. Presence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn append_fdb(&self, index: u32, entry: &FdbEntry) -> Result<()> {
        let _ = (index, entry);
        todo!()
    }

    /// Removes an entry. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_fdb(&self, index: u32, entry: &FdbEntry) -> Result<()> {
        let _ = (index, entry);
        todo!()
    }

    /// Permanent `self` entries of a vxlan device.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn fdb(&self, index: u32) -> Result<Vec<FdbEntry>> {
        let _ = index;
        todo!()
    }
}
