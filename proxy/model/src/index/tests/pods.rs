//! A container with several attachments is one pod: one endpoint, by the attachment that counts.

use super::*;

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 172.30.0.1
  selector: {app: web}
  ports: [{port: 80}]
";

/// An attachment of `container`, made at `created`.
fn joined(network: &str, ifname: &str, ips: &str, created: u64, labels: &[&str]) -> Event {
    let labels = labels.iter().map(|label| label.split_once('=').unwrap());
    let record = EndpointRecord {
        key: on(network, ifname),
        netns: None,
        ips: ips.split(',').map(|ip| ip.parse().unwrap()).collect(),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        created,
    };
    Event::Attach { node: "n1".into(), record }
}

fn on(network: &str, ifname: &str) -> EndpointKey {
    EndpointKey { network: network.into(), container_id: "c".into(), ifname: ifname.into() }
}

fn left(network: &str, ifname: &str) -> Event {
    Event::Detach { node: "n1".into(), key: on(network, ifname) }
}

fn web() -> Changes {
    Changes { services: [key("web")].into(), ..Changes::default() }
}

/// A container in two networks is one endpoint: that of eth0, whichever network comes first.
///
/// Rows: RB3
#[test]
fn a_container_in_two_networks_is_one_endpoint() {
    let mut index = index(WEB, &["other@n1 10.0.9.9 app=web"]);
    index.apply(joined("back", "eth1", "10.0.2.7", 1, &["app=web"]));
    check(&index, "web", &["10.0.2.7:80 10.0.9.9:80"]);
    assert_eq!(index.apply(joined("front", "eth0", "10.0.1.7", 2, &["app=web"])), web());
    check(&index, "web", &["10.0.1.7:80 10.0.9.9:80"]);
    assert_eq!(index.apply(left("front", "eth0")), web());
    check(&index, "web", &["10.0.2.7:80 10.0.9.9:80"]);
}

/// Without eth0 the earliest that is attached still; within a second, by interface.
///
/// Rows: RB3
#[test]
fn without_eth0_the_earliest_attachment_counts() {
    let mut index = index(WEB, &[]);
    index.apply(joined("a", "eth10", "10.0.1.1", 5, &["app=web"]));
    index.apply(joined("b", "eth2", "10.0.2.1", 5, &["app=web"]));
    index.apply(joined("c", "eth3", "10.0.3.1", 4, &["app=web"]));
    check(&index, "web", &["10.0.3.1:80"]);
    assert_eq!(index.apply(left("c", "eth3")), web());
    check(&index, "web", &["10.0.2.1:80"]);
    index.apply(left("b", "eth2"));
    check(&index, "web", &["10.0.1.1:80"]);
}

/// A service asks for another network by name; containers that are not in it are none of it.
///
/// Rows: RB3
#[test]
fn a_service_asks_for_another_network_by_annotation() {
    let back = WEB.replace("{name: web}", "{name: web, annotations: {causeway.io/network: back}}");
    let mut index = index(&back, &["other@n1 10.0.9.9 app=web"]);
    index.apply(joined("front", "eth0", "10.0.1.7", 1, &["app=web"]));
    check(&index, "web", &[""]);
    assert_eq!(index.apply(joined("back", "eth1", "10.0.2.7", 1, &["app=web"])), web());
    check(&index, "web", &["10.0.2.7:80"]);
}

/// A label that only one network gives selects the pod, whose address is that of eth0.
///
/// Rows: RB3
#[test]
fn a_pod_is_selected_by_the_labels_of_any_of_its_attachments() {
    let mut index = index(WEB, &[]);
    index.apply(joined("back", "eth1", "10.0.2.7", 1, &["app=web"]));
    assert_eq!(index.apply(joined("front", "eth0", "10.0.1.7", 1, &["tier=x"])), web());
    check(&index, "web", &["10.0.1.7:80"]);
}

/// Two addresses of one family are one endpoint.
///
/// Rows: RB3
#[test]
fn a_pod_has_one_address_of_a_family() {
    let index = index(WEB, &["a@n1 10.0.1.2,10.0.1.3,fd00::2 app=web"]);
    check(&index, "web", &["10.0.1.2:80"]);
    let (one, _) = index.containers().next().unwrap();
    let ips: Vec<String> = one.record.ips_by_family().map(|ip| ip.to_string()).collect();
    assert_eq!(ips, ["10.0.1.2", "fd00::2"]);
}

/// Containers of one name are pods of their own.
///
/// Rows: RB3
#[test]
fn containers_of_one_pod_name_are_endpoints_each() {
    let named = "app=web causeway.io/pod-name=same";
    let index = index(WEB, &[&format!("a@n1 10.0.1.2 {named}"), &format!("b@n1 10.0.1.3 {named}")]);
    check(&index, "web", &["10.0.1.2:80 10.0.1.3:80"]);
}
