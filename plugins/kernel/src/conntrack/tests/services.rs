//! Entries of service frontends.

use super::*;
use crate::testing::enter;
use crate::{
    AddressSpec, NodePortAddresses, UdpFrontend, UdpFrontendAt, answered_by, reconcile_udp,
};

const ALL: NodePortAddresses = NodePortAddresses { networks: Vec::new(), localhost: true };

fn frontend(at: &str, port: u16, serving: &[(&str, u16)]) -> UdpFrontend {
    let at = match at {
        "node" => UdpFrontendAt::NodePort { ipv6: false },
        "node6" => UdpFrontendAt::NodePort { ipv6: true },
        address => UdpFrontendAt::Address(ip(address)),
    };
    let serving = serving.iter().map(|(address, port)| (ip(address), *port)).collect();
    UdpFrontend { at, port, serving }
}

/// A flow of a client port of its own.
fn udp(client_port: u16, to: (&str, u16), answered: (&str, u16)) {
    let client = if to.0.contains(':') { "fd00::9" } else { "192.0.2.9" };
    flow((client, client_port), to, answered, Protocol::Udp);
}

/// Client ports of the UDP flows that are left.
fn left() -> Vec<u16> {
    let mut ports: Vec<u16> = udp_ports().into_iter().map(|(from, _)| from).collect();
    ports.sort_unstable();
    ports
}

fn local_addresses(netlink: &crate::Netlink) {
    let lo = netlink.link("lo").expect("lo").expect("lo").index;
    for address in ["203.0.113.1/24", "198.51.100.1/24", "fd02::1/64"] {
        let address = address.parse().expect("an address");
        netlink.add_address(lo, &AddressSpec { address, nodad: true }).expect("an address");
    }
}

/// Rows: P72, P73, P77, P79
#[test]
fn only_flows_of_endpoints_that_serve_stay() {
    enter();
    udp(1, ("10.96.0.10", 53), ("10.0.1.2", 5353));
    // Another endpoint, another port of the same endpoint, and no translation at all.
    udp(2, ("10.96.0.10", 53), ("10.0.1.3", 5353));
    udp(3, ("10.96.0.10", 53), ("10.0.1.2", 53));
    udp(4, ("10.96.0.10", 53), ("10.96.0.10", 53));
    // Other services.
    udp(5, ("10.96.0.11", 53), ("10.0.1.3", 5353));
    udp(6, ("10.96.0.10", 54), ("10.0.1.3", 5353));
    let serving = [frontend("10.96.0.10", 53, &[("10.0.1.2", 5353), ("10.0.1.9", 5353)])];
    assert_eq!(reconcile_udp(&serving, &ALL, &[]).expect("reconciled"), 3);
    assert_eq!(left(), [1, 5, 6]);
    assert_eq!(reconcile_udp(&serving, &ALL, &[]).expect("nothing is left to do"), 0);
}

/// Rows: P74, P75, P76
#[test]
fn without_endpoints_no_udp_flow_stays_and_every_other_does() {
    enter();
    udp(1, ("10.96.0.10", 53), ("10.0.1.2", 5353));
    udp(2, ("10.96.0.10", 53), ("10.0.1.3", 5353));
    flow(("192.0.2.9", 3), ("10.96.0.10", 53), ("10.0.1.2", 5353), Protocol::Tcp);
    flow(("192.0.2.9", 4), ("10.96.0.10", 53), ("10.0.1.2", 5353), Protocol::Sctp);
    assert_eq!(
        reconcile_udp(&[frontend("10.96.0.10", 53, &[])], &ALL, &[]).expect("reconciled"),
        2
    );
    assert!(left().is_empty());
    for (protocol, port) in [(6, 3), (132, 4)] {
        let kept = answered_by(protocol, (ip("192.0.2.9"), port).into(), vip()).expect("a look-up");
        assert_eq!(kept, Some((ip("10.0.1.2"), 5353).into()), "protocol {protocol}");
    }
}

fn vip() -> std::net::SocketAddr {
    (ip("10.96.0.10"), 53).into()
}

/// Rows: P78
#[test]
fn a_first_look_at_all_frontends_keeps_what_is_right() {
    local_addresses(&enter());
    let pod = ("10.0.1.2", 5353);
    udp(1, ("10.96.0.10", 53), pod);
    udp(2, ("203.0.113.1", 30053), pod);
    udp(3, ("fd96::a", 53), ("fd01::2", 5353));
    udp(4, ("fd02::1", 30053), ("fd01::2", 5353));
    udp(5, ("127.0.0.1", 30053), pod);
    let all = [
        frontend("10.96.0.10", 53, &[pod]),
        frontend("node", 30053, &[pod]),
        frontend("fd96::a", 53, &[("fd01::2", 5353)]),
        frontend("node6", 30053, &[("fd01::2", 5353)]),
        frontend("10.96.0.11", 53, &[]),
    ];
    assert_eq!(reconcile_udp(&all, &ALL, &[]).expect("reconciled"), 0);
    assert_eq!(left(), [1, 2, 3, 4, 5]);
}

