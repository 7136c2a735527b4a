//! Reading, adding and removing routes.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums are open and grow with the kernel"
)]

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::family;
use super::message::{
    any_of, as_gateway, as_ip, decode, decode_all, encode, encode_delete, set_table,
};
use super::{MAIN, RouteSpec, Way, same_network};
use crate::{Error, Netlink, Result};

impl Netlink {
    /// Adds a route. `EEXIST` if it is there. Several routes to one destination become one
    /// multipath route when given together to [`Netlink::add_routes`].
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add_route(&self, spec: &RouteSpec) -> Result<()> {
        self.add_one(spec, &[], NLM_F_EXCL)
    }

    /// Adds routes; those of equal destination, table, priority and scope with different next hops
    /// become one multipath (ECMP) route. Metrics and protocol are those of the first of a group.
    /// A route that is there is in the way only if it is the same: of IPv4 routes with other
    /// next hops the new one comes first, IPv6 ones become one route.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add_routes(&self, specs: &[RouteSpec]) -> Result<()> {
        for (place, first) in specs.iter().enumerate() {
            if specs[..place].iter().any(|earlier| one_route(earlier, first)) {
                continue;
            }
            let mut hops: Vec<&RouteSpec> = vec![first];
            for other in specs[place + 1..].iter().filter(|other| one_route(first, other)) {
                if !hops.iter().any(|hop| (hop.gw, hop.dev) == (other.gw, other.dev)) {
                    hops.push(other);
                }
            }
            self.add_one(first, &hops[1..], 0)?;
        }
        Ok(())
    }

    /// Adds a route, or puts it in the place of the one of its destination, table and metric in one
    /// step: no packet finds none (`ip route replace`).
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn replace_route(&self, spec: &RouteSpec) -> Result<()> {
        self.add_one(spec, &[], NLM_F_REPLACE)
    }

    /// Routes of a routing protocol in all tables and over all links, one for each next hop.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn routes_of(&self, protocol: u8) -> Result<Vec<RouteSpec>> {
        let action = format!("list routes of protocol {protocol}");
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.protocol = RouteProtocol::from(protocol);
            for answer in self.route_dump(&action, message)? {
                // Old kernels do not filter.
                let found = decode_all(&answer).into_iter();
                routes.extend(found.filter(|route| route.protocol == Some(protocol)));
            }
        }
        Ok(routes)
    }

    /// Routes of the main table to exactly `network`, whoever's, one for each next hop.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn routes_to(&self, network: IpNetwork) -> Result<Vec<RouteSpec>> {
        let message = table_message(family(network.ip()), MAIN);
        let answers = self.route_dump(&format!("list routes to {network}"), message)?;
        let mut routes: Vec<RouteSpec> = answers.iter().flat_map(decode_all).collect();
        routes.retain(|route| {
            same_network(route.dst, network) && route.table.unwrap_or(MAIN) == MAIN
        });
        Ok(routes)
    }

    /// Routes of table `table` (main if `None`) that leave through link `index`, one for each
    /// next hop.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn routes(&self, index: u32, table: Option<u32>) -> Result<Vec<RouteSpec>> {
        let table = table.unwrap_or(MAIN);
        let action = format!("list routes through link {index} in table {table}");
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = table_message(family, table);
            message.attributes.push(RouteAttribute::Oif(index));
            for answer in self.route_dump(&action, message)? {
                let found = decode(&answer, index);
                routes.extend(found.into_iter().filter(|route| route.table == Some(table)));
            }
        }
        Ok(routes)
    }

    /// Whether main has a default route with a gateway for the family of `like`.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn has_default_gateway(&self, like: IpAddr) -> Result<bool> {
        let action = "look for a default route";
        let answers = self.route_dump(action, table_message(family(like), MAIN))?;
        Ok(answers.iter().any(|message| {
            let gateways = || message.attributes.iter().any(has_gateway);
            message.header.destination_prefix_length == 0 && in_main(message) && gateways()
        }))
    }

    /// Removes a route. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_route(&self, spec: &RouteSpec) -> Result<()> {
        let message = RouteNetlinkMessage::DelRoute(encode_delete(spec));
        match self.change(&format!("remove route {}", text(spec)), &message, 0) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Output device and preferred source towards `destination` (`ip route get`).
    ///
    /// # Errors
    /// `ENETUNREACH` and the like.
    pub fn route_to(&self, destination: IpAddr) -> Result<(u32, Option<IpAddr>)> {
        self.way_to(destination).map(|way| (way.dev, way.source))
    }

    /// How packets to `destination` leave (`ip route get`).
    ///
    /// # Errors
    /// `ENETUNREACH` and the like.
    pub fn way_to(&self, destination: IpAddr) -> Result<Way> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        let action = format!("find the route to {destination}");
        let answer = self.get(action.clone(), RouteNetlinkMessage::GetRoute(message))?;
        let RouteNetlinkMessage::NewRoute(route) = answer else {
            return Err(Error { action, source: std::io::ErrorKind::InvalidData.into() });
        };
        let dev = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        let source = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(address) => as_ip(address),
            _ => None,
        });
        let gateway = route.attributes.iter().find_map(as_gateway);
        let mtu = given_mtu(&route.attributes);
        // Blackhole and its like have no device.
        dev.map(|dev| Way { dev, gateway, source, mtu })
            .ok_or_else(|| Error::errno(action, libc::ENETUNREACH))
    }

    fn add_one(&self, first: &RouteSpec, more: &[&RouteSpec], flags: u16) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(encode(first, more));
        self.change(&format!("add route {}", text(first)), &message, NLM_F_CREATE | flags)
    }

    pub(super) fn route_dump(
        &self,
        action: &str,
        message: RouteMessage,
    ) -> Result<Vec<RouteMessage>> {
        let answers = match self.dump(action, &RouteNetlinkMessage::GetRoute(message)) {
            // A table exists from its first route on; a family may be switched off.
            Err(error)
                if matches!(
                    error.raw(),
                    Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
                ) =>
            {
                Vec::new()
            }
            result => result?,
        };
        let routes = answers.into_iter().filter_map(|answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer { Some(route) } else { None }
        });
        Ok(routes.collect())
    }
}

