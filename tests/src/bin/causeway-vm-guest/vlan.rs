//! Vlans of bridge ports, as upstream's `bridge` means them.

use causeway_kernel::{BridgeSpec, LinkChange, LinkKind, Netlink, VlanRange};
use causeway_tests::traffic::{IMPATIENCE, Server};
use causeway_tests::{Attachment, Node, Pod, Runtime};
use serde_json::{Value, json};

use crate::{addresses, link, link_names, vlans};

const PORT: u16 = 7000;

/// A network on the bridge `br0` with these keys, and no address beside what `CNI_ARGS` says.
fn network<'a>(node: &'a Node, name: &str, keys: &Value) -> Runtime<'a> {
    let mut plugin = json!({ "type": "causeway-bridge", "bridge": "br0",
        "runDir": node.run_dir(), "ipam": { "type": "static-args" } });
    for (key, value) in keys.as_object().expect("keys of a plugin") {
        plugin[key] = value.clone();
    }
    Runtime::new(node, json!({ "cniVersion": "1.1.0", "name": name, "plugins": [plugin] }))
}

/// A container that is attached, and what ADD said.
struct Attached<'a> {
    runtime: &'a Runtime<'a>,
    pod: Pod,
    attachment: Attachment,
    result: Value,
    _server: Server,
}

impl<'a> Attached<'a> {
    fn new(node: &Node, runtime: &'a Runtime<'a>, address: &str) -> Self {
        let pod = node.pod();
        let args = format!("IgnoreUnknown=1;ADDRESS={address}/24");
        let attachment = pod.attachment("eth0").args(&args);
        let result = runtime.add_ok(&attachment);
        if let Err(outcome) = runtime.check(&attachment) {
            panic!("CHECK after ADD: {}", outcome.describe());
        }
        let server = Server::udp(&pod, &pod.id, &format!("0.0.0.0:{PORT}"));
        Self { runtime, pod, attachment, result, _server: server }
    }

    fn interface(&self, place: usize) -> &str {
        self.result["interfaces"][place]["name"].as_str().expect("an interface's name")
    }

    fn host_end(&self) -> &str {
        self.interface(1)
    }

    fn address(&self) -> &str {
        let address = self.result["ips"][0]["address"].as_str().expect("an address");
        address.split('/').next().unwrap_or_default()
    }

    fn reaches(&self, other: &Self) {
        let answer = self.pod.udp(&format!("{}:{PORT}", other.address()));
        let answer =
            answer.unwrap_or_else(|e| panic!("{} to {}: {e}", self.address(), other.address()));
        assert_eq!(answer.hostname, other.pod.id, "another container answered");
    }

    fn does_not_reach(&self, other: &Self) {
        let answer = self.pod.udp_within(&format!("{}:{PORT}", other.address()), IMPATIENCE);
        assert!(answer.is_err(), "{} reached {}", self.address(), other.address());
    }

    fn del(self) {
        self.runtime.del_ok(&self.attachment);
        self.runtime.del_ok(&self.attachment);
    }
}

/// No record of an attachment is left.
fn assert_no_records(node: &Node) {
    let out = node.sh(&format!("find {} -type f ! -name '*.lock'", node.run_dir().display()));
    let left: Vec<_> = out.lines().filter(|line| !line.ends_with("lock")).collect();
    assert!(left.is_empty(), "left after DEL: {left:?}");
}

fn filters(node: &Node) -> bool {
    matches!(link(node, "br0").kind, LinkKind::Bridge { vlan_filtering: true, .. })
}

/// What a port gets from `vlan`, `vlanTrunk` and `preserveDefaultVlan`.
pub(crate) fn ports() {
    let cases = [
        (json!({ "vlan": 100 }), vec!["100 pvid untagged"]),
        (
            json!({ "vlan": 100, "preserveDefaultVlan": true }),
            vec!["1 untagged", "100 pvid untagged"],
        ),
        (
            json!({ "vlanTrunk": [{ "minID": 10, "maxID": 12 }, { "id": 20 }] }),
            vec!["1 pvid untagged", "10-12", "20"],
        ),
        (
            json!({ "vlan": 5, "vlanTrunk": [{ "minID": 4, "maxID": 6 }, { "id": 4094 }] }),
            vec!["4", "5 pvid untagged", "6", "4094"],
        ),
        (json!({ "vlan": 0 }), vec!["1 pvid untagged"]),
    ];
    let node = Node::new("node");
    for (number, (keys, wanted)) in cases.iter().enumerate() {
        let name = format!("net{number}");
        let runtime = network(&node, &name, keys);
        let attached = Attached::new(&node, &runtime, "10.9.0.2");
        assert!(filters(&node), "vlan_filtering is off with {keys}");
        assert_eq!(vlans(&node, attached.host_end()), *wanted, "{keys}");
        let interfaces = attached.result["interfaces"].as_array().map(Vec::len);
        assert_eq!(interfaces, Some(3), "{}", attached.result);
        attached.del();
        assert_eq!(link_names(&node), ["br0", "lo"]);
        assert_no_records(&node);
    }
}

