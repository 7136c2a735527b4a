//! Conntrack entries.

mod lookup;
mod reconcile;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

use std::net::IpAddr;

use self::socket::Connection;
use self::wire::{End, Entry, Family, Filter};
use crate::Result;

pub use self::lookup::answered_by;
pub use self::reconcile::{NodePortAddresses, UdpFrontend, UdpFrontendAt, reconcile_udp};

const ACTION: &str = "delete UDP flows from conntrack";

/// Which UDP flows of the calling thread's namespace to forget: original destination port and,
/// if given, original destination address (a host port's side), or reply source address and
/// port (the container's side).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowFilter {
    /// Flows to a host port, of the address' family if there is one; `None` any address of
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

/// A connection to conntrack of the calling thread's namespace.
pub struct UdpFlows {
    connection: Connection,
}

impl UdpFlows {
    /// Connects. `None`: a host without conntrack, which has no flows.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn open() -> Result<Option<Self>> {
        Ok(Connection::open()?.map(|connection| Self { connection }))
    }

    /// Deletes matching UDP entries and returns how many.
    ///
    /// The kernel (since 5.8) picks the entries of one filter per IP family. Of more all UDP entries
    /// are read once and picked here, of an older kernel all entries.
    ///
    /// # Errors
    /// See [`crate::Error`].
    pub fn delete(&self, filters: &[FlowFilter]) -> Result<usize> {
        let mut doomed = Vec::new();
        for family in Family::BOTH {
            let ours: Vec<&FlowFilter> =
                filters.iter().filter(|filter| filter.concerns(family)).collect();
            let filter = match ours.as_slice() {
                [] => continue,
                [one] => one.for_the_kernel(),
                _ => Filter::default(),
            };
            let matches = |entry: &Entry<'_>| ours.iter().any(|filter| filter.matches(entry));
            doomed.extend(self.connection.find(ACTION, family, filter, matches)?);
        }
        self.connection.delete(ACTION, &doomed)
    }
}

impl FlowFilter {
    fn concerns(&self, family: Family) -> bool {
        match self {
            Self::HostPort { address: None, ipv6, .. } => *ipv6 == (family == Family::V6),
            Self::HostPort { address: Some(address), .. } | Self::Container { address, .. } => {
                Family::of(*address) == family
            }
        }
    }

    fn matches(&self, entry: &Entry<'_>) -> bool {
        match self {
            Self::HostPort { address, port, .. } => {
                let (ip, to) = entry.destination;
                to == *port && address.is_none_or(|address| address == ip)
            }
            Self::Container { address, port } => entry.answered_by == (*address, *port),
        }
    }

    fn for_the_kernel(&self) -> Filter {
        match *self {
            Self::HostPort { address, port, .. } => {
                Filter { destination: End { address, port: Some(port) }, ..Filter::default() }
            }
            Self::Container { address, port } => Filter {
                answered_by: End { address: Some(address), port: Some(port) },
                ..Filter::default()
            },
        }
    }
}
