//! How large a service may be: one object must take neither a node's memory nor what its kernel
//! holds. What an object would expand to is counted, never made.
//!
//! A service over a limit of its own has no rules. A slice or a container that brings a service
//! over one is left out of it; those before it, by name, stay.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;

use crate::{EndpointSlice, IpFamily, Protocol, Service, ServicePort};

/// Ports of a service.
pub const PORTS: usize = 10_000;

/// Endpoints of a service port in one family.
pub const ENDPOINTS: usize = 65_535;

/// Ways through a service: each of its ports at each of its addresses to each endpoint. The port of
/// the nodes counts as one address more.
pub const WAYS: usize = 1_000_000;

/// Endpoints of a service port in one family if `iptables` carries the rules: the time it takes
/// grows with the square of the rules of a chain.
pub const IPTABLES_ENDPOINTS: usize = 10_000;

/// Endpoints of all ports of a service if `iptables` carries the rules.
pub const IPTABLES_ALL: usize = 50_000;

/// Which limit is exceeded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excess {
    /// [`PORTS`]
    Ports(usize),
    /// [`ENDPOINTS`]
    Endpoints {
        /// Name and number of the port.
        port: String,
        /// How many there would be.
        count: usize,
    },
    /// [`WAYS`]
    Ways(usize),
    /// [`IPTABLES_ENDPOINTS`] or [`IPTABLES_ALL`], on nodes of that backend.
    Iptables {
        /// Name and number of the port; `None`: all ports together.
        port: Option<String>,
        /// How many there are.
        count: usize,
    },
}

impl fmt::Display for Excess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(count) => {
                write!(out, "the service has {count} ports, and {PORTS} are possible: split it")
            }
            Self::Endpoints { port, count } => write!(
                out,
                "the service would have {count} endpoints of one IP family at port {port}, and \
                 {ENDPOINTS} are possible: split it"
            ),
            Self::Ways(count) => write!(
                out,
                "the ports, addresses and endpoints of the service multiply to {count}, and {WAYS} \
                 are possible: reduce them, or split it"
            ),
            Self::Iptables { port, count } => {
                let (whose, most) = match port {
                    Some(port) => (format!("port {port} of the service"), IPTABLES_ENDPOINTS),
                    None => ("the service".to_owned(), IPTABLES_ALL),
                };
                write!(
                    out,
                    "{whose} has {count} endpoints, and {most} are possible with iptables: set \
                     backend to \"nftables\", or split the service"
                )
            }
        }
    }
}

/// Whether a service is within its own limits, whatever endpoints it has.
///
/// # Errors
/// Which limit is exceeded.
pub fn service(service: &Service) -> Result<(), Excess> {
    let ports = service.ports.len();
    if ports > PORTS {
        return Err(Excess::Ports(ports));
    }
    let ways = ports.saturating_mul(addresses(service).iter().sum());
    if ways > WAYS { Err(Excess::Ways(ways)) } else { Ok(()) }
}

/// What a service takes so far.
#[derive(Clone, Debug)]
pub struct Load<S> {
    service: S,
    /// Where it answers, by family.
    addresses: [usize; 2],
    /// Indices of its ports by name and protocol; made when it is first worth it.
    order: Option<Box<[usize]>>,
    /// Endpoints of each port, by family.
    endpoints: Vec<[usize; 2]>,
    ways: usize,
}

impl<S: Deref<Target = Service>> Load<S> {
    /// Of a service without endpoints.
    pub fn of(service: S) -> Self {
        // Its endpoints are listed whether it has an address or not.
        let addresses = addresses(&service).map(|count| count.max(1));
        let ports = service.ports.len().max(1);
        Self { service, addresses, order: None, endpoints: vec![[0; 2]; ports], ways: 0 }
    }

    /// Adds the endpoints of a slice, if that is possible.
    ///
    /// # Errors
    /// Which limit would be exceeded; nothing is added.
    pub fn add(&mut self, slice: &EndpointSlice) -> Result<(), Excess> {
        let ports = self.ports_of(slice);
        let count = slice.endpoints.iter().map(|one| one.addresses.len()).sum();
        self.add_to(ports.iter().map(|(index, _)| *index), slice.family, count)
    }

