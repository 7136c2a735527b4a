//! The test language.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use causeway_model::{
    Balance, Endpoint, Ingress, IpFamily, LabelSet, LeftOut, ObjectKey, Protocol, Resolved,
    ResolvedPort, Service, ServicePort, ServiceType, TargetPort, TrafficPolicy,
};

use super::{LOCAL, address, is_local};
use crate::trace::Packet;

/// A service in words: `[NS/]NAME IP[,IP] OPTION.. PORT -> ENDPOINT.. [, PORT -> ENDPOINT..]`.
///
/// - PORT: `80/tcp`, with node port `80/tcp:30080`, with name `80/tcp:30080=http` or `80/tcp=http`
/// - ENDPOINT: `10.0.1.2:8080` or `[fd00:10:0:1::2]:8080`, then in any order `@n1` its node, `%a`
///   its zone, `!unready`, `!draining` (terminating and serving), `!dead` (terminating),
///   `!published` (terminating, ready by `publishNotReadyAddresses`), `^n1+n2` hints for nodes, `^^a+b` hints for zones
/// - OPTION: `internal=local`, `external=local`, `affinity=60`, `balance=round-robin` or
///   `source-hash`, `ext=IP` external address, `lb=IP` load balancer address, `lb-proxy=IP` one of
///   `ipMode: Proxy`, `lb-host=NAME`, `allow=CIDR` source range, `headless`, `external-name`,
///   `label=KEY`
///
/// # Panics
/// It is none.
pub fn service(text: &str) -> Resolved {
    let (head, tail) = text.split_once(" -> ").unwrap_or_else(|| panic!("no ' -> ' in {text}"));
    let mut head = head.split_whitespace().collect::<Vec<_>>();
    let port = head.pop().expect("a port");
    let (mut service, mut ports) = (begin(head[0], head[1]), Vec::new());
    for word in &head[2..] {
        option(&mut service, word);
    }
    let rest = format!("{port} -> {tail}");
    let mut specs = Vec::new();
    for part in rest.split(',') {
        let (spec, endpoints) = part.split_once("->").expect("PORT -> ENDPOINTS");
        specs.push(service_port(spec.trim()));
        let mut endpoints = endpoints.split_whitespace().map(endpoint).collect::<Vec<_>>();
        endpoints.sort();
        ports.push(ResolvedPort { endpoints });
    }
    service.ports = specs.into();
    if service.service_type == ServiceType::ClusterIp
        && service.ports.iter().any(|port| port.node_port.is_some())
    {
        service.service_type = ServiceType::NodePort;
    }
    Resolved { service: Arc::new(service), ports, left_out: LeftOut::default() }
}

/// A packet in words: `SOURCE -> ADDRESS:PORT/PROTOCOL`; SOURCE is an address or `node`.
///
/// # Panics
/// It is none.
pub fn packet(text: &str) -> Packet {
    let (source, to) = text.split_once(" -> ").expect("SOURCE -> DESTINATION");
    let (to, protocol) = to.trim().split_once('/').expect("ADDRESS:PORT/PROTOCOL");
    let to = socket(to);
    let source = match source.trim() {
        "node" if to.ip().is_loopback() => to.ip(),
        "node" if to.is_ipv4() => address(LOCAL[0]),
        "node" => address(LOCAL[3]),
        source => address(source),
    };
    Packet {
        source,
        from_node: is_local(source),
        destination: to.ip(),
        to_node: is_local(to.ip()),
        protocol: protocol_of(protocol),
        port: to.port(),
    }
}

fn begin(name: &str, addresses: &str) -> Service {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let mut service = Service::new(ObjectKey::new(namespace, name));
    let addresses = addresses.split(',').filter(|text| *text != "-").map(address);
    service.cluster_ips = addresses.collect();
    service.ip_families = IpFamily::list(service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)));
    service
}

