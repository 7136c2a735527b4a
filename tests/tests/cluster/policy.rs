//! Who gets traffic on which node: traffic policies, distribution by node and zone, node ports'
//! addresses; with packets.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use causeway_tests::cluster::{Cluster, Placed, Setup, asked, endpoints, in_rotation, named};
use causeway_tests::traffic::{IMPATIENCE, PATIENCE};
use causeway_tests::{Daemon, Lab, Ns};
use serde_json::{Value, json};

/// What a client that asks eight times gets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    /// These answer, and all saw the client's own address.
    Kept(BTreeSet<String>),
    /// These answer; somebody saw another address.
    Hidden(BTreeSet<String>),
    Refused,
    Silence,
}

fn ask(from: &Ns, own: &str, to: &str) -> Got {
    let mut from_whom = BTreeSet::new();
    let mut hidden = false;
    for _ in 0..8 {
        match from.tcp_within(to, if from_whom.is_empty() { IMPATIENCE } else { PATIENCE }) {
            Ok(answer) => {
                // Who reaches itself by a service is always hidden.
                hidden |= answer.peer.ip().to_string() != own && answer.ip.to_string() != own;
                from_whom.insert(answer.ip.to_string());
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Got::Refused,
            Err(error)
                if [ErrorKind::TimedOut, ErrorKind::WouldBlock, ErrorKind::PermissionDenied]
                    .contains(&error.kind()) =>
            {
                return Got::Silence;
            }
            Err(error) => panic!("{} to {to}: {error}", from.name()),
        }
    }
    if hidden { Got::Hidden(from_whom) } else { Got::Kept(from_whom) }
}

struct Stage<'a> {
    cluster: Cluster<'a>,
    /// Two on node 0, one on node 1.
    pods: Vec<Placed>,
    /// One on each node, behind no service.
    clients: Vec<Placed>,
}

const NODE0: [&str; 2] = ["10.0.1.2", "10.0.1.3"];
const NODE1: [&str; 1] = ["10.0.2.2"];
const ALL: [&str; 3] = ["10.0.1.2", "10.0.1.3", "10.0.2.2"];

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|&one| one.to_owned()).collect()
}

fn stage(lab: &Lab, setup: Setup) -> Stage<'_> {
    let cluster = Cluster::start(lab, setup);
    let pods = [0, 0, 1].map(|node| cluster.pod(node, "app:cs-pod"));
    let clients = [0, 1, 2].map(|node| cluster.pod(node, "app:client"));
    Stage { cluster, pods: pods.into(), clients: clients.into() }
}

impl Stage<'_> {
    fn service(&self, name: &str, number: u16, more: &Value) {
        let object = named(name, &format!("10.96.2.{number}"), 30100 + number, more);
        self.cluster.daemons[usize::from(number) % 3].apply(&[object]);
    }

    /// A client's container on a node to a cluster address.
    fn vip(&self, node: usize, number: u16) -> Got {
        let from = &self.clients[node];
        ask(from, from.ip(), &format!("10.96.2.{number}:8080"))
    }

    /// The outside client to a node port.
    fn outside(&self, node: usize, number: u16) -> Got {
        let to = format!("{}:{}", Lab::node_address(node), 30100 + number);
        ask(&self.cluster.lab.client, Lab::CLIENT, &to)
    }

    /// A container on a node to a node port of a node.
    fn pod_to_port(&self, from: usize, node: usize, number: u16) -> Got {
        let to = format!("{}:{}", Lab::node_address(node), 30100 + number);
        ask(&self.clients[from], self.clients[from].ip(), &to)
    }

    /// A process of the node to its node port.
    fn node_to_port(&self, node: usize, number: u16) -> Got {
        let own = Lab::node_address(node);
        ask(&self.cluster.lab.nodes[node], &own, &format!("{own}:{}", 30100 + number))
    }
}

