//! Random objects and histories, and a slow and simple way to resolve a service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use causeway_model::{
    Balance, Container, Endpoint, EndpointKey, EndpointRecord, EndpointSlice, Event, HeldRecord,
    Hints, Index, Ingress, IpFamily, IpFamilyPolicy, LabelSet, Labels, LeftOut, Node, Object,
    ObjectKey, ObjectKind, Protocol, Resolved, ResolvedPort, Service, ServicePort, ServiceType,
    SliceEndpoint, SlicePort, TargetPort, TrafficDistribution, TrafficPolicy,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Keys of all services of a history.
pub(crate) fn keys() -> impl Iterator<Item = ObjectKey> {
    ["default", "shop"].into_iter().flat_map(|ns| ["a", "b", "c"].map(|n| ObjectKey::new(ns, n)))
}

fn key() -> impl Strategy<Value = ObjectKey> {
    select(keys().collect::<Vec<_>>())
}

/// Some of a few labels, so that selectors often match.
fn labels() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let pairs = vec![
        ("app", "web"),
        ("tier", "db"),
        ("causeway.io/x", ""),
        ("port.causeway.io/http", "81"),
    ];
    subsequence(pairs, 0..=4)
}

fn label_set() -> impl Strategy<Value = LabelSet> {
    labels().prop_map(|pairs| pairs.into_iter().collect())
}

fn v4() -> impl Strategy<Value = IpAddr> {
    (1u8..6).prop_map(|last| IpAddr::from([10, 0, 1, last]))
}

fn v6() -> impl Strategy<Value = IpAddr> {
    (1u16..6).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, last]))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

/// Any object that documents can say.
pub(crate) fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        full_service().prop_map(Object::Service),
        slice().prop_map(Object::EndpointSlice),
        node().prop_map(Object::Node),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let zone = prop::option::of(select(vec!["z1", "z2"]));
    (select(vec!["node1", "node2"]), zone, prop::option::of(v4())).prop_map(|(name, zone, ip)| {
        Node {
            key: ObjectKey::new("", name),
            created: 0,
            labels: zone.map(|zone| ("topology.kubernetes.io/zone", zone)).into_iter().collect(),
            addresses: ip.into_iter().collect(),
            deleted: name == "node2",
        }
    })
}

fn service_ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let target = prop_oneof![
        (1u16..).prop_map(TargetPort::Number),
        Just(TargetPort::Name("http".into())),
        Just(TargetPort::Name("dns".into())),
    ];
    let one = (protocol(), target, prop::option::of(Just("kubernetes.io/h2c")));
    prop::collection::vec(one, 1..4).prop_map(|ports| {
        let several = ports.len() > 1;
        let port = |(index, (protocol, target, app)): (u16, (_, _, Option<&str>))| ServicePort {
            name: if several { format!("p{index}").into() } else { "".into() },
            protocol,
            port: 80 + index,
            target,
            node_port: None,
            app_protocol: app.map(Into::into),
        };
        (0..).zip(ports).map(port).collect()
    })
}

/// What matters for finding endpoints.
fn service() -> impl Strategy<Value = Service> {
    (key(), label_set(), service_ports(), any::<[bool; 3]>()).prop_map(
        |(key, selector, ports, is)| {
            let mut service = Service::new(key);
            service.selector = selector;
            service.ports = ports.into();
            service.publish_not_ready = is[0];
            service.health_check = is[1];
            service.headless = is[2];
            service
        },
    )
}

fn full_service() -> impl Strategy<Value = Service> {
    let families = select(vec![
        &[][..],
        &[IpFamily::V4],
        &[IpFamily::V6],
        &[IpFamily::V4, IpFamily::V6],
        &[IpFamily::V6, IpFamily::V4],
    ]);
    let policy = select(vec![IpFamilyPolicy::PreferDualStack, IpFamilyPolicy::RequireDualStack]);
    let kind = select(vec![
        ServiceType::ClusterIp,
        ServiceType::NodePort,
        ServiceType::LoadBalancer,
        ServiceType::ExternalName,
    ]);
    (service(), label_set(), kind, families, policy, any::<[bool; 12]>(), any::<u16>()).prop_map(
        |(mut service, labels, kind, families, policy, is, number)| {
            service.labels = labels;
            service.created = u64::from(number) * 40_000;
            service.service_type = kind;
            let odd = "# not: 'a' \"comment\"\n\t\u{1F600}\\";
            service.annotations = is[0].then_some(("example.com/a", odd)).into_iter().collect();
            service.headless &= kind == ServiceType::ClusterIp;
            service.health_check = false;
            service.affinity = is[1].then_some(u32::from(number) + 1);
            service.internal_policy = traffic(is[2]);
            if is[3] {
                service.external_ips = Box::new(["192.0.2.1".parse().expect("an address")]);
            }
            if is[4] {
                service.traffic_distribution = Some(TrafficDistribution::PreferSameNode);
            }
            if kind == ServiceType::ExternalName {
                service.external_name = Some("db.example.com".into());
            } else {
                addresses(&mut service, families, policy, is[5]);
            }
            if matches!(kind, ServiceType::NodePort | ServiceType::LoadBalancer) {
                outside(&mut service, number, &is);
            }
            with_annotation(service, is[11])
        },
    )
}