fn option(service: &mut Service, word: &str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let ingress = |proxy| Ingress { ip: Some(address(value)), hostname: None, proxy };
    match key {
        "internal" => service.internal_policy = policy(value),
        "external" => service.external_policy = policy(value),
        "affinity" => service.affinity = Some(value.parse().expect("seconds")),
        "balance" => service.balance = balance(value),
        "ext" => push(&mut service.external_ips, address(value)),
        "lb" => push(&mut service.ingress, ingress(false)),
        "lb-proxy" => push(&mut service.ingress, ingress(true)),
        "lb-host" => {
            let hostname = Some(value.into());
            push(&mut service.ingress, Ingress { ip: None, hostname, proxy: false });
        }
        "allow" => push(&mut service.source_ranges, value.parse().expect("a network")),
        "headless" => service.headless = true,
        "external-name" => service.service_type = ServiceType::ExternalName,
        "label" => service.labels = LabelSet::from_iter([(value, "")]),
        _ => panic!("{word} is no option"),
    }
    if key.starts_with("lb") || key == "allow" {
        service.service_type = ServiceType::LoadBalancer;
    }
}

fn push<T: Clone>(list: &mut Box<[T]>, item: T) {
    *list = list.iter().cloned().chain([item]).collect();
}

fn policy(text: &str) -> TrafficPolicy {
    match text {
        "local" => TrafficPolicy::Local,
        "cluster" => TrafficPolicy::Cluster,
        _ => panic!("{text} is no policy"),
    }
}

fn balance(text: &str) -> Balance {
    match text {
        "random" => Balance::Random,
        "round-robin" => Balance::RoundRobin,
        "source-hash" => Balance::SourceHash,
        _ => panic!("{text} is no balance"),
    }
}

fn service_port(text: &str) -> ServicePort {
    let (text, name) = text.split_once('=').unwrap_or((text, ""));
    let (text, node_port) = match text.split_once(':') {
        Some((text, port)) => (text, Some(port.parse().expect("a node port"))),
        None => (text, None),
    };
    let (port, protocol) = text.split_once('/').expect("PORT/PROTOCOL");
    ServicePort {
        name: name.into(),
        protocol: protocol_of(protocol),
        port: port.parse().expect("a port"),
        target: TargetPort::Number(80),
        node_port,
        app_protocol: None,
    }
}

fn protocol_of(text: &str) -> Protocol {
    match text {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => panic!("{text} is no protocol"),
    }
}

fn endpoint(text: &str) -> Endpoint {
    let end = text.find(['@', '%', '!', '^']).unwrap_or(text.len());
    let at = socket(&text[..end]);
    let mut endpoint = ready(at.ip(), at.port());
    let mut rest = &text[end..];
    while !rest.is_empty() {
        let start = rest.find(|c| !"@%!^".contains(c)).expect("a value");
        let (mark, after) = rest.split_at(start);
        let end = after.find(['@', '%', '!', '^']).unwrap_or(after.len());
        flag(&mut endpoint, mark, &after[..end]);
        rest = &after[end..];
    }
    endpoint
}

/// A ready endpoint of no known node.
pub(super) fn ready(address: IpAddr, port: u16) -> Endpoint {
    Endpoint {
        address,
        port,
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        zone: None,
        hints: None,
        hostname: None,
        pod: None,
    }
}

fn flag(endpoint: &mut Endpoint, mark: &str, value: &str) {
    let names = || value.split('+').map(Box::from).collect::<Box<[Box<str>]>>();
    let mut hints = endpoint.hints.as_deref().cloned().unwrap_or_default();
    match (mark, value) {
        ("@", node) => endpoint.node = Some(node.into()),
        ("%", zone) => endpoint.zone = Some(zone.into()),
        ("!", "unready") => condition(endpoint, false, false),
        ("!", "draining") => condition(endpoint, true, true),
        ("!", "dead") => condition(endpoint, false, true),
        ("!", "published") => endpoint.terminating = true,
        ("^", _) => {
            hints.for_nodes = names();
            endpoint.hints = Some(Arc::new(hints));
        }
        ("^^", _) => {
            hints.for_zones = names();
            endpoint.hints = Some(Arc::new(hints));
        }
        _ => panic!("{mark}{value} says nothing of an endpoint"),
    }
}

/// Makes an endpoint one that is not ready.
pub(super) fn condition(endpoint: &mut Endpoint, serving: bool, terminating: bool) {
    endpoint.ready = false;
    endpoint.serving = serving;
    endpoint.terminating = terminating;
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no ADDRESS:PORT"))
}