/// Containers of one vlan talk to each other and to no other vlan.
pub(crate) fn separation() {
    let node = Node::new("node");
    // The rules against forged addresses work beside the vlans.
    let keys = json!({ "vlan": 100, "macspoofchk": true });
    let blue = network(&node, "blue", &keys);
    let red = network(&node, "red", &json!({ "vlan": 200 }));
    let plain = network(&node, "plain", &json!({}));
    let blues =
        [Attached::new(&node, &blue, "10.9.0.10"), Attached::new(&node, &blue, "10.9.0.11")];
    let reds = [Attached::new(&node, &red, "10.9.0.20"), Attached::new(&node, &red, "10.9.0.21")];
    let plains =
        [Attached::new(&node, &plain, "10.9.0.30"), Attached::new(&node, &plain, "10.9.0.31")];
    for [one, other] in [&blues, &reds, &plains] {
        one.reaches(other);
        other.reaches(one);
    }
    blues[0].does_not_reach(&reds[0]);
    reds[0].does_not_reach(&blues[1]);
    plains[0].does_not_reach(&blues[0]);
    reds[1].does_not_reach(&plains[1]);
    blues.into_iter().chain(reds).chain(plains).for_each(Attached::del);
    assert_eq!(link_names(&node), ["br0", "lo"]);
    assert_no_records(&node);
}

/// A trunk carries its vlans tagged, its native one untagged, and no other.
pub(crate) fn trunk() {
    let node = Node::new("node");
    let blue = network(&node, "blue", &json!({ "vlan": 100 }));
    let red = network(&node, "red", &json!({ "vlan": 200 }));
    let keys = json!({ "vlan": 100, "vlanTrunk": [{ "minID": 150, "maxID": 200 }] });
    let trunks = network(&node, "trunk", &keys);
    let (blue, red) =
        (Attached::new(&node, &blue, "10.9.0.10"), Attached::new(&node, &red, "10.9.0.20"));
    let trunk = Attached::new(&node, &trunks, "10.9.0.30");
    trunk.reaches(&blue);
    blue.reaches(&trunk);
    trunk.does_not_reach(&red);
    tag(&trunk.pod, 200, "10.9.0.40/24", red.address());
    trunk.reaches(&red);
    tag(&trunk.pod, 201, "10.9.0.41/24", red.address());
    trunk.does_not_reach(&red);
    [blue, red, trunk].into_iter().for_each(Attached::del);
    assert_eq!(link_names(&node), ["br0", "lo"]);
}

/// Sends what goes from `pod` to the address `to` with the tag `id`.
fn tag(pod: &Pod, id: u16, address: &str, to: &str) {
    pod.sh(&format!(
        "ip link add link eth0 name eth0.{id} type vlan id {id}
         ip link set eth0.{id} up
         ip addr add {address} dev eth0.{id}
         ip route del {to}/32 2>/dev/null || true
         ip route add {to}/32 dev eth0.{id} src {}",
        address.split('/').next().unwrap_or_default()
    ));
}

