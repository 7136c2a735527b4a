//! A service with its endpoints: from the containers that it selects and from its slices, merged.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::Index;
use super::containers::Container;
use crate::limits::{self, Excess, Load};
use crate::manifest::syntax;
use crate::{
    Endpoint, EndpointRecord, EndpointSlice, HeldRecord, Hints, IpFamily, LeftOut, ObjectKey,
    Resolved, ResolvedPort, Service, ServicePort, TargetPort, TrafficDistribution,
};

/// Label of a node's zone.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// Label of slices that no proxy reads (row 2).
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(super) fn resolve(index: &Index, service: &Arc<Service>) -> Resolved {
    let addresses_alone = service.headless && service.ports.is_empty();
    let count = if addresses_alone { 1 } else { service.ports.len() };
    let mut ports = vec![ResolvedPort::default(); count];
    let mut left_out = LeftOut::default();
    if let Err(excess) = limits::service(service) {
        left_out.service = Some(excess);
        return Resolved { service: Arc::clone(service), ports, left_out };
    }
    let mut load = Load::of(&**service);
    for (container, healthy) in index.containers.selected(service) {
        let Container { node, record, .. } = container;
        let ips = record.ips_by_family().filter(|ip| has_family(service, *ip));
        let ips: Vec<IpAddr> = ips.filter(|ip| index.home.reaches(node, *ip)).collect();
        if let Err(excess) = load.add_container(ips.iter().copied()) {
            left_out.containers.get_or_insert((0, excess)).0 += 1;
            continue;
        }
        let zone = index.zone(node);
        container_endpoints(service, (container, healthy, zone), &ips, &mut ports);
    }
    for slice in slices(index, service) {
        match load.add(slice) {
            Ok(()) => slice_endpoints(&load.ports_of(slice), slice, &mut ports),
            Err(excess) => left_out.slices.push((slice.key.clone(), excess)),
        }
    }
    for port in &mut ports {
        merge(&mut port.endpoints);
    }
    Resolved { service: Arc::clone(service), ports, left_out }
}

/// The slices that a service has endpoints of.
fn slices<'a>(
    index: &'a Index,
    service: &'a Service,
) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
    index.slices_of(&service.key).filter(|slice| is_for(service, slice))
}

/// Names of headless services come from the very slices that no proxy reads.
fn is_for(service: &Service, slice: &EndpointSlice) -> bool {
    service.headless || !slice.labels.contains_key(HEADLESS)
}

/// See [`Index::load`].
pub(super) fn load<'a, S: Deref<Target = Service> + Clone>(
    index: &Index,
    service: &S,
    replaced: &BTreeSet<ObjectKey>,
    by: impl Iterator<Item = &'a EndpointSlice>,
) -> Result<Load<S>, Excess> {
    limits::service(service)?;
    let mut load = Load::of(service.clone());
    for (Container { node, record, .. }, _) in index.containers.selected(service) {
        let ips = record.ips_by_family().filter(|ip| has_family(service, *ip));
        load.add_container(ips.filter(|ip| index.home.reaches(node, *ip)))?;
    }
    for slice in slices(index, service).filter(|slice| !replaced.contains(&slice.key)) {
        load.add(slice)?;
    }
    for slice in by.filter(|slice| is_for(service, slice)) {
        load.add(slice)?;
    }
    Ok(load)
}

fn container_endpoints(
    service: &Service,
    (container, healthy, zone): (&Container, bool, Option<&str>),
    ips: &[IpAddr],
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
        let each = ips.iter().map(|ip| Endpoint { port: number, ..endpoint(*ip) });
        resolved.endpoints.extend(each);
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

/// The container's port for a service port; `None` if it names none.
fn target(port: &ServicePort, record: &HeldRecord) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let label = format!("{}{name}", EndpointRecord::PORT_PREFIX);
            record.labels.get(&label)?.parse().ok().filter(|number| *number > 0)
        }
    }
}

fn slice_endpoints(of_slice: &[(usize, u16)], slice: &EndpointSlice, ports: &mut [ResolvedPort]) {
    for (index, number) in of_slice {
        if let Some(resolved) = ports.get_mut(*index) {
            add_all(slice, *number, resolved);
        }
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
