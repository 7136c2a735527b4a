//! Configuration and judgement, without a kernel.

use std::net::IpAddr;

use causeway_kernel::{AddressState, Link, LinkKind, VxlanAttributes};
use cni_plugin::Code;

use super::decide::{Change, Target, VxlanAction, alias};
use super::{Flood, RawVxlan, Underlay, VxlanConfig, check};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn raw(id: u32) -> RawVxlan {
    RawVxlan { id: Some(id), ..RawVxlan::default() }
}

fn group() -> RawVxlan {
    RawVxlan { group: Some("239.1.1.1".to_owned()), dev: Some("eth0".to_owned()), ..raw(10) }
}

fn peers(list: &[&str]) -> RawVxlan {
    RawVxlan { peers: Some(list.iter().map(ToString::to_string).collect()), ..raw(10) }
}

fn refused(raw: &RawVxlan, contains: &[&str]) {
    let error = check("blue", raw).expect_err("a refusal");
    assert_eq!(error.code, Code::InvalidConfig, "{error}");
    for part in contains {
        assert!(error.msg.contains(part), "{part:?} is not in {:?}", error.msg);
    }
}

/// Rows: S-09, O-02
#[test]
fn group_with_defaults() {
    let checked = check("blue", &group()).expect("valid");
    let wanted = VxlanConfig {
        network: "blue".to_owned(),
        id: 10,
        name: "cwvx10".to_owned(),
        flood: Flood::Group(ip("239.1.1.1")),
        dev: Some("eth0".to_owned()),
        local: None,
        port: 4789,
        ttl: 0,
    };
    assert_eq!(checked, wanted);
    let own_port = check("blue", &RawVxlan { port: Some(8472), ..group() }).expect("valid");
    assert_eq!(own_port.port, 8472);
}

/// Rows: O-26
#[test]
fn group_and_peers_exclude_each_other() {
    refused(&raw(10), &["neither", "vxlan.group", "vxlan.peers"]);
    refused(&RawVxlan { peers: Some(Vec::new()), ..raw(10) }, &["neither"]);
    refused(&RawVxlan { group: Some(String::new()), ..raw(10) }, &["neither"]);
    let both = RawVxlan { peers: Some(vec!["172.18.0.3".to_owned()]), ..group() };
    refused(&both, &["239.1.1.1", "remove one"]);
    let far = check("blue", &RawVxlan { ttl: Some(8), ..group() }).expect("valid");
    assert_eq!(far.ttl, 8);
}

#[test]
fn refusals_name_field_value_and_remedy() {
    refused(&RawVxlan::default(), &["vxlan.id is required", "16777215"]);
    refused(&RawVxlan { id: Some(0), ..group() }, &["vxlan.id", "0", "1 to 16777215"]);
    refused(&RawVxlan { id: Some(1 << 24), ..group() }, &["16777216"]);
    refused(
        &RawVxlan { group: Some("172.18.0.3".to_owned()), ..raw(10) },
        &["vxlan.group", "172.18.0.3", "vxlan.peers"],
    );
    refused(&RawVxlan { group: Some("x".to_owned()), ..raw(10) }, &["vxlan.group", "\"x\""]);
    refused(&peers(&["239.1.1.1"]), &["vxlan.peers", "239.1.1.1", "vxlan.group"]);
    refused(&peers(&["172.18.0.3", "fd00::3"]), &["172.18.0.3", "fd00::3", "families"]);
    refused(&peers(&["127.0.0.1"]), &["127.0.0.1"]);
    refused(&RawVxlan { local: Some("fd00::2".to_owned()), ..group() }, &["vxlan.local", "IPv4"]);
    refused(
        &RawVxlan { local: Some("0.0.0.0".to_owned()), ..group() },
        &["vxlan.local", "0.0.0.0"],
    );
    refused(&RawVxlan { port: Some(0), ..group() }, &["vxlan.port", "4789", "8472"]);
    refused(&RawVxlan { port: Some(65536), ..group() }, &["vxlan.port", "65536"]);
    refused(&RawVxlan { ttl: Some(256), ..group() }, &["vxlan.ttl", "256"]);
    refused(&RawVxlan { name: Some("a/b".to_owned()), ..group() }, &["vxlan.name", "a/b"]);
    refused(
        &RawVxlan { dev: Some("more-than-15-bytes".to_owned()), ..group() },
        &["vxlan.dev", "more-than-15-bytes"],
    );
}

