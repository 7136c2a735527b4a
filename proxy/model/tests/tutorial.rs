//! The tutorial's service, from its file to its endpoints.

use std::net::IpAddr;

use causeway_model::allocate::{Allocator, Pools};
use causeway_model::manifest::{Document, from_json, parse, to_json};
use causeway_model::{
    EndpointKey, EndpointRecord, Event, Index, Object, Protocol, Service, ServiceType, TargetPort,
};

/// As the tutorial prints it.
const NODEPORT: &str = include_str!("../../../conf/nodeport.yaml");

fn pools() -> Pools {
    let network = |text: &str| text.parse().expect("a network");
    Pools {
        reserved: Vec::new(),
        service_cidrs: vec![network("10.96.0.0/16")],
        node_ports: (30000, 32767),
        foreign: vec![network("10.0.0.0/16"), network("172.17.0.0/16")],
        guarded: std::sync::Arc::default(),
        balancers: Vec::new(),
        neighbours: Vec::new(),
    }
}

fn only(documents: Vec<Document>) -> Service {
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!((&*documents[0].warnings, &*documents[0].unknown), (&[][..], &[][..]));
    match documents[0].objects.as_deref() {
        Ok([Object::Service(service)]) => service.clone(),
        other => panic!("{other:?}"),
    }
}

/// Rows: S-21, S-33
#[test]
fn the_tutorials_service_has_its_ports_and_endpoints() {
    let service = only(parse(NODEPORT));
    assert_eq!(service.key.to_string(), "default/http-server-svc");
    assert_eq!(service.service_type, ServiceType::NodePort);
    assert_eq!(service.ports[0].target, TargetPort::Number(80));

    let mut allocator = Allocator::default();
    let (service, warnings) = allocator.complete(&pools(), service, None).unwrap();
    assert_eq!(warnings, [""; 0]);
    assert!(pools().service_cidrs[0].contains(service.cluster_ips[0]));
    assert_eq!(service.ports[0].node_port, Some(30080));
    allocator.claim(&service);
    assert_eq!(allocator.node_port(Protocol::Tcp, 30080), Some(&service.key));

    let object = Object::Service(service.clone());
    assert_eq!(from_json(&to_json(&object)).unwrap(), std::slice::from_ref(&object));

    let mut index = Index::default();
    let changes = index.apply(Event::Apply(object));
    assert!(changes.services.contains(&service.key));
    for (number, app) in [(2, "cs-pod"), (3, "cs-pod"), (4, "other")] {
        let changes = index.apply(Event::Attach { node: "node1".into(), record: pod(number, app) });
        assert_eq!(changes.services.contains(&service.key), app == "cs-pod");
    }
    let resolved = index.resolve(&service.key).unwrap();
    let found: Vec<_> = resolved.ports[0]
        .endpoints
        .iter()
        .map(|one| format!("{}:{}", one.address, one.port))
        .collect();
    assert_eq!(found, ["10.0.1.2:80", "10.0.1.3:80"]);
}

fn pod(number: u8, app: &str) -> EndpointRecord {
    EndpointRecord {
        key: EndpointKey {
            network: "causeway".to_owned(),
            container_id: format!("c{number}"),
            ifname: "eth0".to_owned(),
        },
        netns: None,
        ips: vec![IpAddr::from([10, 0, 1, number])],
        labels: [("app".to_owned(), app.to_owned())].into(),
        created: 0,
    }
}

/// Rows: S-21
#[test]
fn the_tutorials_own_address_is_taken_with_a_warning() {
    let text = NODEPORT.replace("type: NodePort", "clusterIP: 172.17.10.10\n  type: NodePort");
    let (service, warnings) =
        Allocator::default().complete(&pools(), only(parse(&text)), None).unwrap();
    assert_eq!(service.cluster_ips[0].to_string(), "172.17.10.10");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let mut overlapping = pools();
    overlapping.service_cidrs = vec!["172.17.10.0/24".parse().unwrap()];
    assert!(overlapping.check().unwrap_err().contains("overlaps 172.17.0.0/16"));
    assert_eq!(pools().check(), Ok(()));
}
