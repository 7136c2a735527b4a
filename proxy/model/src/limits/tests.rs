use super::*;
use crate::Resolved;
use crate::{ObjectKey, SliceEndpoint, SlicePort};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn web(ports: u16, external: u32) -> Service {
    let mut service = Service::new(key("web"));
    service.cluster_ips = ["10.96.0.1".parse().unwrap()].into();
    let port = |number: u16| ServicePort {
        name: format!("p{number}").into(),
        protocol: Protocol::Tcp,
        port: number,
        target: crate::TargetPort::Number(number),
        node_port: None,
        app_protocol: None,
    };
    service.ports = (1..=ports).map(port).collect();
    let address = |number| IpAddr::from(std::net::Ipv4Addr::from_bits(0xcb00_0000 + number));
    service.external_ips = (0..external).map(address).collect();
    service
}

/// Endpoints of the first so many ports.
fn slice(ports: u16, endpoints: u32) -> EndpointSlice {
    let port = |number: u16| SlicePort {
        name: format!("p{number}").into(),
        protocol: Protocol::Tcp,
        port: Some(number),
    };
    let address = |number| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
    EndpointSlice {
        key: key("a"),
        created: 0,
        labels: crate::LabelSet::default(),
        family: IpFamily::V4,
        ports: (1..=ports).map(port).collect(),
        endpoints: (0..endpoints).map(|number| SliceEndpoint::ready(address(number))).collect(),
    }
}

/// Rows: RH6
#[test]
fn the_limits_of_a_service_itself() {
    assert_eq!(service(&web(10_000, 0)), Ok(()));
    assert_eq!(service(&web(10_001, 0)), Err(Excess::Ports(10_001)));
    assert_eq!(service(&web(1000, 999)), Ok(()));
    assert_eq!(service(&web(1000, 1000)), Err(Excess::Ways(1_001_000)));
    let mut on_nodes = web(10_000, 99);
    assert_eq!(service(&on_nodes), Ok(()));
    on_nodes.ports[7].node_port = Some(30_000);
    assert_eq!(service(&on_nodes), Err(Excess::Ways(1_010_000)));
}

/// Rows: RH6
#[test]
fn endpoints_count_by_port_and_ways_by_address() {
    let of_15 = web(15, 0);
    let mut load = Load::of(&of_15);
    assert_eq!(load.add(&slice(15, 65_535)), Ok(()));
    let full = Excess::Endpoints { port: "p1 (1)".to_owned(), count: 65_536 };
    assert_eq!(load.add(&slice(1, 1)), Err(full));
    load.remove(&slice(15, 65_535));
    assert_eq!(load.add(&slice(15, 65_536)).map_err(|one| one.to_string().len() > 10), Err(true));
    assert_eq!(load.add(&slice(1, 65_535)), Ok(()));

    let of_many = web(10_000, 0);
    let mut load = Load::of(&of_many);
    assert_eq!(load.add(&slice(10_000, 100)), Ok(()));
    assert_eq!(load.add(&slice(1, 1)), Err(Excess::Ways(1_000_001)));
    let container = || ["10.0.0.9".parse().unwrap()].into_iter();
    assert_eq!(load.add_container(container()), Err(Excess::Ways(1_010_000)));
    load.remove(&slice(10_000, 100));
    assert_eq!((0..100).try_for_each(|_| load.add_container(container())), Ok(()));
    assert_eq!(load.add_container(container()), Err(Excess::Ways(1_010_000)));
}

/// 36 KB of JSON that stand for twelve million.
///
/// Rows: RH6
#[test]
fn what_multiplies_is_counted_and_not_made() {
    let wide = web(240, 249);
    assert_eq!(service(&wide), Ok(()));
    assert_eq!(Load::of(&wide).add(&slice(240, 200)), Err(Excess::Ways(12_000_000)));
}

/// A slice serves the ports whose name and protocol it has, among few as among many.
///
/// Rows: RH6
#[test]
fn ports_are_found_by_name_and_protocol() {
    for ports in [3, 300] {
        let mut named = web(ports, 0);
        named.ports[1].protocol = Protocol::Udp;
        let mut slice = slice(ports, 1);
        slice.ports.reverse();
        slice.ports[0].port = None;
        let found = Load::of(&named).ports_of(&slice);
        let wanted = (1..ports).rev().filter(|number| *number != 2);
        assert_eq!(
            found,
            wanted.map(|number| (usize::from(number) - 1, number)).collect::<Vec<_>>()
        );
    }
}

/// Rows: RH6
#[test]
fn iptables_takes_less() {
    let resolved = |ports: u16, endpoints: u32| {
        let of_port = slice(1, endpoints).endpoints;
        let endpoint = |one: &SliceEndpoint| crate::Endpoint {
            address: one.addresses[0],
            port: 80,
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            zone: None,
            hints: None,
            hostname: None,
            pod: None,
        };
        let endpoints = of_port.iter().map(endpoint).collect();
        Resolved {
            service: std::sync::Arc::new(web(ports, 0)),
            ports: vec![crate::ResolvedPort { endpoints }; usize::from(ports)],
            left_out: crate::LeftOut::default(),
        }
    };
    assert_eq!(resolved(5, 10_000).fits_iptables(), Ok(()));
    let one = Excess::Iptables { port: Some("p1 (1)".to_owned()), count: 10_001 };
    assert_eq!(resolved(1, 10_001).fits_iptables(), Err(one));
    let all = Excess::Iptables { port: None, count: 60_000 };
    assert_eq!(resolved(6, 10_000).fits_iptables(), Err(all));
}

/// There is no limit for all services together that these would reach.
///
/// Rows: RH6
#[test]
fn a_hundred_thousand_services_with_half_a_million_endpoints_pass() {
    use crate::{Event, Index, Object};
    let mut index = Index::default();
    let template = (web(1, 0), slice(1, 5));
    let named = |number: u32| {
        let (mut service, mut slice) = template.clone();
        service.key = key(&format!("s{number}"));
        slice.key = service.key.clone();
        let name = service.key.name.to_string();
        slice.labels = [(EndpointSlice::SERVICE_NAME, name)].into_iter().collect();
        [Object::Service(service), Object::EndpointSlice(slice)]
    };
    index.apply(Event::Reset((0..100_000).flat_map(named).collect()));
    let all = index.services().keys().filter_map(|key| index.resolve(key));
    let counts = all.map(|one| (one.left_out.is_empty(), one.ports[0].endpoints.len()));
    assert_eq!(counts.filter(|count| *count == (true, 5)).count(), 100_000);
}
