//! Exactly the objects that the reference commands make, and packets through them.

use causeway_tests::{Lab, Ns};
use serde_json::Value;

use super::stage::{Families, Setup, Stage, fdb, neighbours, routes, vtep};

/// Both containers reach each other by each family, up to exactly `mtu` bytes of packet.
fn assert_connected(one: (&Ns, &[String]), two: (&Ns, &[String]), mtu: u32) {
    for ((from, _), (_, to)) in [(one, two), (two, one)] {
        for to in to {
            from.assert_ping(to);
            let headers = if to.contains(':') { 48 } else { 28 };
            let fits = mtu - headers;
            from.sh(&format!("ping -c 1 -W 2 -M do -s {fits} {to}"));
            let more = from.try_sh(&format!("ping -c 1 -W 2 -M do -s {} {to}", fits + 1));
            assert!(!more.status.success(), "{more:?}");
        }
    }
}

fn device(ns: &Ns) -> Value {
    ns.link("cwov1").expect("the device")
}

/// Rows: O-01, O-03, O-04, O-06, O-09
#[test]
fn each_peer_is_a_neighbour_an_fdb_entry_and_a_route() {
    let lab = Lab::with_nodes(3);
    let stage = Stage::new(&lab, Setup::new("vxlan"));
    let node = stage.node(0);
    let link = device(node);
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
