//! What one peer of an overlay is made of, against the kernel.

use std::net::IpAddr;

use crate::testing::{enter, stale_neighbour};
use crate::{AddressSpec, LinkChange, LinkKind, Mac, Netlink, RouteSpec, VxlanAttributes};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// A vxlan device that is up, over a bridge.
fn device(netlink: &Netlink) -> u32 {
    let underlay = crate::link::tests::bridge(netlink, "eth0").index;
    let address = AddressSpec { address: "172.18.0.2/24".parse().expect("one"), nodad: true };
    netlink.add_address(underlay, &address).expect("an address");
    assert_eq!(netlink.link_of_address(ip("172.18.0.2")).expect("a dump"), Some(underlay));
    assert_eq!(netlink.link_of_address(ip("172.18.0.3")).expect("a dump"), None);
    let attributes = VxlanAttributes {
        id: 1,
        group: None,
        dev: Some(underlay),
        local: Some(ip("172.18.0.2")),
        port: 8472,
        ttl: 0,
        learning: false,
        strange: false,
    };
    let made = netlink.add_vxlan_at("cwov1", 1450, OURS, &attributes).expect("a vxlan device");
    assert_eq!(made.kind, LinkKind::Vxlan(attributes.clone()));
    assert_eq!((made.mac, made.mtu, made.up), (Some(OURS), 1450, false));
    assert!(netlink.add_vxlan_at("cwov2", 1450, OURS, &attributes).expect_err("taken").is_exists());
    netlink
        .change_link(made.index, &LinkChange { up: Some(true), ..LinkChange::default() })
        .expect("it comes up");
    made.index
}

/// Rows: O-03, O-06
#[test]
fn permanent_neighbours_take_the_place_of_others() {
    let netlink = enter();
    let index = device(&netlink);
    stale_neighbour(&netlink, index, ip("10.0.2.0"), OTHER);
    assert!(netlink.neighbours(index).expect("a dump").is_empty());
    for (address, mac) in [("10.0.2.0", OTHER), ("10.0.2.0", THEIRS), ("fd00:2::", THEIRS)] {
        netlink.put_neighbour(index, ip(address), mac).expect("put");
    }
    let both = [(ip("10.0.2.0"), THEIRS), (ip("fd00:2::"), THEIRS)];
    assert_eq!(netlink.neighbours(index).expect("a dump"), both.into());
    for _ in 0..2 {
        netlink.delete_neighbour(index, ip("10.0.2.0")).expect("it goes, or is gone");
    }
    assert_eq!(netlink.neighbours(index).expect("a dump"), both[1..].iter().copied().collect());
}

/// Rows: O-06, O-14, O-15
#[test]
fn routes_are_put_found_and_removed_by_protocol() {
    let netlink = enter();
    let index = device(&netlink);
    let address = AddressSpec { address: "10.0.1.0/32".parse().expect("one"), nodad: true };
    netlink.add_address(index, &address).expect("an address");
    let tunnel = |network: &str, gateway: &str, protocol| RouteSpec {
        gw: Some(ip(gateway)),
        onlink: true,
        protocol: Some(protocol),
        ..RouteSpec::new(network.parse().expect("a network"), index)
    };
    let wanted = [tunnel("10.0.2.0/24", "10.0.2.0", 197), tunnel("fd00:2::/64", "fd00:2::", 197)];
    let foreign = tunnel("10.0.3.0/24", "10.0.3.0", 4);
    netlink.add_route(&foreign).expect("someone else's");
    for _ in 0..2 {
        wanted.iter().for_each(|route| netlink.replace_route(route).expect("put"));
    }
    let found = netlink.routes_of(197).expect("a dump");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(wanted.iter().zip(&found).all(|(wanted, found)| wanted.is_met_by(found)), "{found:?}");
    // IPv6 routes over a device with a gateway are reported without the flag.
    assert!(found[0].onlink);
    let far = netlink.way_to(ip("10.0.2.7")).expect("a route");
    assert_eq!((far.dev, far.gateway), (index, Some(ip("10.0.2.0"))));
    assert_eq!(netlink.way_to(ip("172.18.0.9")).expect("a route").gateway, None);
    for route in &found {
        netlink.delete_route(route).expect("it goes");
        netlink.delete_route(route).expect("it is gone");
    }
    assert!(netlink.routes_of(197).expect("a dump").is_empty());
    assert_eq!(netlink.routes_of(4).expect("a dump").len(), 1);
}

/// Rows: O-16
#[test]
fn checksums_are_offloaded_or_not() {
    let netlink = enter();
    device(&netlink);
    assert!(netlink.tx_checksum("cwov1").expect("an answer"));
    netlink.set_tx_checksum("cwov1", false).expect("off");
    assert!(!netlink.tx_checksum("cwov1").expect("an answer"));
    netlink.set_tx_checksum("cwov1", true).expect("on");
    assert!(netlink.tx_checksum("cwov1").expect("an answer"));
    let gone = netlink.tx_checksum("cwov2").expect_err("no such device");
    assert!(gone.is_not_found(), "{gone:?}");
}
