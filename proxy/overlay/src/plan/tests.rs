use std::net::IpAddr;

use causeway_model::{Labels, MacAddress, NodeIdentity, NodeRecord, Peer};
use ipnetwork::IpNetwork;

use crate::{Hop, Mode, OverlayContext, Underlay, plan};

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
        since: 0,
    }
}

pub(crate) const VXLAN: Mode = Mode::Vxlan { id: 1, port: 8472, direct: false };
pub(crate) const DIRECT: Mode = Mode::Vxlan { id: 1, port: 8472, direct: true };

/// Node n1, 172.18.0.2 with 10.0.1.0/24, and these peers.
pub(crate) fn facts(mode: Mode, peers: Vec<Peer>) -> OverlayContext {
    OverlayContext {
        mode,
        node: "n1".to_owned(),
        cluster: vec![net("10.0.0.0/16"), net("fd00:10::/48")],
        subnets: vec![net("10.0.1.0/24")],
        underlay: Underlay { index: 2, bound: true, mtu: 1500, ips: vec![ip("172.18.0.2")] },
        on_link: peers.iter().flat_map(|peer| peer.ips.clone()).collect(),
        peers,
    }
}

/// Rows: O-01, O-03, O-04, O-06, O-07, O-09, S-11
#[test]
fn a_peer_behind_the_tunnel_is_a_route_a_neighbour_and_an_fdb_entry() {
    let wanted = plan(&facts(VXLAN, vec![peer("n2", "172.18.0.3 10.0.2.0/24")]));
    let link = wanted.link.unwrap();
    assert_eq!((link.name.as_str(), link.id, link.port, link.dev), ("cwov1", 1, 8472, Some(2)));
    assert_eq!((link.local, link.mtu, wanted.mtu), (ip("172.18.0.2"), 1450, 1450));
    assert_eq!(link.mac, MacAddress::of_vtep("n1", 1));
    assert_eq!(link.addresses, [ip("10.0.1.0")].into());
    let mac = MacAddress::of_vtep("n2", 1);
    assert_eq!(wanted.routes, [(net("10.0.2.0/24"), Hop::Tunnel)].into());
    assert_eq!(wanted.neighbours, [(ip("10.0.2.0"), mac)].into());
    assert_eq!(wanted.fdb, [(mac, ip("172.18.0.3"))].into());
    assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
}

/// Rows: RH12
#[test]
fn packets_come_from_peers_of_the_tunnels_family() {
    let peers = || {
        vec![
            peer("n2", "172.18.0.3 fd00:172:18::3 10.0.2.0/24"),
            peer("n3", "172.18.0.4"),
            peer("n4", "fd00:172:18::5 fd00:10:0:4::/64"),
            peer("liar", "127.0.0.1 10.0.5.0/24"),
            peer("double", "172.18.0.2 10.0.6.0/24"),
        ]
    };
    for mode in [VXLAN, DIRECT] {
        let sources = plan(&facts(mode, peers())).sources;
        assert_eq!(sources, [ip("172.18.0.3"), ip("172.18.0.4")].into());
    }
    let mut over6 = facts(VXLAN, peers());
    over6.underlay.ips = vec![ip("fd00:172:18::2")];
    assert_eq!(plan(&over6).sources, [ip("fd00:172:18::3"), ip("fd00:172:18::5")].into());
    assert!(plan(&facts(Mode::HostGw, peers())).sources.is_empty());
}

/// Rows: O-04, O-09
#[test]
fn the_tunnel_over_ipv6_costs_seventy_bytes_and_carries_both_families() {
    let mut facts = facts(VXLAN, vec![peer("n2", "fd00:172:18::3 10.0.2.0/24 fd00:10:0:2::/64")]);
    facts.underlay.ips = vec![ip("fd00:172:18::2"), ip("172.18.0.2")];
    facts.subnets.push(net("fd00:10:0:1::/64"));
    let wanted = plan(&facts);
    let link = wanted.link.unwrap();
    assert_eq!((link.local, link.mtu, wanted.mtu), (ip("fd00:172:18::2"), 1430, 1430));
    assert_eq!(link.addresses, [ip("10.0.1.0"), ip("fd00:10:0:1::")].into());
    let mac = MacAddress::of_vtep("n2", 1);
    assert_eq!(wanted.neighbours, [(ip("10.0.2.0"), mac), (ip("fd00:10:0:2::"), mac)].into());
    assert_eq!(wanted.fdb, [(mac, ip("fd00:172:18::3"))].into());
    let routes = [(net("10.0.2.0/24"), Hop::Tunnel), (net("fd00:10:0:2::/64"), Hop::Tunnel)];
    assert_eq!(wanted.routes, routes.into());
    assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
}