/// Rows: P32, P33, P34, P35, P36, P37, P38, P39, P40, P41, P42
#[test]
fn traffic_policies_across_nodes() {
    let lab = Lab::with_nodes(3);
    let stage = stage(&lab, Setup::default());
    let local = |external: &str, internal: &str| json!({ "externalTrafficPolicy": external, "internalTrafficPolicy": internal });
    stage.service("plain", 1, &json!({}));
    stage.service("external", 2, &local("Local", "Cluster"));
    stage.service("internal", 3, &local("Cluster", "Local"));
    stage.service("both", 4, &local("Local", "Local"));
    stage.service(
        "empty",
        5,
        &json!({ "externalTrafficPolicy": "Local",
                                       "selector": { "app": "nobody" } }),
    );
    for daemon in &stage.cluster.daemons {
        endpoints(daemon, "plain", 3);
        daemon.until("all five", || daemon.status().counts["services"] == 5);
        daemon.until("in the kernel", || daemon.get("/v1/services/default/empty").is_object());
    }
    for node in 0..3 {
        // P32: any endpoint through any node, hidden behind the node.
        assert_eq!(stage.outside(node, 1), Got::Hidden(set(&ALL)), "node {node}");
        assert_eq!(stage.outside(node, 3), Got::Hidden(set(&ALL)), "node {node}");
        assert_eq!(stage.vip(node, 1), Got::Kept(set(&ALL)));
        assert_eq!(stage.vip(node, 2), Got::Kept(set(&ALL)));
        // P35: nobody anywhere.
        assert_eq!(stage.outside(node, 5), Got::Refused, "node {node}");
        // P36, P38: a container of this node goes to anybody, as itself.
        assert_eq!(stage.pod_to_port(node, node, 2), Got::Kept(set(&ALL)), "node {node}");
        // P37, P38: the node too, hidden behind itself as everything masqueraded is.
        let got = stage.node_to_port(node, 2);
        assert!(matches!(&got, Got::Hidden(all) | Got::Kept(all) if *all == set(&ALL)), "{got:?}");
    }
    for number in [2, 4] {
        // P33: those of the node, who see the client.
        assert_eq!(stage.outside(0, number), Got::Kept(set(&NODE0)));
        assert_eq!(stage.outside(1, number), Got::Kept(set(&NODE1)));
        // P34: dropped if none is.
        assert_eq!(stage.outside(2, number), Got::Silence);
    }
    for number in [3, 4] {
        // P39, P40
        assert_eq!(stage.vip(0, number), Got::Kept(set(&NODE0)));
        assert_eq!(stage.vip(1, number), Got::Kept(set(&NODE1)));
        assert_eq!(stage.vip(2, number), Got::Silence);
    }
    // P41: services `external` and `both` outside, `internal` and `both` inside.
    for (node, count) in [(0, 0), (1, 0), (2, 2)] {
        for policy in ["external", "internal"] {
            assert_eq!(without_local(&stage.cluster.daemons[node], policy), count, "{policy}");
        }
    }
}

