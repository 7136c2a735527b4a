//! The layer-2 overlay between two nodes, with packets.

use causeway_tests::{Lab, Node, Ns, Outcome, Pod, Runtime};
use serde_json::{Value, json};

/// One /16 for all nodes, of which node N gives out 10.0.N.2 and up (row S-10).
fn network(lab: &Lab, index: usize, name: &str, vxlan: &Value) -> Value {
    let (node, n) = (&lab.nodes[index], index + 1);
    json!({ "cniVersion": "1.0.0", "name": name, "plugins": [
        { "type": "causeway-bridge", "bridge": "cw0", "isGateway": true,
          "runDir": node.run_dir(), "vxlan": vxlan,
          "ipam": { "type": "host-local", "dataDir": node.data_dir(), "ranges": [[
              { "subnet": "10.0.0.0/16", "rangeStart": format!("10.0.{n}.2"),
                "rangeEnd": format!("10.0.{n}.254"), "gateway": format!("10.0.{n}.1") } ]] } } ] })
}

/// Two nodes with one container each on one overlay.
struct Pair {
    lab: Lab,
    pods: [Pod; 2],
    vxlan: Value,
}

impl Pair {
    fn new(vxlan: Value) -> Self {
        let lab = Lab::two_nodes();
        let pods = [lab.nodes[0].pod(), lab.nodes[1].pod()];
        let pair = Self { lab, pods, vxlan };
        for index in [0, 1] {
            pair.add(index).unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
        }
        pair
    }

    fn add(&self, index: usize) -> Result<Value, Outcome> {
        self.runtime(index).add(&self.pods[index].attachment("eth0"))
    }

    fn runtime(&self, index: usize) -> Runtime<'_> {
        Runtime::new(&self.lab.nodes[index], network(&self.lab, index, "blue", &self.vxlan))
    }

    fn node(&self, index: usize) -> &Node {
        &self.lab.nodes[index]
    }

    /// Adds a container that is only there to have the device looked at.
    fn touch(&self, index: usize) -> Pod {
        let pod = self.node(index).pod();
        self.runtime(index).add_ok(&pod.attachment("eth0"));
        pod
    }

    /// Both directions work, up to exactly `mtu` bytes of packet.
    fn assert_connected(&self, mtu: u64) {
        let [one, two] = &self.pods;
        one.assert_ping("10.0.2.2");
        two.assert_ping("10.0.1.2");
        for (pod, to) in [(one, "10.0.2.2"), (two, "10.0.1.2")] {
            assert_eq!(pod.link("eth0").expect("eth0")["mtu"], mtu);
            // IPv4 and ICMP headers are 28 bytes.
            let largest = format!("ping -n -M do -c 1 -W 2 -s {} {to}", mtu - 28);
            pod.try_sh(&largest).ok();
            let above = pod.try_sh(&format!("ping -n -M do -c 1 -W 0.1 -s {} {to}", mtu - 27));
            assert!(!above.status.success(), "{}", above.describe());
        }
    }
}

fn device(node: &Ns, name: &str) -> Value {
    node.link(name).unwrap_or_else(|| panic!("no {name} among {:?}", node.link_names()))
}

/// The flood list of a device.
fn flooded(node: &Ns, name: &str) -> Vec<String> {
    let text = node.sh(&format!("bridge fdb show dev {name} | grep ^00:00:00:00:00:00 || true"));
    let mut list: Vec<String> = text
        .lines()
        .filter_map(|line| Some(line.split_once("dst ")?.1.split(' ').next()?.to_owned()))
        .collect();
    list.sort();
    list
}

fn refusal(outcome: Result<Value, Outcome>, contains: &[&str]) {
    let error = outcome.expect_err("a refusal").error();
    assert_eq!(error["code"], 7, "{error}");
    let msg = error["msg"].as_str().expect("a message");
    for part in contains {
        assert!(msg.contains(part), "{part:?} is not in {msg:?}");
    }
}

/// Rows: S-09, S-10, S-14
#[test]
fn containers_of_two_nodes_meet_over_a_multicast_group() {
    let pair = Pair::new(json!({ "id": 10, "group": "239.1.1.1", "dev": "eth0" }));
    pair.assert_connected(1450);
    for index in [0, 1] {
        let node = pair.node(index);
        let vxlan = device(node, "cwvx10");
        assert_eq!(vxlan["mtu"], 1450);
        assert_eq!(vxlan["master"], "cw0");
        assert_eq!(vxlan["ifalias"], "causeway vxlan blue");
        let data = &vxlan["linkinfo"]["info_data"];
        assert_eq!(data["id"], 10);
        assert_eq!(data["group"], "239.1.1.1");
        assert_eq!(data["port"], 4789);
        assert_eq!(data["link"], "eth0");
        assert_eq!(data["local"], Lab::node_address(index));
        for link in node.links() {
            if link["master"] == "cw0" || link["ifname"] == "cw0" {
                assert_eq!(link["mtu"], 1450, "{link}");
            }
        }
    }
}

