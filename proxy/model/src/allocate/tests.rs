use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{IpFamilyPolicy, ServicePort, TargetPort, TrafficPolicy, manifest};

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

pub(super) fn pools(networks: &[&str]) -> Pools {
    Pools {
        service_cidrs: networks.iter().map(|text| network(text)).collect(),
        reserved: Vec::new(),
        node_ports: (30000, 32767),
        foreign: vec![network("192.168.0.0/16")],
        guarded: Arc::default(),
        balancers: Vec::new(),
        neighbours: Vec::new(),
    }
}

pub(super) fn both() -> Pools {
    pools(&["10.96.0.0/16", "fd00:96::/108"])
}

pub(super) fn port(protocol: Protocol, port: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort {
        name: format!("{}-{port}", protocol.name()).to_lowercase().into(),
        protocol,
        port,
        target: TargetPort::Number(port),
        node_port,
        app_protocol: None,
    }
}

pub(super) fn service(name: &str, service_type: ServiceType) -> Service {
    let mut service = Service::new(ObjectKey::new("default", name));
    service.service_type = service_type;
    service.ports = [port(Protocol::Tcp, 80, None)].into();
    service
}

fn with_ip(name: &str, address: &str) -> Service {
    let mut service = service(name, ServiceType::ClusterIp);
    service.cluster_ips = [address.parse().unwrap()].into();
    service
}

/// Completes and claims.
fn store(allocator: &mut Allocator, wanted: Service, previous: Option<&Service>) -> Service {
    let (service, _) = allocator.complete(&both(), wanted, previous).unwrap();
    allocator.claim(&service);
    service
}

/// `FIELD: reason` of a refusal.
fn refusal(
    allocator: &Allocator,
    pools: &Pools,
    wanted: Service,
    previous: Option<&Service>,
) -> String {
    let refusal = allocator.complete(pools, wanted, previous).unwrap_err();
    assert_eq!((refusal.line, &*refusal.kind), (0, "Service"));
    format!("{}: {}", refusal.field, refusal.reason)
}

#[test]
fn a_free_address_is_of_the_upper_part_and_the_same_again() {
    let mut allocator = Allocator::default();
    let one = store(&mut allocator, service("a", ServiceType::ClusterIp), None);
    let IpAddr::V4(v4) = one.cluster_ips[0] else { panic!("{one:?}") };
    // KEP-3070: of 65534 addresses the first 256 are for those who ask.
    assert!(v4 >= Ipv4Addr::new(10, 96, 1, 1) && v4 <= Ipv4Addr::new(10, 96, 255, 254));
    assert_eq!(one.ip_families, [IpFamily::V4]);
    assert_eq!(allocator.address(v4.into()), Some(&one.key));

    allocator.release(&one.key);
    assert_eq!(allocator.address(v4.into()), None);
    let again = store(&mut allocator, service("a", ServiceType::ClusterIp), None);
    assert_eq!(again.cluster_ips, one.cluster_ips);
    let other = store(&mut allocator, service("b", ServiceType::ClusterIp), None);
    assert_ne!(other.cluster_ips, one.cluster_ips);
}

/// Rows: S-21
#[test]
fn a_tiny_network_is_used_up_but_for_its_ends() {
    let pools = pools(&["10.96.0.0/29"]);
    let mut allocator = Allocator::default();
    let mut taken = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let wanted = service(name, ServiceType::ClusterIp);
        let (service, warnings) = allocator.complete(&pools, wanted, None).unwrap();
        assert_eq!(warnings, [""; 0]);
        allocator.claim(&service);
        taken.push(service.cluster_ips[0].to_string());
    }
    taken.sort();
    assert_eq!(taken, (1..=6).map(|last| format!("10.96.0.{last}")).collect::<Vec<_>>());
    assert_eq!(
        refusal(&allocator, &pools, service("g", ServiceType::ClusterIp), None),
        "spec.clusterIP: all addresses of 10.96.0.0/29 are allocated"
    );
}

