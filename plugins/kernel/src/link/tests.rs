use std::time::Duration;

use super::*;
use crate::testing::{enter, other};
use crate::{Error, Netlink};

const SECOND: Duration = Duration::from_secs(1);

fn up() -> LinkChange {
    LinkChange { up: Some(true), ..LinkChange::default() }
}

pub(crate) fn bridge(netlink: &Netlink, name: &str) -> Link {
    let link = netlink
        .add_bridge(&BridgeSpec { name, mtu: None, mac: None, vlan_filtering: false })
        .expect("a bridge");
    netlink.change_link(link.index, &up()).expect("the bridge comes up");
    link
}

fn veth<'a>(netns: &'a Netns, master: Option<u32>) -> VethSpec<'a> {
    VethSpec {
        name: "vethcafe0001",
        master,
        mtu: Some(1400),
        alias: "net/id:eth0",
        peer_name: "eth0",
        peer_mac: Some(Mac([2, 0, 0, 0, 0, 7])),
        peer_netns: netns,
        up: true,
    }
}

#[test]
fn a_link_that_is_not_there_is_none() {
    let netlink = enter();
    assert_eq!(netlink.link("nosuch").expect("a query"), None);
    assert_eq!(netlink.link_by_index(4711).expect("a query"), None);
    netlink.delete_link(4711).expect("deleting nothing succeeds");
    let loopback = netlink.link("lo").expect("a query").expect("every namespace has it");
    assert!(!loopback.resolves && bridge(&netlink, "cw0").resolves);
}

#[test]
fn one_message_makes_a_veth_complete() {
    let netlink = enter();
    let container = other();
    let bridge = bridge(&netlink, "cw0");
    netlink.add_veth(&veth(&container, Some(bridge.index))).expect("a veth");
    let inside = Netlink::open_in(&container).expect("a connection");
    let peer = inside.link("eth0").expect("a query").expect("the container's end");
    assert!(!peer.up);
    inside.change_link(peer.index, &up()).expect("it comes up");
    let host = netlink.wait_forwarding(
        netlink.link("vethcafe0001").expect("a query").expect("the host end").index,
        SECOND,
    );
    let host = host.expect("the port forwards");
    assert_eq!(host.kind, LinkKind::Veth);
    assert_eq!(host.master, Some(bridge.index));
    assert_eq!(host.mtu, 1400);
    assert_eq!(host.alias.as_deref(), Some("net/id:eth0"));
    assert!(host.up && host.carrier);
    assert_eq!(host.port, Some(PortState { state: 3, hairpin: false, isolated: false }));

    let peer = inside.link("eth0").expect("a query").expect("the container's end");
    assert_eq!(peer.mac, Some(Mac([2, 0, 0, 0, 0, 7])));
    assert_eq!(peer.mtu, 1400);
    assert!(peer.up);
    assert_eq!(peer.peer_index, Some(host.index));
    assert_eq!(host.peer_index, Some(peer.index));
    assert_eq!(netlink.links().expect("a dump").len(), 3);

    netlink.delete_link(host.index).expect("it goes");
    assert_eq!(inside.link("eth0").expect("a query"), None);
}

#[test]
fn a_taken_name_inside_leaves_nothing_behind() {
    let netlink = enter();
    let container = other();
    netlink.add_veth(&veth(&container, None)).expect("a veth");
    let second = VethSpec { name: "vethcafe0002", ..veth(&container, None) };
    let error: Error = netlink.add_veth(&second).expect_err("eth0 is taken");
    assert!(error.is_exists(), "{error:?}");
    assert_eq!(netlink.link("vethcafe0002").expect("a query"), None);
    let inside = Netlink::open_in(&container).expect("a connection");
    assert!(inside.link("eth0").expect("a query").is_some());
}

fn link_up(netlink: &Netlink, name: &str) -> u32 {
    let index = netlink.link(name).expect("a query").expect("it is there").index;
    netlink.change_link(index, &up()).expect("it comes up");
    index
}

#[test]
fn waiting_ends_with_the_event_and_not_before() {
    let netlink = enter();
    let container = other();
    let bridge = bridge(&netlink, "cw0");
    netlink.add_veth(&veth(&container, Some(bridge.index))).expect("a veth");
    let host = netlink.link("vethcafe0001").expect("a query").expect("the host end").index;
    // The container's end is down: no carrier.
    let error = netlink.wait_forwarding(host, Duration::from_millis(50)).expect_err("no carrier");
    assert_eq!(error.raw(), Some(libc::ETIMEDOUT));
    assert!(error.action.contains("up, no carrier, bridge port disabled"), "{error}");
    std::thread::scope(|scope| {
        let container = &container;
        scope.spawn(move || {
            let inside = Netlink::open_in(container).expect("a connection");
            link_up(&inside, "eth0")
        });
        let link = netlink.wait_forwarding(host, 20 * SECOND).expect("it forwards in the end");
        assert_eq!(link.port.map(|port| port.state), Some(3));
    });
    netlink.delete_link(host).expect("it goes");
    let error = netlink.wait_forwarding(host, SECOND).expect_err("it is gone");
    assert!(error.is_not_found(), "{error:?}");
}

