//! A service with its endpoints: from the containers that it selects and from its slices, merged.

use std::net::IpAddr;
use std::sync::Arc;

use super::containers::Container;
use super::{Home, Index};
use crate::manifest::syntax;
use crate::{
    Endpoint, EndpointRecord, EndpointSlice, HeldRecord, Hints, IpFamily, Resolved, ResolvedPort,
    Service, ServicePort, TargetPort, TrafficDistribution,
};

/// Label of a node's zone.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// Label of slices that no proxy reads (row 2).
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(super) fn resolve(index: &Index, service: &Arc<Service>) -> Resolved {
    let addresses_alone = service.headless && service.ports.is_empty();
    let count = if addresses_alone { 1 } else { service.ports.len() };
    let mut ports = vec![ResolvedPort::default(); count];
    for (container, healthy) in index.containers.selected(service) {
        let zone = index.zone(&container.node);
        container_endpoints(service, &index.home, (container, healthy, zone), &mut ports);
    }
    for slice in index.slices_of(&service.key) {
        // Names of headless services come from these very slices.
        let is_ours = service.headless || !slice.labels.contains_key(HEADLESS);
        if is_ours {
            slice_endpoints(service, slice, &mut ports);
        }
    }
    for port in &mut ports {
        merge(&mut port.endpoints);
    }
    Resolved { service: Arc::clone(service), ports }
}

fn container_endpoints(
    service: &Service,
    home: &Home,
    (container, healthy, zone): (&Container, bool, Option<&str>),
    ports: &mut [ResolvedPort],
) {
    let Container { node, record, pod } = container;
    let serving = healthy || !service.health_check;
    let hostname = &pod.name;
    let hints = hints(service, node, zone).map(Arc::new);
    let endpoint = |address| Endpoint {
        address,
        port: 0,
        ready: serving || service.publish_not_ready,
        serving,
        terminating: false,
        node: Some(Arc::clone(node)),
        zone: zone.map(Arc::from),
        hints: hints.clone(),
        hostname: syntax::is_dns_label(hostname).then(|| Arc::clone(hostname)),
        pod: Some(Arc::clone(pod)),
    };
    let add = |resolved: &mut ResolvedPort, number| {
        let ips = record.ips_by_family().filter(|ip| has_family(service, *ip));
        let ips = ips.filter(|ip| home.reaches(node, *ip));
        resolved.endpoints.extend(ips.map(|ip| Endpoint { port: number, ..endpoint(ip) }));
    };
    if service.ports.is_empty() {
        ports.iter_mut().for_each(|resolved| add(resolved, 0));
    }
    for (port, resolved) in service.ports.iter().zip(ports) {
        if let Some(number) = target(port, record) {
            add(resolved, number);
        }
    }
}

/// What Kubernetes' controller writes into slices for `spec.trafficDistribution` (KEP-3015): an
/// endpoint is for its own node and zone.
fn hints(service: &Service, node: &str, zone: Option<&str>) -> Option<Hints> {
    let same_node = match service.traffic_distribution? {
        TrafficDistribution::PreferSameNode => Some(node),
        TrafficDistribution::PreferSameZone | TrafficDistribution::PreferClose => None,
    };
    let names = |name: Option<&str>| name.into_iter().map(Box::from).collect();
    Some(Hints { for_nodes: names(same_node), for_zones: names(zone) })
}

/// Kubernetes makes slices of a service's families only. A service that nobody has completed yet
/// says none.
fn has_family(service: &Service, address: IpAddr) -> bool {
    service.ip_families.is_empty() || service.ip_families.contains(&IpFamily::of(address))
}

/// The container's port for a service port; `None` where it names none.
fn target(port: &ServicePort, record: &HeldRecord) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let label = format!("{}{name}", EndpointRecord::PORT_PREFIX);
            record.labels.get(&label)?.parse().ok().filter(|number| *number > 0)
        }
    }
}

/// Ports are matched by name and protocol (row 5).
fn slice_endpoints(service: &Service, slice: &EndpointSlice, ports: &mut [ResolvedPort]) {
    if service.ports.is_empty() {
        ports.iter_mut().for_each(|resolved| add_all(slice, 0, resolved));
    }
    for (port, resolved) in service.ports.iter().zip(ports) {
        let matching = slice
            .ports
            .iter()
            .find(|other| other.name == port.name && other.protocol == port.protocol);
        let Some(number) = matching.and_then(|port| port.port) else { continue };
        add_all(slice, number, resolved);
    }
}

fn add_all(slice: &EndpointSlice, number: u16, resolved: &mut ResolvedPort) {
    for one in &slice.endpoints {
        resolved.endpoints.extend(one.addresses.iter().map(|address| Endpoint {
            address: *address,
            port: number,
            ready: one.ready,
            serving: one.serving,
            terminating: one.terminating,
            node: one.node.clone(),
            zone: one.zone.clone(),
            hints: one.hints.clone(),
            hostname: one.hostname.clone(),
            pod: one.target.clone(),
        }));
    }
}

/// Ascending by address and port, each once: the most usable, and of those the one of which more is
/// known.
fn merge(endpoints: &mut Vec<Endpoint>) {
    endpoints.sort_by(|one, other| {
        let place = |e: &Endpoint| (e.address, e.port);
        let rank = |e: &Endpoint| (!e.ready, !e.serving, e.terminating, e.node.is_none());
        place(one)
            .cmp(&place(other))
            .then_with(|| rank(one).cmp(&rank(other)))
            .then_with(|| one.cmp(other))
    });
    endpoints.dedup_by(|later, first| (later.address, later.port) == (first.address, first.port));
}
