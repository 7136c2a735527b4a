//! Overlays and families: vxlan, host-gw, direct routing; IPv4, IPv6 and both, inside and outside.

use causeway_tests::cluster::{Cluster, Placed, Setup, all_ping, asked, service, socket};
use causeway_tests::steady::{fragments, transfer};
use causeway_tests::{Etcd, Lab};
use serde_json::json;

const BOTH: &str = "http-server-svc";

/// What a cluster of two nodes must do, whatever carries it: `mtu` is what containers have.
fn works(cluster: &Cluster<'_>, mtu: usize) {
    let pods = [cluster.pod(0, "app:cs-pod"), cluster.pod(1, "app:cs-pod")];
    let families = usize::from(cluster.setup.v4) + usize::from(cluster.setup.v6);
    assert_eq!(all_ping(&pods), 2 * families);
    services(cluster, &pods);
    for ip in &pods[1].ips {
        largest_packet(&pods[0], ip, mtu);
    }
    let before = count_fragments(cluster, &pods);
    for ip in &pods[1].ips {
        transfer(&pods[0], &pods[1], &socket(ip, 9000), 9000, 10_000_000);
    }
    assert_eq!(count_fragments(cluster, &pods), before, "fragments");
}

fn services(cluster: &Cluster<'_>, pods: &[Placed]) {
    let (mut families, mut vips) = (Vec::new(), Vec::new());
    if cluster.setup.v4 {
        families.push("IPv4");
        vips.push("10.96.1.100");
    }
    if cluster.setup.v6 {
        families.push("IPv6");
        vips.push("fd00:96::100");
    }
    let policy = if vips.len() == 2 { "RequireDualStack" } else { "SingleStack" };
    let more = json!({ "ipFamilyPolicy": policy, "ipFamilies": families, "clusterIPs": vips });
    cluster.daemons[1].apply(&[service(vips[0], &more)]);
    cluster.endpoints(BOTH, 2 * vips.len());
    for (family, vip) in vips.iter().enumerate() {
        let expected: Vec<&String> = pods.iter().map(|pod| &pod.ips[family]).collect();
        for from in [&*pods[0], &*pods[1], &*cluster.lab.nodes[0], &*cluster.lab.nodes[1]] {
            let got = asked(from, &socket(vip, 8080), 2);
            assert_eq!(got.iter().collect::<Vec<_>>(), expected, "{} to {vip}", from.name());
        }
        let node = match vip.contains(':') {
            true => Lab::node_address6(1),
            false => Lab::node_address(1),
        };
        let got = asked(&cluster.lab.client, &socket(&node, 30080), 2);
        assert_eq!(got.iter().collect::<Vec<_>>(), expected, "by the node port at {node}");
    }
}

/// A packet of exactly the MTU arrives whole, one of a byte more does not leave.
fn largest_packet(from: &Placed, to: &str, mtu: usize) {
    let headers = if to.contains(':') { 48 } else { 28 };
    for (size, fits) in [(mtu - headers, true), (mtu - headers + 1, false)] {
        let done = from.try_sh(&format!("ping -n -c 1 -W 2 -M do -s {size} {to}"));
        assert_eq!(done.status.success(), fits, "{}", done.describe());
    }
}

fn count_fragments(cluster: &Cluster<'_>, pods: &[Placed]) -> u64 {
    let nodes = cluster.lab.nodes.iter().map(|node| fragments(node));
    nodes.chain(pods.iter().map(|pod| fragments(pod))).sum()
}

/// Rows: O-09, O-24
#[test]
fn vxlan_over_ipv4_carries_both_families() {
    let lab = Lab::with_nodes(2);
    works(&Cluster::start(&lab, Setup::default().dual()), 1450);
}

/// Rows: O-09
#[test]
fn vxlan_over_ipv6_carries_both_families() {
    let lab = Lab::with_nodes(2);
    let setup = (0..2).fold(Setup::default().dual(), |setup, node| {
        let ips = format!("{},{}", Lab::node_address6(node), Lab::node_address(node));
        setup.own(node, "--node-ip", &ips)
    });
    works(&Cluster::start(&lab, setup), 1430);
}

/// Rows: O-09
#[test]
fn ipv6_alone_over_ipv6() {
    let lab = Lab::with_nodes(2);
    let mut setup = (0..2).fold(Setup::default().dual(), |setup, node| {
        setup.own(node, "--node-ip", &Lab::node_address6(node))
    });
    setup.v4 = false;
    // Nothing answers at the first address.
    let etcd = Etcd::start(&lab);
    setup.url = Some(format!("http://[fd00:172:18::201]:2379,{}", etcd.url6()));
    works(&Cluster::with(&lab, etcd, setup), 1430);
}

/// Rows: S-17, O-20
#[test]
fn host_gw_carries_both_families() {
    let lab = Lab::with_nodes(2);
    let setup = Setup { overlay: "host-gw", ..Setup::default().dual() };
    works(&Cluster::start(&lab, setup), 1500);
    assert!(lab.nodes[0].link("cwov1").is_none());
}

/// Rows: O-08
#[test]
fn direct_routing_spares_neighbours_the_tunnel() {
    let lab = Lab::with_nodes(2);
    let flags = vec!["--direct-routing".to_owned()];
    let setup = Setup { flags, ..Setup::default().dual() };
    let cluster = Cluster::start(&lab, setup);
    works(&cluster, 1450);
    let route = lab.nodes[0].sh("ip -4 route get 10.0.2.2");
    assert!(route.contains("via 172.18.0.3 dev eth0"), "{route}");
}

/// Rows: C-15
#[test]
fn etcd_by_tls_with_certificates_of_its_authority() {
    let lab = Lab::with_nodes(2);
    let etcd = Etcd::start_tls(&lab);
    let file = |name: &str| etcd.certificate(name).display().to_string();
    let setup = Setup::default()
        .flag("--etcd-cafile", &file("ca.pem"))
        .flag("--etcd-certfile", &file("client.pem"))
        .flag("--etcd-keyfile", &file("client-key.pem"));
    works(&Cluster::with(&lab, etcd, setup), 1450);
}

/// Rows: C-15
#[test]
fn etcd_by_user_and_password() {
    let lab = Lab::with_nodes(2);
    let etcd = Etcd::start(&lab);
    etcd.ctl(&["user", "add", "root:secret"]).ok();
    etcd.ctl(&["user", "grant-role", "root", "root"]).ok();
    etcd.ctl(&["user", "add", "causeway:geheim"]).ok();
    etcd.ctl(&["role", "add", "causeway"]).ok();
    etcd.ctl(&["role", "grant-permission", "causeway", "--prefix=true", "readwrite", "/causeway"])
        .ok();
    etcd.ctl(&["user", "grant-role", "causeway", "causeway"]).ok();
    etcd.ctl(&["auth", "enable"]).ok();
    let setup =
        Setup::default().flag("--etcd-username", "causeway").flag("--etcd-password", "geheim");
    works(&Cluster::with(&lab, etcd, setup), 1450);
}
