//! Sockets and groups against the kernel of a neighbour.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::*;
use crate::link::VethSpec;
use crate::testing::{enter, neighbours, other, stale_neighbour};
use crate::{
    AddressSpec, Interest, LinkChange, Mac, Monitor, Netlink, Netns, Program, Sysctl, run,
    wait_readable,
};

const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 2]);
const FORMER: Mac = Mac([2, 0, 0, 0, 0, 3]);
/// How long anything that does happen may take.
const LONG: Duration = Duration::from_secs(20);

/// A node and a client on a wire. The test's thread is the node.
struct Wire {
    node: u32,
    client: Netns,
    /// In the client.
    netlink: Netlink,
    eth0: u32,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn wire() -> Wire {
    let node = enter();
    let client = other();
    let spec = VethSpec {
        name: "lan0",
        master: None,
        mtu: None,
        alias: "",
        peer_name: "eth0",
        peer_mac: Some(CLIENT),
        peer_netns: &client,
        up: true,
    };
    node.add_veth(&spec).expect("a veth");
    let lan0 = node.link("lan0").expect("a query").expect("it is there").index;
    let own = LinkChange { mac: Some(NODE), ..LinkChange::default() };
    node.change_link(lan0, &own).expect("its address");
    let netlink = Netlink::open_in(&client).expect("a connection");
    let eth0 = netlink.link("eth0").expect("a query").expect("it is there").index;
    for address in ["10.1.0.9/24", "fd00::9/64"] {
        let address = address.parse().expect("a network");
        netlink.add_address(eth0, &AddressSpec { address, nodad: true }).expect("an address");
    }
    let at_once = [("net/ipv6/conf/eth0/accept_dad".to_owned(), "0")];
    Sysctl { netns: Some(&client) }.ensure(&at_once).expect("written");
    let mut monitor = Monitor::new(&netlink).expect("a subscription");
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    netlink.change_link(eth0, &up).expect("up");
    node.wait_forwarding(lan0, LONG).expect("carrier");
    // IPv6 takes frames in once it has seen the carrier; then there is a link-local address.
    while !netlink.addresses(eth0).expect("a dump").iter().any(|state| state.scope == 253) {
        wait_change(&monitor);
        monitor.changed(&Interest::default()).expect("it reads");
    }
    Wire { node: lan0, client, netlink, eth0 }
}

impl Wire {
    /// Has the client look for `address`.
    fn look_for(&self, address: IpAddr) {
        let to = SocketAddr::new(address, 9);
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sent = self.client.run(|| UdpSocket::bind(any)?.send_to(b"hello", to));
        sent.expect("entered").expect("it is sent, or waits for the address");
    }

    /// Whom the client sends to for `address`.
    fn known(&self, address: IpAddr) -> Option<Mac> {
        let mut found = neighbours(&self.netlink, self.eth0).into_iter();
        found.find(|(known, _)| *known == address).map(|(_, mac)| mac)
    }

