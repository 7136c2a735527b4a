//! One service to its plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use causeway_model::{
    Endpoint, Guarded, Hints, IpFamily, Resolved, Service, ServicePort, ServiceType, TrafficPolicy,
};
use ipnetwork::IpNetwork;

use super::claims::Place;
use super::{At, Decision, Frontend, Masquerade, PlanContext, Pool, PortPlan, ServicePlan, Target};

/// The places that a service asks for, ascending: those that it may have, and those that nodes live
/// on. Without a cluster address there is nothing of a family.
pub(super) fn wants(guarded: &Guarded, resolved: &Resolved) -> (Vec<Place>, Vec<Place>) {
    let (mut places, mut denied) = (Vec::new(), Vec::new());
    for (family, address) in addresses(&resolved.service) {
        let outside = external_addresses(&resolved.service, family);
        let has_cluster = guarded.cluster(address).is_none();
        for port in ports(resolved) {
            let number = port.spec.port;
            let protocol = port.spec.protocol;
            let external = |address| Place::External(address, number, protocol);
            let mut all = vec![Place::Cluster(address)];
            all.extend(outside.keys().copied().map(external));
            all.extend(port.node_port.map(|port| Place::NodePort(family, port, protocol)));
            let (refused, free): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|place| place.denial(guarded).is_some());
            denied.extend(refused);
            places.extend(free.into_iter().filter(|_| has_cluster));
        }
    }
    for all in [&mut places, &mut denied] {
        all.sort_unstable();
        all.dedup();
    }
    (places, denied)
}

/// The places that a planned service has, ascending.
pub(super) fn places(plan: &ServicePlan) -> Vec<Place> {
    let mut places = Vec::new();
    for port in &plan.ports {
        places.extend(port.frontends.iter().map(|frontend| match frontend.at {
            At::Cluster(address, _) => Place::Cluster(address),
            At::External(address, number) => Place::External(address, number, port.protocol),
            At::NodePort(number) => Place::NodePort(port.family, number, port.protocol),
        }));
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// The plan of a service that has the places of which `has` says so. `None`: no rules.
pub(super) fn service(
    facts: &PlanContext,
    resolved: &Resolved,
    has: &dyn Fn(&Place) -> bool,
) -> Option<ServicePlan> {
    let addresses = addresses(&resolved.service);
    let mut plans = Vec::new();
    for port in ports(resolved) {
        for (family, address) in &addresses {
            if has(&Place::Cluster(*address)) {
                let context = Context { facts, service: &resolved.service, family: *family, has };
                plans.push(context.port(*address, &port));
            }
        }
    }
    (!plans.is_empty()).then(|| ServicePlan { ports: plans.into() })
}

/// A port of a service that has rules.
struct ProxiedPort<'a> {
    spec: &'a ServicePort,
    node_port: Option<u16>,
    endpoints: &'a [Endpoint],
}

/// Ports that make rules, each number once a protocol.
fn ports(resolved: &Resolved) -> Vec<ProxiedPort<'_>> {
    let service = &*resolved.service;
    // One over the limits has no rules, not even such that refuse.
    if !service.is_proxied() || resolved.left_out.service.is_some() {
        return Vec::new();
    }
    let on_nodes =
        matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer);
    let (mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for (spec, resolved) in service.ports.iter().zip(&resolved.ports) {
        let protocol = spec.protocol;
        if numbers.insert((protocol, spec.port)) {
            let node_port = spec.node_port.filter(|port| on_nodes && *port != 0);
            let node_port = node_port.filter(|port| node_ports.insert((protocol, *port)));
            ports.push(ProxiedPort { spec, node_port, endpoints: &resolved.endpoints });
        }
    }
    ports
}

/// The cluster address of each family, IPv4 first.
fn addresses(service: &Service) -> Vec<(IpFamily, IpAddr)> {
    let of = |family| service.cluster_ips.iter().find(move |ip| IpFamily::of(**ip) == family);
    let families = [IpFamily::V4, IpFamily::V6].into_iter();
    families.filter_map(|family| Some((family, *of(family)?))).collect()
}

