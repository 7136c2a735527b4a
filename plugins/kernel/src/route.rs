//! Addresses and routes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::{Netlink, Result};

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

impl Netlink {
    /// Addresses of one link (filtered in the kernel by strict checking).
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn addresses(&self, index: u32) -> Result<Vec<AddressState>> {
        let _ = index;
        todo!()
    }

    /// Adds an address. `EEXIST` where it is there.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add_address(&self, index: u32, spec: &AddressSpec) -> Result<()> {
        let _ = (index, spec);
        todo!()
    }

    /// Removes an address. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_address(&self, index: u32, address: IpNetwork) -> Result<()> {
        let _ = (index, address);
        todo!()
    }

    /// Waits until no address of the link is tentative; driven by notifications.
    ///
    /// # Errors
    /// `ETIMEDOUT`, or `EADDRINUSE` where detection failed, naming the address.
    pub fn wait_addresses(&self, index: u32, timeout: std::time::Duration) -> Result<()> {
        let _ = (index, timeout);
        todo!()
    }

    /// Adds a route. `EEXIST` where it is there. Several routes to one destination become one
    /// multipath route when given together to [`Netlink::add_routes`].
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add_route(&self, spec: &RouteSpec) -> Result<()> {
        let _ = spec;
        todo!()
    }

    /// Adds routes; those of equal destination, table, priority and scope with different next hops
    /// become one multipath (ECMP) route.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn add_routes(&self, specs: &[RouteSpec]) -> Result<()> {
        let _ = specs;
        todo!()
    }

    /// Routes of table `table` (main where `None`) that leave through link `index`.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn routes(&self, index: u32, table: Option<u32>) -> Result<Vec<RouteSpec>> {
        let _ = (index, table);
        todo!()
    }

    /// Whether main has a default route with a gateway for the family of `like`.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn has_default_gateway(&self, like: IpAddr) -> Result<bool> {
        let _ = like;
        todo!()
    }

    /// Removes a route. Its absence is not an error.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete_route(&self, spec: &RouteSpec) -> Result<()> {
        let _ = spec;
        todo!()
    }

    /// Output device and preferred source towards `destination` (`ip route get`).
    ///
    /// # Errors
    /// `ENETUNREACH` and the like.
    pub fn route_to(&self, destination: IpAddr) -> Result<(u32, Option<IpAddr>)> {
        let _ = destination;
        todo!()
    }
}