/// Row: O-08
#[test]
fn with_direct_routing_a_peer_of_the_same_link_has_a_plain_route_and_the_others_a_tunnel() {
    let peers = vec![peer("n2", "172.18.0.3 10.0.2.0/24"), peer("n3", "172.19.0.3 10.0.3.0/24")];
    let mut facts = facts(DIRECT, peers);
    facts.on_link = [ip("172.18.0.3")].into();
    let wanted = plan(&facts);
    let routes =
        [(net("10.0.2.0/24"), Hop::Direct(ip("172.18.0.3"))), (net("10.0.3.0/24"), Hop::Tunnel)];
    assert_eq!(wanted.routes, routes.into());
    assert_eq!(wanted.fdb.values().collect::<Vec<_>>(), [&ip("172.19.0.3")]);
    assert_eq!(wanted.mtu, 1450, "one of the ways is a tunnel");
}

/// Rows: O-20, S-17
#[test]
fn host_gw_is_a_route_by_the_address_of_each_peer() {
    let mut facts = facts(
        Mode::HostGw,
        vec![peer("n2", "172.18.0.3 fd00:172:18::3 10.0.2.0/24 fd00:10:0:2::/64")],
    );
    facts.underlay.ips.push(ip("fd00:172:18::2"));
    let wanted = plan(&facts);
    let routes = [
        (net("10.0.2.0/24"), Hop::Direct(ip("172.18.0.3"))),
        (net("fd00:10:0:2::/64"), Hop::Direct(ip("fd00:172:18::3"))),
    ];
    assert_eq!(wanted.routes, routes.into());
    assert_eq!((wanted.link, wanted.mtu), (None, 1500));
    assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
}

/// This node among the peers, under whatever address, leads nowhere: no route ever leads to an own
/// subnet.
#[test]
fn this_node_among_the_peers_counts_for_nothing() {
    let wanted = plan(&facts(VXLAN, vec![peer("n1", "172.18.0.2 10.0.1.0/24")]));
    assert!(wanted.routes.is_empty() && wanted.fdb.is_empty() && wanted.problems.is_empty());
}

/// What is said of node n2 and whether a route leads to its subnet.
#[track_caller]
fn check(facts: &OverlayContext, routed: bool, problem: &str) {
    let wanted = plan(facts);
    let leads = wanted.routes.keys().any(|subnet| net("10.0.2.0/24").contains(subnet.ip()));
    let said = wanted.problems.get("n2").map_or("", String::as_str);
    assert_eq!((said, leads), (problem, routed), "{wanted:?}");
}

fn live(mut peer: Peer) -> Peer {
    peer.record = Some(NodeRecord {
        identity: NodeIdentity { node: peer.name.clone(), machine_id: peer.name.clone() },
        boot_id: String::new(),
        ips: peer.ips.clone(),
        labels: Labels::default(),
        version: String::new(),
        started: 0,
        config: String::new(),
        created: 0,
    });
    peer
}

/// Row: O-47
#[test]
fn a_peer_that_has_not_published_everything_is_waited_for() {
    check(
        &facts(VXLAN, vec![peer("n2", "172.18.0.3")]),
        false,
        "waiting for node n2 to publish its subnet; run `causeway status` there to see why it has \
         none",
    );
    check(
        &facts(VXLAN, vec![peer("n2", "10.0.2.0/24")]),
        false,
        "waiting for node n2 to publish its address",
    );
}