/// Addresses beside the cluster address, with whether they are a load balancer's.
fn external_addresses(service: &Service, family: IpFamily) -> BTreeMap<IpAddr, bool> {
    let mut addresses = BTreeMap::new();
    addresses.extend(service.external_ips.iter().map(|address| (*address, false)));
    addresses.extend(balancer_addresses(service).map(|address| (address, true)));
    addresses.retain(|address, _| {
        IpFamily::of(*address) == family && !service.cluster_ips.contains(address)
    });
    addresses
}

/// Load balancer addresses that are handled on the node (row 55).
fn balancer_addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let balanced = service.service_type == ServiceType::LoadBalancer;
    let ingress = service.ingress.iter().filter(move |ingress| balanced && !ingress.proxy);
    ingress.filter_map(|ingress| ingress.ip)
}

/// What the plan of one port in one family is made from.
struct Context<'a> {
    facts: &'a PlanContext,
    service: &'a Service,
    family: IpFamily,
    has: &'a dyn Fn(&Place) -> bool,
}

impl Context<'_> {
    fn port(&self, address: IpAddr, port: &ProxiedPort<'_>) -> PortPlan {
        let mut pools = Pools::of(self.facts, self.family, port.endpoints);
        let frontends = self.frontends(address, port, &pools);
        let reads_local = |frontend: &Frontend| match frontend.decision {
            Decision::Reject | Decision::Drop => false,
            Decision::Balance { pool, .. } => pool == Pool::Local,
            Decision::ByOrigin => true,
        };
        if !frontends.iter().any(reads_local) {
            pools.local.clear();
        }
        PortPlan {
            name: port.spec.name.clone(),
            family: self.family,
            protocol: port.spec.protocol,
            vip: (address, port.spec.port),
            balance: self.service.balance,
            affinity: self.service.affinity,
            cluster: pools.cluster.into(),
            local: pools.local.into(),
            frontends: frontends.into(),
        }
    }

    fn frontends(&self, address: IpAddr, port: &ProxiedPort<'_>, pools: &Pools) -> Vec<Frontend> {
        let ProxiedPort { spec: ServicePort { port: number, protocol, .. }, node_port, .. } = *port;
        let internal = pools.internal(self.service.internal_policy, self.facts.masquerade_all);
        let decision = pools.external(self.service.external_policy);
        let at = At::Cluster(address, *number);
        let mut frontends = vec![Frontend { at, decision: internal, allow: None }];
        for (address, is_balancer) in external_addresses(self.service, self.family) {
            if (self.has)(&Place::External(address, *number, *protocol)) {
                let at = At::External(address, *number);
                let allow = if is_balancer { self.allow() } else { None };
                frontends.push(Frontend { at, decision, allow });
            }
        }
        let has = |port: &u16| (self.has)(&Place::NodePort(self.family, *port, *protocol));
        let at = node_port.filter(has).map(At::NodePort);
        frontends.extend(at.map(|at| Frontend { at, decision, allow: None }));
        frontends
    }

    /// Sources that may use the load balancer addresses. Ranges of one family alone let nobody of
    /// the other in.
    fn allow(&self) -> Option<Box<[IpNetwork]>> {
        if self.service.source_ranges.is_empty() {
            return None;
        }
        let mine = |net: &&IpNetwork| IpFamily::of(net.ip()) == self.family;
        let ranges = self.service.source_ranges.iter().filter(mine).copied();
        let mut ranges = ranges.collect::<Vec<_>>();
        if self.facts.node_ips.iter().any(|ip| ranges.iter().any(|net| net.contains(*ip))) {
            // The node reaches an address that is bound on itself with that address as source.
            let own = balancer_addresses(self.service).map(IpNetwork::from);
            ranges.extend(own.filter(|net| mine(&net)));
        }
        let ranges = outermost(ranges);
        let all = ranges.first().is_some_and(|net| net.prefix() == 0);
        (!all).then(|| ranges.into())
    }
}

