use super::*;
use crate::testing::ip;

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        up: true,
        carrier: true,
        resolves: true,
        promisc: false,
        kind: LinkKind::Other(String::new()),
        master: None,
        peer_index: None,
        alias: None,
        port: None,
    }
}

fn bridge(index: u32, name: &str) -> Link {
    Link { kind: LinkKind::Bridge { vlan_filtering: false, default_pvid: 1 }, ..link(index, name) }
}

fn networks() -> Vec<(u32, IpNetwork)> {
    let network = |text: &str| text.parse().expect("a network");
    vec![(2, network("10.1.0.1/24")), (2, network("fd00:1::1/64")), (3, network("10.2.0.1/24"))]
}

fn interfaces(links: &[Link], only: &[&str]) -> Interfaces {
    let networks = networks();
    let found = links.iter().filter_map(|link| interface(link, links, &networks, Vec::new()));
    Interfaces {
        all: found.collect(),
        only: only.iter().map(ToString::to_string).collect(),
        ..Interfaces::default()
    }
}

fn chosen(interfaces: &Interfaces, address: &str) -> Result<u32, String> {
    let found = interfaces.choose(ip(address), None).map(|interface| interface.index);
    found.map_err(|unplaced| unplaced.reason)
}

#[test]
fn the_interface_of_the_subnet_announces() {
    let found = interfaces(&[link(2, "eth0"), link(3, "eth1")], &[]);
    assert_eq!(chosen(&found, "10.1.0.5"), Ok(2));
    assert_eq!(chosen(&found, "fd00:1::5"), Ok(2));
    assert_eq!(chosen(&found, "10.2.0.5"), Ok(3));
    let nowhere = chosen(&found, "10.3.0.5").expect_err("no subnet");
    assert!(nowhere.contains("10.3.0.5") && nowhere.contains("--lb-interface"), "{nowhere}");
    let nowhere = found.choose(ip("10.3.0.5"), None).expect_err("no subnet");
    assert!(!nowhere.broken, "a router may send its packets here");
}

#[test]
fn a_named_interface_needs_no_address() {
    let links = [link(2, "eth0"), link(3, "eth1"), link(4, "vlan7")];
    let found = interfaces(&links, &["vlan7", "eth1"]);
    assert_eq!(chosen(&found, "10.3.0.5"), Ok(4));
    assert_eq!(chosen(&found, "10.2.0.5"), Ok(3), "the one of the subnet, if it is named");
    assert_eq!(chosen(&found, "10.1.0.5"), Ok(4), "others are left out");
    let absent = interfaces(&links, &["eth9"]);
    assert_eq!(absent.missing(), ["eth9"]);
    assert!(chosen(&absent, "10.1.0.5").expect_err("absent").contains("eth9"));
}

#[test]
fn what_cannot_be_heard_is_said() {
    let down = Link { up: false, ..link(2, "eth0") };
    let unplugged = Link { carrier: false, ..link(2, "eth0") };
    for (link, reason) in [(down, "eth0 is down"), (unplugged, "eth0 has no carrier")] {
        assert_eq!(chosen(&interfaces(&[link], &[]), "10.1.0.5"), Err(reason.to_owned()));
    }
}

#[test]
fn members_of_bridges_and_what_leads_to_containers_are_none() {
    let bond = Link { kind: LinkKind::Other("bond".to_owned()), ..link(2, "bond0") };
    let vrf = Link { kind: LinkKind::Other("vrf".to_owned()), ..link(8, "red") };
    let attachment = name::owner("net", "id", "eth0");
    let links = [
        bond,
        Link { master: Some(2), ..link(3, "eth0") },
        Link { resolves: false, ..link(4, "dummy0") },
        Link { alias: Some(BRIDGE_ALIAS.to_owned()), ..bridge(5, "cw0") },
        Link { alias: Some(attachment), kind: LinkKind::Veth, ..link(6, "veth1") },
        Link { alias: Some(format!("{VXLAN_ALIAS}net")), ..link(7, "cwvx1") },
        vrf,
        Link { master: Some(8), ..link(9, "eth9") },
        bridge(10, "br0"),
        Link { mac: None, ..link(11, "tun0") },
    ];
    let found: Vec<u32> = interfaces(&links, &[]).all.iter().map(|found| found.index).collect();
    assert_eq!(found, [2, 8, 9, 10]);
}