/// Whether both are next hops of one route.
fn one_route(a: &RouteSpec, b: &RouteSpec) -> bool {
    same_network(a.dst, b.dst)
        && a.table.unwrap_or(MAIN) == b.table.unwrap_or(MAIN)
        && a.priority == b.priority
        && a.scope == b.scope
}

fn table_message(family: AddressFamily, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    set_table(&mut message, table);
    message
}

fn in_main(message: &RouteMessage) -> bool {
    let wide = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.unwrap_or(u32::from(message.header.table)) == MAIN
}

fn has_gateway(attribute: &RouteAttribute) -> bool {
    let given = |attribute: &RouteAttribute| {
        matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
    };
    if let RouteAttribute::MultiPath(hops) = attribute {
        hops.iter().any(|hop| hop.attributes.iter().any(given))
    } else {
        given(attribute)
    }
}

/// A route as `ip route` writes it.
fn text(spec: &RouteSpec) -> String {
    let network = IpNetwork::new(spec.dst.network(), spec.dst.prefix()).unwrap_or(spec.dst);
    match spec.gw {
        Some(gw) if network.ip() == any_of(gw) && network.prefix() == 0 => {
            format!("default via {gw} dev {}", spec.dev)
        }
        Some(gw) => format!("{network} via {gw} dev {}", spec.dev),
        None => format!("{network} dev {}", spec.dev),
    }
}

/// The MTU among the metrics of a route. What was learned of the path is there, too, but expires.
fn given_mtu(attributes: &[RouteAttribute]) -> Option<u32> {
    let learned = attributes.iter().any(
        |attribute| matches!(attribute, RouteAttribute::CacheInfo(cache) if cache.expires != 0),
    );
    let metrics = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    });
    let mtu = metrics?.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.filter(|mtu| *mtu > 0 && !learned)
}