fn traffic(local: bool) -> TrafficPolicy {
    if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

fn addresses(
    service: &mut Service,
    families: &'static [IpFamily],
    policy: IpFamilyPolicy,
    given: bool,
) {
    service.ip_families = families;
    service.ip_family_policy =
        if families.len() > 1 || given { policy } else { IpFamilyPolicy::SingleStack };
    if given && !service.headless {
        let address = |family: &IpFamily| match family {
            IpFamily::V4 => IpAddr::from([10, 96, 0, 1]),
            IpFamily::V6 => IpAddr::from([0xfd00, 96, 0, 0, 0, 0, 0, 1]),
        };
        service.cluster_ips = families.iter().map(address).collect();
    }
}

fn outside(service: &mut Service, number: u16, is: &[bool; 12]) {
    service.external_policy = traffic(is[6]);
    if is[7] {
        for (index, port) in (0..).zip(&mut service.ports) {
            port.node_port = Some(30_000 + index);
        }
    }
    if service.service_type != ServiceType::LoadBalancer {
        return;
    }
    service.allocate_node_ports = is[8];
    if is[9] {
        service.source_ranges = Box::new(["10.0.0.0/8".parse().expect("a network")]);
        service.load_balancer_class = Some("example.com/lb".into());
        service.load_balancer_ip = Some(IpAddr::from([192, 0, 2, 7]));
    }
    if is[6] {
        service.health_check_node_port = Some(number.max(1));
    }
    if is[10] {
        let ip = Some(IpAddr::from([192, 0, 2, 8]));
        service.ingress = Box::new([
            Ingress { ip, hostname: None, proxy: is[0] },
            Ingress { ip: None, hostname: Some("lb.example.com".into()), proxy: false },
        ]);
    }
}

/// The annotation says what the field says.
fn with_annotation(mut service: Service, sticky: bool) -> Service {
    if sticky {
        let mut annotations = service.annotations.to_map();
        annotations.insert(Service::BALANCE.to_owned(), "source-hash".to_owned());
        service.annotations = annotations.into_iter().collect();
        service.balance = Balance::SourceHash;
    }
    service
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let ports = prop::collection::vec((protocol(), prop::option::weighted(0.9, 1u16..)), 0..4);
    let family = select(vec![IpFamily::V4, IpFamily::V6]);
    let name = select(vec!["s1", "s2", "s3"]);
    let service = prop::option::weighted(0.9, select(vec!["a", "b", "c"]));
    let is = any::<[bool; 2]>();
    let endpoints = prop::collection::vec(endpoint(), 0..4);
    (select(vec!["default", "shop"]), name, service, family, ports, endpoints, is).prop_map(
        |(namespace, name, service, family, ports, endpoints, is)| {
            let mut labels = vec![];
            labels.extend(service.map(|name| (EndpointSlice::SERVICE_NAME, name)));
            labels.extend(is[0].then_some(("service.kubernetes.io/headless", "")));
            let unnamed = is[1] && ports.len() == 1;
            let of_family = |address: &IpAddr| IpFamily::of(*address) == family;
            EndpointSlice {
                key: ObjectKey::new(namespace, name),
                created: 0,
                labels: labels.into_iter().collect(),
                family,
                ports: (0..)
                    .zip(ports)
                    .map(|(index, (protocol, port)): (u16, _)| SlicePort {
                        name: if unnamed { "".into() } else { format!("p{index}").into() },
                        protocol,
                        port,
                    })
                    .collect(),
                endpoints: endpoints
                    .into_iter()
                    .map(|mut one: SliceEndpoint| {
                        one.addresses = one.addresses.iter().copied().filter(of_family).collect();
                        one
                    })
                    .collect(),
            }
        },
    )
}

fn endpoint() -> impl Strategy<Value = SliceEndpoint> {
    let name = || prop::option::of(select(vec!["node1", "node2"]).prop_map(Arc::from));
    let addresses = (prop::collection::vec(v4(), 1..3), prop::collection::vec(v6(), 1..3));
    (addresses, any::<[bool; 5]>(), name(), name(), name()).prop_map(
        |((mut addresses, more), is, node, zone, hostname)| {
            addresses.extend(more);
            let names = || Box::from([Box::from("node1")]);
            SliceEndpoint {
                addresses: addresses.into(),
                ready: is[0],
                serving: is[1],
                terminating: is[2],
                hostname,
                node,
                zone,
                hints: is[3].then(|| Arc::new(Hints { for_nodes: names(), for_zones: names() })),
                target: is[4].then(|| Arc::new(ObjectKey::new("default", "pod"))),
            }
        },
    )
}

/// Names of all nodes.
pub(crate) const NODES: [&str; 2] = ["node1", "node2"];

fn zone() -> impl Strategy<Value = Labels> {
    let name = select(vec!["topology.kubernetes.io/zone", "other"]);
    (name, select(vec!["z1", "z2"]))
        .prop_map(|(name, zone)| Labels::from([(name.to_owned(), zone.to_owned())]))
}

/// What a history leaves of [`Fact::NodeLabels`].
pub(crate) fn published(history: &[Fact]) -> BTreeMap<&'static str, Option<Labels>> {
    let mut all = BTreeMap::new();
    for fact in history {
        if let Fact::NodeLabels(node, labels) = fact {
            all.insert(*node, labels.clone());
        }
    }
    all
}

