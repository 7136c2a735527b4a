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

#[test]
fn routes_tell_gateways_tables_and_sources() {
    let (netlink, index, _far) = eth0();
    let (v4, v6) = (ip("10.1.0.1"), ip("fd00::1"));
    assert!(!netlink.has_default_gateway(v4).expect("a query"));
    assert!(netlink.routes(index, Some(4711)).expect("no such table is fine").is_empty());
    let error = netlink.route_to(ip("192.0.2.1")).expect_err("no route");
    assert_eq!(error.raw(), Some(libc::ENETUNREACH));
    add(&netlink, index, "10.1.0.2/16");
    add(&netlink, index, "fd00::2/64");
    let plain = RouteSpec { priority: Some(5), ..RouteSpec::new(net("0.0.0.0/0"), index) };
    netlink.add_route(&plain).expect("a route");
    assert!(!netlink.has_default_gateway(v4).expect("a query"), "it has no gateway");
    for gw in [v4, v6] {
        let all = if gw.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let spec = RouteSpec { gw: Some(gw), ..RouteSpec::new(net(all), index) };
        netlink.add_route(&spec).expect("a route");
        assert!(netlink.has_default_gateway(gw).expect("a query"));
        assert!(netlink.routes(index, None).expect("a dump").iter().any(|r| spec.is_met_by(r)));
    }
    assert_eq!(netlink.route_to(ip("192.0.2.1")).expect("routed"), (index, Some(ip("10.1.0.2"))));
    assert_eq!(netlink.route_to(ip("2001:db8::1")).expect("routed"), (index, Some(ip("fd00::2"))));
    let own = RouteSpec {
        gw: Some(v4),
        table: Some(4711),
        protocol: Some(197),
        onlink: true,
        ..RouteSpec::new(net("10.20.0.7/16"), index)
    };
    netlink.add_route(&own).expect("a route");
    let found = netlink.routes(index, Some(4711)).expect("a dump");
    assert_eq!(found.len(), 1);
    assert!(own.is_met_by(&found[0]) && found[0].onlink, "{found:?}");
    netlink.delete_route(&own).expect("it goes");
    netlink.delete_route(&own).expect("its absence is fine");
    assert!(netlink.routes(index, Some(4711)).expect("a dump").is_empty());
}

#[test]
fn an_ipv4_network_may_lie_behind_an_ipv6_gateway() {
    let (netlink, index, _far) = eth0();
    add(&netlink, index, "fd00::2/64");
    let spec = RouteSpec { gw: Some(ip("fd00::1")), ..RouteSpec::new(net("10.9.0.0/16"), index) };
    netlink.add_route(&spec).expect("a route");
    assert!(netlink.routes(index, None).expect("a dump").iter().any(|route| spec.is_met_by(route)));
    netlink.delete_route(&spec).expect("it goes");
}

/// Rows: F42
#[test]
fn waiting_for_addresses_is_over_at_once_without_detection() {
    let (netlink, index, _far) = eth0();
    add(&netlink, index, "fd00::2/64");
    // The link's own address is still being tested; it goes, so that the others count.
    for state in netlink.addresses(index).expect("a dump") {
        if state.scope != 0 {
            netlink.delete_address(index, state.address).expect("it goes");
        }
    }
    netlink.wait_addresses(index, std::time::Duration::ZERO).expect("nothing to wait for");
}

#[test]
fn an_address_of_another_host_is_refused() {
    let (netlink, index, far) = eth0();
    let there = Netlink::open_in(&far).expect("a connection");
    let far0 = there.link("far0").expect("a query").expect("it is there").index;
    add(&there, far0, "fd00::2/64");
    let spec = AddressSpec { address: net("fd00::2/64"), nodad: false };
    netlink.add_address(index, &spec).expect("an address");
    let error = netlink.wait_addresses(index, std::time::Duration::from_secs(10));
    let error = error.expect_err("taken");
    assert_eq!(error.raw(), Some(libc::EADDRINUSE), "{error:?}");
    assert!(error.action.contains("fd00::2"), "{error}");
}

#[test]
fn detection_that_does_not_end_times_out() {
    let (netlink, index, _far) = eth0();
    let key = "net/ipv6/conf/eth0/dad_transmits".to_owned();
    crate::Sysctl { netns: None }.ensure(&[(key, "100")]).expect("a sysctl");
    let spec = AddressSpec { address: net("fd00::2/64"), nodad: false };
    netlink.add_address(index, &spec).expect("an address");
    let error = netlink.wait_addresses(index, std::time::Duration::from_millis(30));
    assert_eq!(error.expect_err("it goes on").raw(), Some(libc::ETIMEDOUT));
}

#[test]
fn a_refusal_carries_the_kernels_own_words() {
    let (netlink, index, _far) = eth0();
    let gw = Some(ip("192.0.2.1"));
    let spec = RouteSpec { gw, ..RouteSpec::new(net("0.0.0.0/0"), index) };
    let error = netlink.add_route(&spec).expect_err("the gateway is not on the link");
    assert_eq!(error.raw(), Some(libc::ENETUNREACH));
    assert_eq!(
        error.action,
        format!("add route default via 192.0.2.1 dev {index} (Nexthop has invalid gateway)")
    );
}
