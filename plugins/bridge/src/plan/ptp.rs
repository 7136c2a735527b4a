//! Addresses and routes of a link without a bridge (`"mode": "ptp"`).
//!
//! Nobody but the host is on the link, so nothing is a neighbour but the gateway: the container has
//! its address alone, a route to the gateway on the link, and everything else by way of it. The
//! host has the gateway's address on its end of each container's link, and a route to each
//! container.

use std::net::IpAddr;

use causeway_kernel::RouteSpec;
use cni_plugin::{CniResult, Code, Error, Ip};
use ipnetwork::IpNetwork;

use super::{Addressing, route_specs, same_family};
use crate::config::Gateway;

/// `RTPROT_STATIC` of linux/rtnetlink.h.
const STATIC: u8 = 4;

/// As [`Addressing::of`], for a link without a bridge.
///
/// # Errors
/// As there; code 7 if an address has no gateway and its subnet has no other address for one.
pub(crate) fn addressing(
    gateway: Gateway,
    ipam: CniResult,
    routed: impl Fn(IpAddr) -> Result<bool, Error>,
) -> Result<Addressing, Error> {
    let alone = |ip: &&Ip| ip.gateway.is_none() && ip.address.prefix() + 1 >= full(ip.address.ip());
    if let Some(ip) = ipam.ips.iter().find(alone) {
        return Err(Error::new(
            Code::InvalidConfig,
            format!(
                "the IPAM plugin returned {} without a gateway; set the gateway in ipam, or use a \
                 subnet with room for one",
                ip.address
            ),
        ));
    }
    let mut plan = Addressing::of(gateway, ipam, routed)?;
    if let Some(ip) = plan.ips.iter().find(|ip| ip.gateway == Some(ip.address.ip())) {
        return Err(Error::new(
            Code::InvalidConfig,
            format!(
                "the container's address {} is also its gateway; set another gateway in ipam",
                ip.address
            ),
        ));
    }
    for ip in &mut plan.ips {
        ip.address = host(ip.address.ip());
    }
    let gateways = plan.ips.iter().filter_map(|ip| ip.gateway).map(host);
    plan.gateways = gateways.collect();
    plan.gateways.sort_unstable();
    plan.gateways.dedup();
    Ok(plan)
}

/// The routes inside the container: to its gateways on the link, to its subnets by way of them,
/// and `plan`'s own. `dev` is the index of the container's end.
pub(crate) fn container_routes(plan: &Addressing, dev: u32) -> Vec<RouteSpec> {
    let mut routes = base_routes(&plan.ips, &plan.leased, dev);
    routes.extend(route_specs(&plan.ips, &plan.routes, dev));
    routes
}

/// The part of [`container_routes`] that no result tells.
pub(crate) fn base_routes(ips: &[Ip], leased: &[IpNetwork], dev: u32) -> Vec<RouteSpec> {
    let mut routes: Vec<RouteSpec> = Vec::new();
    let mut add = |route: RouteSpec| {
        if !routes.iter().any(|other| other.dst == route.dst) {
            routes.push(route);
        }
    };
    for gateway in ips.iter().filter_map(|ip| ip.gateway) {
        add(RouteSpec::new(host(gateway), dev));
    }
    for ip in ips {
        let subnet = leased.iter().find(|subnet| subnet.ip() == ip.address.ip());
        if let Some(subnet) = subnet.filter(|subnet| subnet.prefix() < full(subnet.ip()))
            && let Ok(dst) = IpNetwork::new(subnet.network(), subnet.prefix())
        {
            add(RouteSpec { gw: ip.gateway, onlink: true, ..RouteSpec::new(dst, dev) });
        }
    }
    routes
}

/// The host's routes to the container, through its host end of index `dev`.
pub(crate) fn host_routes(addresses: &[IpNetwork], dev: u32) -> Vec<RouteSpec> {
    let route = |address: &IpNetwork| RouteSpec {
        protocol: Some(STATIC),
        ..RouteSpec::new(host(address.ip()), dev)
    };
    addresses.iter().map(route).collect()
}

/// `address` alone, as a network.
fn host(address: IpAddr) -> IpNetwork {
    IpNetwork::from(address)
}

fn full(address: IpAddr) -> u8 {
    if same_family(address, IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)) { 32 } else { 128 }
}

#[cfg(test)]
mod tests;