#[test]
fn peers_are_a_set() {
    let checked = check("blue", &peers(&["172.18.0.4", "172.18.0.3", "172.18.0.4"]));
    let checked = checked.expect("valid");
    assert_eq!(checked.flood, Flood::Peers(vec![ip("172.18.0.3"), ip("172.18.0.4")]));
}

fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: None,
        mtu: 1500,
        up: true,
        carrier: true,
        resolves: true,
        promisc: false,
        kind,
        master: None,
        peer_index: None,
        alias: None,
        port: None,
    }
}

fn bridge() -> Link {
    link(5, "cw0", LinkKind::Bridge { vlan_filtering: false, default_pvid: 1 })
}

/// The device as it is when everything is right, but for `edit`.
fn device(edit: impl FnOnce(&mut Link, &mut VxlanAttributes)) -> Link {
    let mut attributes = VxlanAttributes {
        id: 10,
        group: Some(ip("239.1.1.1")),
        dev: Some(2),
        local: Some(ip("172.18.0.2")),
        port: 4789,
        ttl: 0,
        learning: true,
        strange: false,
    };
    let mut link = link(7, "cwvx10", LinkKind::Veth);
    link.mtu = 1450;
    link.master = Some(5);
    link.alias = Some(alias("blue"));
    edit(&mut link, &mut attributes);
    if link.kind == LinkKind::Veth {
        link.kind = LinkKind::Vxlan(attributes);
    }
    link
}

