//! Conntrack entries.

use std::net::IpAddr;

use crate::Result;

/// Which UDP flows of the calling thread's namespace to forget: original destination port and,
/// where given, original destination address (a host port's side), or reply source address and
/// port (the container's side).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowFilter {
    /// Flows to a host port, of the address' family where there is one; `None` any address of
    /// either family.
    HostPort {
        /// Original destination address.
        address: Option<IpAddr>,
        /// Restricts `address: None` to one family (true: IPv6).
        ipv6: bool,
        /// Original destination port.
        port: u16,
    },
    /// Flows that were translated to this container address and port.
    Container {
        /// Reply source address.
        address: IpAddr,
        /// Reply source port.
        port: u16,
    },
}

/// Deletes matching UDP entries and returns how many. A host without conntrack has none.
///
/// # Errors
/// See [`crate::Error`].
pub fn delete_udp_flows(filters: &[FlowFilter]) -> Result<usize> {
    let _ = filters;
    todo!()
}
