//! What happens to a packet, and why: an interpreter over a [`Plan`].

mod decide;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use causeway_model::{IpFamily, ObjectKey, Protocol};
use serde::{Deserialize, Serialize};

use crate::plan::{At, Frontend, Place, Plan, PortPlan, port_name};

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source.
    pub source: IpAddr,
    /// The source is this node itself: the packet comes from a process on it.
    pub from_node: bool,
    /// Destination.
    pub destination: IpAddr,
    /// The destination is an address of this node.
    pub to_node: bool,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
}

/// What happens to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// The outcome.
    pub outcome: Outcome,
    /// The service port that decides, `namespace/name:port`.
    pub service: Option<String>,
    /// Why, one sentence a step, in order.
    pub steps: Vec<String>,
}

/// Where a packet ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// No service: forwarded unchanged.
    Pass,
    /// Answered with ICMP port unreachable.
    Reject,
    /// Dropped silently.
    Drop,
    /// To one of these endpoints, ascending, with whether the source is masqueraded there.
    Endpoints(Vec<Choice>),
}

/// A possible endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
    /// The endpoint sees an address of the node instead of the source.
    pub masquerade: bool,
}

/// Follows a packet through the plan. Source-hash services give the one endpoint of the source.
/// Reads the whole plan: for many packets make a [`Tracer`].
pub fn trace(plan: &Plan, packet: &Packet) -> Trace {
    Tracer::new(plan).trace(packet)
}

/// Where the frontends of a plan are, for many packets.
#[derive(Clone, Debug)]
pub struct Tracer<'a> {
    plan: &'a Plan,
    clusters: BTreeMap<IpAddr, &'a ObjectKey>,
    addresses: BTreeMap<(IpAddr, u16, Protocol), Found<'a>>,
    node_ports: BTreeMap<(IpFamily, u16, Protocol), Found<'a>>,
}

/// A frontend with whose it is.
#[derive(Clone, Copy, Debug)]
struct Found<'a> {
    key: &'a ObjectKey,
    port: &'a PortPlan,
    frontend: &'a Frontend,
}

