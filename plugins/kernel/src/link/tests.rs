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
