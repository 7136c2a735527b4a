//! UDP entries of service frontends against the endpoints that serve them.
//!
//! An entry outlives the decision that made it: a client that never pauses keeps its old endpoint,
//! or the hole it fell into before there was one. Only UDP is cleaned: a TCP connection notices
//! the end of its peer, and its entry is what lets it end in order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::socket::Connection;
use super::wire::{End, Entry, Family, Filter};
use crate::{Netlink, Result};

const ACTION: &str = "reconcile UDP flows in conntrack";

/// An address and port, or node port, where a UDP service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpFrontend {
    /// Where.
    pub at: UdpFrontendAt,
    /// Port there.
    pub port: u16,
    /// Endpoints that may answer, of the frontend's family, address and port; empty for a service
    /// that is gone or has none. Entries of these stay, also of those that get no new flows.
    pub serving: BTreeSet<(IpAddr, u16)>,
}

/// Where a [`UdpFrontend`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpFrontendAt {
    /// One address.
    Address(IpAddr),
    /// Addresses of this node, see [`NodePortAddresses`].
    NodePort {
        /// Of IPv6; else of IPv4.
        ipv6: bool,
    },
}

/// Which addresses of this node serve node ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePortAddresses {
    /// Those in these networks; all of a family that has no network here.
    pub networks: Vec<IpNetwork>,
    /// 127.0.0.0/8 too.
    pub localhost: bool,
}

/// Deletes the UDP entries whose original destination is one of `frontends` and whose reply source
/// is not a serving endpoint of it, and returns how many. `services` are networks whose addresses
/// are services' alone: entries to what is no frontend there go, too, so give them with all frontends
/// that there are, or none. A host without conntrack has no entries.
///
/// One dump per IP family that has frontends (two for two frontends), filtered by the kernel (since
/// 5.8) to UDP and to what all frontends have in common; memory is bounded by what is deleted. Acts
/// in the calling thread's namespace and must not be called from inside a tokio task.
///
/// # Errors
/// See [`crate::Error`].
pub fn reconcile_udp(
    frontends: &[UdpFrontend],
    node_ports: &NodePortAddresses,
    services: &[IpNetwork],
) -> Result<usize> {
    let mut deleted = 0;
    for family in Family::BOTH {
        let ours: Vec<&UdpFrontend> =
            frontends.iter().filter(|frontend| frontend.family() == family).collect();
        let ipv6 = family == Family::V6;
        let services: Vec<IpNetwork> =
            services.iter().copied().filter(|network| network.is_ipv6() == ipv6).collect();
        if ours.is_empty() && services.is_empty() {
            continue;
        }
        let Some(connection) = Connection::open()? else { return Ok(deleted) };
        let filters = filters(&ours, &services);
        let wanted = Wanted { services, ..Wanted::new(&ours, node_ports, family)? };
        for filter in filters {
            let doomed = connection.find(ACTION, family, filter, |entry| wanted.dooms(entry))?;
            deleted += connection.delete(ACTION, &doomed)?;
        }
    }
    Ok(deleted)
}

/// What dumps are filtered by. A service's address and its node port, which have nothing in common,
/// cost less by themselves than a dump of everything.
fn filters(frontends: &[&UdpFrontend], services: &[IpNetwork]) -> Vec<Filter> {
    const FEW: usize = 2;
    let common = |frontends: &[&UdpFrontend]| {
        let all = frontends.iter().map(|frontend| (frontend.address(), frontend.port));
        Filter { destination: End::common(all), ..Filter::default() }
    };
    match (frontends, services) {
        (_, [_, ..]) => vec![Filter::default()],
        (few, []) if few.len() <= FEW => few.chunks(1).map(common).collect(),
        (many, []) => vec![common(many)],
    }
}

impl UdpFrontend {
    fn family(&self) -> Family {
        let ipv6 = match self.at {
            UdpFrontendAt::Address(address) => address.is_ipv6(),
            UdpFrontendAt::NodePort { ipv6 } => ipv6,
        };
        if ipv6 { Family::V6 } else { Family::V4 }
    }

    fn address(&self) -> Option<IpAddr> {
        match self.at {
            UdpFrontendAt::Address(address) => Some(address),
            UdpFrontendAt::NodePort { .. } => None,
        }
    }
}

/// The frontends of a family, to look up entries in.
struct Wanted<'a> {
    addresses: BTreeMap<(IpAddr, u16), &'a BTreeSet<(IpAddr, u16)>>,
    node_ports: BTreeMap<u16, &'a BTreeSet<(IpAddr, u16)>>,
    node: BTreeSet<IpAddr>,
    localhost: bool,
    /// Addresses in these are services', known or gone.
    services: Vec<IpNetwork>,
}

impl<'a> Wanted<'a> {
    fn new(
        frontends: &[&'a UdpFrontend],
        allowed: &NodePortAddresses,
        family: Family,
    ) -> Result<Self> {
        let mut wanted = Self {
            addresses: BTreeMap::new(),
            node_ports: BTreeMap::new(),
            node: BTreeSet::new(),
            localhost: allowed.localhost,
            services: Vec::new(),
        };
        for frontend in frontends {
            match frontend.at {
                UdpFrontendAt::Address(address) => {
                    wanted.addresses.insert((address, frontend.port), &frontend.serving);
                }
                UdpFrontendAt::NodePort { .. } => {
                    wanted.node_ports.insert(frontend.port, &frontend.serving);
                }
            }
        }
        if !wanted.node_ports.is_empty() {
            let ipv6 = family == Family::V6;
            let node = Netlink::open()?.local_addresses(ipv6)?;
            let networks: Vec<&IpNetwork> =
                allowed.networks.iter().filter(|network| network.is_ipv6() == ipv6).collect();
            let served = |address: &IpAddr| {
                networks.is_empty() || networks.iter().any(|network| network.contains(*address))
            };
            wanted.node.extend(node.into_iter().filter(|one| !one.is_loopback() && served(one)));
        }
        Ok(wanted)
    }

    fn dooms(&self, entry: &Entry<'_>) -> bool {
        let serving = self.addresses.get(&entry.destination).or_else(|| {
            let (address, port) = entry.destination;
            // All of 127.0.0.0/8 is local; rules cannot serve ::1.
            let localhost = self.localhost && address.is_ipv4() && address.is_loopback();
            (localhost || self.node.contains(&address)).then(|| self.node_ports.get(&port))?
        });
        match serving {
            Some(serving) => !serving.contains(&entry.answered_by),
            None => self.services.iter().any(|network| network.contains(entry.destination.0)),
        }
    }
}
