//! Addresses and routes.

mod address;
mod local;
mod message;
mod ops;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnetwork::IpNetwork;

pub(crate) use address::family;

/// An address to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpec {
    /// Host address with prefix length.
    pub address: IpNetwork,
    /// `IFA_F_NODAD` (IPv6): usable at once.
    pub nodad: bool,
}

/// An address as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressState {
    /// Host address with prefix length.
    pub address: IpNetwork,
    /// Duplicate address detection still runs.
    pub tentative: bool,
    /// Duplicate address detection found another owner.
    pub dad_failed: bool,
    /// Scope (0 global, 253 link).
    pub scope: u8,
}

/// A route to add or to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Destination network; /0 is the default route.
    pub dst: IpNetwork,
    /// Next hop.
    pub gw: Option<IpAddr>,
    /// Output device, by index.
    pub dev: u32,
    /// `RTAX_MTU`
    pub mtu: Option<u32>,
    /// `RTAX_ADVMSS`
    pub advmss: Option<u32>,
    /// Metric.
    pub priority: Option<u32>,
    /// Table; `None` is main.
    pub table: Option<u32>,
    /// Scope; `None`: link without `gw`, else global.
    pub scope: Option<u8>,
    /// `RTNH_F_ONLINK`
    pub onlink: bool,
    /// Routing protocol number; `None`: boot (3).
    pub protocol: Option<u8>,
}

/// How packets to an address leave this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Output device, by index.
    pub dev: u32,
    /// Next hop; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Source address that the kernel prefers.
    pub source: Option<IpAddr>,
    /// MTU that the route was given (`ip route .. mtu N`); what was learned of the path is left out.
    pub mtu: Option<u32>,
}

impl RouteSpec {
    /// A route to `dst` through link `dev`, everything else left to the kernel.
    pub fn new(dst: IpNetwork, dev: u32) -> Self {
        Self {
            dst,
            gw: None,
            dev,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
            onlink: false,
            protocol: None,
        }
    }

    /// Whether `found`, as [`crate::Netlink::routes`] reports it, is this route: what is `None`
    /// here may be anything there.
    pub fn is_met_by(&self, found: &Self) -> bool {
        fn open<T: PartialEq>(wanted: Option<T>, found: Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        same_network(self.dst, found.dst)
            && self.gw == found.gw
            && self.dev == found.dev
            && open(self.mtu, found.mtu)
            && open(self.advmss, found.advmss)
            && open(self.priority, found.priority)
            && self.table.unwrap_or(MAIN) == found.table.unwrap_or(MAIN)
            && open(self.scope, found.scope)
            && open(self.protocol, found.protocol)
    }
}

/// `RT_TABLE_MAIN`
const MAIN: u32 = 254;

/// Whether both name the same network, whatever host bits they carry.
fn same_network(a: IpNetwork, b: IpNetwork) -> bool {
    a.network() == b.network() && a.prefix() == b.prefix()
}