/// Rows: RD12
#[test]
fn a_network_without_room_hands_out_no_address_of_another() {
    for network in ["10.96.0.5/32", "10.96.0.4/31", "0.0.0.0/32", "fd00:96::5/128", "::/128"] {
        let pools = pools(&[network]);
        assert!(pools.check().is_err_and(|why| why.contains("is too small")), "{network}");
        let wanted = format!("spec.clusterIP: {network} is too small for services");
        let asked = service("a", ServiceType::ClusterIp);
        assert_eq!(refusal(&Allocator::default(), &pools, asked, None), wanted);
    }
}

/// Rows: RH3
#[test]
fn what_nodes_live_on_is_refused_and_never_handed_out() {
    let node = ("192.0.2.7".parse().unwrap(), "node n7".to_owned());
    let port = |number| ((Protocol::Tcp, number), "what the settings name".to_owned());
    let guarded = Guarded::new([node], (30000..32767).map(port));
    let pools = Pools { guarded: Arc::new(guarded), ..both() };
    let refused = |wanted| refusal(&Allocator::default(), &pools, wanted, None);
    assert_eq!(
        refused(with_ip("a", "192.0.2.7")),
        "spec.clusterIP: 192.0.2.7 is the address of node n7, which would become unreachable; \
         choose another one or omit the field"
    );
    let mut outside = service("a", ServiceType::ClusterIp);
    outside.external_ips = ["198.51.100.7".parse().unwrap(), "192.0.2.7".parse().unwrap()].into();
    assert!(Allocator::default().complete(&pools, outside.clone(), None).is_ok());
    outside.ports[0].port = 30001;
    let why = refused(outside);
    assert!(why.starts_with("spec.externalIPs[1]: 192.0.2.7 is the address of node n7"), "{why}");
    let mut given = service("a", ServiceType::NodePort);
    given.ports[0].node_port = Some(30001);
    assert!(refused(given).starts_with("spec.ports[0].nodePort: 30001/TCP is used by what"));
    // The only one that is left.
    let wanted = service("a", ServiceType::NodePort);
    let (free, _) = Allocator::default().complete(&pools, wanted, None).unwrap();
    assert_eq!(free.ports[0].node_port, Some(32767));
    // What an earlier version took is given up if the document does not insist.
    let before = with_ip("a", "192.0.2.7");
    let silent = service("a", ServiceType::ClusterIp);
    let (moved, _) = Allocator::default().complete(&pools, silent, Some(&before)).unwrap();
    assert!(network("10.96.0.0/16").contains(moved.cluster_ips[0]), "{:?}", moved.cluster_ips);
}

/// Rows: S-21
#[test]
fn given_addresses_are_taken_or_refused_with_the_reason() {
    let mut allocator = Allocator::default();
    store(&mut allocator, with_ip("a", "10.96.1.100"), None);
    let refused = |address| refusal(&allocator, &both(), with_ip("b", address), None);
    assert_eq!(
        refused("10.96.1.100"),
        "spec.clusterIP: 10.96.1.100 is allocated to service default/a: choose another one or omit \
         the field"
    );
    for end in ["10.96.0.0", "10.96.255.255"] {
        assert!(refused(end).contains("network or broadcast address"), "{end}");
    }
    assert!(refused("127.0.0.1").contains("loopback"));

    let warned = |address| allocator.complete(&both(), with_ip("b", address), None).unwrap().1;
    assert_eq!(warned("10.96.1.101"), [""; 0]);
    assert_eq!(
        warned("172.30.0.1"),
        ["spec.clusterIP: 172.30.0.1 is outside the service network 10.96.0.0/16"]
    );
    assert!(warned("192.168.7.7")[1].contains("is inside 192.168.0.0/16"));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let check = |networks: &[&str], ports: (u16, u16)| {
        let pools = Pools { node_ports: ports, ..pools(networks) };
        pools.check().err().unwrap_or_default()
    };
    let ports = (30000, 32767);
    assert_eq!(check(&["10.96.0.0/16", "fd00::/108"], ports), "");
    assert_eq!(check(&[], ports), "");
    assert!(check(&["192.0.0.0/8"], ports).contains("overlaps 192.168.0.0/16"));
    assert!(check(&["192.168.3.0/24"], ports).contains("overlaps 192.168.0.0/16"));
    assert!(
        check(&["10.0.0.0/16", "10.1.0.0/16"], ports).contains("at most one network per IP family")
    );
    assert!(check(&["10.0.0.0/31"], ports).contains("is too small"));
    assert!(check(&["10.96.0.0/16"], (0, 10)).contains("FIRST-LAST"));
    assert!(check(&["10.96.0.0/16"], (32767, 30000)).contains("FIRST-LAST"));
}

