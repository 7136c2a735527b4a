//! Node ports, the health check's among them.

use std::collections::BTreeMap;

use crate::{Protocol, Service, ServiceType, TrafficPolicy};

use super::{Claim, Refused, Work, by, gap, refused, search, start};

impl Work<'_> {
    /// Settles node ports and the health check node port.
    pub(super) fn ports(&mut self, service: &mut Service) -> Result<(), Refused> {
        if !matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer) {
            return Ok(());
        }
        self.given_ports(service)?;
        let wanted = service.service_type == ServiceType::NodePort || service.allocate_node_ports;
        if wanted {
            self.kept_ports(service);
            self.free_ports(service)?;
        }
        self.health_port(service)
    }

    fn given_ports(&self, service: &Service) -> Result<(), Refused> {
        for (index, port) in service.ports.iter().enumerate() {
            if let Some(number) = port.node_port {
                let field = format!("spec.ports[{index}].nodePort");
                self.given_port(port.protocol, number, (&field, service))?;
            }
        }
        Ok(())
    }

    fn given_port(
        &self,
        protocol: Protocol,
        number: u16,
        (field, service): (&str, &Service),
    ) -> Result<(), Refused> {
        let (first, last) = self.pools.node_ports;
        let kept = self.previous.is_some_and(|previous| has(previous, protocol, number));
        if !(first..=last).contains(&number) && !kept {
            return refused(
                field,
                format!("{number} is outside the node port range {first}-{last}"),
            );
        }
        if let Some(why) = self.pools.guarded.node_port(number, protocol) {
            return refused(field, why);
        }
        match self.allocator.other(Claim::Port(protocol, number), &service.key) {
            Some(owner) => refused(
                field,
                format!(
                    "{number}/{} is allocated to {}: choose another one or omit the field",
                    protocol.name(),
                    by(owner)
                ),
            ),
            None => Ok(()),
        }
    }

    /// A port whose number and protocol there were before keeps its node port.
    fn kept_ports(&self, service: &mut Service) {
        let Some(previous) = self.previous else { return };
        for index in 0..service.ports.len() {
            let port = &service.ports[index];
            let before = previous
                .ports
                .iter()
                .find(|other| (other.protocol, other.port) == (port.protocol, port.port))
                .and_then(|other| other.node_port);
            if let (None, Some(number)) = (port.node_port, before)
                && self.port_free(service, port.protocol, number)
            {
                service.ports[index].node_port = Some(number);
            }
        }
    }

    /// Ports of one number and several protocols get one node port if they can, as for DNS.
    fn free_ports(&self, service: &mut Service) -> Result<(), Refused> {
        let mut by_number: BTreeMap<u16, u16> = service
            .ports
            .iter()
            .filter_map(|port| port.node_port.map(|number| (port.port, number)))
            .collect();
        for index in 0..service.ports.len() {
            let port = &service.ports[index];
            if port.node_port.is_some() {
                continue;
            }
            let shared = by_number
                .get(&port.port)
                .copied()
                .filter(|number| self.port_free(service, port.protocol, *number));
            let number = match shared {
                Some(number) => number,
                None => {
                    let purpose = port.port.to_string();
                    self.free_port(service, port.protocol, &purpose).ok_or_else(|| {
                        let (first, last) = self.pools.node_ports;
                        let reason = format!("all node ports {first}-{last} are allocated");
                        (format!("spec.ports[{index}].nodePort"), reason)
                    })?
                }
            };
            by_number.insert(port.port, number);
            service.ports[index].node_port = Some(number);
        }
        Ok(())
    }

    fn health_port(&self, service: &mut Service) -> Result<(), Refused> {
        const FIELD: &str = "spec.healthCheckNodePort";
        let wanted = service.service_type == ServiceType::LoadBalancer
            && service.external_policy == TrafficPolicy::Local;
        if !wanted {
            service.health_check_node_port = None;
            return Ok(());
        }
        if let Some(number) = service.health_check_node_port {
            let own = |port: &&crate::ServicePort| {
                (port.protocol, port.node_port) == (Protocol::Tcp, Some(number))
            };
            if let Some(port) = service.ports.iter().find(own) {
                let reason = format!("{number} is also the node port of port {}", port.port);
                return refused(FIELD, reason);
            }
            return self.given_port(Protocol::Tcp, number, (FIELD, service));
        }
        let before = self.previous.and_then(|previous| previous.health_check_node_port);
        let kept = before.filter(|number| self.port_free(service, Protocol::Tcp, *number));
        let found = kept.or_else(|| self.free_port(service, Protocol::Tcp, "health"));
        let (first, last) = self.pools.node_ports;
        service.health_check_node_port = Some(found.ok_or_else(|| {
            (FIELD.to_owned(), format!("all node ports {first}-{last} are allocated"))
        })?);
        Ok(())
    }

    /// Whether neither another service, nor another port of this one, nor the nodes have it.
    fn port_free(&self, service: &Service, protocol: Protocol, number: u16) -> bool {
        self.allocator.other(Claim::Port(protocol, number), &service.key).is_none()
            && !has(service, protocol, number)
            && self.pools.guarded.node_port(number, protocol).is_none()
    }

    fn free_port(&self, service: &Service, protocol: Protocol, purpose: &str) -> Option<u16> {
        let (first, last) = self.pools.node_ports;
        let (from, to) = (u128::from(first), u128::from(last));
        let size = to - from + 1;
        // As KEP-3668: a thirty-second, not less than 16 and not more than 128.
        let band = if size < 16 { 0 } else { (size / 32).clamp(16, 128).min(size) };
        let narrow = |number: u128| u16::try_from(number).unwrap_or(u16::MAX);
        let free = |from: u128, to: u128| {
            let claims = Claim::Port(protocol, narrow(from))..=Claim::Port(protocol, narrow(to));
            let others =
                self.allocator.taken.range(claims).filter_map(|(claim, owner)| match claim {
                    Claim::Port(_, number) if *owner != service.key => Some(*number),
                    Claim::Port(..) | Claim::Address(_) => None,
                });
            let mut taken: Vec<u16> = others.collect();
            let guarded = self.pools.guarded.ports(protocol);
            let more = own(service, protocol).chain(guarded);
            taken.extend(more.filter(|number| *number >= narrow(from)));
            taken.sort_unstable();
            gap(from, to, taken.into_iter().map(u128::from))
        };
        let lower = if band == 0 { (1, 0) } else { (from, from + band - 1) };
        let hash = start(&service.key, &format!("{}/{purpose}", protocol.name()));
        search(hash, [(from + band, to), lower], free).map(narrow)
    }
}

/// Node ports of a protocol that a service has.
fn own(service: &Service, protocol: Protocol) -> impl Iterator<Item = u16> {
    let health = service.health_check_node_port.filter(|_| protocol == Protocol::Tcp);
    service
        .ports
        .iter()
        .filter(move |port| port.protocol == protocol)
        .filter_map(|port| port.node_port)
        .chain(health)
}

fn has(service: &Service, protocol: Protocol, number: u16) -> bool {
    own(service, protocol).any(|other| other == number)
}