/// Row: O-48
#[test]
fn two_nodes_with_one_address_are_named() {
    check(
        &facts(VXLAN, vec![peer("n2", "172.18.0.2 10.0.2.0/24")]),
        false,
        "its address 172.18.0.2 is also the address of this node, n1; give each node its own with \
         --node-ip",
    );
    let both = "its address 172.18.0.3 is also the address of node n3; give each node its own with \
                --node-ip";
    let n2 = peer("n2", "172.18.0.3 10.0.2.0/24");
    let n3 = peer("n3", "172.18.0.3 10.0.3.0/24");
    // A tunnel's packets for the wrong one of them are dropped there: no harm in sending them.
    for mode in [VXLAN, DIRECT] {
        let facts = facts(mode, vec![n2.clone(), n3.clone()]);
        check(&facts, true, both);
        assert!(plan(&facts).routes.values().all(|hop| *hop == Hop::Tunnel));
        assert_eq!(plan(&facts).problems.len(), 2);
    }
    check(&facts(VXLAN, vec![live(n2.clone()), live(n3.clone())]), true, both);
    // The one that lives has it.
    check(&facts(DIRECT, vec![live(n2.clone()), n3.clone()]), true, "");
    let moved = "its address 172.18.0.3 has moved to node n3, and n2 is not responding; start \
                 causewayd there with its own --node-ip";
    check(&facts(VXLAN, vec![n2.clone(), live(n3.clone())]), true, moved);
    check(
        &facts(Mode::HostGw, vec![n2, live(n3)]),
        false,
        &format!("{moved}; no route leads there; node n3 would get its packets"),
    );
}

#[test]
fn an_address_that_is_no_nodes_is_refused() {
    for wrong in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.1.1", "fe80::1"]
    {
        check(
            &facts(VXLAN, vec![peer("n2", &format!("{wrong} 10.0.2.0/24"))]),
            false,
            &format!(
                "its address {wrong} cannot be reached from other nodes; start causewayd on n2 \
                 with --node-ip"
            ),
        );
    }
}

/// No record of another node takes the default route, the underlay or a foreign network.
#[test]
fn a_subnet_outside_of_the_cluster_network_is_refused() {
    for wrong in ["0.0.0.0/0", "10.0.0.0/8", "192.168.2.0/24", "::/0", "fd00::/8"] {
        let facts = facts(VXLAN, vec![peer("n2", &format!("172.18.0.3 {wrong}"))]);
        let problem = format!(
            "its subnet {wrong} is not inside the cluster network 10.0.0.0/16,fd00:10::/48; give \
             all nodes the same --cluster-cidr"
        );
        check(&facts, false, &problem);
        assert!(plan(&facts).routes.is_empty());
    }
    let mut facts = facts(VXLAN, vec![peer("n2", "172.18.0.3 172.18.0.0/24")]);
    facts.cluster.push(net("172.16.0.0/12"));
    let problem = "its subnet 172.18.0.0/24 contains 172.18.0.2, the address of a node, so the \
                   tunnel would be routed through itself; choose a --cluster-cidr without node \
                   addresses";
    check(&facts, false, problem);
}

/// Row: O-65
#[test]
fn a_subnet_that_another_node_has_is_refused() {
    check(
        &facts(VXLAN, vec![peer("n2", "172.18.0.3 10.0.0.0/22")]),
        false,
        "its subnet 10.0.0.0/22 overlaps 10.0.1.0/24 of this node, n1; give n2 another one with \
         --node-subnet",
    );
    let peers =
        vec![peer("n2", "172.18.0.3 10.0.2.0/24"), live(peer("n3", "172.18.0.4 10.0.2.0/23"))];
    let facts = facts(VXLAN, peers);
    let wanted = plan(&facts);
    let why = "its subnet 10.0.2.0/24 overlaps 10.0.2.0/23 of node n3; give n2 another one with \
               --node-subnet";
    assert_eq!(wanted.problems.get("n2").map(String::as_str), Some(why));
    assert_eq!(wanted.routes.keys().collect::<Vec<_>>(), [&net("10.0.2.0/23")]);
}

#[test]
fn a_vxlan_address_that_is_not_the_peers_alone_is_refused() {
    let with = |name, words, vtep: &str| Peer { vtep: vtep.parse().ok(), ..peer(name, words) };
    for wrong in ["00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff"] {
        check(
            &facts(VXLAN, vec![with("n2", "172.18.0.3 10.0.2.0/24", wrong)]),
            false,
            &format!(
                "its vxlan device has the address {wrong}, which is not a unicast MAC address; \
                 restart causewayd on n2"
            ),
        );
    }
    let ours = MacAddress::of_vtep("n1", 1).to_string();
    check(
        &facts(VXLAN, vec![with("n2", "172.18.0.3 10.0.2.0/24", &ours)]),
        false,
        &format!(
            "its vxlan device has the same MAC address {ours} as that of node n1; give one of the \
             nodes another --node-name"
        ),
    );
}