#[test]
fn families_follow_document_and_networks_as_in_kubernetes() {
    let allocator = Allocator::default();
    let families = |families: &[IpFamily], policy, pools: &Pools| {
        let mut wanted = service("a", ServiceType::ClusterIp);
        wanted.ip_families = IpFamily::list(families.iter().copied());
        wanted.ip_family_policy = policy;
        let (service, _) = allocator.complete(pools, wanted, None).map_err(|r| r.field)?;
        let of: Vec<_> = service.cluster_ips.iter().map(|ip| IpFamily::of(*ip)).collect();
        assert_eq!(of, service.ip_families);
        Ok::<_, String>(of)
    };
    let (four, six) = (IpFamily::V4, IpFamily::V6);
    let single = pools(&["10.96.0.0/16"]);
    let six_first = pools(&["fd00:96::/108", "10.96.0.0/16"]);
    let policies = (
        IpFamilyPolicy::SingleStack,
        IpFamilyPolicy::PreferDualStack,
        IpFamilyPolicy::RequireDualStack,
    );
    assert_eq!(families(&[], policies.0, &both()), Ok(vec![four]));
    assert_eq!(families(&[], policies.0, &six_first), Ok(vec![six]));
    assert_eq!(families(&[six], policies.0, &both()), Ok(vec![six]));
    assert_eq!(families(&[], policies.1, &both()), Ok(vec![four, six]));
    assert_eq!(families(&[six], policies.1, &both()), Ok(vec![six, four]));
    assert_eq!(families(&[], policies.1, &single), Ok(vec![four]));
    assert_eq!(families(&[], policies.2, &both()), Ok(vec![four, six]));
    assert_eq!(families(&[], policies.2, &single), Err("spec.ipFamilyPolicy".to_owned()));
    assert_eq!(families(&[six], policies.0, &single), Err("spec.ipFamilies[0]".to_owned()));
    assert_eq!(families(&[], policies.0, &pools(&[])), Err("spec.clusterIP".to_owned()));
}

/// Rows: P22
#[test]
fn an_update_keeps_what_it_does_not_say() {
    let mut allocator = Allocator::default();
    let mut wanted = service("a", ServiceType::NodePort);
    wanted.created = 7;
    let first = store(&mut allocator, wanted, None);
    let again = store(&mut allocator, service("a", ServiceType::NodePort), Some(&first));
    assert_eq!(again, first);

    // A second family comes and goes, the first address stays.
    let mut wanted = service("a", ServiceType::NodePort);
    wanted.ip_family_policy = IpFamilyPolicy::PreferDualStack;
    let dual = store(&mut allocator, wanted, Some(&again));
    assert_eq!((dual.cluster_ips.len(), dual.cluster_ips[0]), (2, first.cluster_ips[0]));
    let single = store(&mut allocator, service("a", ServiceType::NodePort), Some(&dual));
    assert_eq!(single, first);
    assert_eq!(allocator.address(dual.cluster_ips[1]), None, "given back");

    let reason = refusal(&allocator, &both(), with_ip("a", "10.96.9.9"), Some(&first));
    assert!(reason.starts_with("spec.clusterIP: cannot change from"), "{reason}");
    let mut headless = service("a", ServiceType::ClusterIp);
    headless.headless = true;
    let reason = refusal(&allocator, &both(), headless.clone(), Some(&first));
    assert!(reason.contains("from an address to None"), "{reason}");
    // As in Kubernetes, a headless one whose new document is silent stays so.
    let silent = service("a", ServiceType::ClusterIp);
    let (kept, warnings) = allocator.complete(&both(), silent, Some(&headless)).unwrap();
    assert!(kept.headless && kept.cluster_ips.is_empty() && warnings.len() == 1);
    // Made again under its name it may have another address.
    allocator.release(&first.key);
    let new = store(&mut allocator, with_ip("a", "10.96.9.9"), None);
    assert_eq!(new.cluster_ips[0].to_string(), "10.96.9.9");
}

