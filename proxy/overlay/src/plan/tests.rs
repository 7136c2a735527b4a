use std::net::IpAddr;

use causeway_model::{MacAddress, Peer};
use ipnetwork::IpNetwork;

use crate::{Facts, Hop, Mode, Underlay, plan};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// A peer from words: addresses and subnets.
pub(crate) fn peer(name: &str, words: &str) -> Peer {
    let (nets, ips): (Vec<&str>, Vec<&str>) =
        words.split_whitespace().partition(|word| word.contains('/'));
    Peer {
        name: name.to_owned(),
        ips: ips.into_iter().map(ip).collect(),
        subnets: nets.into_iter().map(net).collect(),
        vtep: None,
        mtu: None,
        record: None,
    }
}

pub(crate) const VXLAN: Mode = Mode::Vxlan { id: 1, port: 8472, direct: false };
pub(crate) const DIRECT: Mode = Mode::Vxlan { id: 1, port: 8472, direct: true };

/// Node n1, 172.18.0.2 with 10.0.1.0/24, and these peers.
pub(crate) fn facts(mode: Mode, peers: Vec<Peer>) -> Facts {
    Facts {
        mode,
        node: "n1".to_owned(),
        cluster: vec![net("10.0.0.0/16"), net("fd00:10::/48")],
        subnets: vec![net("10.0.1.0/24")],
        underlay: Underlay { index: 2, mtu: 1500, ips: vec![ip("172.18.0.2")] },
        on_link: peers.iter().flat_map(|peer| peer.ips.clone()).collect(),
        peers,
    }
}

/// Rows: O-01, O-03, O-04, O-06, O-07, O-09, S-11
#[test]
fn a_peer_behind_the_tunnel_is_a_route_a_neighbour_and_an_fdb_entry() {
    let wanted = plan(&facts(VXLAN, vec![peer("n2", "172.18.0.3 10.0.2.0/24")]));
    let link = wanted.link.unwrap();
    assert_eq!((link.name.as_str(), link.id, link.port, link.dev), ("cwov1", 1, 8472, 2));
    assert_eq!((link.local, link.mtu, wanted.mtu), (ip("172.18.0.2"), 1450, 1450));
    assert_eq!(link.mac, MacAddress::of_vtep("n1", 1));
    assert_eq!(link.addresses, [ip("10.0.1.0")].into());
    let mac = MacAddress::of_vtep("n2", 1);
    assert_eq!(wanted.routes, [(net("10.0.2.0/24"), Hop::Tunnel)].into());
    assert_eq!(wanted.neighbours, [(ip("10.0.2.0"), mac)].into());
    assert_eq!(wanted.fdb, [(mac, ip("172.18.0.3"))].into());
    assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
}