/// With a gateway, a veth `br0.<vlan>` carries its address and is the fourth interface.
pub(crate) fn gateway() {
    let node = Node::new("node");
    let keys = |vlan: u16| json!({ "vlan": vlan, "isDefaultGateway": true, "ipMasq": true });
    let blue = network(&node, "blue", &keys(100));
    let red = network(&node, "red", &keys(200));
    let (one, two) =
        (Attached::new(&node, &blue, "10.9.1.2"), Attached::new(&node, &blue, "10.9.1.3"));
    let other = Attached::new(&node, &red, "10.9.2.2");
    for (attached, name, address) in [
        (&one, "br0.100", "10.9.1.1"),
        (&two, "br0.100", "10.9.1.1"),
        (&other, "br0.200", "10.9.2.1"),
    ] {
        let interfaces = attached.result["interfaces"].as_array().expect("interfaces");
        let names: Vec<_> = (0..interfaces.len()).map(|place| attached.interface(place)).collect();
        assert_eq!(names, ["br0", attached.host_end(), "eth0", name]);
        let here = link(&node, name);
        assert_eq!(interfaces[3]["mac"], json!(here.mac.map(|mac| mac.to_string())));
        assert_eq!(interfaces[3].get("sandbox"), None);
        assert_eq!(attached.result["ips"][0]["interface"], 2);
        assert_eq!(addresses(&node, name), [format!("{address}/24")]);
        attached.pod.assert_ping(address);
        // A container could advertise itself as the node's router.
        assert_eq!(node.sysctl(&format!("ipv6/conf/{name}/accept_ra")), "0");
    }
    assert!(addresses(&node, "br0").is_empty(), "the bridge itself carries an address");
    let masters = ports_of_bridge(&node);
    let natives: Vec<_> = masters.iter().map(|name| vlans(&node, name)).collect();
    assert_eq!(natives.iter().filter(|native| **native == ["100 pvid untagged"]).count(), 3);
    assert_eq!(natives.iter().filter(|native| **native == ["200 pvid untagged"]).count(), 2);

    one.reaches(&two);
    // Between the vlans the host routes.
    one.reaches(&other);
    other.reaches(&two);
    [one, two, other].into_iter().for_each(Attached::del);
    // Bridge and gateways are there for the next one, as the bridge is without vlans.
    let links = link_names(&node);
    assert_eq!(links.len(), "lo br0 br0.100 port br0.200 port".split(' ').count(), "{links:?}");
    assert_no_records(&node);
    unfinish(&node, "br0.100", 100);
    let again = Attached::new(&node, &blue, "10.9.1.4");
    again.pod.assert_ping("10.9.1.1");
    again.del();
    assert_eq!(link_names(&node), links);
}

/// Brings a gateway to where an ADD leaves it that dies while it makes it.
fn unfinish(node: &Node, name: &str, vlan: u16) {
    let native = |id| VlanRange { first: id, last: id, pvid: true, untagged: true };
    let gateway = link(node, name);
    let ports = ports_of_bridge(node);
    let mut ports = ports.iter().map(|port| link(node, port));
    let port = ports.find(|port| port.peer_index == Some(gateway.index));
    let port = port.expect("the gateway's port").index;
    node.run(|| {
        let netlink = Netlink::open().expect("netlink");
        let down = LinkChange { up: Some(false), ..LinkChange::default() };
        netlink.change_link(gateway.index, &down).expect("down");
        netlink.change_link(port, &down).expect("down");
        netlink.delete_vlans(port, &[native(vlan)]).expect("the vlan goes");
        netlink.add_vlans(port, &[native(1)], false).expect("the default vlan");
    });
}

/// The names of the ports of `br0`.
fn ports_of_bridge(node: &Node) -> Vec<String> {
    let bridge = link(node, "br0").index;
    let names = link_names(node).into_iter();
    names.filter(|name| link(node, name).master == Some(bridge)).collect()
}

/// A bridge that was made without filtering gets it with the first vlan, keeps its MTU, and goes
/// on to serve those who asked for no vlan.
pub(crate) fn existing_bridge() {
    let node = Node::new("node");
    node.run(|| {
        let netlink = Netlink::open().expect("netlink");
        let spec = BridgeSpec { name: "br0", mtu: None, mac: None, vlan_filtering: false };
        let bridge = netlink.add_bridge(&spec).expect("a bridge");
        let change = LinkChange { mtu: Some(1400), ..LinkChange::default() };
        netlink.change_link(bridge.index, &change).expect("an MTU");
    });
    let plain = network(&node, "plain", &json!({}));
    let blue = network(&node, "blue", &json!({ "vlan": 100 }));
    let plains =
        [Attached::new(&node, &plain, "10.9.0.10"), Attached::new(&node, &plain, "10.9.0.11")];
    assert!(!filters(&node), "filtering without a vlan");
    let blues =
        [Attached::new(&node, &blue, "10.9.0.20"), Attached::new(&node, &blue, "10.9.0.21")];
    assert!(filters(&node), "vlan_filtering is still off");
    assert_eq!(link(&node, "br0").mtu, 1400);
    assert_eq!(link(&blues[0].pod, "eth0").mtu, 1400);
    plains[0].reaches(&plains[1]);
    blues[0].reaches(&blues[1]);
    blues[0].does_not_reach(&plains[0]);
    plains.into_iter().chain(blues).for_each(Attached::del);
    assert_eq!(link_names(&node), ["br0", "lo"]);
}