    /// Waits until the client sends to `mac`.
    fn wait_known(&self, address: IpAddr, mac: Mac) {
        let mut monitor = Monitor::new(&self.netlink).expect("a subscription");
        while self.known(address) != Some(mac) {
            let changed = monitor.changed(&Interest::default()).expect("it reads");
            if !changed {
                wait_change(&monitor);
            }
        }
    }
}

fn wait_change(file: &impl std::os::fd::AsFd) {
    let before = crate::clock::Deadline::after(LONG);
    wait_readable(&[file.as_fd()], LONG).expect("it waits");
    assert!(!before.passed(), "nothing happened");
}

/// The next frame that fits.
fn frame(socket: &FrameSocket, fits: impl Fn(&Frame) -> bool) -> Frame {
    loop {
        match socket.receive().expect("it reads") {
            Some(frame) if fits(&frame) => return frame,
            Some(_) => {}
            None => wait_change(socket),
        }
    }
}

#[test]
fn a_client_resolves_an_address_that_no_link_has() {
    let wire = wire();
    for (protocol, address) in [(Protocol::Arp, ip("10.1.0.5")), (Protocol::Ndp, ip("fd00::5"))] {
        let mut groups = SolicitedGroups::default();
        let socket = FrameSocket::open(wire.node, protocol).expect("a socket");
        if let IpAddr::V6(address) = address {
            groups.join(wire.node, address).expect("joined");
        }
        wire.look_for(address);
        let asked = frame(&socket, |frame| frame.asks() && frame.target() == address);
        assert_eq!(asked.sender().1, CLIENT);
        socket.send(&asked.answer(NODE).expect("it asks")).expect("sent");
        wire.wait_known(address, NODE);
    }
}

/// Linux takes a gratuitous reply, and an advertisement with O, in the place of what it knew.
#[test]
fn neighbours_learn_a_new_holder() {
    let wire = wire();
    for (protocol, address) in [(Protocol::Arp, ip("10.1.0.5")), (Protocol::Ndp, ip("fd00::5"))] {
        let socket = FrameSocket::open(wire.node, protocol).expect("a socket");
        for frame in Frame::gratuitous(address, NODE) {
            stale_neighbour(&wire.netlink, wire.eth0, address, FORMER);
            assert_eq!(wire.known(address), Some(FORMER));
            socket.send(&frame).expect("sent");
            wire.wait_known(address, NODE);
            let entry = wire.netlink.delete_neighbour(wire.eth0, address);
            entry.expect("the entry goes");
        }
    }
}

/// One that asks is learned of, though its address was not known before.
#[test]
fn neighbours_learn_from_a_question() {
    let wire = wire();
    for (protocol, held, asked) in [
        (Protocol::Arp, ip("10.1.0.5"), ip("10.1.0.9")),
        (Protocol::Ndp, ip("fd00::5"), ip("fd00::9")),
    ] {
        let socket = FrameSocket::open(wire.node, protocol).expect("a socket");
        let question = Frame::question(held, NODE, asked, None).expect("of one family");
        socket.send(&question).expect("sent");
        let answer = frame(&socket, |frame| !frame.asks());
        assert_eq!(answer.sender().1, CLIENT);
        assert_eq!(wire.known(held), Some(NODE));
    }
}

/// Groups of the client, as /proc has them.
fn groups_of_link(link: &str) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/igmp6").expect("it reads");
    let lines = text.lines().filter(|line| line.split_whitespace().nth(1) == Some(link));
    lines.filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

#[test]
fn addresses_with_equal_last_bits_share_a_group() {
    let wire = wire();
    let address = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
    let mut groups = SolicitedGroups::default();
    let group = "ff0200000000000000000001ff345678".to_owned();
    for held in ["fd00::1234:5678", "fd00:1::1234:5678"] {
        groups.join(wire.node, address(held)).expect("joined");
        assert!(groups_of_link("lan0").contains(&group));
    }
    groups.leave(wire.node, address("fd00::1234:5678")).expect("left");
    assert!(groups_of_link("lan0").contains(&group), "the other address is still held");
    groups.leave(wire.node, address("fd00:1::1234:5678")).expect("left");
    assert!(!groups_of_link("lan0").contains(&group));
    groups.leave(wire.node, address("fd00::1")).expect("it was never joined");
    let error = groups.join(4711, address("fd00::1")).expect_err("no such link");
    assert_eq!(error.raw(), Some(libc::ENODEV), "{error}");
    assert_eq!(groups.joined().count(), 0);
}

/// One socket has room for some hundred to two thousand groups.
#[test]
fn there_is_room_for_any_number_of_groups() {
    let wire = wire();
    let mut groups = SolicitedGroups::default();
    for low in 0..4000_u16 {
        let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, low);
        groups.join(wire.node, address).expect("joined");
    }
    assert!(groups_of_link("lan0").len() >= 4000);
}

/// What is not for this station does not come in: nor does what is not asked for.
#[test]
fn only_frames_of_the_protocol_come_in() {
    let wire = wire();
    let arp = FrameSocket::open(wire.node, Protocol::Arp).expect("a socket");
    let ndp = FrameSocket::open(wire.node, Protocol::Ndp).expect("a socket");
    let (index, client) = (wire.eth0, &wire.client);
    let [mut strange, own] = [FORMER, NODE]
        .map(|mac| Frame::question(ip("10.1.0.9"), CLIENT, ip("10.1.0.5"), Some(mac)))
        .map(|frame| frame.expect("of one family"));
    let sent = client.run(|| {
        let socket = FrameSocket::open(index, Protocol::Arp)?;
        socket.send(&strange)?;
        socket.send(&own)?;
        let question = Frame::question(ip("fd00::9"), CLIENT, ip("fd00::5"), Some(NODE));
        socket.send(&question.expect("of one family"))
    });
    sent.expect("entered").expect("sent");
    assert_eq!(frame(&arp, |_| true), own, "not the one to another station");
    strange = frame(&ndp, |frame| frame.target() == ip("fd00::5"));
    assert!(strange.asks());
    assert!(FrameSocket::open(4711, Protocol::Arp).is_err());
}