/// An event that can be given twice.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    Apply(Object),
    Delete(ObjectKind, ObjectKey),
    Attach(&'static str, EndpointRecord),
    Detach(&'static str, EndpointKey),
    Health(&'static str, EndpointKey, bool),
    NodeGone(&'static str),
    NodeLabels(&'static str, Option<Labels>),
    Reset(Vec<Object>),
}

impl Fact {
    pub(crate) fn event(&self) -> Event {
        match self.clone() {
            Self::Apply(object) => Event::Apply(object),
            Self::Delete(kind, key) => Event::Delete(kind, key),
            Self::Attach(node, record) => Event::Attach { node: node.into(), record },
            Self::Detach(node, key) => Event::Detach { node: node.into(), key },
            Self::Health(node, key, healthy) => Event::Health { node: node.into(), key, healthy },
            Self::NodeGone(node) => Event::NodeGone(node.to_owned()),
            Self::NodeLabels(node, labels) => Event::NodeLabels { node: node.to_owned(), labels },
            Self::Reset(objects) => Event::Reset(objects),
        }
    }
}

fn small_object() -> impl Strategy<Value = Object> {
    prop_oneof![
        3 => service().prop_map(Object::Service),
        3 => slice().prop_map(Object::EndpointSlice),
        1 => node().prop_map(Object::Node),
    ]
}

pub(crate) fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        8 => small_object().prop_map(Fact::Apply),
        2 => small_object().prop_map(|one| Fact::Delete(one.kind(), one.key().clone())),
        6 => (select(&NODES), record()).prop_map(|(n, one)| Fact::Attach(n, one)),
        2 => (select(&NODES), record()).prop_map(|(n, one)| Fact::Detach(n, one.key)),
        2 => (select(&NODES), record(), any::<bool>())
            .prop_map(|(n, one, healthy)| Fact::Health(n, one.key, healthy)),
        1 => select(&NODES).prop_map(Fact::NodeGone),
        2 => (select(&NODES), prop::option::of(zone()))
            .prop_map(|(n, labels)| Fact::NodeLabels(n, labels)),
        1 => prop::collection::vec(small_object(), 0..6).prop_map(unique),
    ]
}

/// A source names an object once.
fn unique(mut objects: Vec<Object>) -> Fact {
    let mut seen = Vec::new();
    objects.retain(|one| {
        let id = (one.kind(), one.key().clone());
        let new = !seen.contains(&id);
        seen.push(id);
        new
    });
    Fact::Reset(objects)
}

fn record() -> impl Strategy<Value = EndpointRecord> {
    let namespace = select(vec!["default", "shop"]);
    (0u8..6, labels(), namespace, v4(), prop::option::of(v6())).prop_map(
        |(number, pairs, namespace, v4, v6)| {
            let mut labels: BTreeMap<_, _> =
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            labels.insert(EndpointRecord::POD_NAMESPACE.to_owned(), namespace.to_owned());
            // Two interfaces a container, of which eth0 is on the network that comes last.
            let (network, ifname) = [("n", "eth0"), ("a", "eth1")][usize::from(number % 2)];
            let key = EndpointKey {
                network: network.to_owned(),
                container_id: format!("c{}", number / 2),
                ifname: ifname.to_owned(),
            };
            EndpointRecord {
                key,
                netns: None,
                ips: [v4].into_iter().chain(v6).collect(),
                labels,
                created: 0,
            }
        },
    )
}

/// Text near to what documents look like, and far from it.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let words = select(vec![
        "apiVersion: v1\n",
        "kind: Service\n",
        "kind: List\n",
        "items:\n",
        "- ",
        "  ",
        "metadata:\n",
        "name: a\n",
        "spec:\n",
        "ports:\n",
        "port: 80\n",
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "<<: ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "'",
        "|\n",
        ">-\n",
        "#",
        "\t",
        "\u{0}",
        "\u{feff}",
        "? ",
        "!!str ",
        "%YAML 1.2\n",
        "0x1F",
        "1e999",
        "-",
        "null",
        "\r\n",
        "é",
        "{\"kind\":\"Service\"}",
    ]);
    let near = prop::collection::vec(words, 0..60).prop_map(|words| words.concat());
    let cut =
        (object(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(object, at, c)| {
            let mut text: Vec<char> =
                causeway_model::manifest::to_json(&object).to_string().chars().collect();
            let at = at.index(text.len());
            text[at] = c;
            text.into_iter().collect()
        });
    prop_oneof![near, cut, any::<String>()]
}