/// Rows: P52
#[test]
fn a_change_of_type_gives_back_node_ports_and_addresses() {
    let mut allocator = Allocator::default();
    let node_port = store(&mut allocator, service("a", ServiceType::NodePort), None);
    let number = node_port.ports[0].node_port.unwrap();
    let cluster_ip = store(&mut allocator, service("a", ServiceType::ClusterIp), Some(&node_port));
    assert_eq!(cluster_ip.cluster_ips, node_port.cluster_ips);
    assert_eq!(cluster_ip.ports[0].node_port, None);
    assert_eq!(allocator.node_port(Protocol::Tcp, number), None);

    let external =
        store(&mut allocator, service("a", ServiceType::ExternalName), Some(&cluster_ip));
    assert!(external.cluster_ips.is_empty());
    assert_eq!(allocator.address(cluster_ip.cluster_ips[0]), None);
    let back = store(&mut allocator, service("a", ServiceType::NodePort), Some(&external));
    assert_eq!(back.ports[0].node_port, Some(number));
}

/// Rows: S-33
#[test]
fn node_ports_are_given_or_free_and_nobody_elses() {
    let mut allocator = Allocator::default();
    let given = |name: &str, protocol, number| {
        let mut service = service(name, ServiceType::NodePort);
        service.ports = [port(protocol, 80, Some(number))].into();
        service
    };
    store(&mut allocator, given("a", Protocol::Tcp, 30080), None);
    assert_eq!(
        refusal(&allocator, &both(), given("b", Protocol::Tcp, 30080), None),
        "spec.ports[0].nodePort: 30080/TCP is allocated to service default/a: choose another one \
         or omit the field"
    );
    assert_eq!(
        refusal(&allocator, &both(), given("b", Protocol::Tcp, 8080), None),
        "spec.ports[0].nodePort: 8080 is outside the node port range 30000-32767"
    );
    // Another protocol is another port.
    store(&mut allocator, given("b", Protocol::Udp, 30080), None);

    // KEP-3668: the first 86 of 2768 are for those who ask; one number for both protocols.
    let mut dns = service("dns", ServiceType::NodePort);
    dns.ports = [port(Protocol::Udp, 53, None), port(Protocol::Tcp, 53, None)].into();
    let dns = store(&mut allocator, dns, None);
    assert_eq!(dns.ports[0].node_port, dns.ports[1].node_port);
    assert!(dns.ports[0].node_port >= Some(30086));

    let narrow = Pools { node_ports: (30080, 30081), ..both() };
    let (last, _) = allocator.complete(&narrow, service("c", ServiceType::NodePort), None).unwrap();
    assert_eq!(last.ports[0].node_port, Some(30081));
    allocator.claim(&last);
    let reason = refusal(&allocator, &narrow, service("d", ServiceType::NodePort), None);
    assert_eq!(reason, "spec.ports[0].nodePort: all node ports 30080-30081 are allocated");
}

/// Rows: P98
#[test]
fn a_load_balancer_without_node_ports_gets_none() {
    let mut allocator = Allocator::default();
    let with = store(&mut allocator, service("a", ServiceType::LoadBalancer), None);
    assert!(with.ports[0].node_port.is_some());
    let mut wanted = service("a", ServiceType::LoadBalancer);
    wanted.allocate_node_ports = false;
    let without = store(&mut allocator, wanted.clone(), Some(&with));
    assert_eq!(without.ports[0].node_port, None);
    // One that is asked for is given all the same.
    wanted.ports[0].node_port = Some(30090);
    let asked = store(&mut allocator, wanted, Some(&without));
    assert_eq!(asked.ports[0].node_port, Some(30090));
}