/// The networks that lie in no other one, ascending, without host bits.
fn outermost(nets: Vec<IpNetwork>) -> Vec<IpNetwork> {
    let clean = |net: IpNetwork| IpNetwork::new(net.network(), net.prefix()).ok();
    let mut nets = nets.into_iter().filter_map(clean).collect::<Vec<_>>();
    nets.sort_by_key(|net| (net.ip(), net.prefix()));
    // A network sorts before what lies in it, and all that lies between the two lies in it too.
    nets.dedup_by(|later, earlier| earlier.contains(later.ip()));
    nets
}

/// The two lists of endpoints that may be used.
struct Pools {
    cluster: Vec<Target>,
    local: Vec<Target>,
}

impl Pools {
    fn of(facts: &PlanContext, family: IpFamily, endpoints: &[Endpoint]) -> Self {
        let mine = |endpoint: &&Endpoint| IpFamily::of(endpoint.address) == family;
        let endpoints = endpoints.iter().filter(mine).collect::<Vec<_>>();
        let here = |endpoint: &&&Endpoint| endpoint.node.as_deref() == Some(&*facts.node);
        let local = endpoints.iter().filter(here).copied().collect::<Vec<_>>();
        Self {
            cluster: targets(facts, &hinted(facts, usable(&endpoints))),
            local: targets(facts, &usable(&local)),
        }
    }

    fn internal(&self, policy: TrafficPolicy, masquerade_all: bool) -> Decision {
        let masquerade = if masquerade_all { Masquerade::Always } else { Masquerade::Outside };
        match policy {
            _ if self.cluster.is_empty() => Decision::Reject,
            TrafficPolicy::Cluster => Decision::Balance { pool: Pool::Cluster, masquerade },
            TrafficPolicy::Local if self.local.is_empty() => Decision::Drop,
            TrafficPolicy::Local => Decision::Balance { pool: Pool::Local, masquerade },
        }
    }

    fn external(&self, policy: TrafficPolicy) -> Decision {
        let masquerade = Masquerade::Always;
        match policy {
            _ if self.cluster.is_empty() => Decision::Reject,
            TrafficPolicy::Cluster => Decision::Balance { pool: Pool::Cluster, masquerade },
            TrafficPolicy::Local => Decision::ByOrigin,
        }
    }
}

/// The ready endpoints; if there are none, those that still serve while they terminate.
fn usable<'a>(endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    let some = |usable: fn(&Endpoint) -> bool| {
        endpoints.iter().filter(|endpoint| usable(endpoint)).copied().collect::<Vec<_>>()
    };
    let ready = some(|endpoint| endpoint.ready);
    if ready.is_empty() { some(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
}

/// The endpoints that hints give this node: those for the node, else those for its zone; all if
/// one of them has no hint or none is for us. Endpoints that only serve have no say (rows 66, 68).
fn hinted<'a>(facts: &PlanContext, usable: Vec<&'a Endpoint>) -> Vec<&'a Endpoint> {
    if usable.iter().any(|endpoint| !endpoint.ready) {
        return usable;
    }
    let node = for_us(&usable, &facts.node, |hints| &hints.for_nodes);
    let zone = || for_us(&usable, facts.zone.as_deref()?, |hints| &hints.for_zones);
    node.or_else(zone).unwrap_or(usable)
}

fn for_us<'a>(
    endpoints: &[&'a Endpoint],
    us: &str,
    names: fn(&Hints) -> &[Box<str>],
) -> Option<Vec<&'a Endpoint>> {
    let mut ours = Vec::new();
    for endpoint in endpoints {
        let names = endpoint.hints.as_deref().map(names).filter(|names| !names.is_empty())?;
        if names.iter().any(|name| **name == *us) {
            ours.push(*endpoint);
        }
    }
    (!ours.is_empty()).then_some(ours)
}

/// In order, each address and port once.
fn targets(facts: &PlanContext, endpoints: &[&Endpoint]) -> Vec<Target> {
    let target = |endpoint: &&Endpoint| Target {
        address: endpoint.address,
        port: endpoint.port,
        here: endpoint.node.as_deref().is_none_or(|node| node == facts.node),
    };
    let mut targets = endpoints.iter().map(target).collect::<Vec<_>>();
    targets.sort_unstable();
    targets.dedup_by_key(|target| (target.address, target.port));
    targets
}