/// Resolves by looking at everything.
pub(crate) fn oracle(index: &Index, key: &ObjectKey) -> Option<Resolved> {
    let service = index.services().get(key)?;
    let ports = service.ports.iter().map(|port| {
        let mut endpoints = from_containers(index, service, port);
        endpoints.extend(from_slices(index, service, port));
        // The best of each address and port, by a search for it.
        let better = |a: &Endpoint, b: &Endpoint| {
            let rank = |e: &Endpoint| (e.ready, e.serving, !e.terminating, e.node.is_some());
            rank(a) > rank(b) || (rank(a) == rank(b) && a < b)
        };
        let mut best: Vec<Endpoint> = Vec::new();
        for one in endpoints {
            match best.iter_mut().find(|b| (b.address, b.port) == (one.address, one.port)) {
                Some(other) if better(&one, other) => *other = one,
                Some(_) => {}
                None => best.push(one),
            }
        }
        best.sort();
        ResolvedPort { endpoints: best }
    });
    let (ports, left_out) = (ports.collect(), LeftOut::default());
    Some(Resolved { service: Arc::clone(service), ports, left_out })
}

fn from_containers(index: &Index, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for (one, healthy) in index.containers() {
        let Container { node, record, .. } = one;
        let pod = record.pod();
        // Any attachment of a container is selected, and the lowest of its pod stands for it.
        let selects = |other: &HeldRecord| {
            service.selector.iter().all(|(key, value)| other.labels.get(key) == Some(value))
        };
        let siblings: Vec<&Container> = index
            .containers_of(node)
            .map(|(other, _)| other)
            .filter(|other| other.record.key.container_id == record.key.container_id)
            .filter(|other| other.record.pod() == pod)
            .collect();
        let all = siblings.iter().any(|other| selects(&other.record));
        let first = siblings.iter().all(|other| one.rank() <= other.rank());
        let other_namespace = pod.namespace != service.key.namespace;
        if service.selector.is_empty() || !all || !first || other_namespace {
            continue;
        }
        let number = match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => record
                .labels
                .get(&format!("port.causeway.io/{name}"))
                .and_then(|text| text.parse().ok()),
        };
        let labels = index.node_labels(node);
        let zone = labels.get("topology.kubernetes.io/zone").map(String::as_str);
        let serving = healthy || !service.health_check;
        endpoints.extend(number.into_iter().flat_map(|number| {
            [true, false]
                .into_iter()
                .filter_map(|ipv4| record.ips.iter().find(|ip| ip.is_ipv4() == ipv4))
                .map(|address| Endpoint {
                    address: *address,
                    port: number,
                    ready: serving || service.publish_not_ready,
                    serving,
                    terminating: false,
                    node: Some(Arc::clone(node)),
                    zone: zone.map(Arc::from),
                    hints: None,
                    hostname: Some(Arc::clone(&pod.name)),
                    pod: Some(Arc::new(pod.clone())),
                })
                .collect::<Vec<_>>()
        }));
    }
    endpoints
}

fn from_slices(index: &Index, service: &Service, port: &ServicePort) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for slice in index.slices().values() {
        let named = slice.labels.get("kubernetes.io/service-name") == Some(&service.key.name);
        let hidden =
            slice.labels.contains_key("service.kubernetes.io/headless") && !service.headless;
        if !named || hidden || slice.key.namespace != service.key.namespace {
            continue;
        }
        for slice_port in &slice.ports {
            let (true, Some(number)) = (
                slice_port.name == port.name && slice_port.protocol == port.protocol,
                slice_port.port,
            ) else {
                continue;
            };
            for one in &slice.endpoints {
                endpoints.extend(one.addresses.iter().map(|address| Endpoint {
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
    }
    endpoints
}
