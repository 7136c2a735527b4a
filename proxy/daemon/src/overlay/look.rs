//! What the kernel holds of ours, and what planning needs to know of it.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::IpAddr;

use causeway_kernel::{Link, LinkKind, Netlink, RouteSpec, VxlanAttributes};
use causeway_model::{MacAddress, Peer};
use causeway_overlay::{
    Carrier, Device, Mode, Observed, ObservedLink, ObservedRoute, OverlayContext, ROUTE_PROTOCOL,
    Underlay, VxlanLink, device_name,
};

use super::guard;
use super::{OverlayConfig, OverlayTarget};
use crate::node;

/// The index of lo in every network namespace.
const LOOPBACK: u32 = 1;
/// Main table.
const MAIN: u32 = 254;
/// Metrics that the kernel gives to routes without one: IPv4 (none), IPv6.
const METRICS: [Option<u32>; 3] = [None, Some(0), Some(1024)];

/// The device of our name, and what is on it.
pub(super) struct SeenDevice {
    /// For planning.
    pub held: Observed,
    /// Routes of our protocol, each with all that removing exactly it needs.
    pub routes: BTreeMap<ObservedRoute, Vec<RouteSpec>>,
}

/// What carries packets to the other nodes.
pub(super) struct Found {
    /// For planning.
    pub underlay: Underlay,
    /// Name of its device.
    pub name: String,
    /// All devices whose MTU counts.
    pub links: BTreeSet<u32>,
}

/// What carries packets from the first of these addresses, which a device of this node has, to
/// these nodes (row RD1).
///
/// # Errors
/// rtnetlink.
pub(super) fn underlay(
    netlink: &Netlink,
    ips: &[IpAddr],
    peers: &[Peer],
) -> causeway_kernel::Result<Option<Found>> {
    let Some(&first) = ips.first() else { return Ok(None) };
    let Some(index) = netlink.link_of_address(first)? else { return Ok(None) };
    let Some(home) = netlink.link_by_index(index)? else { return Ok(None) };
    let mut links = BTreeMap::from([(home.index, home.clone())]);
    let mut way = |to: IpAddr| {
        let way = netlink.way_to(to).ok()?;
        let dev = way.dev;
        let link = match links.entry(dev) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(netlink.link_by_index(dev).ok()??),
        };
        let device = device(link);
        Some(Device { mtu: way.mtu.map_or(device.mtu, |mtu| device.mtu.min(mtu)), ..device })
    };
    let near = |ip: &&IpAddr| ip.is_ipv4() == first.is_ipv4() && !ips.contains(*ip);
    let outside = way(node::outside(first));
    let ways = peers.iter().filter_map(|peer| peer.ips.iter().find(near)).copied();
    let carrier = causeway_overlay::carrier(device(&home), ways.filter_map(&mut way), outside);
    let name = links.get(&carrier.index).map_or(home.name, |link| link.name.clone());
    let Carrier { index, bound, mtu } = carrier;
    let underlay = Underlay { index, bound, mtu, ips: ips.to_vec() };
    Ok(Some(Found { underlay, name, links: links.into_keys().collect() }))
}

fn device(link: &Link) -> Device {
    let inner = match &link.kind {
        LinkKind::Other(kind) => kind == "dummy",
        LinkKind::Vxlan(_) => is_ours(link),
        LinkKind::Bridge { .. } | LinkKind::Veth => false,
    };
    Device { index: link.index, mtu: link.mtu, leads_out: !inner && link.index != LOOPBACK }
}

/// What planning is to know.
pub(super) fn facts(
    netlink: &Netlink,
    config: &OverlayConfig,
    target: &OverlayTarget,
    underlay: Underlay,
) -> OverlayContext {
    let direct = !matches!(config.mode, Mode::Vxlan { direct: false, .. });
    OverlayContext {
        mode: config.mode.clone(),
        node: target.node.clone(),
        cluster: config.cluster.clone(),
        subnets: target.subnets.clone(),
        on_link: if direct { on_link(netlink, &underlay, &target.peers) } else { [].into() },
        underlay,
        peers: target.peers.clone(),
    }
}

