//! Random services, their histories, and packets to them. Equal seeds give equal things on every
//! machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use causeway_model::{
    Balance, Endpoint, Hints, Ingress, IpFamily, LabelSet, LeftOut, ObjectKey, Protocol, Resolved,
    ResolvedPort, Service, ServicePort, ServiceType, TargetPort, TrafficPolicy,
};
use ipnetwork::IpNetwork;

use super::words::{condition, ready};
use super::{LOCAL, address, facts, is_local};
use crate::plan::{At, Delta, NodePortAddresses, Plan, PlanContext, PortPlan};
use crate::trace::Packet;

/// How many services a history has at most, so that they meet each other's addresses.
const SERVICES: u16 = 12;
const STEPS: usize = 12;
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// A step of a history.
#[derive(Clone, Debug)]
pub struct Step {
    /// All services after it.
    pub services: BTreeMap<ObjectKey, Resolved>,
    /// The plan after it, from the plan before by [`Plan::update`]; before the first an empty one
    /// of equal facts.
    pub plan: Plan,
    /// What the update said.
    pub delta: Delta,
}

/// A generator of numbers: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u16) -> u16 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u16::try_from((value >> 33) % u64::from(bound)).expect("below a u16")
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: u16) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let len = u16::try_from(all.len()).expect("few");
        &all[usize::from(self.below(len))]
    }

    fn policy(&mut self, percent: u16) -> TrafficPolicy {
        if self.chance(percent) { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
    }
}

/// A history of services that come, change and go, with all features, up to 40 endpoints per port,
/// and services that want each other's addresses and node ports.
pub fn random_history(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut plan = Plan::new(random_facts(&mut random));
    let mut services = BTreeMap::new();
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        let mut changed = BTreeSet::new();
        for _ in 0..=random.below(4) {
            let key = key(random.below(SERVICES));
            change(&mut random, &mut services, &key);
            changed.insert(key);
        }
        let mut delta = plan.update(&changed, &|key| services.get(key).cloned());
        if random.chance(40) {
            delta.append(plan.set_containers(containers(&mut random)));
        }
        steps.push(Step { services: services.clone(), plan: plan.clone(), delta });
    }
    steps
}

/// Facts of the world with random settings.
pub fn random_facts(random: &mut Random) -> PlanContext {
    let mut facts = facts();
    facts.masquerade_all = random.chance(15);
    if random.chance(15) {
        facts.cluster_cidrs.truncate(usize::from(random.below(2)));
    }
    if random.chance(15) {
        facts.service_cidrs.truncate(usize::from(random.below(2)));
    }
    let net = |text: &str| text.parse().expect("a network");
    facts.node_port_addresses = match random.below(8) {
        0 => NodePortAddresses::In(vec![net("192.168.0.1/32"), net("fd00:192::1/128")]),
        1 => NodePortAddresses::In(vec![net("192.168.0.0/24"), net("10.0.0.0/8")]),
        2 => NodePortAddresses::In(vec![net("0.0.0.0/0"), net("fd00:10::/32")]),
        _ => NodePortAddresses::All,
    };
    facts
}

fn key(number: u16) -> ObjectKey {
    ObjectKey::new(["a", "b"][usize::from(number % 2)], format!("s{number}"))
}

fn change(random: &mut Random, services: &mut BTreeMap<ObjectKey, Resolved>, key: &ObjectKey) {
    match services.get_mut(key) {
        Some(_) if random.chance(20) => {
            services.remove(key);
        }
        Some(there) if random.chance(60) => {
            for port in &mut there.ports {
                change_endpoints(random, &mut port.endpoints);
            }
        }
        _ => {
            services.insert(key.clone(), random_service(random, key));
        }
    }
}

/// One endpoint less, one more, or another condition: what a rolling update does.
fn change_endpoints(random: &mut Random, endpoints: &mut Vec<Endpoint>) {
    if !endpoints.is_empty() && random.chance(60) {
        let count = u16::try_from(endpoints.len()).expect("few");
        let index = usize::from(random.below(count));
        match random.below(3) {
            0 => drop(endpoints.remove(index)),
            1 => condition(&mut endpoints[index], true, true),
            _ => condition(&mut endpoints[index], false, false),
        }
    } else {
        let mut another = endpoint(random, false);
        if let Some(first) = endpoints.first().filter(|_| random.chance(80)) {
            another.port = first.port;
        }
        endpoints.push(another);
        tidy(endpoints);
    }
}

