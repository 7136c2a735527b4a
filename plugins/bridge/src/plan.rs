//! Decisions as values: names, addresses, routes, changes to the bridge, the result. Pure.

use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use causeway_kernel::{AddressState, Link, LinkChange, LinkKind, Mac, RouteSpec};
use cni_plugin::{CniResult, Code, Dns, Error, Interface, Ip, Route};
use fnv::FnvHasher;
use ipnetwork::IpNetwork;

use crate::config::{Checked, Gateway};

pub(crate) mod ptp;

/// `RT_TABLE_MAIN`
const MAIN_TABLE: u32 = 254;
/// `RT_SCOPE_LINK` of linux/rtnetlink.h; from here on a scope has no next hop.
const SCOPE_LINK: u8 = 253;

/// Addresses and routes of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addressing {
    /// The container's addresses, gateways filled in.
    pub ips: Vec<Ip>,
    /// The container's routes, the default route among them if asked for.
    pub routes: Vec<Route>,
    /// Addresses of the bridge or the host end; empty unless it is the gateway.
    pub gateways: Vec<IpNetwork>,
    /// The container's addresses with the prefix lengths of their subnets.
    pub leased: Vec<IpNetwork>,
}

/// Changes to the addresses of a link, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddressChanges {
    /// To remove first.
    pub remove: Vec<IpNetwork>,
    /// To add.
    pub add: Vec<IpNetwork>,
}

/// The links of one attachment as they are in the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttachmentLinks<'a> {
    /// The bridge, if there is one.
    pub bridge: Option<&'a Link>,
    /// Host end of the veth.
    pub host: &'a Link,
    /// Container's end.
    pub container: &'a Link,
    /// `<bridge>.<vlan>` if it carries the gateway.
    pub vlan_gateway: Option<&'a Link>,
    /// `CNI_NETNS`, byte for byte.
    pub netns: &'a str,
}

