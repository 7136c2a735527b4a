//! Exactly the objects that the reference commands make, and packets through them.

use causeway_tests::{Daemon, Lab};
use serde_json::Value;

use super::stage::{
    Families, Setup, Stage, assert_connected, device, fdb, neighbours, routes, vtep,
};

/// Rows: O-01, O-03, O-04, O-06, O-09
#[test]
fn each_peer_is_a_neighbour_an_fdb_entry_and_a_route() {
    let lab = Lab::with_nodes(3);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let node = stage.node(0);
    let link = device(node).expect("the device");
    let data = &link["linkinfo"]["info_data"];
    assert_eq!((&link["mtu"], &link["address"]), (&1450.into(), &vtep("node1").into()));
    assert_eq!(
        (&data["id"], &data["port"], &data["link"]),
        (&1.into(), &8472.into(), &"eth0".into())
    );
    assert_eq!((&data["local"], &data["learning"]), (&"172.18.0.2".into(), &false.into()));
    assert!(data["group"].is_null(), "{link}");
    assert_eq!(node.addresses("cwov1"), ["10.0.1.0/32"]);
    assert_eq!(node.sysctl("ipv6/conf/cwov1/accept_ra"), "0");
    let (two, three) = (vtep("node2"), vtep("node3"));
    assert_eq!(
        neighbours(node),
        [format!("10.0.2.0 {two} PERMANENT"), format!("10.0.3.0 {three} PERMANENT")]
    );
    let mut wanted =
        [format!("{two} dst 172.18.0.3 permanent"), format!("{three} dst 172.18.0.4 permanent")];
    wanted.sort();
    assert_eq!(fdb(node), wanted);
    assert_eq!(
        routes(node),
        ["10.0.2.0/24 via 10.0.2.0 dev cwov1 onlink", "10.0.3.0/24 via 10.0.3.0 dev cwov1 onlink"]
    );
    let (one, ips1) = stage.pod(0);
    let (two, ips2) = stage.pod(1);
    assert_eq!((ips1[0].as_str(), ips2[0].as_str()), ("10.0.1.2", "10.0.2.2"));
    assert_eq!(one.link("eth0").expect("eth0")["mtu"], 1450);
    assert_connected((&one, &ips1), (&two, &ips2), 1450);
}

/// Rows: O-02
#[test]
fn vni_and_port_are_settings() {
    let lab = Lab::with_nodes(2);
    let mut setup = Setup::new("vxlan");
    setup.flags = vec!["--vxlan-id", "42", "--vxlan-port", "4789"];
    let stage = Stage::new(&lab, setup);
    let link = stage.node(0).link("cwov42").expect("a device of that VNI");
    let data = &link["linkinfo"]["info_data"];
    assert_eq!((&data["id"], &data["port"]), (&42.into(), &4789.into()));
    let (one, two) = (stage.pod(0), stage.pod(1));
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1450);
}

/// Rows: O-20, S-17
#[test]
fn host_gw_is_one_plain_route_a_subnet() {
    let lab = Lab::with_nodes(3);
    let mut setup = Setup::new("host-gw");
    (setup.nodes, setup.pods) = (Families::Dual, Families::Dual);
    let stage = Stage::new(&lab, setup);
    assert_eq!(
        routes(stage.node(1)),
        [
            "10.0.1.0/24 via 172.18.0.2 dev eth0",
            "10.0.3.0/24 via 172.18.0.4 dev eth0",
            "fd00:10:0:1::/64 via fd00:172:18::2 dev eth0",
            "fd00:10:0:3::/64 via fd00:172:18::4 dev eth0",
        ]
    );
    let found = stage.node(1).sh("ip route get 10.0.1.2");
    assert!(found.contains("10.0.1.2 via 172.18.0.2 dev eth0 src 172.18.0.3"), "{found}");
    let links = stage.node(1).link_names();
    assert!(links.iter().all(|name| !name.starts_with("cwov")), "{links:?}");
    let (one, two) = (stage.pod(0), stage.pod(1));
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1500);
}

