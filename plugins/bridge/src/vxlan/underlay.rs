//! Where the tunnel runs: underlay device, source address, what fits through.

use std::net::{IpAddr, Ipv6Addr};

use causeway_kernel::{AddressState, Link, Netlink, VxlanAttributes};
use cni_plugin::{Code, Error};

use super::config::{Flood, VxlanConfig};
use super::failed;

/// Ethernet, IP, UDP and vxlan headers around an inner packet without its Ethernet header's 14
/// (`VXLAN_HEADROOM` and `VXLAN6_HEADROOM` in the kernel).
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

const SCOPE_LINK: u8 = 253;

/// The device that carries the tunnel.
pub(crate) struct Underlay {
    /// The device.
    pub(super) dev: Link,
    /// Source address that the route to the other nodes prefers.
    preferred: Option<IpAddr>,
}

impl Underlay {
    /// The tunnel runs over `dev`; nothing is known of its addresses.
    pub(super) fn new(dev: Link) -> Self {
        Self { dev, preferred: None }
    }

    /// The device that the configuration names, or the one of the route to the other nodes.
    ///
    /// # Errors
    /// Code 7 if there is none; 5 and 11 for the kernel's refusals.
    pub(crate) fn find(netlink: &Netlink, wanted: &VxlanConfig) -> Result<Self, Error> {
        let Some(name) = &wanted.dev else { return Self::by_route(netlink, wanted) };
        match netlink.link(name).map_err(|e| failed(&e))? {
            Some(dev) => Ok(Self::new(dev)),
            None => Err(Error::new(
                Code::InvalidConfig,
                format!("vxlan.dev: {name} does not exist; use a device of this node or omit it"),
            )),
        }
    }

    fn by_route(netlink: &Netlink, wanted: &VxlanConfig) -> Result<Self, Error> {
        for target in targets(&wanted.flood) {
            // Unreachable is the next target's chance: the first peer may be off, or be us.
            let Ok((index, preferred)) = netlink.route_to(target) else { continue };
            let dev = netlink.link_by_index(index).map_err(|e| failed(&e))?;
            if let Some(dev) = dev.filter(|dev| dev.name != "lo") {
                let preferred = preferred.filter(|address| address.is_ipv6() == wanted.is_ipv6());
                return Ok(Self { dev, preferred });
            }
        }
        Err(Error::new(
            Code::InvalidConfig,
            format!(
                "vxlan.dev is not set and no route leads to {}: set vxlan.dev to the device that \
                 connects the nodes",
                if wanted.group().is_some() { "vxlan.group" } else { "any of vxlan.peers" }
            ),
        ))
    }

    /// The largest MTU that fits through the tunnel: the underlay's minus 50 (IPv4 outside) or 70
    /// (IPv6).
    pub(crate) fn inner_mtu(&self, wanted: &VxlanConfig) -> u32 {
        let overhead = if wanted.is_ipv6() { OVERHEAD_V6 } else { OVERHEAD_V4 };
        self.dev.mtu.saturating_sub(overhead)
    }

    /// Refuses an MTU that the kernel would refuse, or cut, on the device.
    pub(super) fn check_mtu(&self, wanted: &VxlanConfig, mtu: u32) -> Result<(), Error> {
        let most = self.inner_mtu(wanted);
        if mtu <= most {
            return Ok(());
        }
        Err(Error::new(
            Code::InvalidConfig,
            format!(
                "mtu: {mtu} is too large for vxlan {} over {} with MTU {}; use {most} or less, or \
                 omit it",
                wanted.name, self.dev.name, self.dev.mtu
            ),
        ))
    }

    /// What the device is created with and compared to.
    pub(super) fn attributes(
        &self,
        wanted: &VxlanConfig,
        addresses: &[AddressState],
    ) -> Result<VxlanAttributes, Error> {
        let local = wanted.local.or(self.preferred).or_else(|| source(wanted, addresses));
        // Without group and source the kernel makes an IPv4 device.
        if local.is_none() && wanted.is_ipv6() {
            return Err(Error::new(
                Code::InvalidConfig,
                format!(
                    "vxlan.local is not set and {} has no usable IPv6 address: give it one, or set \
                     vxlan.local",
                    self.dev.name
                ),
            ));
        }
        Ok(VxlanAttributes {
            id: wanted.id,
            group: wanted.group(),
            dev: Some(self.dev.index),
            local,
            port: wanted.port,
            ttl: wanted.ttl,
            learning: true,
            strange: false,
        })
    }
}

/// Addresses whose route tells the device, best first.
fn targets(flood: &Flood) -> Vec<IpAddr> {
    match flood {
        // Every device has a route for IPv6 multicast, so that the first one found says nothing:
        // the default route goes first.
        Flood::Group(group @ IpAddr::V6(_)) => {
            vec![Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1).into(), *group]
        }
        Flood::Group(group) => vec![*group],
        Flood::Peers(peers) => peers.clone(),
    }
}

/// The source among the underlay's addresses: one of the scope that the other nodes have.
fn source(wanted: &VxlanConfig, addresses: &[AddressState]) -> Option<IpAddr> {
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let near = matches!(&wanted.flood, Flood::Peers(peers) if peers.iter().any(link_local));
    addresses
        .iter()
        .filter(|state| !state.tentative && !state.dad_failed)
        .filter(|state| (state.scope == SCOPE_LINK) == near)
        .map(|state| state.address.ip())
        .find(|ip| ip.is_ipv6() == wanted.is_ipv6())
}