/// Addresses of peers without a gateway on the way (row O-08). One without a way at all has none.
fn on_link(netlink: &Netlink, underlay: &Underlay, peers: &[Peer]) -> BTreeSet<IpAddr> {
    let near = |ip: &IpAddr| {
        netlink.way_to(*ip).is_ok_and(|way| way.gateway.is_none() && way.dev == underlay.index)
    };
    peers.iter().flat_map(|peer| peer.ips.iter().copied()).filter(near).collect()
}

/// What the kernel holds of ours. Without vxlan, the device is one that is left of other settings.
pub(super) fn see(
    netlink: &Netlink,
    mode: &Mode,
    wanted: Option<&VxlanLink>,
) -> causeway_kernel::Result<SeenDevice> {
    let link = match mode {
        Mode::Vxlan { id, .. } => netlink.link(&device_name(*id))?,
        Mode::HostGw => netlink.links()?.into_iter().find(is_ours),
    };
    let mut seen = SeenDevice { held: Observed::default(), routes: BTreeMap::new() };
    if let Some(link) = &link {
        let addresses = netlink.addresses(link.index)?.into_iter();
        seen.held.link = Some(ObservedLink {
            index: link.index,
            fits: wanted.is_some_and(|wanted| link.kind == LinkKind::Vxlan(attributes(wanted))),
            mac: link.mac.map(|mac| MacAddress(mac.0)),
            mtu: link.mtu,
            up: link.up,
            // Scope 0 is global; the kernel gives a link-local one to what is up.
            addresses: addresses.filter(|at| at.scope == 0).map(|at| at.address).collect(),
        });
        let neighbours = netlink.neighbours(link.index)?.into_iter();
        seen.held.neighbours = neighbours.map(|(ip, mac)| (ip, MacAddress(mac.0))).collect();
        let fdb = netlink.fdb(link.index)?.into_iter();
        seen.held.fdb = fdb.map(|entry| (MacAddress(entry.mac.0), entry.dst)).collect();
    }
    for route in netlink.routes_of(ROUTE_PROTOCOL)? {
        seen.routes.entry(held(&route)).or_default().push(route);
    }
    seen.held.routes = seen.routes.keys().cloned().collect();
    Ok(seen)
}

/// A route that could not be one of those we make (another table or metric) is one of no device:
/// nobody wants it.
fn held(route: &RouteSpec) -> ObservedRoute {
    let ours = route.table.is_none_or(|table| table == MAIN)
        && METRICS.contains(&route.priority)
        && route.mtu.is_none();
    ObservedRoute { subnet: route.dst, dev: if ours { route.dev } else { 0 }, gateway: route.gw }
}

/// Removes all there is of an overlay, or only says what there is. Says what.
///
/// # Errors
/// rtnetlink.
pub(crate) fn leave(dry_run: bool) -> causeway_kernel::Result<Vec<String>> {
    let netlink = Netlink::open()?;
    let links = netlink.links()?;
    // Several next hops are one route.
    let mut removed = BTreeSet::new();
    for route in netlink.routes_of(ROUTE_PROTOCOL)? {
        let by = links.iter().find(|link| link.index == route.dev);
        let by = by.map_or_else(|| route.dev.to_string(), |link| link.name.clone());
        removed.insert(format!("route {} dev {by}", route.dst));
        if !dry_run {
            netlink.delete_route(&route)?;
        }
    }
    let mut removed: Vec<String> = removed.into_iter().collect();
    for link in links.iter().filter(|link| is_ours(link)) {
        removed.push(format!("link {}", link.name));
        if !dry_run {
            netlink.delete_link(link.index)?;
        }
    }
    removed.extend(guard::remove(dry_run));
    Ok(removed)
}

/// Whether it is a vxlan device with a name that we give.
pub(super) fn is_ours(link: &Link) -> bool {
    let LinkKind::Vxlan(vxlan) = &link.kind else { return false };
    link.name == device_name(vxlan.id)
}

/// What the device is made with.
pub(super) fn attributes(wanted: &VxlanLink) -> VxlanAttributes {
    VxlanAttributes {
        id: wanted.id,
        group: None,
        dev: wanted.dev,
        local: Some(wanted.local),
        port: wanted.port,
        ttl: 0,
        learning: false,
        strange: false,
    }
}
