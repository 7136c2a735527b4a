//! Addresses that this host answers for without having them on a link: routes of type `local`
//! (`ip route add local ADDRESS dev lo`).

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums are open and grow with the kernel"
)]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::family;
use super::message::{as_ip, set_table};
use crate::{Netlink, Result};

/// `RT_TABLE_LOCAL`
const LOCAL: u32 = 255;
/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

impl Netlink {
    /// Makes `address` one of this host's, by a route of `protocol`.
    ///
    /// # Errors
    /// See [`crate::Error`]. `EEXIST` if it is one already, by this route or on a link (IPv4).
    pub fn add_local_route(&self, address: IpAddr, protocol: u8) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(encode(address, protocol));
        let action = format!("add the local route to {address}");
        self.change(&action, &message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Takes such a route away; its absence is no error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_local_route(&self, address: IpAddr, protocol: u8) -> Result<()> {
        let message = RouteNetlinkMessage::DelRoute(encode(address, protocol));
        match self.change(&format!("remove the local route to {address}"), &message, 0) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Addresses that have such a route of `protocol`, ascending.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn local_routes(&self, protocol: u8) -> Result<Vec<IpAddr>> {
        let action = format!("list local routes of protocol {protocol}");
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            set_table(&mut message, LOCAL);
            let answers = self.route_dump(&action, message)?;
            let ours = |route: &&RouteMessage| {
                route.header.kind == RouteType::Local
                    && route.header.protocol == RouteProtocol::from(protocol)
            };
            found.extend(answers.iter().filter(ours).filter_map(destination));
        }
        found.sort();
        Ok(found)
    }
}

fn encode(address: IpAddr, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(address);
    message.header.destination_prefix_length = IpNetwork::from(address).prefix();
    message.header.kind = RouteType::Local;
    message.header.protocol = RouteProtocol::from(protocol);
    // IPv6 has no scopes.
    message.header.scope = if address.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
    message.attributes.push(RouteAttribute::Destination(address.into()));
    message.attributes.push(RouteAttribute::Oif(LOOPBACK));
    set_table(&mut message, LOCAL);
    message
}

fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => as_ip(address),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_answers_while_it_has_a_local_route() {
        let netlink = crate::testing::enter();
        let up = crate::LinkChange { up: Some(true), ..Default::default() };
        netlink.change_link(LOOPBACK, &up).expect("lo");
        let addresses: [IpAddr; 2] =
            ["10.96.0.10", "fd00::a"].map(|text| text.parse().expect("an address"));
        for address in addresses {
            let bind = || std::net::TcpListener::bind((address, 0));
            bind().expect_err("not an address of this namespace");
            netlink.add_local_route(address, 197).expect("added");
            let again = netlink.add_local_route(address, 197).expect_err("is there");
            assert_eq!(again.raw(), Some(libc::EEXIST));
            if address.is_ipv4() {
                bind().expect("local now");
            }
        }
        assert_eq!(netlink.local_routes(197).expect("listed"), addresses);
        assert_eq!(netlink.local_routes(198).expect("listed"), [] as [IpAddr; 0]);
        assert_eq!(netlink.routes_of(197).expect("listed"), [], "they lead to nobody else");
        for address in addresses {
            netlink.delete_local_route(address, 197).expect("removed");
            netlink.delete_local_route(address, 197).expect("is gone");
        }
        assert_eq!(netlink.local_routes(197).expect("listed"), [] as [IpAddr; 0]);
        assert!(std::net::TcpListener::bind((addresses[0], 0)).is_err());
    }
}