/// Rows: P72, P80
#[test]
fn node_ports_concern_addresses_of_this_node_alone() {
    local_addresses(&enter());
    let gone = ("10.0.1.3", 5353);
    udp(1, ("203.0.113.1", 30053), gone);
    udp(2, ("198.51.100.1", 30053), gone);
    udp(3, ("127.0.0.1", 30053), gone);
    // A pod's flow to a host outside, on a port of the same number.
    udp(4, ("192.0.2.77", 30053), ("192.0.2.77", 30053));
    udp(5, ("fd02::1", 30053), ("fd01::3", 5353));
    udp(6, ("fd00::77", 30053), ("fd00::77", 30053));
    let primary = NodePortAddresses {
        networks: vec!["203.0.113.1/32".parse().expect("a network")],
        localhost: false,
    };
    let frontends = [frontend("node", 30053, &[("10.0.1.2", 5353)])];
    assert_eq!(reconcile_udp(&frontends, &primary, &[]).expect("reconciled"), 1);
    assert_eq!(left(), [2, 3, 4, 5, 6]);
    assert_eq!(reconcile_udp(&frontends, &ALL, &[]).expect("reconciled"), 2);
    assert_eq!(left(), [4, 5, 6]);
    assert_eq!(reconcile_udp(&[frontend("node6", 30053, &[])], &ALL, &[]).expect("reconciled"), 1);
    assert_eq!(left(), [4, 6]);
}

#[test]
fn ipv6_flows_are_told_apart_by_address_and_port() {
    enter();
    udp(1, ("fd96::a", 53), ("fd01::2", 5353));
    udp(2, ("fd96::a", 53), ("fd01::3", 5353));
    udp(3, ("fd96::b", 53), ("fd01::3", 5353));
    udp(4, ("fd96::a", 53), ("fd96::a", 53));
    let serving = [frontend("fd96::a", 53, &[("fd01::2", 5353)])];
    assert_eq!(reconcile_udp(&serving, &ALL, &[]).expect("reconciled"), 2);
    assert_eq!(left(), [1, 3]);
}

#[test]
fn many_frontends_and_flows_cost_one_dump() {
    enter();
    let address = |n: u16| format!("10.96.{}.{}", n >> 8, n & 255);
    for n in 0..3_000 {
        let answered = if n % 3 == 0 { "10.0.1.3" } else { "10.0.1.2" };
        udp(1_000 + n, (&address(n), 53), (answered, 5353));
    }
    let frontends: Vec<_> =
        (0..3_000).map(|n| frontend(&address(n), 53, &[("10.0.1.2", 5353)])).collect();
    assert_eq!(reconcile_udp(&frontends, &ALL, &[]).expect("reconciled"), 1_000);
    assert_eq!(left().len(), 2_000);
}

#[test]
fn a_connection_is_looked_up_by_its_own_addresses() {
    enter();
    udp(1, ("10.96.0.10", 53), ("10.0.1.2", 5353));
    udp(2, ("fd96::a", 53), ("fd01::2", 5353));
    let find = |from: &str, port: u16, to: &str| {
        answered_by(17, (ip(from), port).into(), (ip(to), 53).into()).expect("a look-up")
    };
    assert_eq!(find("192.0.2.9", 1, "10.96.0.10"), Some((ip("10.0.1.2"), 5353).into()));
    assert_eq!(find("fd00::9", 2, "fd96::a"), Some((ip("fd01::2"), 5353).into()));
    assert_eq!(find("192.0.2.9", 2, "10.96.0.10"), None);
}

/// Rows: P75
#[test]
fn flows_to_addresses_of_services_that_are_gone_go_too() {
    enter();
    udp(1, ("10.96.0.10", 53), ("10.0.1.2", 5353));
    udp(2, ("10.96.0.11", 53), ("10.0.1.2", 5353));
    udp(3, ("10.97.0.11", 53), ("10.0.1.2", 5353));
    udp(4, ("fd96::a", 53), ("fd01::2", 5353));
    let services = ["10.96.0.0/16", "fd96::/112"].map(|net| net.parse().expect("a network"));
    let known = [frontend("10.96.0.10", 53, &[("10.0.1.2", 5353)])];
    assert_eq!(reconcile_udp(&known, &ALL, &services).expect("reconciled"), 2);
    assert_eq!(left(), [1, 3]);
}
