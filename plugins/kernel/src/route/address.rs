//! Addresses of links.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{AddressSpec, AddressState};
use crate::notify::{Group, Notifications};
use crate::{Error, Netlink, Result};

/// `RT_SCOPE_LINK`
const SCOPE_LINK: u8 = 253;

impl Netlink {
    /// Addresses of one link (filtered in the kernel by strict checking).
    ///
    /// # Errors
    /// See [`crate::Error`]. `ENODEV` if the link does not exist.
    pub fn addresses(&self, index: u32) -> Result<Vec<AddressState>> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let action = format!("list addresses of link {index}");
        let answers = self.dump(&action, &RouteNetlinkMessage::GetAddress(message))?;
        let mut states = Vec::new();
        for answer in &answers {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            if message.header.index == index {
                states.extend(decode(message));
            }
        }
        Ok(states)
    }

    /// Addresses of all links of this namespace beside link-local ones, each with the index of its
    /// link: one dump.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn all_addresses(&self) -> Result<Vec<(u32, IpNetwork)>> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut addresses = Vec::new();
        for answer in &self.dump("list addresses", &message)? {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            let states = decode(message).into_iter().filter(|state| state.scope != SCOPE_LINK);
            addresses.extend(states.map(|state| (message.header.index, state.address)));
        }
        Ok(addresses)
    }

    /// Addresses of this namespace beside link-local ones, of one family: one dump.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn local_addresses(&self, ipv6: bool) -> Result<Vec<IpAddr>> {
        let mut message = AddressMessage::default();
        message.header.family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let answers =
            self.dump("list local addresses", &RouteNetlinkMessage::GetAddress(message))?;
        let mut addresses = Vec::new();
        for answer in &answers {
            let RouteNetlinkMessage::NewAddress(message) = answer else { continue };
            let states = decode(message).into_iter();
            let addressed = states.filter(|state| state.scope != SCOPE_LINK);
            addresses.extend(addressed.map(|state| state.address.ip()));
        }
        addresses.retain(|address| address.is_ipv6() == ipv6);
        Ok(addresses)
    }

    /// The link that carries `address`, by index; the first one if several do.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn link_of_address(&self, address: IpAddr) -> Result<Option<u32>> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        let action = format!("look for the link that carries {address}");
        let answers = self.dump(&action, &RouteNetlinkMessage::GetAddress(message))?;
        Ok(answers.iter().find_map(|answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
            let carries = decode(message).is_some_and(|state| state.address.ip() == address);
            carries.then_some(message.header.index)
        }))
    }

    /// Adds an address. `EEXIST` if it is there. IPv4 addresses get the broadcast address of
    /// their network.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add_address(&self, index: u32, spec: &AddressSpec) -> Result<()> {
        let mut message = address_message(index, spec.address);
        if let IpNetwork::V4(network) = spec.address
            && network.prefix() < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(network.broadcast()));
        }
        if spec.nodad && spec.address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let action = format!("add address {} to link {index}", spec.address);
        let message = RouteNetlinkMessage::NewAddress(message);
        self.change(&action, &message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes an address. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_address(&self, index: u32, address: IpNetwork) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        match self.change(&format!("remove address {address} of link {index}"), &message, 0) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Waits until no address of the link is tentative; driven by notifications. If that is so
    /// already, this is one request.
    ///
    /// # Errors
    /// `ETIMEDOUT`, or `EADDRINUSE` if detection failed, naming the address.
    pub fn wait_addresses(&self, index: u32, timeout: Duration) -> Result<()> {
        if self.tentative(index)?.is_none() {
            return Ok(());
        }
        let mut notifications = Notifications::subscribe(self, Group::Ipv6Address, index, timeout)?;
        loop {
            // Read after subscribing: a change before it sends no notification to us.
            let Some(address) = self.tentative(index)? else { return Ok(()) };
            if !notifications.wait()? {
                let action = format!("wait for duplicate address detection of {address}");
                return Err(Error::errno(action, libc::ETIMEDOUT));
            }
        }
    }

    /// An address that is still being tested.
    fn tentative(&self, index: u32) -> Result<Option<IpAddr>> {
        let states = self.addresses(index)?;
        if let Some(failed) = states.iter().find(|state| state.dad_failed) {
            let action =
                format!("use address {}: another host on the network uses it", failed.address.ip());
            return Err(Error::errno(action, libc::EADDRINUSE));
        }
        Ok(states.iter().find(|state| state.tentative).map(|state| state.address.ip()))
    }
}

fn address_message(index: u32, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix();
    message.header.family = family(address.ip());
    message.attributes.push(AddressAttribute::Local(address.ip()));
    message.attributes.push(AddressAttribute::Address(address.ip()));
    message
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// `None` for families that are not ours.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum grows with the kernel")]
fn decode(message: &AddressMessage) -> Option<AddressState> {
    let mut local = None;
    let mut address = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            // All 32 bits; the header holds the lowest eight.
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // If both are given, IFA_ADDRESS is the far end of a point-to-point link.
    let ip = local.or(address)?;
    Some(AddressState {
        address: IpNetwork::new(ip, message.header.prefix_len).ok()?,
        tentative: flags.contains(AddressFlags::Tentative),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
        scope: u8::from(message.header.scope),
    })
}
