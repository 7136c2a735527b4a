//! Routes to and from `RTM_*ROUTE` messages.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enums are open and grow with the kernel"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};

use super::address::family;
use super::{MAIN, RouteSpec};

/// A message for one route, or for one multipath route if `more` has further next hops.
/// `specs` is not empty, and all agree in destination, table, priority and scope.
pub(super) fn encode(first: &RouteSpec, more: &[&RouteSpec]) -> RouteMessage {
    let mut message = selector(first);
    let scope = first.scope.unwrap_or(match (first.gw, first.dst) {
        // IPv6 has no scopes; the kernel reports universe.
        (Some(_), _) | (None, IpNetwork::V6(_)) => 0,
        (None, IpNetwork::V4(_)) => 253,
    });
    message.header.scope = RouteScope::from(scope);
    message.header.kind = RouteType::Unicast;
    message.header.protocol = RouteProtocol::from(first.protocol.unwrap_or(3));
    message.attributes.extend(metrics(first));
    if more.is_empty() {
        message.attributes.push(RouteAttribute::Oif(first.dev));
        message.attributes.extend(gateway(first));
        message.header.flags.set(RouteFlags::Onlink, first.onlink);
    } else {
        let hops = std::iter::once(first).chain(more.iter().copied()).map(next_hop).collect();
        message.attributes.push(RouteAttribute::MultiPath(hops));
    }
    message
}

/// A message that finds exactly this route, whatever its protocol and metrics.
pub(super) fn encode_delete(spec: &RouteSpec) -> RouteMessage {
    let mut message = selector(spec);
    message.header.scope = spec.scope.map_or(RouteScope::NoWhere, RouteScope::from);
    message.header.protocol = spec.protocol.map_or(RouteProtocol::Unspec, RouteProtocol::from);
    message.header.kind = RouteType::Unspec;
    message.attributes.push(RouteAttribute::Oif(spec.dev));
    message.attributes.extend(gateway(spec));
    message
}

/// The routes of a message that leave through `index`, one for each next hop.
pub(super) fn decode(message: &RouteMessage, index: u32) -> Vec<RouteSpec> {
    let mut routes = decode_all(message);
    routes.retain(|route| route.dev == index);
    routes
}

/// The routes of a message, one for each next hop.
pub(super) fn decode_all(message: &RouteMessage) -> Vec<RouteSpec> {
    let header = &message.header;
    let ours = header.kind == RouteType::Unicast && !header.flags.contains(RouteFlags::Cloned);
    let Some(base) = base(message).filter(|_| ours) else { return Vec::new() };
    let hops = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops.as_slice()),
        _ => None,
    });
    let Some(hops) = hops else { return vec![base] };
    hops.iter()
        .map(|hop| RouteSpec {
            dev: hop.interface_index,
            gw: hop.attributes.iter().find_map(as_gateway),
            onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
            ..base.clone()
        })
        .collect()
}

/// A network's family and zero address.
pub(super) fn any_of(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Sets a table, of any 32-bit number.
pub(super) fn set_table(message: &mut RouteMessage, table: u32) {
    // The header has eight bits; RTA_TABLE wins.
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    message.attributes.push(RouteAttribute::Table(table));
}

fn selector(spec: &RouteSpec) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(spec.dst.ip());
    message.header.destination_prefix_length = spec.dst.prefix();
    if spec.dst.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(spec.dst.network().into()));
    }
    set_table(&mut message, spec.table.unwrap_or(MAIN));
    message.attributes.extend(spec.priority.map(RouteAttribute::Priority));
    message
}

fn metrics(spec: &RouteSpec) -> Option<RouteAttribute> {
    let mtu = spec.mtu.map(RouteMetric::Mtu);
    let metrics: Vec<_> = mtu.into_iter().chain(spec.advmss.map(RouteMetric::Advmss)).collect();
    (!metrics.is_empty()).then_some(RouteAttribute::Metrics(metrics))
}

fn next_hop(spec: &RouteSpec) -> RouteNextHop {
    let mut hop = RouteNextHop::default();
    hop.interface_index = spec.dev;
    hop.flags.set(RouteNextHopFlags::Onlink, spec.onlink);
    hop.attributes.extend(gateway(spec));
    hop
}

/// `RTA_GATEWAY`, or `RTA_VIA` for an IPv4 network behind an IPv6 next hop.
fn gateway(spec: &RouteSpec) -> Option<RouteAttribute> {
    let gw = spec.gw?;
    Some(if gw.is_ipv4() == spec.dst.is_ipv4() {
        RouteAttribute::Gateway(gw.into())
    } else {
        RouteAttribute::Via(RouteVia::from(gw))
    })
}

fn base(message: &RouteMessage) -> Option<RouteSpec> {
    let header = &message.header;
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut network = any;
    let mut spec = RouteSpec::new(IpNetwork::from(any), 0);
    spec.table = Some(u32::from(header.table));
    spec.scope = Some(u8::from(header.scope));
    spec.protocol = Some(u8::from(header.protocol));
    spec.onlink = header.flags.contains(RouteFlags::Onlink);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => network = as_ip(address)?,
            RouteAttribute::Oif(index) => spec.dev = *index,
            RouteAttribute::Priority(priority) => spec.priority = Some(*priority),
            RouteAttribute::Table(table) => spec.table = Some(*table),
            RouteAttribute::Metrics(metrics) => read_metrics(metrics, &mut spec),
            other => spec.gw = spec.gw.or_else(|| as_gateway(other)),
        }
    }
    spec.dst = IpNetwork::new(network, header.destination_prefix_length).ok()?;
    Some(spec)
}

fn read_metrics(metrics: &[RouteMetric], spec: &mut RouteSpec) {
    for metric in metrics {
        match metric {
            RouteMetric::Mtu(mtu) => spec.mtu = Some(*mtu),
            RouteMetric::Advmss(advmss) => spec.advmss = Some(*advmss),
            _ => {}
        }
    }
}

pub(super) fn as_gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => as_ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

pub(super) fn as_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
