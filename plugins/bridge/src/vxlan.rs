//! The layer-2 overlay: a vxlan device as a port of the bridge.

use std::net::IpAddr;

use causeway_kernel::{Link, Netlink};
use cni_plugin::Error;

/// `vxlan` of the configuration as sent, keys lower-cased.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Raw {
    /// VNI, 1 to 16777215. Required.
    pub id: Option<u32>,
    /// Multicast group that carries what has to reach every node.
    pub group: Option<String>,
    /// Node addresses, for head-end replication instead of a group.
    pub peers: Option<Vec<String>>,
    /// Underlay device; default: that of the route to the group or the peers.
    pub dev: Option<String>,
    /// UDP port; default 4789.
    pub port: Option<u32>,
    /// Outer TTL; default: the kernel's.
    pub ttl: Option<u32>,
    /// Name of the device; default `cwvx<id>`.
    pub name: Option<String>,
    /// Source address of the tunnel; default: an address of `dev`.
    pub local: Option<String>,
}

/// Who gets what has no known destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flood {
    /// The members of a multicast group.
    Group(IpAddr),
    /// Each of these nodes, by a copy of its own; not empty, one family.
    Peers(Vec<IpAddr>),
}

/// A `vxlan` that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Network that the device belongs to.
    pub network: String,
    /// VNI
    pub id: u32,
    /// Device name.
    pub name: String,
    /// Flooding.
    pub flood: Flood,
    /// Underlay device, where the configuration names one.
    pub dev: Option<String>,
    /// Source address, where the configuration names one; of the family of `flood`.
    pub local: Option<IpAddr>,
    /// UDP port
    pub port: u16,
    /// Outer TTL; 0 is the kernel's default.
    pub ttl: u8,
}

/// Checks the key `vxlan` of `network`.
///
/// # Errors
/// Code 7 naming the field, its value and the remedy.
pub fn check(network: &str, raw: &Raw) -> Result<Checked, Error> {
    let _ = (network, raw);
    todo!()
}

/// The MTU that fits through the tunnel: the underlay's minus 50 (IPv4 outside) or 70 (IPv6).
///
/// # Errors
/// Code 7 where no underlay device can be found; 5 and 11 for the kernel's refusals.
pub fn mtu(netlink: &Netlink, wanted: &Checked) -> Result<u32, Error> {
    let _ = (netlink, wanted);
    todo!()
}

/// The vxlan device as a port of `bridge`, made or repaired. Safe to call from many processes at
/// once.
///
/// # Errors
/// Code 7 where a device is in the way, naming attribute, both values and the remedy; 5 and 11
/// for the kernel's refusals.
pub fn ensure(netlink: &Netlink, wanted: &Checked, bridge: &Link, mtu: u32) -> Result<Link, Error> {
    let _ = (netlink, wanted, bridge, mtu);
    todo!()
}