#[test]
fn links_and_ports_change() {
    let netlink = enter();
    let container = other();
    let bridge = bridge(&netlink, "cw0");
    assert_eq!(bridge.kind, LinkKind::Bridge { vlan_filtering: false, default_pvid: 0 });
    netlink.add_veth(&veth(&container, None)).expect("a veth");
    let host = netlink.link("vethcafe0001").expect("a query").expect("the host end").index;
    let change = LinkChange {
        up: Some(true),
        mtu: Some(1300),
        mac: Some(Mac([2, 0, 0, 0, 0, 9])),
        master: Some(bridge.index),
        promisc: Some(true),
        vlan_filtering: None,
    };
    netlink.change_link(host, &change).expect("changed");
    let port = PortChange { hairpin: Some(true), isolated: Some(true) };
    netlink.change_port(host, &port).expect("changed");
    netlink.change_port(host, &PortChange::default()).expect("nothing to change");
    let link = netlink.link_by_index(host).expect("a query").expect("it is there");
    assert_eq!((link.mtu, link.mac, link.master), (1300, change.mac, Some(bridge.index)));
    assert!(link.up && link.promisc);
    let port = link.port.expect("a port");
    assert!(port.hairpin && port.isolated);
    netlink.set_alias("vethcafe0001", "").expect("changed");
    let free = LinkChange { master: Some(0), promisc: Some(false), ..LinkChange::default() };
    netlink.change_link(host, &free).expect("changed");
    let link = netlink.link_by_index(host).expect("a query").expect("it is there");
    assert_eq!((link.master, link.port, link.promisc, link.alias), (None, None, false, None));
    let error = netlink.change_link(4711, &up()).expect_err("no such link");
    assert!(error.is_not_found(), "{error:?}");
    let pinned = BridgeSpec {
        name: "cw1",
        mtu: Some(1300),
        mac: Some(Mac([2, 0, 0, 0, 0, 8])),
        vlan_filtering: false,
    };
    let second = netlink.add_bridge(&pinned).expect("a bridge");
    assert_eq!((second.mtu, second.mac), (1300, pinned.mac));
    assert!(netlink.add_bridge(&pinned).expect_err("taken").is_exists());
}

fn vxlan(group: Option<&str>, local: Option<&str>, dev: u32) -> VxlanAttributes {
    VxlanAttributes {
        id: 10,
        group: group.map(|text| text.parse().expect("an address")),
        dev: Some(dev),
        local: local.map(|text| text.parse().expect("an address")),
        port: 4789,
        ttl: 5,
        learning: true,
        strange: false,
    }
}

#[test]
fn a_vxlan_is_read_back_as_it_was_made() {
    let netlink = enter();
    let container = other();
    netlink.add_veth(&veth(&container, None)).expect("an underlay");
    let dev = link_up(&netlink, "vethcafe0001");
    let bridge = bridge(&netlink, "cw0");
    for (group, local) in [
        (Some("239.1.1.1"), None),
        (None, Some("192.0.2.1")),
        (Some("ff05::100"), None),
        (None, Some("fd00::1")),
    ] {
        let mut wanted = vxlan(group, local, dev);
        wanted.learning = group.is_some();
        let made = netlink.add_vxlan("cwvx10", Some(1330), Some(bridge.index), &wanted);
        let made = made.expect("a vxlan");
        assert_eq!(made.kind, LinkKind::Vxlan(wanted.clone()));
        assert_eq!((made.mtu, made.master, made.up), (1330, Some(bridge.index), false));
        let second = netlink.add_vxlan("other", None, None, &wanted).expect_err("taken");
        assert!(second.is_exists(), "{second:?}");
        netlink.delete_link(made.index).expect("it goes");
    }
}

