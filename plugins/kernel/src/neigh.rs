//! Neighbours and the forwarding database.

mod permanent;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Mac, Netlink, Result};

/// `NUD_PERMANENT` (linux/neighbour.h).
const NUD_PERMANENT: u16 = 0x80;

/// An FDB entry of a vxlan device (`self`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    /// Inner destination; all zero is the flood list (head-end replication).
    pub mac: Mac,
    /// Remote VTEP.
    pub dst: IpAddr,
}

impl Netlink {
    /// Appends a permanent entry to the vxlan's FDB. Presence is not an error. The flood list
    /// (all-zero address) and multicast addresses have any number of remotes, all other addresses
    /// one.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn append_fdb(&self, index: u32, entry: &FdbEntry) -> Result<()> {
        let many = entry.mac.0 == [0; 6] || entry.mac.0[0] & 1 == 1;
        let flags = NLM_F_CREATE | if many { NLM_F_APPEND } else { NLM_F_REPLACE };
        let mut message = message(index, entry);
        message.header.state = NeighbourState::Permanent;
        let action = format!("add fdb entry {} dst {} of link {index}", entry.mac, entry.dst);
        match self.change(&action, &RouteNetlinkMessage::NewNeighbour(message), flags) {
            Err(error) if error.is_exists() => Ok(()),
            result => result,
        }
    }

    /// Removes an entry. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_fdb(&self, index: u32, entry: &FdbEntry) -> Result<()> {
        let message = RouteNetlinkMessage::DelNeighbour(message(index, entry));
        let action = format!("remove fdb entry {} dst {} of link {index}", entry.mac, entry.dst);
        match self.change(&action, &message, 0) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Permanent `self` entries of a vxlan device.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn fdb(&self, index: u32) -> Result<Vec<FdbEntry>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = index;
        let action = format!("list fdb entries of link {index}");
        let answers = self.dump(&action, &RouteNetlinkMessage::GetNeighbour(message))?;
        let mut entries = Vec::new();
        for answer in &answers {
            let RouteNetlinkMessage::NewNeighbour(message) = answer else { continue };
            let header = &message.header;
            let ours = header.ifindex == index
                && header.flags.contains(NeighbourFlags::Own)
                && u16::from(header.state) & NUD_PERMANENT != 0;
            entries.extend(decode(message).filter(|_| ours));
        }
        Ok(entries)
    }
}

fn message(index: u32, entry: &FdbEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    message.attributes.push(NeighbourAttribute::Destination(entry.dst.into()));
    message
}

/// `None` for entries without a remote.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum grows with the kernel")]
fn decode(message: &NeighbourMessage) -> Option<FdbEntry> {
    let mut mac = None;
    let mut dst = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            NeighbourAttribute::Destination(address) => dst = as_ip(address),
            _ => {}
        }
    }
    Some(FdbEntry { mac: mac?, dst: dst? })
}

/// In messages of `AF_BRIDGE` the library keeps the bytes: 4 or 16 of them.
fn as_ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(address) => Some(IpAddr::V4(*address)),
        NeighbourAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from);
            v4.or_else(|| <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from))
        }
        _ => None,
    }
}