/// A link on top of another one is a segment of its own, as a VLAN is: its frames pass through the
/// lower link.
#[test]
fn frames_of_a_link_on_top_do_not_come_in() {
    let wire = wire();
    let top = format!("link add link lan0 name top address {FORMER} up type macvlan mode vepa");
    let add = Program {
        path: "/usr/bin/ip".into(),
        args: top.split(' ').map(str::to_owned).collect(),
        env: BTreeMap::new(),
        stdin: &[],
        timeout: LONG,
    };
    assert!(run(&add).expect("it runs").success);
    let netlink = Netlink::open().expect("a connection");
    let top = netlink.link("top").expect("a query").expect("it is there").index;
    let above = FrameSocket::open(top, Protocol::Arp).expect("a socket");
    let below = FrameSocket::open(wire.node, Protocol::Arp).expect("a socket");
    let [to_top, own] = [FORMER, NODE]
        .map(|mac| Frame::question(ip("10.1.0.9"), CLIENT, ip("10.1.0.5"), Some(mac)))
        .map(|frame| frame.expect("of one family"));
    let sent = wire.client.run(|| {
        let socket = FrameSocket::open(wire.eth0, Protocol::Arp)?;
        socket.send(&to_top)?;
        socket.send(&own)
    });
    sent.expect("entered").expect("sent");
    assert_eq!(frame(&above, |_| true), to_top, "it came by the lower link");
    assert_eq!(frame(&below, |_| true), own, "not the one of the link on top");
}

/// A switch that snoops learns by the report of MLD where solicitations for the address go.
#[test]
fn a_switch_that_snoops_hears_of_the_group() {
    /// `RTNLGRP_MDB` and `RTM_NEWMDB` (linux/rtnetlink.h).
    const MDB: (u32, u16) = (26, 84);
    let node = enter();
    let lan = other();
    let switch = Netlink::open_in(&lan).expect("a connection");
    let bridge = crate::link::tests::bridge(&switch, "lan").index;
    let here = Netns::current().expect("the node's namespace");
    let spec = VethSpec {
        name: "port",
        master: Some(bridge),
        mtu: None,
        alias: "",
        peer_name: "eth0",
        peer_mac: Some(NODE),
        peer_netns: &here,
        up: true,
    };
    switch.add_veth(&spec).expect("a veth");
    let socket = lan.run(|| {
        let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
        socket.bind(&netlink_sys::SocketAddr::new(0, 0))?;
        socket.add_membership(MDB.0)?;
        Ok::<_, std::io::Error>(socket)
    });
    let socket = socket.expect("entered").expect("a subscription");
    let eth0 = node.link("eth0").expect("a query").expect("it is there").index;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    node.change_link(eth0, &up).expect("up");
    let port = switch.link("port").expect("a query").expect("it is there").index;
    switch.wait_forwarding(port, LONG).expect("carrier");

    let address: Ipv6Addr = "fd00::1234:5678".parse().expect("an address");
    let mut groups = SolicitedGroups::default();
    groups.join(eth0, address).expect("joined");
    let group = solicited_node(address).octets();
    let mut event = Vec::with_capacity(4096);
    loop {
        wait_change(&socket);
        event.clear();
        socket.recv(&mut event, 0).expect("it reads");
        let is_new = event[4..6] == MDB.1.to_ne_bytes();
        if is_new && event.windows(16).any(|bytes| bytes == group) {
            break;
        }
    }
    // `br_mdb_entry.ifindex` stands before the group.
    let at = event.windows(16).position(|bytes| bytes == group).expect("it is there");
    assert_eq!(event[at - 8..at - 4], port.to_ne_bytes());
}