/// Rows: O-25, O-26
#[test]
fn containers_of_two_nodes_meet_by_head_end_replication() {
    // Each node has the same list, its own address among it.
    let peers = json!(["172.18.0.2", "172.18.0.3"]);
    let mut pair = Pair::new(json!({ "id": 10, "peers": peers, "dev": "eth0" }));
    pair.assert_connected(1450);
    assert_eq!(flooded(pair.node(0), "cwvx10"), ["172.18.0.3"]);
    assert_eq!(flooded(pair.node(1), "cwvx10"), ["172.18.0.2"]);

    // A node leaves, another comes; then one that another process deleted is put back.
    pair.vxlan = json!({ "id": 10, "peers": ["172.18.0.2", "172.18.0.100"], "dev": "eth0" });
    pair.touch(0);
    assert_eq!(flooded(pair.node(0), "cwvx10"), ["172.18.0.100"]);
    pair.vxlan = json!({ "id": 10, "peers": ["172.18.0.2", "172.18.0.3"], "dev": "eth0" });
    pair.touch(0);
    assert_eq!(flooded(pair.node(0), "cwvx10"), ["172.18.0.3"]);
    pair.node(0).sh("bridge fdb del 00:00:00:00:00:00 dev cwvx10 dst 172.18.0.3");
    pair.touch(0);
    assert_eq!(flooded(pair.node(0), "cwvx10"), ["172.18.0.3"]);
    pair.assert_connected(1450);
}

/// Rows: O-09
#[test]
fn an_ipv6_underlay_takes_seventy_bytes() {
    let peers = json!(["fd00:172:18::2", "fd00:172:18::3"]);
    let pair = Pair::new(json!({ "id": 10, "peers": peers, "dev": "eth0" }));
    pair.assert_connected(1430);
    assert_eq!(flooded(pair.node(0), "cwvx10"), ["fd00:172:18::3"]);
}

/// Rows: O-09, S-09
#[test]
fn an_ipv6_group_works_too() {
    let pair = Pair::new(json!({ "id": 11, "group": "ff05::100", "dev": "eth0" }));
    pair.assert_connected(1430);
}

/// Rows: O-02
#[test]
fn port_name_and_ttl_are_free_and_the_device_follows_the_route() {
    let vxlan = json!({ "id": 10, "group": "239.1.1.1", "port": 8472, "name": "overlay",
                        "ttl": 3, "local": "" });
    let pair = Pair::new(vxlan);
    pair.assert_connected(1450);
    let data = device(pair.node(0), "overlay")["linkinfo"]["info_data"].clone();
    assert_eq!(data["port"], 8472);
    assert_eq!(data["ttl"], 3);
    assert_eq!(data["link"], "eth0");
    let peers = Pair::new(json!({ "id": 10, "peers": ["172.18.0.2", "172.18.0.3"] }));
    peers.assert_connected(1450);
}

/// Rows: S-14
#[test]
fn a_smaller_mtu_wins_and_a_larger_is_refused() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let with = |mtu: u32| {
        let vxlan = json!({ "id": 10, "group": "239.1.1.1", "dev": "eth0" });
        let mut list = network(&lab, 0, "blue", &vxlan);
        list["plugins"][0]["mtu"] = json!(mtu);
        Runtime::new(node, list)
    };
    refusal(with(1451).add(&node.pod().attachment("eth0")), &["mtu", "1451", "1450", "eth0"]);
    let pod = node.pod();
    with(1400).add_ok(&pod.attachment("eth0"));
    assert_eq!(pod.link("eth0").expect("eth0")["mtu"], 1400);
    assert_eq!(device(node, "cwvx10")["mtu"], 1400);
}

/// Rows: S-13, O-12
#[test]
fn a_damaged_device_is_repaired() {
    let peers = json!(["172.18.0.2", "172.18.0.3"]);
    let mut pair = Pair::new(json!({ "id": 10, "peers": peers, "dev": "eth0" }));
    let damages = [
        "ip link set cwvx10 down",
        "ip link set cwvx10 mtu 1300",
        "ip link set cwvx10 nomaster",
        "ip link set cwvx10 alias ''",
        "ip link del cwvx10",
        "ip link del cwvx10; ip link add cwvx10 type vxlan id 10 dstport 4789 dev eth0 \
         local 172.18.0.2 ttl 9; ip link set cwvx10 alias 'causeway vxlan blue'",
        "ip link del cwvx10; ip link add cwvx10 type vxlan id 10 dstport 4789 dev eth0 \
         local 172.18.0.2 nolearning",
    ];
    for damage in damages {
        pair.node(0).sh(damage);
        pair.touch(0);
        pair.assert_connected(1450);
        assert_eq!(device(pair.node(0), "cwvx10")["ifalias"], "causeway vxlan blue", "{damage}");
    }
    let before = device(pair.node(0), "cwvx10")["ifindex"].clone();
    pair.touch(0);
    assert_eq!(device(pair.node(0), "cwvx10")["ifindex"], before, "what is right is left alone");

    // What only creation sets changes with the configuration, on both nodes.
    pair.vxlan = json!({ "id": 10, "group": "239.1.1.1", "port": 8472, "dev": "eth0" });
    for index in [0, 1] {
        pair.touch(index);
    }
    assert_eq!(device(pair.node(0), "cwvx10")["linkinfo"]["info_data"]["port"], 8472);
    pair.assert_connected(1450);
}

