//! How this node reaches the containers of the other nodes: peers to links, routes, neighbours and
//! FDB entries, and what to change if the kernel holds something else.
//!
//! Pure (invariant I1). [`plan()`] makes [`Wanted`] of the facts; [`diff()`] compares it with what the
//! kernel [`Observed`] and returns [`Step`]s in an order in which each one finds what it needs (I5) and
//! nothing that works is taken away before its replacement is there (row O-66). Ours are the vxlan
//! device with all that is on it, and routes of protocol [`ROUTE_PROTOCOL`] (I2).
//!
//! With vxlan, each peer is three static things (rows O-03 to O-07): a route to its subnet by the
//! subnet's network address, a neighbour for that address with the peer's VTEP address, an FDB entry
//! for that address with the peer's node address. The kernel learns nothing and asks nobody, so the
//! daemon's death changes nothing.
#![forbid(unsafe_code)]

mod clash;
mod diff;
mod plan;
mod underlay;

pub use clash::{OtherVxlan, clash};
pub use diff::diff;
pub use plan::plan;
pub use underlay::{Carrier, Device, carrier};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{MacAddress, Peer};
use ipnetwork::IpNetwork;

/// `proto` of our routes.
pub const ROUTE_PROTOCOL: u8 = 197;

/// How packets get to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Encapsulated, unless `direct` and the peer is on the same link.
    Vxlan {
        /// VNI.
        id: u32,
        /// UDP port.
        port: u16,
        /// Plain routes to peers on the same link (row O-08).
        direct: bool,
    },
    /// Plain routes; every peer is on the same link (row O-20).
    HostGw,
}

/// The device that connects the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Its index.
    pub index: u32,
    /// Tunnels are bound to it; otherwise their packets follow the routes to the other nodes.
    pub bound: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// This node's addresses, one at least and at most one per IP family; the first is the tunnel's
    /// own end, and its family that of all tunnels. While the node has none, do not plan: what is
    /// there stays as it is.
    pub ips: Vec<IpAddr>,
}

/// What planning needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayContext {
    /// How.
    pub mode: Mode,
    /// Name of this node.
    pub node: String,
    /// Networks of all containers of the cluster. A peer's subnet that is not inside is refused: no
    /// record of another node can move this node's default route or a foreign network.
    pub cluster: Vec<IpNetwork>,
    /// This node's subnets of the cluster network.
    pub subnets: Vec<IpNetwork>,
    /// Where it is.
    pub underlay: Underlay,
    /// The other nodes (this one may be among them and counts for nothing).
    pub peers: Vec<Peer>,
    /// Addresses of peers that are reached by the underlay without a gateway.
    pub on_link: BTreeSet<IpAddr>,
}

/// The vxlan device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanLink {
    /// Name, `cwov<id>`.
    pub name: String,
    /// VNI.
    pub id: u32,
    /// UDP port.
    pub port: u16,
    /// Index of the underlay device; `None`: packets follow the routes.
    pub dev: Option<u32>,
    /// Tunnel's own end.
    pub local: IpAddr,
    /// Its address, [`MacAddress::of_vtep`].
    pub mac: MacAddress,
    /// MTU: the underlay's minus 50 (IPv4 outside) or 70 (IPv6) (row O-09).
    pub mtu: u32,
    /// The network address of each subnet of ours, as a host (row O-04).
    pub addresses: BTreeSet<IpAddr>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Through the vxlan device, by the peer subnet's network address, `onlink`.
    Tunnel,
    /// By the peer's node address on the underlay.
    Direct(IpAddr),
}

/// All that the kernel is to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The device; `None` without vxlan.
    pub link: Option<VxlanLink>,
    /// Permanent neighbours on the device: network address of a peer's subnet to its VTEP address.
    pub neighbours: BTreeMap<IpAddr, MacAddress>,
    /// FDB of the device: VTEP address to the peer's node address.
    pub fdb: BTreeMap<MacAddress, IpAddr>,
    /// Addresses that packets may come from through the tunnel, those of peers that have no part of
    /// the cluster network yet among them. Empty without vxlan.
    pub sources: BTreeSet<IpAddr>,
    /// Routes by peer subnet.
    pub routes: BTreeMap<IpNetwork, Hop>,
    /// MTU for containers, in bytes.
    pub mtu: u32,
    /// Peers with something wrong, with what and the remedy: two nodes of one address (O-48), no
    /// address of the family, not on the link, a subnet that is refused, nothing published yet
    /// (O-47). What concerns this node itself is under its own name.
    pub problems: BTreeMap<String, String>,
}

/// What the kernel holds of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The device of our name with whatever attributes it has, and whether it is up.
    pub link: Option<ObservedLink>,
    /// Permanent neighbours on the device.
    pub neighbours: BTreeMap<IpAddr, MacAddress>,
    /// FDB of the device, in whatever number; the all-zero address among them.
    pub fdb: BTreeSet<(MacAddress, IpAddr)>,
    /// Routes of our protocol: network, device index, gateway, onlink.
    pub routes: BTreeSet<ObservedRoute>,
}

/// The device as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    /// Index.
    pub index: u32,
    /// Attributes that cannot be changed while it exists are those wanted (kind, VNI, port, local,
    /// device, learning off, no group) (row O-12).
    pub fits: bool,
    /// Its address.
    pub mac: Option<MacAddress>,
    /// MTU.
    pub mtu: u32,
    /// `IFF_UP`
    pub up: bool,
    /// Global addresses, with their lengths.
    pub addresses: BTreeSet<IpNetwork>,
}

/// A route of our protocol as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObservedRoute {
    /// Destination.
    pub subnet: IpNetwork,
    /// Output device.
    pub dev: u32,
    /// Next hop.
    pub gateway: Option<IpAddr>,
}

/// A change. One netlink request each, in order; nothing is left to decide (I3). What is to be
/// removed and is not there any more is not a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the object that it changes")]
pub enum Step {
    /// With all that is on it.
    RemoveLink {
        index: u32,
    },
    /// With address and MTU, without its IP addresses, not up yet.
    AddLink(VxlanLink),
    /// `None` and `false` leave alone. Another address makes the kernel forget all neighbours.
    SetLink {
        mac: Option<MacAddress>,
        mtu: Option<u32>,
        up: bool,
    },
    AddAddress(IpAddr),
    RemoveAddress(IpNetwork),
    /// Added, or replaced if there is one for the address.
    PutNeighbour(IpAddr, MacAddress),
    RemoveNeighbour(IpAddr),
    /// Added, or replaced if there is one for the address; there is never more than one then.
    PutFdb(MacAddress, IpAddr),
    RemoveFdb(MacAddress, IpAddr),
    /// Added, or replaced in one request if there is one of ours for the subnet (row O-66); there
    /// is never more than one then.
    PutRoute(IpNetwork, Hop),
    RemoveRoute(ObservedRoute),
}

/// Name of the device of a VNI.
pub fn device_name(id: u32) -> String {
    format!("cwov{id}")
}
