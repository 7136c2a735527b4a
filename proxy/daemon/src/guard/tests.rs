use std::path::Path;

use super::*;
use crate::testing;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn settings() -> Settings {
    Settings {
        store: StoreKind::Etcd,
        etcd_endpoints: ["http://172.18.0.9:2379", "http://[fd00::9]:2389", "http://etcd:2399"]
            .map(str::to_owned)
            .to_vec(),
        overlay: OverlayKind::Vxlan,
        healthz_listen: vec!["0.0.0.0:10256".parse().unwrap()],
        metrics_listen: vec!["127.0.0.1:10249".parse().unwrap()],
        protected_ports: vec![(Protocol::Udp, 51820)],
        ..testing::settings(Path::new("/nowhere"))
    }
}

fn peer(name: &str, ips: &[&str], subnet: &str) -> (String, Peer) {
    let peer = Peer {
        name: name.to_owned(),
        ips: ips.iter().map(|text| ip(text)).collect(),
        subnets: subnet.parse().into_iter().collect(),
        vtep: None,
        mtu: None,
        record: None,
        since: 0,
    };
    (name.to_owned(), peer)
}

fn of(peers: &[(String, Peer)], amid_cluster: bool) -> Guarded {
    let own = Own { name: "n1", ips: &[ip("192.0.2.1")], subnets: &[], amid_cluster };
    let peers = peers.iter().cloned().collect();
    guarded(&settings(), own, &peers, &[ip("198.51.100.9")].into())
}

/// Rows: RH3
#[test]
fn nodes_live_on_their_addresses_their_store_and_certain_ports() {
    let guarded = of(&[peer("n2", &["172.18.0.3", "fd00::3", "172.18.0.4"], "10.0.2.0/24")], false);
    for (address, whose) in [
        ("192.0.2.1", "this node, n1"),
        ("172.18.0.9", "the cluster store"),
        ("fd00::9", "the cluster store"),
        ("198.51.100.9", "the cluster store"),
        ("172.18.0.3", "node n2"),
        ("fd00::3", "node n2"),
        ("10.0.2.0", "the tunnel of node n2"),
        ("10.0.2.255", "the broadcast of node n2"),
    ] {
        assert_eq!(guarded.owner(ip(address)), Some(whose), "{address}");
    }
    assert_eq!(guarded.owner(ip("172.18.0.4")), None, "a node has one address of a family");
    let tcp: Vec<u16> = guarded.ports(Protocol::Tcp).collect();
    assert_eq!(tcp, [22, 2379, 2380, 2389, 2399, 6443, 10250, 10256]);
    assert_eq!(guarded.ports(Protocol::Udp).collect::<Vec<_>>(), [4789, 8472, 51820]);
}

/// Rows: RH3
#[test]
fn a_record_takes_no_address_of_services_and_containers() {
    let liar = [peer("liar", &["10.96.0.10"], ""), peer("other", &["10.0.2.5"], "")];
    assert_eq!(of(&liar, false).owner(ip("10.96.0.10")), None);
    assert_eq!(of(&liar, false).owner(ip("10.0.2.5")), None);
    let odd = [peer("odd", &[], "10.0.2.5/32"), peer("wide", &[], "10.0.0.0/17")];
    assert_eq!(of(&odd, false).owner(ip("10.0.2.5")), None);
    assert_eq!(of(&odd, false).owner(ip("10.0.127.255")), None);
    // If nodes are amid the cluster network that nobody chose, they count there.
    assert_eq!(of(&liar, true).owner(ip("10.0.2.5")), Some("node other"));
    assert_eq!(of(&[peer("lo", &["127.0.0.1"], "")], false).owner(ip("127.0.0.1")), None);
}

/// Rows: RH1
#[test]
fn without_an_overlay_nobody_says_which_part_is_whose() {
    let peers = BTreeMap::from([peer("n2", &[], "10.0.2.0/24"), peer("n3", &[], "")]);
    let ours = ["10.0.1.0/24".parse().unwrap()];
    let own = Own { name: "n1", ips: &[], subnets: &ours, amid_cluster: false };
    assert_eq!(subnets(&settings(), own, &peers).keys().collect::<Vec<_>>(), ["n1", "n2"]);
    let none = Settings { overlay: OverlayKind::None, ..settings() };
    assert_eq!(subnets(&none, own, &peers), BTreeMap::new());
}

#[test]
fn loopback_is_this_machine_alone() {
    for endpoint in ["http://127.0.0.1:2379", "https://[::1]:1", "http://localhost:2379"] {
        assert!(store_url::is_loopback(endpoint), "{endpoint}");
    }
    for endpoint in ["http://172.18.0.10:2379", "http://etcd:2379", "https://[fd00::1]:2379"] {
        assert!(!store_url::is_loopback(endpoint), "{endpoint}");
    }
}

/// Rows: RH1
#[test]
fn names_that_others_wrote_are_short_and_in_one_line() {
    assert_eq!(shown("node-1"), "node-1");
    assert_eq!(shown("a\nb\u{1b}"), "a?b?");
    assert_eq!(shown(&"x".repeat(1 << 20)), format!("{}...", "x".repeat(LONGEST_NAME)));
}