/// Rows: P83
#[test]
fn a_health_check_node_port_is_there_while_it_is_needed() {
    let mut allocator = Allocator::default();
    let mut wanted = service("a", ServiceType::LoadBalancer);
    wanted.external_policy = TrafficPolicy::Local;
    let local = store(&mut allocator, wanted.clone(), None);
    let number = local.health_check_node_port.unwrap();
    assert_ne!(local.ports[0].node_port, Some(number));
    assert_eq!(allocator.node_port(Protocol::Tcp, number), Some(&local.key));
    assert_eq!(store(&mut allocator, wanted.clone(), Some(&local)), local);

    let mut other = wanted.clone();
    other.key = ObjectKey::new("default", "b");
    other.health_check_node_port = Some(number);
    let reason = refusal(&allocator, &both(), other.clone(), None);
    assert!(reason.starts_with("spec.healthCheckNodePort: ") && reason.contains("default/a"));
    other.health_check_node_port = Some(30077);
    other.ports[0].node_port = Some(30077);
    assert!(refusal(&allocator, &both(), other, None).contains("also the node port of port 80"));

    wanted.external_policy = TrafficPolicy::Cluster;
    let cluster = store(&mut allocator, wanted, Some(&local));
    assert_eq!(cluster.health_check_node_port, None);
    assert_eq!(allocator.node_port(Protocol::Tcp, number), None);
}

#[test]
fn services_stored_with_one_address_leave_it_to_the_first() {
    let mut allocator = Allocator::default();
    let (first, second) = (with_ip("a", "10.96.0.9"), with_ip("b", "10.96.0.9"));
    allocator.claim(&first);
    allocator.claim(&second);
    allocator.release(&second.key);
    assert_eq!(allocator.address(first.cluster_ips[0]), Some(&first.key));
}

proptest! {
    /// Whatever comes and goes, nothing is had by two, all is in its range, and only if there is
    /// really nothing left a request is refused.
    #[test]
    fn nothing_is_given_twice(
        history in prop::collection::vec((0u8..12, 0u8..3, any::<[bool; 4]>(), 0u16..6), 1..60),
    ) {
        let pools = Pools { node_ports: (30000, 30004), ..pools(&["10.96.0.0/29", "fd00:96::/120"]) };
        let mut allocator = Allocator::default();
        let mut stored: BTreeMap<ObjectKey, Service> = BTreeMap::new();
        for (name, kind, is, number) in history {
            let kind = [ServiceType::ClusterIp, ServiceType::NodePort, ServiceType::LoadBalancer]
                [usize::from(kind)];
            let mut wanted = service(&format!("s{name}"), kind);
            let key = wanted.key.clone();
            if is[0] {
                stored.remove(&key);
                allocator.release(&key);
                continue;
            }
            if is[1] {
                wanted.ip_family_policy = IpFamilyPolicy::PreferDualStack;
            }
            if is[2] && kind != ServiceType::ClusterIp {
                wanted.ports[0].node_port = Some(30000 + number);
            }
            if is[3] && kind == ServiceType::LoadBalancer {
                wanted.external_policy = TrafficPolicy::Local;
            }
            let taken = stored.values().filter(|one| one.key != key).flat_map(claims).count();
            match allocator.complete(&pools, wanted, stored.get(&key)) {
                Ok((service, warnings)) => {
                    prop_assert_eq!(&warnings, &[""; 0]);
                    let inside = |ip: &IpAddr| pools.service_cidrs.iter().any(|one| one.contains(*ip));
                    prop_assert!(service.cluster_ips.iter().all(inside));
                    allocator.claim(&service);
                    stored.insert(key, service);
                }
                // Six addresses or five ports, or a given port.
                Err(refusal) => prop_assert!(is[2] || taken >= 4, "{refusal}"),
            }
            let all: Vec<_> = stored.values().flat_map(claimed).collect();
            let once: BTreeSet<_> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), once.len());
            let known: BTreeSet<_> = allocator.taken.keys().copied().collect();
            prop_assert_eq!(&once, &known);
            prop_assert_eq!(allocator.owned.len(), known.len());
        }
    }
}

