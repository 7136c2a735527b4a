use crate::link::{LinkChange, VethSpec};
use crate::testing::{enter, other};
use crate::{Netlink, Netns, RouteSpec};

use super::*;

fn net(text: &str) -> IpNetwork {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A namespace's connection with an `eth0` that is up, its index, and the namespace of its peer.
fn eth0() -> (Netlink, u32, Netns) {
    let netlink = enter();
    let far = other();
    let spec = VethSpec {
        name: "eth0",
        master: None,
        mtu: None,
        alias: "",
        peer_name: "far0",
        peer_mac: None,
        peer_netns: &far,
        up: true,
    };
    netlink.add_veth(&spec).expect("a veth");
    let index = netlink.link("eth0").expect("a query").expect("it is there").index;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    netlink.change_link(1, &up).expect("lo");
    let inside = Netlink::open_in(&far).expect("a connection");
    let peer = inside.link("far0").expect("a query").expect("it is there");
    inside.change_link(peer.index, &up).expect("far0");
    (netlink, index, far)
}

fn add(netlink: &Netlink, index: u32, address: &str) {
    let spec = AddressSpec { address: net(address), nodad: true };
    netlink.add_address(index, &spec).expect("an address");
}

#[test]
fn addresses_come_and_go() {
    let (netlink, index, _far) = eth0();
    add(&netlink, index, "10.1.0.2/16");
    add(&netlink, index, "fd00::2/64");
    let spec = AddressSpec { address: net("10.1.0.2/16"), nodad: false };
    assert!(netlink.add_address(index, &spec).expect_err("it is there").is_exists());
    let mut found: Vec<String> = netlink
        .addresses(index)
        .expect("a dump")
        .iter()
        .filter(|state| state.scope == 0)
        .map(|state| format!("{} {}", state.address, state.tentative))
        .collect();
    found.sort();
    assert_eq!(found, ["10.1.0.2/16 false", "fd00::2/64 false"]);
    for address in ["10.1.0.2/16", "fd00::2/64"] {
        netlink.delete_address(index, net(address)).expect("it goes");
        netlink.delete_address(index, net(address)).expect("its absence is fine");
    }
    assert!(netlink.addresses(index).expect("a dump").iter().all(|state| state.scope != 0));
}

#[test]
fn equal_destinations_become_one_multipath_route() {
    let (netlink, index, _far) = eth0();
    add(&netlink, index, "10.1.0.2/16");
    add(&netlink, index, "fd00::2/64");
    for (dst, gateways) in
        [("10.9.0.0/16", ["10.1.0.8", "10.1.0.9"]), ("fd09::/64", ["fd00::8", "fd00::9"])]
    {
        let spec = |gw: &str| RouteSpec {
            gw: Some(ip(gw)),
            mtu: Some(1300),
            advmss: Some(1200),
            ..RouteSpec::new(net(dst), index)
        };
        let specs = [spec(gateways[0]), spec(gateways[1]), spec(gateways[0])];
        netlink.add_routes(&specs).expect("routes");
        let routes = netlink.routes(index, None).expect("a dump");
        let found: Vec<_> = routes.iter().filter(|route| route.dst == net(dst)).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        for (spec, found) in specs.iter().zip(found) {
            assert!(spec.is_met_by(found), "{spec:?} {found:?}");
        }
        assert!(netlink.add_routes(&specs).expect_err("it is there").is_exists());
        for spec in &specs {
            netlink.delete_route(spec).expect("it goes, or has gone");
        }
        let routes = netlink.routes(index, None).expect("a dump");
        assert!(!routes.iter().any(|route| route.dst == net(dst)), "{routes:?}");
    }
}