/// Two ports in one segment: one hardware address, and always the same.
#[test]
fn one_interface_announces_and_stays() {
    let network: IpNetwork = "10.1.0.2/24".parse().expect("a network");
    let networks = [(2, network), (3, network)];
    let of = |links: &[Link]| Interfaces {
        all: links
            .iter()
            .filter_map(|link| interface(link, links, &networks, Vec::new()))
            .collect(),
        ..Interfaces::default()
    };
    let both = of(&[link(2, "eth0"), link(3, "eth1")]);
    let stays = |current| both.choose(ip("10.1.0.5"), current).map(|found| found.index);
    assert_eq!((stays(None), stays(Some(3))), (Ok(2), Ok(3)));
    let one = of(&[Link { carrier: false, ..link(2, "eth0") }, link(3, "eth1")]);
    let moves = one.choose(ip("10.1.0.5"), Some(2)).map(|found| found.index);
    assert_eq!(moves, Ok(3));
}

/// The most special subnet, as routing has it, and not the first link.
#[test]
fn the_longest_prefix_announces() {
    let network = |text: &str| text.parse::<IpNetwork>().expect("a network");
    let networks = [(2, network("10.0.0.1/8")), (3, network("10.1.0.1/24"))];
    let links = [link(2, "eth0"), link(3, "eth1")];
    let all = links.iter().filter_map(|link| interface(link, &links, &networks, Vec::new()));
    let found = Interfaces { all: all.collect(), ..Interfaces::default() };
    assert_eq!(chosen(&found, "10.1.0.5"), Ok(3));
    assert_eq!(chosen(&found, "10.2.0.5"), Ok(2));
    let stays = found.choose(ip("10.1.0.5"), Some(2)).map(|interface| interface.index);
    assert_eq!(stays, Ok(2));
}

#[test]
fn addresses_of_the_node_are_not_announced() {
    let mut found = interfaces(&[link(2, "eth0"), link(3, "eth1")], &[]);
    found.own = [(ip("10.1.0.7"), "dummy0".to_owned())].into();
    let unplaced = found.choose(ip("10.1.0.7"), None).expect_err("it is the node's");
    assert!(unplaced.broken && unplaced.reason.contains("on dummy0"), "{unplaced:?}");
    assert_eq!(chosen(&found, "10.1.0.8"), Ok(2));
}

#[test]
fn what_a_subnet_keeps_for_itself_is_not_announced() {
    let found = interfaces(&[link(2, "eth0"), link(3, "eth1")], &[]);
    for (address, what) in [
        ("10.1.0.0", "the network address of 10.1.0.0/24"),
        ("10.1.0.255", "the broadcast address of 10.1.0.0/24"),
        ("fd00:1::", "the anycast address of routers of fd00:1::/64"),
    ] {
        let unplaced = found.choose(ip(address), None).expect_err("nobody may have it");
        assert!(unplaced.broken && unplaced.reason.contains(what), "{unplaced:?}");
    }
    assert_eq!(chosen(&found, "fd00:1::ffff:ffff:ffff:ffff"), Ok(2), "IPv6 has no broadcast");
    let both = ["10.1.0.0/31", "fd00:1::1/127"].map(|text| text.parse().expect("a network"));
    let links = [link(2, "eth0")];
    let networks = both.map(|network| (2, network));
    let all = interface(&links[0], &links, &networks, Vec::new());
    let found = Interfaces { all: all.into_iter().collect(), ..Interfaces::default() };
    for address in ["10.1.0.0", "10.1.0.1", "fd00:1::"] {
        assert_eq!(chosen(&found, address), Ok(2), "both ends of a wire");
    }
}

/// A link that can never announce is not called absent.
#[test]
fn links_that_cannot_announce_are_named_as_such() {
    let mut found = interfaces(&[link(2, "eth0")], &["veth1", "eth9"]);
    found.barred = vec!["veth1".to_owned()];
    assert_eq!(found.missing(), ["eth9"]);
    let reason = chosen(&found, "10.1.0.5").expect_err("neither can");
    assert!(reason.contains("eth9 is not there, veth1 is a port"), "{reason}");
}