fn with_target<T>(work: impl FnOnce(&Target<'_>) -> T) -> T {
    let wanted = check("blue", &group()).expect("valid");
    let bridge = bridge();
    let underlay = Underlay::new(link(2, "eth0", LinkKind::Other(String::new())));
    let attributes = underlay.attributes(&wanted, &[address("172.18.0.2/24", 0)]);
    let attributes = attributes.expect("a source is not needed");
    let locals = vec![ip("172.18.0.2"), ip("172.18.0.9")];
    work(&Target { wanted: &wanted, bridge: &bridge, mtu: 1450, attributes, locals })
}

fn decide(edit: impl FnOnce(&mut Link, &mut VxlanAttributes)) -> VxlanAction {
    with_target(|target| target.decide(&device(edit)))
}

fn address(text: &str, scope: u8) -> AddressState {
    let address = text.parse().expect("an address");
    AddressState { address, tentative: false, dad_failed: false, scope }
}

fn in_the_way(action: &VxlanAction, contains: &[&str]) {
    let VxlanAction::Refuse(error) = action else { panic!("not refused: {action:?}") };
    assert_eq!(error.code, Code::InvalidConfig);
    for part in contains {
        assert!(error.msg.contains(part), "{part:?} is not in {:?}", error.msg);
    }
}

/// Rows: S-13, O-12
#[test]
fn every_attribute_of_a_device_is_compared() {
    assert_eq!(decide(|_, _| ()), VxlanAction::Fine);
    let edits: [fn(&mut Link, &mut VxlanAttributes); 7] = [
        |_, a| a.id = 11,
        |_, a| a.port = 8472,
        |_, a| a.group = None,
        |_, a| a.dev = Some(3),
        |_, a| a.local = Some(ip("172.18.0.3")),
        |_, a| a.ttl = 5,
        |_, a| a.learning = false,
    ];
    for edit in edits {
        assert_eq!(decide(edit), VxlanAction::Recreate);
        let foreign = decide(|link, attributes| {
            edit(link, attributes);
            link.alias = Some("mine, hands off".to_owned());
        });
        in_the_way(&foreign, &["cwvx10", "instead of", "delete"]);
    }
    in_the_way(
        &decide(|link, a| {
            link.alias = Some(String::new());
            a.ttl = 5;
        }),
        &["ttl 5 instead of 0"],
    );
    in_the_way(
        &decide(|link, _| link.kind = LinkKind::Bridge { vlan_filtering: false, default_pvid: 1 }),
        &["kind bridge instead of vxlan"],
    );
}

/// Rows: S-13
#[test]
fn what_can_be_changed_in_place_is() {
    let all = decide(|link, _| {
        link.up = false;
        link.mtu = 1400;
        link.master = None;
        link.alias = None;
    });
    let wanted = Change { up: true, mtu: Some(1450), master: Some(5), mark: true };
    assert_eq!(all, VxlanAction::Change(wanted));
    // A source that the node still has is as good as the one that would be chosen now.
    assert_eq!(decide(|_, a| a.local = Some(ip("172.18.0.9"))), VxlanAction::Fine);
}

/// Rows: O-18
#[test]
fn a_device_of_another_network_is_left_alone() {
    in_the_way(&decide(|link, _| link.alias = Some(alias("red"))), &["network red", "blue"]);
    assert_eq!(decide(|link, _| link.master = Some(9)), VxlanAction::Enslaved(9));
    with_target(|target| {
        let msg = target.enslaved("cw9").msg;
        assert!(msg.contains("bridge cw9 instead of cw0"), "{msg}");
    });
}

/// Rows: O-18, O-26
#[test]
fn an_id_is_used_once() {
    let conflict = |name: &str, edit: fn(&mut Link, &mut VxlanAttributes)| {
        let mut other = device(edit);
        other.name = name.to_owned();
        with_target(|target| target.conflict(&[bridge(), other]))
    };
    let same_port = conflict("docker9", |link, _| {
        link.alias = None;
        link.master = None;
    });
    let msg = same_port.expect("a refusal").msg;
    assert!(
        msg.contains("docker9 (not made by causeway)") && msg.contains("vxlan.id: 10"),
        "{msg}"
    );
    let same_bridge = conflict("other", |link, a| {
        link.alias = Some(alias("red"));
        a.port = 8472;
    });
    let msg = same_bridge.expect("a refusal").msg;
    assert!(msg.contains("of network red"), "{msg}");
    let elsewhere = conflict("other", |link, a| {
        link.master = Some(9);
        a.port = 8472;
    });
    assert_eq!(elsewhere, None);
    assert_eq!(conflict("other", |_, a| a.id = 11), None);
    assert_eq!(conflict("cwvx10", |_, _| ()), None);
}

/// Rows: O-09, S-14
#[test]
fn mtu_is_the_underlay_minus_the_headers() {
    let eth0 = || link(2, "eth0", LinkKind::Other(String::new()));
    let v4 = check("blue", &group()).expect("valid");
    let v6 = check("blue", &peers(&["fd00::3"])).expect("valid");
    let jumbo = Underlay::new(Link { mtu: 9001, ..eth0() });
    assert_eq!(Underlay::new(eth0()).inner_mtu(&v4), 1450);
    assert_eq!(Underlay::new(eth0()).inner_mtu(&v6), 1430);
    assert_eq!(jumbo.inner_mtu(&v4), 8951);
    assert_eq!(jumbo.inner_mtu(&v6), 8931);
    Underlay::new(eth0()).check_mtu(&v4, 1450).expect("fits");
    let error = Underlay::new(eth0()).check_mtu(&v6, 1431).expect_err("too large");
    assert_eq!(error.code, Code::InvalidConfig);
    assert!(error.msg.contains("1431") && error.msg.contains("1430"), "{error}");
}

#[test]
fn source_is_of_the_peers_family_and_scope() {
    let underlay = Underlay::new(link(2, "eth0", LinkKind::Other(String::new())));
    let addresses = [
        AddressState { tentative: true, ..address("fd00::9/64", 0) },
        address("fe80::2/64", 253),
        address("172.18.0.2/24", 0),
        address("fd00::2/64", 0),
    ];
    let local = |raw: &RawVxlan, addresses: &[AddressState]| {
        let wanted = check("blue", raw).expect("valid");
        underlay.attributes(&wanted, addresses).map(|attributes| attributes.local)
    };
    assert_eq!(local(&group(), &addresses), Ok(Some(ip("172.18.0.2"))));
    assert_eq!(local(&peers(&["fd00::3"]), &addresses), Ok(Some(ip("fd00::2"))));
    assert_eq!(local(&peers(&["fe80::3"]), &addresses), Ok(Some(ip("fe80::2"))));
    assert_eq!(local(&group(), &[]), Ok(None));
    let none = local(&peers(&["fd00::3"]), &[]).expect_err("the kernel would make an IPv4 device");
    assert!(none.msg.contains("vxlan.local"), "{none}");
}