/// A service of any kind.
pub fn random_service(random: &mut Random, key: &ObjectKey) -> Resolved {
    let mut service = Service::new(key.clone());
    let number = if random.chance(92) { own_number(key) } else { random.below(SERVICES) };
    let (v4, v6) = (vip(false, number), vip(true, number));
    service.cluster_ips = match random.below(6) {
        0 => [v4].into(),
        1 => [v6].into(),
        2 => [v6, v4].into(),
        _ => [v4, v6].into(),
    };
    service.ip_families = IpFamily::list(service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)));
    service.balance =
        *random.pick(&[Balance::Random, Balance::Random, Balance::RoundRobin, Balance::SourceHash]);
    service.affinity = random.chance(20).then(|| *random.pick(&[10, 60, 10_800]));
    service.internal_policy = random.policy(25);
    service.external_policy = random.policy(35);
    let kinds = [ServiceType::ClusterIp, ServiceType::NodePort, ServiceType::LoadBalancer];
    service.service_type = *random.pick(&kinds);
    outside(random, &mut service);
    if random.chance(4) {
        service.headless = true;
    }
    if random.chance(4) {
        service.labels = LabelSet::from_iter([(Service::PROXY_NAME, "other")]);
    }
    service.ports = (0..=random.below(3)).map(|index| port(random, index)).collect();
    let endpoints = service.ports.iter().map(|_| ResolvedPort { endpoints: endpoints(random) });
    let ports = endpoints.collect();
    Resolved { service: Arc::new(service), ports, left_out: LeftOut::default() }
}

fn own_number(key: &ObjectKey) -> u16 {
    key.name.trim_start_matches('s').parse().unwrap_or(0)
}

/// External and load balancer addresses from a small pool, now and then a cluster address.
fn outside(random: &mut Random, service: &mut Service) {
    let pool = |random: &mut Random| {
        let number = 1 + random.below(6);
        let cluster = random.chance(5);
        let ipv6 = random.chance(50);
        if cluster { vip(ipv6, number) } else { far(ipv6, number) }
    };
    if random.chance(30) {
        service.external_ips = (0..=random.below(2)).map(|_| pool(random)).collect();
    }
    if service.service_type != ServiceType::LoadBalancer {
        return;
    }
    let mut ingress = Vec::new();
    for _ in 0..=random.below(3) {
        let (ip, proxy) = (Some(pool(random)), random.chance(20));
        ingress.push(Ingress { ip, hostname: None, proxy });
    }
    service.ingress = ingress.into();
    if random.chance(50) {
        let ranges = ["10.0.0.0/16", "10.0.1.7/24", "192.168.0.0/16", "203.0.113.64/26"];
        let ranges6 = ["fd00:10::/32", "fd00:192::/64", "2001:db8:0:ff::/64", "::/0", "0.0.0.0/0"];
        let all = [&ranges[..], &ranges6[..]].concat();
        let net = |random: &mut Random| random.pick(&all).parse::<IpNetwork>().expect("a network");
        service.source_ranges = (0..=random.below(4)).map(|_| net(random)).collect();
    }
}

fn port(random: &mut Random, index: u16) -> ServicePort {
    ServicePort {
        name: format!("p{index}").into(),
        protocol: *random.pick(&PROTOCOLS),
        port: *random.pick(&[53, 80, 443]),
        target: TargetPort::Number(80),
        node_port: random.chance(80).then(|| 30_000 + random.below(12)),
        app_protocol: None,
    }
}

fn endpoints(random: &mut Random) -> Vec<Endpoint> {
    let count = *random.pick(&[0, 0, 1, 1, 2, 3, 4, 8, 15, 16, 17, 18, 40]);
    let elsewhere = random.chance(20);
    let mut endpoints = Vec::new();
    for _ in 0..count {
        endpoints.push(endpoint(random, elsewhere));
    }
    // Mostly all of a service port listen at one.
    if random.chance(75) {
        let port = *random.pick(&[80, 8080]);
        endpoints.iter_mut().for_each(|endpoint| endpoint.port = port);
    }
    if random.chance(15) {
        let hint = |random: &mut Random| match random.below(6) {
            0 => None,
            1 => Some(Hints { for_nodes: ["n1".into()].into(), for_zones: ["b".into()].into() }),
            _ => Some(Hints { for_nodes: Box::default(), for_zones: ["a".into()].into() }),
        };
        endpoints.iter_mut().for_each(|endpoint| endpoint.hints = hint(random).map(Arc::new));
    }
    tidy(&mut endpoints);
    endpoints
}

fn endpoint(random: &mut Random, elsewhere: bool) -> Endpoint {
    let node = if elsewhere { 2 } else { 1 + random.below(3) };
    let host = 2 + random.below(60);
    let ipv6 = random.chance(40);
    let address = match random.below(20) {
        0 if node == 1 => address(LOCAL[if ipv6 { 3 } else { 0 }]),
        1 | 2 if node == 1 => private(ipv6, 2 + random.below(5)),
        _ => pod(ipv6, node, host),
    };
    let mut endpoint = ready(address, *random.pick(&[80, 8080]));
    endpoint.node = match node {
        1 => Some("n1".into()),
        2 => Some("n2".into()),
        _ => None,
    };
    match random.below(20) {
        0 | 1 => condition(&mut endpoint, false, false),
        2 | 3 => condition(&mut endpoint, true, true),
        4 => condition(&mut endpoint, false, true),
        _ => {}
    }
    endpoint
}

