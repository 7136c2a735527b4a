//! The monitor against the kernel.

use std::net::IpAddr;

use crate::link::tests::bridge;
use crate::testing::enter;
use crate::{AddressSpec, LinkChange, Mac, RouteSpec};

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Rows: O-14
#[test]
fn tells_of_what_matters_and_of_nothing_else() {
    let netlink = enter();
    let (ours, other) = (bridge(&netlink, "ours").index, bridge(&netlink, "other").index);
    for (index, address) in [(ours, "10.1.0.1/24"), (other, "10.2.0.1/24")] {
        let spec = AddressSpec { address: address.parse().expect("a network"), nodad: true };
        netlink.add_address(index, &spec).expect("an address");
    }
    let mut monitor = Monitor::new(&netlink).expect("a subscription");
    let interest = Interest { links: [ours].into(), protocol: 197 };
    let mut changed = || monitor.changed(&interest).expect("it reads");
    assert!(!changed());
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let route = |index, gateway: &str, protocol| RouteSpec {
        gw: Some(ip(gateway)),
        protocol: Some(protocol),
        ..RouteSpec::new("10.9.0.0/24".parse().expect("a network"), index)
    };
    let mtu = LinkChange { mtu: Some(1400), ..LinkChange::default() };

    netlink.change_link(other, &mtu).expect("an MTU");
    netlink.put_neighbour(other, ip("10.2.0.2"), mac).expect("a neighbour");
    netlink.add_route(&route(other, "10.2.0.2", 3)).expect("a route");
    assert!(!changed(), "others' things");
    netlink.replace_route(&route(ours, "10.1.0.2", 3)).expect("a route in another's place");
    assert!(changed(), "a replaced route");
    netlink.replace_route(&route(ours, "10.1.0.2", 197)).expect("ours");
    assert!(changed(), "a route of ours");
    netlink.delete_route(&route(ours, "10.1.0.2", 197)).expect("it goes");
    assert!(changed(), "a route of ours that goes");
    netlink.put_neighbour(ours, ip("10.1.0.2"), mac).expect("a neighbour");
    assert!(changed(), "a neighbour");
    netlink.delete_neighbour(ours, ip("10.1.0.2")).expect("it goes");
    assert!(changed(), "a neighbour that goes");
    netlink.change_link(ours, &mtu).expect("an MTU");
    assert!(changed(), "an MTU");
    netlink.delete_address(ours, "10.1.0.1/24".parse().expect("a network")).expect("it goes");
    assert!(changed(), "an address");
    netlink.delete_link(ours).expect("it goes");
    assert!(changed(), "a link");
    assert!(!changed());
}

/// Rows: O-14
#[test]
fn lost_messages_count_as_a_change() {
    let netlink = enter();
    let (ours, other) = (bridge(&netlink, "ours").index, bridge(&netlink, "other").index);
    let mut monitor = Monitor::new(&netlink).expect("a subscription");
    let interest = Interest { links: [ours].into(), protocol: 197 };
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    // Each of them takes at least a kilobyte of the buffer's accounting.
    for host in 0..8000_u32 {
        let address = IpAddr::from((0x0a02_0000 + host).to_be_bytes());
        netlink.put_neighbour(other, address, mac).expect("a neighbour");
    }
    assert!(monitor.changed(&interest).expect("it reads"));
    assert!(!monitor.changed(&interest).expect("it reads"));
}

#[test]
fn broken_datagrams_end() {
    for bytes in [&[0_u8; 15][..], &[0; 64], &[0xff; 40]] {
        assert_eq!(messages(bytes).count(), 0);
    }
}