/// Rows: O-08
#[test]
fn peers_on_the_same_link_need_no_tunnel() {
    let lab = Lab::with_nodes(3);
    // The third node's address is behind a gateway for the others.
    lab.nodes[2].ip("addr add 198.51.100.4/32 dev eth0\n");
    for index in [0, 1] {
        lab.nodes[index].ip("route add 198.51.100.4/32 via 172.18.0.4\n");
    }
    let mut setup = Setup::new("vxlan");
    setup.flags = vec!["--direct-routing"];
    setup.addresses = vec![(2, "198.51.100.4")];
    let stage = Stage::new(&lab, setup);
    assert_eq!(
        routes(stage.node(0)),
        ["10.0.2.0/24 via 172.18.0.3 dev eth0", "10.0.3.0/24 via 10.0.3.0 dev cwov1 onlink",]
    );
    let pods = [stage.pod(0), stage.pod(1), stage.pod(2)];
    for (from, _) in &pods {
        pods.iter().for_each(|(_, to)| from.assert_ping(&to[0]));
    }
}

/// Rows: O-09
#[test]
fn an_ipv6_underlay_costs_seventy_bytes() {
    let lab = Lab::with_nodes(2);
    let mut setup = Setup::new("vxlan");
    (setup.nodes, setup.pods) = (Families::V6, Families::Dual);
    let stage = Stage::new(&lab, setup);
    let link = device(stage.node(0)).expect("the device");
    assert_eq!(link["linkinfo"]["info_data"]["local6"], "fd00:172:18::2", "{link}");
    assert_eq!(link["mtu"], 1430);
    let peer = vtep("node2");
    assert_eq!(fdb(stage.node(0)), [format!("{peer} dst fd00:172:18::3 permanent")]);
    let (one, two) = (stage.pod(0), stage.pod(1));
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1430);
}

/// Rows: O-09
#[test]
fn ipv6_inside_and_outside() {
    let lab = Lab::with_nodes(2);
    let mut setup = Setup::new("vxlan");
    (setup.nodes, setup.pods) = (Families::V6, Families::V6);
    let stage = Stage::new(&lab, setup);
    assert_eq!(stage.node(0).addresses("cwov1"), ["fd00:10:0:1::/128"]);
    let (one, two) = (stage.pod(0), stage.pod(1));
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1430);
}

/// Rows: O-04, O-06, O-09
#[test]
fn one_device_carries_both_families() {
    let lab = Lab::with_nodes(2);
    let mut setup = Setup::new("vxlan");
    (setup.nodes, setup.pods) = (Families::Dual, Families::Dual);
    let stage = Stage::new(&lab, setup);
    let (node, peer) = (stage.node(0), vtep("node2"));
    assert_eq!(node.addresses("cwov1"), ["10.0.1.0/32", "fd00:10:0:1::/128"]);
    assert_eq!(fdb(node), [format!("{peer} dst 172.18.0.3 permanent")]);
    assert_eq!(
        neighbours(node),
        [format!("10.0.2.0 {peer} PERMANENT"), format!("fd00:10:0:2:: {peer} PERMANENT")]
    );
    assert_eq!(routes(node).len(), 2);
    let (one, two) = (stage.pod(0), stage.pod(1));
    assert_eq!(one.1.len(), 2);
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1450);
}

/// Rows: O-16
#[test]
fn checksums_are_computed_in_software_where_asked() {
    let lab = Lab::with_nodes(2);
    let mut setup = Setup::new("vxlan");
    setup.flags = vec!["--disable-tx-checksum"];
    let stage = Stage::new(&lab, setup);
    let off = || {
        let features = stage.node(0).try_sh("ethtool -k cwov1");
        String::from_utf8_lossy(&features.stdout).contains("tx-checksum-ip-generic: off")
    };
    stage.daemons[0].until("off", off);
    stage.node(0).sh("ip link del cwov1");
    stage.daemons[0].until("off at the new one", off);
}