#[test]
fn flood_entries_come_and_go() {
    use crate::FdbEntry;
    let netlink = enter();
    let container = other();
    netlink.add_veth(&veth(&container, None)).expect("an underlay");
    let dev = link_up(&netlink, "vethcafe0001");
    let made = netlink.add_vxlan("cwvx10", None, None, &vxlan(None, Some("192.0.2.1"), dev));
    let index = made.expect("a vxlan").index;
    let entry = |mac, dst: &str| FdbEntry { mac: Mac(mac), dst: dst.parse().expect("an address") };
    let flood = [entry([0; 6], "192.0.2.2"), entry([0; 6], "192.0.2.3")];
    let fixed = entry([2, 0, 0, 0, 0, 9], "192.0.2.2");
    for entry in [flood[0], flood[1], fixed, flood[0], fixed] {
        netlink.append_fdb(index, &entry).expect("added, or there");
    }
    let mut found = netlink.fdb(index).expect("a dump");
    found.sort();
    assert_eq!(found, [flood[0], flood[1], fixed]);
    let moved = entry([2, 0, 0, 0, 0, 9], "192.0.2.3");
    netlink.append_fdb(index, &moved).expect("moved");
    for entry in [flood[0], flood[0], flood[1]] {
        netlink.delete_fdb(index, &entry).expect("it goes, or has gone");
    }
    assert_eq!(netlink.fdb(index).expect("a dump"), [moved]);
}

fn emitted(message: &impl netlink_packet_core::Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// linux/if_bridge.h: `struct bridge_vlan_info { __u16 flags; __u16 vid; }`, flags 2 PVID, 4
/// UNTAGGED, 8 and 16 the ends of a range.
#[test]
fn vlans_are_written_as_the_kernel_reads_them() {
    let vlans = [
        VlanRange { first: 100, last: 100, pvid: true, untagged: true },
        VlanRange { first: 200, last: 299, pvid: false, untagged: false },
    ];
    let message = vlan::vlan_message(7, &vlans, true);
    let bytes = emitted(&message);
    // AF_BRIDGE, index 7.
    assert_eq!(bytes[..8], [7, 0, 0, 0, 7, 0, 0, 0]);
    let attributes: &[u8] = &[
        36, 0, 26, 0, // IFLA_AF_SPEC
        6, 0, 0, 0, 2, 0, 0, 0, // IFLA_BRIDGE_FLAGS: self
        8, 0, 2, 0, 6, 0, 100, 0, // 100 PVID UNTAGGED
        8, 0, 2, 0, 8, 0, 200, 0, // from 200
        8, 0, 2, 0, 16, 0, 43, 1, // to 299
    ];
    let mut got = bytes[16..].to_vec();
    // NLA_F_NESTED may be set or not.
    got[3] &= 0x7f;
    assert_eq!(got, attributes);
    assert_eq!(vlan::decode(&message), vlans);
    assert_eq!(vlan::vlan_message(7, &vlans, false).attributes.len(), 1);
}

#[test]
fn only_present_vlans_are_removed() {
    let range = |first, last| VlanRange { first, last, pvid: false, untagged: false };
    let present = [range(1, 1), range(100, 199), range(300, 300)];
    let found: Vec<_> = vlan::overlaps(&range(150, 400), &present).collect();
    assert_eq!(found, [range(150, 199), range(300, 300)]);
    assert_eq!(vlan::overlaps(&range(2, 99), &present).count(), 0);
}

#[test]
fn a_kernel_without_vlan_filtering_says_so_or_does_it() {
    let netlink = enter();
    let container = other();
    let bridge = bridge(&netlink, "cw0");
    netlink.add_veth(&veth(&container, Some(bridge.index))).expect("a veth");
    let port = netlink.link("vethcafe0001").expect("a query").expect("the host end").index;
    let vlan = [VlanRange { first: 100, last: 100, pvid: true, untagged: true }];
    match netlink.add_vlans(port, &vlan, false) {
        Ok(()) => {
            assert!(netlink.vlans(port).expect("a dump").contains(&vlan[0]));
            netlink.delete_vlans(port, &vlan).expect("it goes");
            assert!(!netlink.vlans(port).expect("a dump").contains(&vlan[0]));
        }
        Err(error) => assert_eq!(error.raw(), Some(libc::EOPNOTSUPP), "{error:?}"),
    }
    netlink.delete_vlans(port, &vlan).expect("its absence is fine");
    netlink.add_vlans(port, &[], false).expect("nothing to do");
}

#[test]
fn hardware_addresses_are_read_and_written() {
    let mac = Mac([2, 0, 0xab, 0, 0, 1]);
    assert_eq!(mac.to_string(), "02:00:ab:00:00:01");
    for text in ["02:00:ab:00:00:01", "2:0:AB:0:0:1", "02-00-ab-00-00-01"] {
        assert_eq!(text.parse(), Ok(mac), "{text}");
    }
    for text in ["", "02:00:ab:00:00", "02:00:ab:00:00:01:02", "+2:00:ab:00:00:01", "g2:0:0:0:0:0"]
    {
        let error = text.parse::<Mac>().expect_err(text);
        assert!(error.to_string().contains(text), "{error}");
    }
}