fn tidy(endpoints: &mut Vec<Endpoint>) {
    endpoints.sort();
    endpoints.dedup_by_key(|endpoint| (endpoint.address, endpoint.port));
}

fn low(number: u16) -> u8 {
    u8::try_from(number).expect("a byte")
}

/// The cluster address of this number.
fn vip(ipv6: bool, number: u16) -> IpAddr {
    if ipv6 {
        return Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 10 + number).into();
    }
    Ipv4Addr::new(172, 30, 0, 10 + low(number)).into()
}

/// A container of node `n1`, `n2` or another.
fn pod(ipv6: bool, node: u16, host: u16) -> IpAddr {
    if ipv6 {
        return Ipv6Addr::new(0xfd00, 0x10, 0, node, 0, 0, 0, host).into();
    }
    Ipv4Addr::new(10, 0, low(node), low(host)).into()
}

/// A container of node `n1` outside the cluster networks.
fn private(ipv6: bool, host: u16) -> IpAddr {
    if ipv6 {
        return Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, host).into();
    }
    Ipv4Addr::new(10, 99, 0, low(host)).into()
}

/// Containers of node `n1`, mostly of both kinds.
fn containers(random: &mut Random) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for ipv6 in [false, true] {
        all.extend((0..random.below(5)).map(|_| private(ipv6, 2 + random.below(5))));
        all.extend((0..random.below(9)).map(|_| pod(ipv6, 1, 2 + random.below(60))));
    }
    all
}

/// An address outside.
fn far(ipv6: bool, number: u16) -> IpAddr {
    if ipv6 {
        return Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into();
    }
    Ipv4Addr::new(203, 0, 113, low(number)).into()
}

/// A packet that has to do with the plan: mostly to one of its frontends, from everywhere.
pub fn random_packet(random: &mut Random, plan: &Plan) -> Packet {
    let ports = plan.services.values().flat_map(|service| &service.ports).collect::<Vec<_>>();
    let (destination, protocol, port) = if ports.is_empty() || random.chance(10) {
        let port = *random.pick(&[80, 443, 30_001]);
        (anywhere(random), *random.pick(&PROTOCOLS), port)
    } else {
        aim(random, &ports)
    };
    let source = source(random, destination, &ports);
    let (from_node, to_node) = (is_local(source), is_local(destination));
    Packet { source, from_node, destination, to_node, protocol, port }
}

fn anywhere(random: &mut Random) -> IpAddr {
    let ipv6 = random.chance(40);
    match random.below(4) {
        0 => *random.pick(&LOCAL.map(address)),
        1 => vip(ipv6, random.below(60)),
        2 => pod(ipv6, 1, 2 + random.below(60)),
        _ => far(ipv6, 1 + random.below(8)),
    }
}

/// A frontend of a plan, now and then a bit beside it.
fn aim(random: &mut Random, ports: &[&PortPlan]) -> (IpAddr, Protocol, u16) {
    let plan = *random.pick(ports);
    let (mut to, mut port) = match random.pick(&plan.frontends).at {
        At::Cluster(to, port) | At::External(to, port) => (to, port),
        At::NodePort(port) => {
            let local = LOCAL.map(address);
            let of_family = |to: &IpAddr| IpFamily::of(*to) == plan.family;
            let local = local.into_iter().filter(of_family).collect::<Vec<_>>();
            (*random.pick(&local), port)
        }
    };
    let mut protocol = plan.protocol;
    match random.below(20) {
        0 => port = *random.pick(&[53, 80, 81, 443, 30_003]),
        1 => protocol = *random.pick(&PROTOCOLS),
        2 => to = anywhere(random),
        _ => {}
    }
    (to, protocol, port)
}

fn source(random: &mut Random, to: IpAddr, ports: &[&PortPlan]) -> IpAddr {
    let ipv6 = to.is_ipv6();
    let node = address(LOCAL[if ipv6 { 3 } else { 0 }]);
    if to.is_loopback() {
        return to;
    }
    // Whoever talks to an address of his own has it as source.
    match random.below(12) {
        0 => node,
        10 | 11 => private(ipv6, 2 + random.below(5)),
        1 => address(LOCAL[if ipv6 { 4 } else { 1 }]),
        2 if is_local(to) => to,
        3 | 4 => {
            let targets = ports.iter().flat_map(|port| port.cluster.iter().chain(&port.local));
            let of_family = |address: &IpAddr| address.is_ipv6() == ipv6;
            let own = targets.map(|target| target.address).filter(of_family).collect::<Vec<_>>();
            if own.is_empty() { node } else { *random.pick(&own) }
        }
        5 | 6 => pod(ipv6, 1, 100 + random.below(20)),
        7 => pod(ipv6, 2, 100 + random.below(20)),
        8 => far(ipv6, 1 + random.below(8)),
        _ => far(ipv6, 64 + random.below(20)),
    }
}