/// As in routed fabrics.
///
/// Rows: RD1
#[test]
fn a_node_address_on_lo_takes_the_mtu_of_the_way_to_the_peers() {
    let lab = Lab::two_nodes();
    let mut setup = Setup::new("vxlan");
    setup.addresses = vec![(0, "10.255.0.1"), (1, "10.255.0.2")];
    for (index, node) in lab.nodes.iter().enumerate() {
        let (own, other) = (index + 1, 2 - index);
        let via = Lab::node_address(1 - index);
        node.sh(&format!("ip addr add 10.255.0.{own}/32 dev lo"));
        node.sh(&format!("ip route add 10.255.0.{other} via {via} src 10.255.0.{own}"));
    }
    let stage = Stage::new(&lab, setup);
    let (one, two) = (stage.pod(0), stage.pod(1));
    assert_eq!(device(stage.node(0)).expect("a device")["mtu"], 1450);
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1450);
    let index = |index: usize| device(stage.node(index)).expect("a device")["ifindex"].clone();
    let before = [index(0), index(1)];
    for node in &lab.nodes {
        node.sh("ip link set eth0 mtu 1400");
    }
    for index in [0, 1] {
        stage.daemons[index].until("the MTU of its way", || {
            device(stage.node(index)).is_some_and(|link| link["mtu"] == 1350)
        });
    }
    assert_eq!([index(0), index(1)], before, "the devices are the same");
}

/// Strict reverse path filters are met: what comes through the tunnel goes back through it.
#[test]
fn strict_reverse_path_filters_let_the_overlay_through() {
    let lab = Lab::with_nodes(2);
    for node in &lab.nodes {
        for scope in ["all", "default", "eth0"] {
            node.set_sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "1");
        }
    }
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let (one, two) = (stage.pod(0), stage.pod(1));
    assert_connected((&one.0, &one.1), (&two.0, &two.1), 1450);
    stage.node(0).assert_ping(&two.1[0]);
    assert_eq!(stage.node(0).sysctl("ipv4/conf/cwov1/rp_filter"), "1");
}

/// Rows: O-07, O-66
#[test]
fn neither_death_nor_start_of_a_daemon_loses_a_packet() {
    let lab = Lab::with_nodes(2);
    let mut stage = Stage::new(&lab, Setup::new("vxlan"));
    let (one, two) = (stage.pod(0), stage.pod(1));
    let to = &two.1[0];
    let pinged = std::thread::scope(|scope| {
        let ping = scope.spawn(|| one.0.sh(&format!("ping -q -i 0.005 -c 800 {to}")));
        for daemon in &mut stage.daemons {
            daemon.kill();
            daemon.again();
        }
        ping.join().expect("a ping")
    });
    assert!(pinged.contains("800 received, 0% packet loss"), "{pinged}");
}

/// Cleaning up removes all of it, says so, and can be done again.
///
/// Rows: O-21
#[test]
fn cleanup_removes_the_overlay() {
    let lab = Lab::with_nodes(2);
    let mut setup = Setup::new("vxlan");
    setup.flags = vec!["--direct-routing"];
    let mut stage = Stage::new(&lab, setup);
    let node = stage.node(0);
    node.sh("ip route add 10.0.77.0/24 via 172.18.0.9 dev eth0");
    stage.daemons[0].stop();
    let text = |arguments: &[&str]| Daemon::cleanup(node, arguments).ok();
    let would = text(&["--dry-run"]);
    for what in ["link cwov1", "route 10.0.2.0/24 dev eth0"] {
        assert!(would.contains(&format!("would remove {what}")), "{would}");
    }
    assert_eq!(routes(node).len(), 1);
    let removed = text(&[]);
    for what in ["link cwov1", "route 10.0.2.0/24 dev eth0"] {
        assert!(removed.contains(&format!("removed {what}")), "{removed}");
    }
    assert_eq!((device(node), routes(node)), (None::<Value>, Vec::new()));
    assert!(!text(&[]).contains("cwov1"));
    assert!(node.sh("ip route").contains("10.0.77.0/24"));
}
