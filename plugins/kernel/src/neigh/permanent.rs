//! Neighbours that nobody resolves: an address and where its packets go, for good.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};

use super::{NUD_PERMANENT, as_ip};
use crate::route::family;
use crate::{Mac, Netlink, Result};

impl Netlink {
    /// Makes `address` a permanent neighbour at `mac`, whatever was known of it (`ip neigh replace
    /// ADDRESS lladdr MAC dev LINK nud permanent`).
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn put_neighbour(&self, index: u32, address: IpAddr, mac: Mac) -> Result<()> {
        let mut message = message(index, address);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let message = RouteNetlinkMessage::NewNeighbour(message);
        let action = format!("add neighbour {address} at {mac} of link {index}");
        self.change(&action, &message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Forgets a neighbour. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_neighbour(&self, index: u32, address: IpAddr) -> Result<()> {
        let message = RouteNetlinkMessage::DelNeighbour(message(index, address));
        match self.change(&format!("remove neighbour {address} of link {index}"), &message, 0) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Permanent neighbours of a link, of both families.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn neighbours(&self, index: u32) -> Result<BTreeMap<IpAddr, Mac>> {
        let mut message = NeighbourMessage::default();
        message.attributes.push(NeighbourAttribute::IfIndex(index));
        let action = format!("list neighbours of link {index}");
        let answers = self.dump(&action, &RouteNetlinkMessage::GetNeighbour(message))?;
        let mut neighbours = BTreeMap::new();
        for answer in &answers {
            let RouteNetlinkMessage::NewNeighbour(message) = answer else { continue };
            let permanent = u16::from(message.header.state) & NUD_PERMANENT != 0;
            if message.header.ifindex == index && permanent {
                neighbours.extend(decode(message));
            }
        }
        Ok(neighbours)
    }
}

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

/// `None` for entries without an Ethernet address.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum grows with the kernel")]
fn decode(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let mut mac = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
            }
            NeighbourAttribute::Destination(to) => address = as_ip(to),
            _ => {}
        }
    }
    Some((address?, mac?))
}