    /// Takes the endpoints of a slice off that was added.
    pub fn remove(&mut self, slice: &EndpointSlice) {
        let count: usize = slice.endpoints.iter().map(|one| one.addresses.len()).sum();
        let family = family(slice.family);
        for (index, _) in self.ports_of(slice) {
            if let Some(port) = self.endpoints.get_mut(index) {
                port[family] = port[family].saturating_sub(count);
                self.ways = self.ways.saturating_sub(count * self.addresses[family]);
            }
        }
    }

    /// Adds the addresses of a container, at most one per IP family, as endpoints of every port.
    ///
    /// # Errors
    /// Which limit would be exceeded.
    pub fn add_container(&mut self, ips: impl Iterator<Item = IpAddr>) -> Result<(), Excess> {
        for ip in ips {
            self.add_to(0..self.endpoints.len(), IpFamily::of(ip), 1)?;
        }
        Ok(())
    }

    /// Which ports of the service a slice serves, by index, with the port of the endpoints: they are
    /// matched by name and protocol (row 5). A service without ports has one, of addresses alone.
    pub fn ports_of(&mut self, slice: &EndpointSlice) -> Vec<(usize, u16)> {
        if self.service.ports.is_empty() {
            return vec![(0, 0)];
        }
        let mut found = Vec::with_capacity(slice.ports.len().min(self.service.ports.len()));
        for port in &slice.ports {
            let (Some(number), Some(index)) = (port.port, self.port(&port.name, port.protocol))
            else {
                continue;
            };
            found.push((index, number));
        }
        found
    }

    fn add_to(
        &mut self,
        ports: impl Iterator<Item = usize> + Clone,
        of: IpFamily,
        count: usize,
    ) -> Result<(), Excess> {
        let of = family(of);
        let ways = self.ways + count * self.addresses[of] * ports.clone().count();
        if ways > WAYS {
            return Err(Excess::Ways(ways));
        }
        for index in ports.clone() {
            let there = self.endpoints.get(index).map_or(0, |port| port[of]);
            if there + count > ENDPOINTS {
                let port = self.service.ports.get(index).map(named).unwrap_or_default();
                return Err(Excess::Endpoints { port, count: there + count });
            }
        }
        self.ways = ways;
        for index in ports {
            if let Some(port) = self.endpoints.get_mut(index) {
                port[of] += count;
            }
        }
        Ok(())
    }

    fn port(&mut self, name: &str, protocol: Protocol) -> Option<usize> {
        /// Fewer are looked through faster than they are ordered.
        const FEW: usize = 8;
        let ports = &self.service.ports;
        if ports.len() <= FEW {
            return ports.iter().position(|port| (&*port.name, port.protocol) == (name, protocol));
        }
        let key = |index: &usize| ports.get(*index).map(|port| (&*port.name, port.protocol));
        let order = self.order.get_or_insert_with(|| {
            let mut order: Box<[usize]> = (0..ports.len()).collect();
            order.sort_by(|one, other| key(one).cmp(&key(other)));
            order
        });
        let at = order.binary_search_by(|index| key(index).cmp(&Some((name, protocol)))).ok()?;
        order.get(at).copied()
    }
}

/// At how many addresses a service answers, by family.
fn addresses(service: &Service) -> [usize; 2] {
    let ingress = service.ingress.iter().filter_map(|one| one.ip.as_ref());
    let all = service.cluster_ips.iter().chain(&service.external_ips).chain(ingress);
    let on_nodes = service.ports.iter().any(|port| port.node_port.is_some());
    let on_nodes = service.cluster_ips.iter().filter(|_| on_nodes);
    let mut count = [0; 2];
    all.chain(on_nodes).for_each(|ip| count[family(IpFamily::of(*ip))] += 1);
    count
}

fn family(family: IpFamily) -> usize {
    match family {
        IpFamily::V4 => 0,
        IpFamily::V6 => 1,
    }
}

/// Name and number of a port.
pub(crate) fn named(port: &ServicePort) -> String {
    match port.name.is_empty() {
        true => port.port.to_string(),
        false => format!("{} ({})", port.name, port.port),
    }
}

#[cfg(test)]
mod tests;