/// Name of the host end for an owner: `veth` and 32 bits of FNV-1a as hexadecimal digits. `salt`
/// gives another name if something foreign has the first (row F22).
pub(crate) fn host_ifname(owner: &str, salt: u32) -> String {
    let mut hasher = FnvHasher::default();
    hasher.write(owner.as_bytes());
    hasher.write(&salt.to_le_bytes());
    let hash = hasher.finish();
    format!("veth{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff)
}

impl Addressing {
    /// What the IPAM plugin's answer means for container and bridge. `routed` says whether the
    /// container has a default route with a gateway already for the family of an address, through
    /// another network's interface.
    ///
    /// # Errors
    /// Code 6 if it contains no address (row C49). What `routed` returns.
    pub(crate) fn of(
        gateway: Gateway,
        ipam: CniResult,
        routed: impl Fn(IpAddr) -> Result<bool, Error>,
    ) -> Result<Self, Error> {
        if ipam.ips.is_empty() {
            return Err(Error::new(
                Code::Decode,
                "IPAM plugin returned missing IP config: its result holds no ips",
            ));
        }
        let mut plan = Self {
            leased: ipam.ips.iter().map(|ip| ip.address).collect(),
            ips: Vec::new(),
            routes: ipam.routes,
            gateways: Vec::new(),
        };
        for mut ip in ipam.ips {
            if ip.gateway.is_none() && gateway.enabled {
                ip.gateway = Some(first_host(ip.address));
            }
            if let (Some(address), true) = (ip.gateway, gateway.enabled) {
                plan.add_gateway(address, ip.address.prefix());
            }
            if gateway.default_route
                && !plan.has_default_route(ip.address.ip())
                && !routed(ip.address.ip())?
            {
                plan.add_default_route(&ip);
            }
            plan.ips.push(ip);
        }
        Ok(plan)
    }

    fn add_gateway(&mut self, address: IpAddr, prefix: u8) {
        // A prefix length that was valid for the container's address is valid for its family.
        if let Ok(network) = IpNetwork::new(address, prefix)
            && !self.gateways.contains(&network)
        {
            self.gateways.push(network);
        }
    }

    /// A default route of the IPAM plugin's in the main table counts, with or without a next hop.
    fn has_default_route(&self, like: IpAddr) -> bool {
        self.routes.iter().any(|route| {
            route.dst.prefix() == 0
                && same_family(route.dst.ip(), like)
                && matches!(route.table, None | Some(MAIN_TABLE))
        })
    }

    fn add_default_route(&mut self, ip: &Ip) {
        let any = match ip.address {
            IpNetwork::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpNetwork::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        if let Ok(dst) = IpNetwork::new(any, 0) {
            self.routes.push(Route {
                dst,
                gw: ip.gateway,
                mtu: None,
                advmss: None,
                priority: None,
                table: None,
                scope: None,
            });
        }
    }

    /// The container's addresses.
    pub(crate) fn addresses(&self) -> Vec<IpNetwork> {
        self.ips.iter().map(|ip| ip.address).collect()
    }

    /// Whether there is an IPv6 address.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.ips.iter().any(|ip| ip.address.is_ipv6())
    }

    /// The routes for the container's interface of index `dev`.
    pub(crate) fn route_specs(&self, dev: u32) -> Vec<RouteSpec> {
        route_specs(&self.ips, &self.routes, dev)
    }
}

/// `routes` as the kernel takes them: the next hop filled in with the first gateway of the family
/// (row C50), reachable on the link if no address' network holds it.
pub(crate) fn route_specs(ips: &[Ip], routes: &[Route], dev: u32) -> Vec<RouteSpec> {
    let gateway = |like: IpAddr| {
        ips.iter().filter_map(|ip| ip.gateway).find(|gateway| same_family(*gateway, like))
    };
    let spec = |route: &Route| {
        let on_link = route.scope.is_some_and(|scope| scope >= SCOPE_LINK);
        let gw = route.gw.or_else(|| if on_link { None } else { gateway(route.dst.ip()) });
        RouteSpec {
            dst: route.dst,
            gw,
            dev,
            mtu: route.mtu,
            advmss: route.advmss,
            priority: route.priority,
            table: route.table,
            scope: route.scope,
            onlink: gw.is_some_and(|gw| !ips.iter().any(|ip| ip.address.contains(gw))),
            protocol: None,
        }
    };
    routes.iter().map(spec).collect()
}

/// Changes that give `link` the `wanted` addresses. Any other IPv4 address, and an overlapping
/// IPv6 one, is in the way.
///
/// # Errors
/// Code 7 if something is in the way and `force` is not set.
pub(crate) fn address_changes(
    link: &str,
    wanted: &[IpNetwork],
    present: &[IpNetwork],
    force: bool,
) -> Result<AddressChanges, Error> {
    let mut changes = AddressChanges::default();
    for &address in wanted.iter().filter(|address| !present.contains(address)) {
        changes.add.push(address);
        for &other in present.iter().filter(|other| !wanted.contains(other)) {
            let in_the_way = match (address, other) {
                (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
                (IpNetwork::V6(a), IpNetwork::V6(b)) => a.contains(b.ip()) || b.contains(a.ip()),
                (IpNetwork::V4(_), IpNetwork::V6(_)) | (IpNetwork::V6(_), IpNetwork::V4(_)) => {
                    false
                }
            };
            if !in_the_way || changes.remove.contains(&other) {
                continue;
            }
            if !force {
                return Err(Error::new(
                    Code::InvalidConfig,
                    format!(
                        "{link} already has an IP address different from {address}: {other}; \
                         remove it, use another bridge, or set forceAddress"
                    ),
                ));
            }
            changes.remove.push(other);
        }
    }
    Ok(changes)
}

/// Addresses of `present` that were gateways of other subnets: the first one of their network, as
/// the IPAM plugin gives it, and none of the `wanted`.
pub(crate) fn old_gateways(wanted: &[IpNetwork], present: &[AddressState]) -> Vec<IpNetwork> {
    let global = present.iter().filter(|state| state.scope != SCOPE_LINK);
    let old = global
        .map(|state| state.address)
        .filter(|address| !wanted.contains(address) && address.ip() == first_host(*address));
    old.collect()
}

/// The change that a link of the bridge's name needs, or `None`.
///
/// # Errors
/// Code 7 if it is not a bridge (row F20).
pub(crate) fn bridge_change(link: &Link, config: &Checked) -> Result<Option<LinkChange>, Error> {
    let LinkKind::Bridge { vlan_filtering, .. } = link.kind else {
        return Err(Error::new(
            Code::InvalidConfig,
            format!(
                "bridge: {} already exists but is not a bridge; use another name or remove it",
                link.name
            ),
        ));
    };
    let filter = !config.port.vlans.is_empty() && !vlan_filtering;
    let promisc = config.promisc && !link.promisc;
    if link.up && !filter && !promisc {
        return Ok(None);
    }
    Ok(Some(LinkChange {
        up: (!link.up).then_some(true),
        promisc: promisc.then_some(true),
        vlan_filtering: filter.then_some(true),
        ..LinkChange::default()
    }))
}

/// A locally administered unicast address made of `bits`.
pub(crate) fn local_mac(bits: u64) -> Mac {
    let [_, _, first, rest @ ..] = bits.to_be_bytes();
    let mut mac = [(first & 0xfc) | 0x02, 0, 0, 0, 0, 0];
    mac[1..].copy_from_slice(&rest);
    Mac(mac)
}

/// The result of ADD: what `before` (`prevResult`) holds and this attachment after it (row C56).
pub(crate) fn result(
    ends: &AttachmentLinks<'_>,
    addressing: Option<Addressing>,
    dns: Dns,
    before: Option<&CniResult>,
) -> CniResult {
    let mut result = before.cloned().unwrap_or_default();
    result.interfaces.extend(ends.bridge.map(|link| interface(link, "")));
    result.interfaces.push(interface(ends.host, ""));
    let container = result.interfaces.len();
    result.interfaces.push(interface(ends.container, ends.netns));
    result.interfaces.extend(ends.vlan_gateway.map(|link| interface(link, "")));
    if let Some(addressing) = addressing {
        let of_container = |ip: Ip| Ip { interface: Some(container), ..ip };
        result.ips.extend(addressing.ips.into_iter().map(of_container));
        result.routes.extend(addressing.routes);
    }
    if !dns.is_empty() {
        result.dns = dns;
    }
    result
}

fn interface(link: &Link, sandbox: &str) -> Interface {
    Interface {
        name: link.name.clone(),
        mac: mac_text(link.mac),
        mtu: Some(link.mtu),
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    }
}

/// Lower case with colons; empty for none.
pub(crate) fn mac_text(mac: Option<Mac>) -> String {
    let Some(Mac(bytes)) = mac else { return String::new() };
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// The first address after the network's own.
pub(crate) fn first_host(address: IpNetwork) -> IpAddr {
    match address.network() {
        IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits().wrapping_add(1)).into(),
        IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits().wrapping_add(1)).into(),
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

#[cfg(test)]
mod tests;
