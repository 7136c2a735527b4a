use std::net::IpAddr;
use std::sync::Arc;

use causeway_model::{Index, ObjectKey, Resolved};
use hickory_proto::rr::RecordType;

use crate::fixture::{index, own, settings};
use crate::{ServiceNames, Zone};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, ports: [{name: sql, port: 1}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-a, namespace: default, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints:
- {addresses: [10.244.0.3], hostname: b, zone: z1}
- {addresses: [10.244.0.2], hostname: a, zone: z1}
- {addresses: [10.244.0.1], zone: z2}
- {addresses: [10.244.0.4], conditions: {ready: false}}
ports: [{name: sql, port: 5432}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-a, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.3]}]
ports: [{port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: 10.96.0.53, ports: [{name: dns, protocol: UDP, port: 53}]}
";

fn resolved(index: &Index, namespace: &str, name: &str) -> Resolved {
    index.resolve(&ObjectKey::new(namespace, name)).expect("it is there")
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn owners(zone: &Zone, address: &str) -> Vec<String> {
    zone.owners(ip(address)).map(|(key, _)| key.to_string()).collect()
}

#[test]
fn only_headless_services_keep_their_endpoints() {
    let index = index(SERVICES);
    let web = ServiceNames::of(&resolved(&index, "default", "web"));
    assert!(web.hosts().is_empty() && !web.is_headless());
    assert_eq!(web.cluster_ips(), [ip("10.96.0.1")]);

    let db = ServiceNames::of(&resolved(&index, "default", "db"));
    let hosts = db.hosts().iter().map(|host| (host.hostname.as_deref(), host.address));
    let expected =
        [(None, ip("10.244.0.1")), (Some("a"), ip("10.244.0.2")), (Some("b"), ip("10.244.0.3"))];
    assert_eq!(hosts.collect::<Vec<_>>(), expected);
    assert_eq!(db.hosts_of_port(0), [(0, 5432), (1, 5432), (2, 5432)]);
    assert_eq!(db.hosts_of_port(1), []);
    assert_eq!((db.hosts_by_name("b"), db.hosts_by_name("c")), (2..3, 3..3));
    assert_eq!(db.host_by_address(ip("10.244.0.1")), Some(0));
    assert_eq!(db.host_by_address(ip("10.244.0.2")), None, "that one has a host name");
    let zone = |index: usize| db.hosts()[index].zone.as_ref().expect("a zone");
    assert!(Arc::ptr_eq(zone(1), zone(2)), "equal zones are one string");
}

#[test]
fn a_change_changes_names_and_addresses_of_its_service_alone() {
    let index = index(SERVICES);
    let mut zone = Zone::new(settings());
    let names = |name: &str| Some(ServiceNames::of(&resolved(&index, "default", name)));
    let key = |name: &str| ObjectKey::new("default", name);
    zone.put(key("db"), names("db"));
    zone.put(key("web"), names("web"));
    assert_eq!(owners(&zone, "10.244.0.3"), ["default/db"]);
    assert_eq!(owners(&zone, "10.244.0.4"), <[&str; 0]>::default(), "not ready");
    assert_eq!(owners(&zone, "10.96.0.1"), ["default/web"]);
    // Another service with one of the addresses, which then goes from the first.
    zone.put(key("a"), names("db"));
    assert_eq!(owners(&zone, "10.244.0.3"), ["default/a", "default/db"]);
    zone.put(key("db"), names("web"));
    assert_eq!(owners(&zone, "10.244.0.3"), ["default/a"]);
    assert_eq!(owners(&zone, "10.96.0.1"), ["default/db", "default/web"]);
    for name in ["a", "db", "web"] {
        zone.put(key(name), None);
    }
    assert!(!zone.has_namespace("default"));
    assert!(!zone.names_between(ip("10.244.0.0"), ip("10.244.255.255")));
}

#[test]
fn what_the_index_has_anew_is_shared_again() {
    let (first, second) = (index(SERVICES), index(SERVICES));
    let mut zone = Zone::new(settings());
    let key = ObjectKey::new("default", "web");
    zone.put(key.clone(), Some(ServiceNames::of(&resolved(&first, "default", "web"))));
    let serial = zone.serial();
    let again = resolved(&second, "default", "web");
    zone.put(key, Some(ServiceNames::of(&again)));
    assert_eq!(zone.serial(), serial, "nothing changed");
    drop(second);
    // Here and in the zone.
    assert_eq!(Arc::strong_count(&again.service), 2);
}

#[test]
fn the_dns_service_stands_where_no_other_of_its_name_does() {
    let index = index(SERVICES);
    let mut zone = Zone::new(settings());
    zone.set_synced();
    let addresses = |zone: &Zone| {
        let reply = own(zone, "kube-dns.kube-system.svc.cluster.local.", RecordType::A);
        reply.answers.iter().filter_map(|one| one.data.ip_addr()).collect::<Vec<_>>()
    };
    let key = ObjectKey::new("kube-system", "kube-dns");
    assert_eq!(addresses(&zone), [ip("10.96.0.10")]);
    assert_eq!(owners(&zone, "fd00:96::a"), ["kube-system/kube-dns"]);
    let other = ServiceNames::of(&resolved(&index, "kube-system", "kube-dns"));
    zone.put(key.clone(), Some(other.clone()));
    assert_eq!(addresses(&zone), [ip("10.96.0.53")]);
    assert_eq!(owners(&zone, "10.96.0.10"), <[&str; 0]>::default());
    zone.put(key.clone(), None);
    assert_eq!(addresses(&zone), [ip("10.96.0.10")]);

    // Without addresses of its own, the name server has those of a service of that name.
    let mut without = settings();
    without.vips.clear();
    let mut zone = Zone::new(without);
    zone.set_synced();
    let server = |zone: &Zone| own(zone, "ns.dns.cluster.local.", RecordType::A).answers.len();
    assert_eq!((server(&zone), zone.has_namespace("kube-system")), (0, false));
    zone.put(key, Some(other));
    assert_eq!(server(&zone), 1);
}

#[test]
fn a_namespace_is_there_as_long_as_a_service_or_a_pod_is() {
    let mut zone = Zone::new(settings());
    let namespace: Arc<str> = Arc::from("jobs");
    zone.put_pod(&namespace, ip("10.244.0.9"));
    zone.put_pod(&namespace, ip("10.244.0.8"));
    assert!(zone.has_pod("jobs", ip("10.244.0.9")) && !zone.has_pod("other", ip("10.244.0.9")));
    zone.remove_pod("jobs", ip("10.244.0.9"));
    zone.remove_pod("other", ip("10.244.0.8"));
    assert!(zone.has_namespace("jobs") && !zone.has_pod("jobs", ip("10.244.0.9")));
    zone.remove_pod("jobs", ip("10.244.0.8"));
    assert!(!zone.has_namespace("jobs"));
}