/// Rows: S-13, O-12, O-18
#[test]
fn what_others_made_is_refused_by_name() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let vxlan = json!({ "id": 10, "group": "239.1.1.1", "dev": "eth0" });
    let add = |vxlan: &Value, network_name: &str| {
        let runtime = Runtime::new(node, network(&lab, 0, network_name, vxlan));
        runtime.add(&node.pod().attachment("eth0"))
    };
    node.sh("ip link add docker9 type vxlan id 10 dstport 4789 dev eth0");
    refusal(add(&vxlan, "blue"), &["vxlan.id", "10", "docker9"]);
    node.sh("ip link del docker9");

    node.sh("ip link add cwvx10 type bridge");
    refusal(add(&vxlan, "blue"), &["cwvx10", "kind bridge", "instead of vxlan"]);
    node.sh("ip link del cwvx10");

    node.sh("ip link add cwvx10 type vxlan id 10 dstport 4789 dev eth0 group 239.9.9.9; \
         ip link set cwvx10 alias mine");
    refusal(add(&vxlan, "blue"), &["cwvx10", "group 239.9.9.9", "instead of 239.1.1.1"]);
    node.sh("ip link del cwvx10");

    node.sh("ip link add theirs type bridge; \
         ip link add cwvx10 type vxlan id 10 dstport 4789 dev eth0 group 239.1.1.1; \
         ip link set cwvx10 master theirs");
    refusal(add(&vxlan, "blue"), &["cwvx10", "bridge theirs", "instead of cw0"]);
    node.sh("ip link del cwvx10");

    refusal(
        add(&json!({ "id": 10, "group": "239.1.1.1", "dev": "eth9" }), "blue"),
        &["vxlan.dev", "eth9"],
    );
    refusal(add(&json!({ "id": 10 }), "blue"), &["vxlan.group", "vxlan.peers"]);
    add(&vxlan, "blue").unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
}

/// Rows: O-18, O-26
#[test]
fn two_networks_do_not_share_an_id() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let add = |name: &str, bridge: &str, vxlan: &Value| {
        let mut list = network(&lab, 0, name, vxlan);
        list["plugins"][0]["bridge"] = json!(bridge);
        // Of one subnet, which two bridges cannot be the gateway of.
        list["plugins"][0]["isDefaultGateway"] = json!(false);
        list["plugins"][0]["isGateway"] = json!(false);
        Runtime::new(node, list).add(&node.pod().attachment("eth0"))
    };
    let fine = |outcome: Result<Value, Outcome>| {
        outcome.unwrap_or_else(|outcome| panic!("{}", outcome.describe()));
    };
    let group = json!({ "id": 10, "group": "239.1.1.1", "dev": "eth0" });
    fine(add("blue", "cw0", &group));
    refusal(add("red", "cw1", &group), &["cwvx10", "network blue", "red"]);
    let renamed = json!({ "id": 10, "group": "239.1.1.1", "dev": "eth0", "name": "red10" });
    refusal(add("red", "cw1", &renamed), &["cwvx10", "of network blue"]);
    // Another port is another overlay, but not in the same bridge: that is a loop.
    let other = json!({ "id": 10, "group": "239.1.1.1", "dev": "eth0", "name": "red10",
                        "port": 8472 });
    refusal(add("red", "cw0", &other), &["cwvx10", "of network blue"]);
    fine(add("red", "cw1", &other));
    assert_eq!(device(node, "red10")["master"], "cw1");
    assert_eq!(device(node, "cwvx10")["master"], "cw0");
}

#[test]
fn a_hundred_at_once_make_one_device() {
    let lab = Lab::one_node();
    let node = &lab.nodes[0];
    let peers = json!(["172.18.0.2", "172.18.0.3", "172.18.0.4"]);
    let vxlan = json!({ "id": 10, "peers": peers, "dev": "eth0" });
    let list = network(&lab, 0, "blue", &vxlan);
    let pods: Vec<Pod> = (0..100).map(|_| node.pod()).collect();
    let running: Vec<_> = pods
        .iter()
        .map(|pod| {
            let runtime = Runtime::new(node, list.clone());
            let attachment = pod.attachment("eth0");
            let plugin = runtime.plugins().next().expect("one plugin").clone();
            let config = runtime.config(&plugin, &attachment, &Value::Null);
            runtime.call(&plugin, "ADD", &config, &attachment).spawn()
        })
        .collect();
    for one in running {
        one.wait().json();
    }
    let all = node.links();
    let made: Vec<_> = all.iter().filter(|l| l["linkinfo"]["info_kind"] == "vxlan").collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0]["ifalias"], "causeway vxlan blue");
    assert_eq!(flooded(node, "cwvx10"), ["172.18.0.3", "172.18.0.4"]);
}