/// Row: O-63
#[test]
fn a_peers_own_word_on_its_vxlan_address_counts() {
    let vtep = Some(MacAddress([2, 0, 0, 0, 0, 9]));
    let n2 = Peer { vtep, ..peer("n2", "172.18.0.3 10.0.2.0/24") };
    let wanted = plan(&facts(VXLAN, vec![n2]));
    assert_eq!(wanted.neighbours.get(&ip("10.0.2.0")).copied(), vtep);
    assert_eq!(wanted.fdb.keys().next().copied(), vtep);
}

#[test]
fn a_peer_without_an_address_of_the_family_is_named() {
    check(
        &facts(VXLAN, vec![peer("n2", "fd00:172:18::3 10.0.2.0/24")]),
        false,
        "tunnels of this node use IPv4, and node n2 has no such address; set one with --node-ip",
    );
    check(
        &facts(Mode::HostGw, vec![peer("n2", "fd00:172:18::3 10.0.2.0/24")]),
        false,
        "the route to its subnet 10.0.2.0/24 needs an IPv4 address of node n2, which has none; set \
         one with --node-ip, or use --overlay vxlan",
    );
    check(
        &facts(Mode::HostGw, vec![peer("n2", "fd00:172:18::3 fd00:10:0:2::/64")]),
        false,
        "the route to its subnet fd00:10:0:2::/64 needs an IPv6 address of this node; set one with \
         --node-ip, or use --overlay vxlan",
    );
}

/// Rows: O-20, O-22
#[test]
fn host_gw_refuses_a_peer_behind_a_gateway() {
    let mut facts = facts(Mode::HostGw, vec![peer("n2", "172.19.0.3 10.0.2.0/24")]);
    facts.on_link.clear();
    check(
        &facts,
        false,
        "its address 172.19.0.3 is behind a gateway, and host-gw reaches only nodes on the same \
         link; use --overlay vxlan --direct-routing",
    );
}

#[test]
fn an_mtu_that_leaves_too_little_is_named() {
    let mut facts = facts(VXLAN, Vec::new());
    facts.underlay.mtu = 1300;
    facts.subnets.push(net("fd00:10:0:1::/64"));
    let why = "the MTU left for containers, 1250 bytes, is below 1280; raise the MTU of the device \
               between the nodes, which is 1300";
    assert_eq!(plan(&facts).problems, [("n1".to_owned(), why.to_owned())].into());
}

/// Every subnet of every node is looked up among the others, however many something wrote.
///
/// Rows: RH7
#[test]
fn ten_thousand_peers_are_planned_in_a_moment() {
    let one = |number: u32| {
        let [_, _, high, low] = number.to_be_bytes();
        peer(&format!("n{number}"), &format!("172.19.{high}.{low} fd00:10:0:{number:x}::/64"))
    };
    let mut peers: Vec<Peer> = (2..10_000).map(one).collect();
    peers.push(peer("x1", "172.20.0.1 fd00:10:0:100::/56"));
    peers.push(peer("x2", "172.20.0.2 fd00:10:0:7:8000::/65"));
    let facts = facts(VXLAN, peers);
    let wanted = plan(&facts);
    assert_eq!(wanted.routes.len(), 9_998);
    let why = |name: &str| wanted.problems[name].clone();
    assert!(why("x1").contains("overlaps fd00:10:0:100::/64 of node n256"), "{}", why("x1"));
    assert!(why("x2").contains("overlaps fd00:10:0:7::/64 of node n7"), "{}", why("x2"));
    assert_eq!(wanted.problems.len(), 2);
}

/// Rows: RH7
#[test]
fn a_newcomer_takes_nothing_from_an_older_peer() {
    let aged = |name, words, since| {
        let mut peer = live(peer(name, words));
        peer.since = since;
        peer
    };
    let old = aged("n2", "172.18.0.3 10.0.2.0/24", 5);
    let wanted = plan(&facts(VXLAN, vec![old.clone()]));
    // First by name, and alive: of the same vxlan address, or with an address inside what n2 has.
    let mut mac = aged("a1", "172.18.0.66 10.0.66.0/24", 9);
    mac.vtep = Some(MacAddress::of_vtep("n2", 1));
    for newcomer in [mac, aged("a2", "10.0.2.7 10.0.66.0/24", 9)] {
        let name = newcomer.name.clone();
        let now = plan(&facts(VXLAN, vec![newcomer, old.clone()]));
        assert_eq!((&now.routes, &now.fdb), (&wanted.routes, &wanted.fdb), "{name}");
        assert_eq!(now.problems.keys().collect::<Vec<_>>(), [&name], "{:?}", now.problems);
    }
}