#[test]
fn claims_are_named_once_each() {
    let mut service = with_ip("web", "10.96.0.1");
    service.cluster_ips = ["10.96.0.1".parse().unwrap(), "fd00:96::1".parse().unwrap()].into();
    service.ports = [
        port(Protocol::Tcp, 80, Some(30001)),
        port(Protocol::Udp, 53, Some(30001)),
        port(Protocol::Tcp, 81, None),
    ]
    .into();
    service.health_check_node_port = Some(30001);
    let expected = ["address/10.96.0.1", "address/fd00:96::1", "port/tcp/30001", "port/udp/30001"];
    assert_eq!(claims(&service), expected);
}

/// `get -o yaml`, another type, `apply`: what belongs to the former type goes. What was changed, or
/// never was, is refused.
/// Rows: RD7
#[test]
fn fields_of_a_former_type_are_dropped_where_they_are_unchanged() {
    let pools = both();
    let allocator = Allocator::default();
    let read = |json: &serde_json::Value| match manifest::from_json(json).unwrap().remove(0) {
        crate::Object::Service(service) => service,
        other @ (crate::Object::EndpointSlice(_) | crate::Object::Node(_)) => panic!("{other:?}"),
    };
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "allocateLoadBalancerNodePorts": true,
            "loadBalancerClass": "example.com/lb",
            "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    });
    let (balanced, _) = allocator.complete(&pools, read(&document), None).unwrap();
    let written = manifest::to_json(&crate::Object::Service(balanced.clone()));
    for kind in ["ClusterIP", "ExternalName"] {
        let mut changed = written.clone();
        changed["spec"]["type"] = kind.into();
        if kind == "ExternalName" {
            changed["spec"]["externalName"] = "web.example.com".into();
        }
        // By way of the command line.
        let changed = read(&manifest::to_json(&crate::Object::Service(read(&changed))));
        let (service, _) = allocator.complete(&pools, changed.clone(), Some(&balanced)).unwrap();
        assert!(service.ports.iter().all(|port| port.node_port.is_none()));
        assert_eq!(service.health_check_node_port, None);
        assert_eq!(service.load_balancer_class, None);
        assert_eq!(service.misplaced, None);
        assert_eq!(service.cluster_ips.is_empty(), kind == "ExternalName");
        let refused = allocator.complete(&pools, changed.clone(), None).unwrap_err();
        assert_eq!(refused.field, "spec.ports[0].nodePort");
        let again = allocator.complete(&pools, changed, Some(&service)).unwrap_err();
        assert_eq!(again.field, "spec.ports[0].nodePort");
    }
    let mut cluster = written.clone();
    cluster["spec"]["type"] = "ClusterIP".into();
    for (path, value, field) in [
        ("/spec/ports/1/nodePort", serde_json::json!(31_999), "spec.ports[0].nodePort"),
        ("/spec/externalTrafficPolicy", "Cluster".into(), "spec.externalTrafficPolicy"),
        ("/spec/loadBalancerClass", "example.com/b".into(), "spec.loadBalancerClass"),
        ("/spec/healthCheckNodePort", 31_999.into(), "spec.healthCheckNodePort"),
        ("/spec/allocateLoadBalancerNodePorts", false.into(), "spec.allocateLoadBalancerNodePorts"),
    ] {
        let mut changed = cluster.clone();
        *changed.pointer_mut(path).unwrap() = value;
        let refused = allocator.complete(&pools, read(&changed), Some(&balanced)).unwrap_err();
        assert_eq!(refused.field, field, "{path}");
    }
}