/// What the search for a frontend ends with.
enum Search<'a> {
    Found(Found<'a>),
    /// Nothing serves there.
    Over(Outcome, Option<&'a ObjectKey>),
}

impl<'a> Tracer<'a> {
    /// Reads a plan.
    pub fn new(plan: &'a Plan) -> Self {
        let mut tracer = Self {
            plan,
            clusters: BTreeMap::new(),
            addresses: BTreeMap::new(),
            node_ports: BTreeMap::new(),
        };
        for (key, service) in &plan.services {
            for port in &service.ports {
                for frontend in &port.frontends {
                    tracer.note(Found { key, port, frontend });
                }
            }
        }
        tracer
    }

    /// Follows a packet.
    pub fn trace(&self, packet: &Packet) -> Trace {
        let mut steps = vec![decide::origin(self.plan, packet)];
        match self.find(packet, &mut steps) {
            Search::Found(found) => {
                let outcome = decide::outcome(self.plan, &found, packet, &mut steps);
                let service = Some(port_name(found.key, &found.port.name));
                Trace { outcome, service, steps }
            }
            Search::Over(outcome, key) => {
                Trace { outcome, service: key.map(ObjectKey::to_string), steps }
            }
        }
    }

    fn note(&mut self, found: Found<'a>) {
        let PortPlan { protocol, family, .. } = *found.port;
        match found.frontend.at {
            At::Cluster(address, port) => {
                self.clusters.insert(address, found.key);
                self.addresses.insert((address, port, protocol), found);
            }
            At::External(address, port) => {
                self.addresses.insert((address, port, protocol), found);
            }
            At::NodePort(port) => {
                self.node_ports.insert((family, port, protocol), found);
            }
        }
    }

    fn find(&self, packet: &Packet, steps: &mut Vec<String>) -> Search<'a> {
        let Packet { destination: to, port, protocol, .. } = *packet;
        let place = format!("{to} port {port}/{}", protocol.name());
        if let (true, true, false) = (to.is_ipv4(), to.is_loopback(), packet.from_node) {
            steps.push(format!(
                "{to} is localhost of this node, not reachable from elsewhere: dropped."
            ));
            return Search::Over(Outcome::Drop, None);
        }
        if let Some(over) = self.find_host_port(packet, steps) {
            return Search::Over(over, None);
        }
        if let Some(found) = self.addresses.get(&(to, port, protocol)) {
            let name = port_name(found.key, &found.port.name);
            let kind = match found.frontend.at {
                At::Cluster(..) => "the cluster address",
                At::External(..) | At::NodePort(_) => "an external address",
            };
            steps.push(format!("{place} is {kind} of {name}."));
            return Search::Found(*found);
        }
        if let Some(key) = self.clusters.get(&to) {
            steps.push(format!("{to} is the cluster address of {key}, which has no such port."));
            steps.push("Rejected: ICMP port unreachable.".to_owned());
            return Search::Over(Outcome::Reject, Some(key));
        }
        if let Some(found) = self.find_node_port(packet, steps) {
            return Search::Found(found);
        }
        self.say_denied(packet, steps);
        if let Some(net) = self.plan.facts.service_cidrs.iter().find(|net| net.contains(to)) {
            steps.push(format!(
                "No service has the address {to}, which is in service network {net}: dropped."
            ));
            return Search::Over(Outcome::Drop, None);
        }
        steps.push(format!("No service uses {place}: forwarded unchanged."));
        Search::Over(Outcome::Pass, None)
    }

    /// Services that ask for the place and are not given it.
    fn say_denied(&self, packet: &Packet, steps: &mut Vec<String>) {
        let Packet { destination: to, port, protocol, to_node, .. } = *packet;
        for (key, place, why) in self.plan.denied() {
            let asked = match place {
                Place::Cluster(address) => address == to,
                Place::External(..) => place == Place::External(to, port, protocol),
                Place::NodePort(..) => {
                    to_node && place == Place::NodePort(IpFamily::of(to), port, protocol)
                }
            };
            if asked {
                steps.push(format!("Service {key} claims {place} but is left out: {why}."));
            }
        }
    }

    /// Host ports have their places before services, as they are of this node alone.
    fn find_host_port(&self, packet: &Packet, steps: &mut Vec<String>) -> Option<Outcome> {
        let Packet { source, destination: to, port, protocol, .. } = *packet;
        let found = self.plan.host_port(SocketAddr::new(to, port), protocol)?;
        if !packet.to_node {
            return None;
        }
        let name = protocol.name();
        let owner = &found.owner;
        steps.push(format!("{to} is this node, and {port}/{name} is a host port of {owner}."));
        if found.conditional {
            steps.push(
                "It is only for packets that match the conditions of its network.".to_owned(),
            );
        }
        for one in self.plan.yields().filter(|one| one.host_port == *found) {
            let (place, service) = (one.place, one.service);
            steps
                .push(format!("The host port takes precedence over {place} of service {service}."));
        }
        let masquerade = found.hides(source);
        steps.push(if masquerade {
            "The source address becomes this node's (masquerade).".to_owned()
        } else {
            "The source address is kept (no masquerade).".to_owned()
        });
        let (address, port) = (found.target.ip(), found.target.port());
        Some(Outcome::Endpoints(vec![Choice { address, port, masquerade }]))
    }

    fn find_node_port(&self, packet: &Packet, steps: &mut Vec<String>) -> Option<Found<'a>> {
        let Packet { destination: to, port, protocol, .. } = *packet;
        if !packet.to_node {
            return None;
        }
        let found = self.node_ports.get(&(IpFamily::of(to), port, protocol))?;
        let name = port_name(found.key, &found.port.name);
        let protocol = protocol.name();
        steps.push(format!("{to} is this node, and {port}/{protocol} is the node port of {name}."));
        if self.plan.facts.node_port_addresses.answer(to) {
            return Some(*found);
        }
        steps.push(format!("Node ports do not answer at {to} (--nodeport-addresses)."));
        None
    }
}