fn without_local(daemon: &Daemon<'_>, policy: &str) -> u64 {
    let text = String::from_utf8(daemon.request("GET", "/metrics", b"").expect("metrics"));
    let text = text.expect("text");
    let label = format!("traffic_policy=\"{policy}\"");
    let named = "sync_proxy_rules_no_local_endpoints_total";
    let line = text.lines().find(|line| line.contains(named) && line.contains(&label));
    let line = line.unwrap_or_else(|| panic!("no {named} {policy}: {text}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a count")
}

/// Rows: P11, P42
#[test]
fn udp_reaches_endpoints_of_other_nodes() {
    let lab = Lab::with_nodes(3);
    let stage = stage(&lab, Setup::default());
    let ports = json!({ "ports": [{ "port": 53, "protocol": "UDP", "targetPort": 80,
                                    "nodePort": 30101 }] });
    stage.service("dns", 1, &ports);
    stage.cluster.endpoints("dns", 3);
    for (node, client) in stage.clients.iter().enumerate() {
        let mut got = BTreeSet::new();
        for _ in 0..3 {
            let answer = client.udp("10.96.2.1:53").expect("an answer");
            assert_eq!(answer.peer.ip().to_string(), client.ip(), "the source is kept");
            got.insert(answer.ip.to_string());
            let port = lab.client.udp(&format!("{}:30101", Lab::node_address(node)));
            port.expect("an answer by the node port");
        }
        assert!(!got.is_empty());
    }
}

/// Rows: P44, P43
#[test]
fn node_ports_answer_where_each_node_says() {
    let lab = Lab::with_nodes(3);
    for node in &lab.nodes {
        node.ip("link add extra type bridge\naddr add 192.0.2.7/24 dev extra\nlink set extra up\n");
    }
    let setup = (0..3).fold(Setup::default(), |setup, node| {
        setup.own(node, "--node-ip", &Lab::node_address(node))
    });
    let setup = setup.own(1, "--nodeport-addresses", "primary");
    let stage = stage(&lab, setup.own(2, "--nodeport-addresses", "192.0.2.0/24"));
    stage.service("plain", 1, &json!({}));
    stage.cluster.endpoints("plain", 3);
    let all = Got::Kept(set(&ALL));
    for (node, eth0, extra) in [(0, true, true), (1, true, false), (2, false, true)] {
        let here = &lab.nodes[node];
        let own = Lab::node_address(node);
        for (address, answered) in [(own.as_str(), eth0), ("192.0.2.7", extra)] {
            let got = ask(here, address, &format!("{address}:30101"));
            let (Got::Kept(from) | Got::Hidden(from)) = got else {
                assert!(!answered && got == Got::Refused, "node {node} {address}: {got:?}");
                continue;
            };
            assert!(answered && from == set(&ALL), "node {node} {address}");
        }
        let outside = stage.outside(node, 1);
        let expected = if eth0 { Got::Hidden(set(&ALL)) } else { Got::Refused };
        assert_eq!(outside, expected, "node {node}");
    }
    assert_eq!(stage.vip(2, 1), all);
}

/// Rows: P40
#[test]
fn traffic_prefers_the_node_or_the_zone() {
    let lab = Lab::with_nodes(3);
    let zones = ["east", "east", "west"];
    let setup = (0..3).fold(Setup::default(), |setup, node| {
        setup.own(node, "--node-labels", &format!("topology.kubernetes.io/zone={}", zones[node]))
    });
    let mut stage = stage(&lab, setup);
    let spread = |how: &str| json!({ "trafficDistribution": how });
    stage.service("node", 1, &spread("PreferSameNode"));
    stage.service("zone", 2, &spread("PreferSameZone"));
    stage.service("close", 3, &spread("PreferClose"));
    let mut strict = spread("PreferSameNode");
    strict["internalTrafficPolicy"] = json!("Local");
    stage.service("strict", 4, &strict);
    for name in ["node", "zone", "close", "strict"] {
        for daemon in &stage.cluster.daemons {
            daemon.until("known", || in_rotation(daemon, name) != usize::MAX);
        }
    }
    let all = Got::Kept(set(&ALL));
    stage.cluster.daemons[2].until("three endpoints", || stage.vip(2, 1) == all);
    assert_eq!(stage.vip(0, 1), Got::Kept(set(&NODE0)));
    assert_eq!(stage.vip(1, 1), Got::Kept(set(&NODE1)));
    for number in [2, 3] {
        for node in [0, 1] {
            assert_eq!(stage.vip(node, number), all, "one zone, node {node}");
        }
        // No endpoint in the west: all.
        assert_eq!(stage.vip(2, number), all);
    }
    assert_eq!(stage.vip(2, 4), Got::Silence, "a policy wins over a preference");
    // The last endpoint of a node goes: its clients go elsewhere.
    let last = stage.pods.remove(2);
    stage.cluster.remove(&last);
    let others = Got::Kept(set(&NODE0));
    stage.cluster.daemons[1].until("elsewhere", || stage.vip(1, 1) == others);
    // A container in the west: its zone is enough for it, and the east's for the east.
    stage.pods.push(stage.cluster.pod(2, "app:cs-pod"));
    let west = Got::Kept(set(&["10.0.3.3"]));
    stage.cluster.daemons[2].until("in the west", || stage.vip(2, 2) == west);
    stage.cluster.daemons[0].until("in the east", || stage.vip(0, 2) == others);
    assert_eq!(
        asked(&stage.clients[0], "10.96.2.2:8080", 4),
        [NODE0[0], NODE0[1], NODE0[0], NODE0[1]]
    );
    // A v1 Node document moves a node to another zone, for all nodes.
    let moved = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node2",
        "labels": { "topology.kubernetes.io/zone": "west" } } });
    stage.cluster.daemons[0].apply(&[moved]);
    stage.cluster.daemons[1].until("in the west now", || stage.vip(1, 2) == west);
}
