//! Host ports of this node's containers beside the services: if a service asks for the same port
//! of this node, the host port has it, because it was asked for here.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use causeway_model::{IpFamily, ObjectKey, Protocol};

use super::claims::Place;
use super::{Delta, Plan};

/// A host port that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Protocol.
    pub protocol: Protocol,
    /// The address of this node; `None` for all of the family of `target`.
    pub host: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Address and port of the container.
    pub target: SocketAddr,
    /// The container's pod.
    pub owner: ObjectKey,
    /// Whose source address is hidden.
    pub hides: Hides,
    /// It is only for packets that its network's configuration names by conditions.
    pub conditional: bool,
}

/// Whose source address a host port hides behind this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hides {
    /// Nobody's.
    Nobody,
    /// That of the container itself and of localhost, which would get no answer.
    Needed,
    /// Everybody's.
    Everybody,
}

/// Ports of this node that services leave to host ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPlace {
    /// Family.
    pub family: IpFamily,
    /// Protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The address; `None` for every address of this node.
    pub host: Option<IpAddr>,
}

/// A place of a service that a host port has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Yield {
    /// What the service asks for.
    pub place: Place,
    /// Which service.
    pub service: ObjectKey,
    /// The host port.
    pub host_port: HostPort,
}

impl HostPort {
    /// Where it answers.
    pub fn place(&self) -> HostPlace {
        let family = IpFamily::of(self.target.ip());
        HostPlace { family, protocol: self.protocol, port: self.port, host: self.host }
    }

    /// Whether it takes a packet to an address of this node. `::1` leads to no other link.
    pub(crate) fn takes(&self, to: SocketAddr, protocol: Protocol) -> bool {
        (self.port, self.protocol) == (to.port(), protocol)
            && self.target.is_ipv4() == to.is_ipv4()
            && self.host.is_none_or(|host| host == to.ip())
            && !(to.is_ipv6() && to.ip().is_loopback())
    }

    /// Whether the container sees this node instead of `source`.
    pub(crate) fn hides(&self, source: IpAddr) -> bool {
        match self.hides {
            Hides::Nobody => false,
            Hides::Needed => source == self.target.ip() || source.is_loopback(),
            Hides::Everybody => true,
        }
    }
}

impl Plan {
    /// Takes the host ports of this node's containers, the first of several at one place being the
    /// one that is in force.
    pub fn set_host_ports(&mut self, all: Vec<HostPort>) -> Delta {
        self.host_ports = all;
        self.renew_yields()
    }

    /// All of them.
    pub fn host_ports(&self) -> &[HostPort] {
        &self.host_ports
    }

    /// The host port that a packet to this node goes to. One with conditions is the last to be
    /// thought of.
    pub(crate) fn host_port(&self, to: SocketAddr, protocol: Protocol) -> Option<&HostPort> {
        let mut all = self.host_ports.iter().filter(|one| one.takes(to, protocol));
        let first = all.clone().next();
        all.find(|one| !one.conditional).or(first)
    }

    /// What services ask for and host ports have.
    pub fn yields(&self) -> impl Iterator<Item = Yield> + '_ {
        self.host_ports.iter().flat_map(|one| self.yields_to(one))
    }

    fn yields_to<'a>(&'a self, host_port: &'a HostPort) -> impl Iterator<Item = Yield> + 'a {
        let HostPlace { family, protocol, port, host } = host_port.place();
        let node_port = Place::NodePort(family, port, protocol);
        let answers = host.is_none_or(|host| self.facts.node_port_addresses.answer(host));
        let own =
            self.facts.node_ips.iter().copied().filter(move |ip| {
                IpFamily::of(*ip) == family && host.is_none_or(|host| host == *ip)
            });
        let external = own.map(move |ip| Place::External(ip, port, protocol));
        let places = answers.then_some(node_port).into_iter().chain(external);
        places.filter_map(move |place| {
            let service = self.claims.holder(&place)?.clone();
            Some(Yield { place, service, host_port: host_port.clone() })
        })
    }

    /// The places that the rules leave to host ports, after either may have changed.
    pub(super) fn renew_yields(&mut self) -> Delta {
        if self.host_ports.is_empty() && self.here.yields.is_empty() {
            return Delta::default();
        }
        let certain = self.yields().filter(|one| !one.host_port.conditional);
        let yields: BTreeSet<HostPlace> = certain.map(|one| one.host_port.place()).collect();
        self.replace_here(super::Here { yields, ..self.here.clone() })
    }
}
