//! Nodes as `get nodes` and `status` show them, from states made by hand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use causeway_api::Status;
use causeway_model::{MacAddress, NodeIdentity, NodeRecord, Peer};
use causeway_source::cluster::Subnets;
use serde_json::{Value, json};

use super::super::collect::{self, Kind};
use super::super::status::status;
use crate::clock;
use crate::conditions::Concern;
use crate::config::StoreKind;
use crate::state::{ClusterState, OverlayState, State};
use crate::testing::*;

/// A state of node `n1` with other nodes.
struct Fixture {
    state: State,
    _folder: tempfile::TempDir,
}

impl Fixture {
    /// Alone.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { state: state(folder.path()), _folder: folder }
    }

    /// With etcd, an overlay, and `n2` and `n3`.
    fn cluster() -> Self {
        let mut fixture = Self::new();
        let state = &mut fixture.state;
        state.settings.store = StoreKind::Etcd;
        state.settings.etcd_endpoints = vec!["http://172.18.0.10:2379".to_owned()];
        state.cluster = Some(ClusterState {
            revision: 8841,
            subnets: Some(Subnets::Held(vec!["10.0.1.0/24".parse().expect("a network")])),
            ..ClusterState::new(Ok(()))
        });
        state.overlay = Some(OverlayState {
            kind: "vxlan id 1 port 8472".to_owned(),
            underlay: "eth0".to_owned(),
            vtep: Some(MacAddress::of_vtep("n1", 1)),
            mtu: 1450,
            ..OverlayState::default()
        });
        for number in [2, 3] {
            let peer = peer(number);
            state.peers.insert(peer.name.clone(), peer);
        }
        fixture
    }

    fn connection(&mut self, connection: Result<(), (Instant, String)>) {
        self.state.cluster.as_mut().expect("a cluster").connection = connection;
    }

    fn status(&self) -> Status {
        status(&self.state, &BTreeMap::new())
    }

    fn nodes(&self) -> Vec<Value> {
        let items = collect::all(&self.state, Kind::Nodes, None);
        items.iter().filter_map(collect::Item::render).collect()
    }

    fn node(&self, name: &str) -> Value {
        let item = collect::one(&self.state, Kind::Nodes, &named("", name));
        item.and_then(|item| item.render()).unwrap_or_default()
    }
}

/// `n2` is 192.0.2.2 with 10.0.2.0/24.
fn peer(number: u8) -> Peer {
    let name = format!("n{number}");
    let ips = vec![ip(&format!("192.0.2.{number}"))];
    Peer {
        name: name.clone(),
        ips: ips.clone(),
        subnets: vec![format!("10.0.{number}.0/24").parse().expect("a network")],
        vtep: Some(MacAddress([0x0e, 0, 0, 0, 0, number])),
        mtu: Some(1450),
        record: Some(NodeRecord {
            identity: NodeIdentity { node: name, machine_id: format!("machine-{number}") },
            boot_id: format!("boot-{number}"),
            ips,
            labels: [("topology.kubernetes.io/zone", "z1"), ("disk", "ssd")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            version: "0.2.0".to_owned(),
            started: 1_795_359_840,
            config: "0".to_owned(),
            created: 0,
        }),
        since: 0,
    }
}

fn ready(node: &Value) -> &str {
    node["status"]["conditions"][0]["status"].as_str().expect("a condition")
}

#[test]
fn a_node_of_the_cluster_is_a_kubernetes_node() {
    let mut fixture = Fixture::cluster();
    let document = r#"{ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n2",
        "creationTimestamp": "2026-11-20T00:00:00Z",
        "labels": { "topology.kubernetes.io/zone": "z9" } } }"#;
    commit(&mut fixture.state, objects(document));
    assert_eq!(
        fixture.node("n2"),
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "n2", "creationTimestamp": "2026-11-20T00:00:00Z",
                "labels": { "kubernetes.io/hostname": "n2", "disk": "ssd",
                            "topology.kubernetes.io/zone": "z9" },
                "annotations": { "causeway.io/vtep-mac": "0e:00:00:00:00:02",
                                 "causeway.io/overlay-mtu": "1450" } },
            "spec": { "podCIDR": "10.0.2.0/24", "podCIDRs": ["10.0.2.0/24"] },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": "192.0.2.2" },
                              { "type": "Hostname", "address": "n2" }],
                "conditions": [{ "type": "Ready", "status": "True", "reason": "Heard",
                                 "message": "its causewayd renews its record in the store" }],
                "nodeInfo": { "causewaydVersion": "0.2.0", "machineID": "machine-2",
                              "bootID": "boot-2" } } })
    );
    let this = fixture.node("n1");
    assert_eq!(this["spec"]["podCIDRs"], json!(["10.0.1.0/24"]));
    assert_eq!(this["status"]["nodeInfo"]["causewaydVersion"], env!("CARGO_PKG_VERSION"));
    let vtep = MacAddress::of_vtep("n1", 1).to_string();
    assert_eq!(this["metadata"]["annotations"]["causeway.io/vtep-mac"], vtep);
    let names: Vec<Value> =
        fixture.nodes().into_iter().map(|node| node["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert_eq!(fixture.node("n4"), Value::Null);
}

/// Rows: O-60
#[test]
fn a_node_that_is_not_heard_of_is_not_ready_and_keeps_its_subnet() {
    let mut fixture = Fixture::cluster();
    fixture.state.peers.get_mut("n2").expect("n2").record = None;
    let node = fixture.node("n2");
    assert_eq!(ready(&node), "False");
    assert_eq!(node["spec"]["podCIDR"], "10.0.2.0/24");
    assert_eq!(node["metadata"]["creationTimestamp"], Value::Null);
    let status = fixture.status();
    let states: Vec<&str> = status.peers.iter().map(|peer| peer.state.as_str()).collect();
    assert_eq!(states, ["NotReady", "Ready"]);
    assert_eq!(status.peers[0].subnets, ["10.0.2.0/24"]);
    let warning = &status.warnings[0];
    assert!(warning.starts_with("node n2: no heartbeat from its causewayd"), "{warning}");
    assert_eq!(status.degraded, [""; 0], "this node works");
    assert_eq!(ready(&fixture.node("n1")), "True");
}

/// Rows: C-04
#[test]
fn a_store_that_is_away_is_said_with_since_when_and_what_goes_on() {
    let mut fixture = Fixture::cluster();
    let since = clock::now().checked_sub(Duration::from_secs(192)).expect("up for minutes");
    fixture.connection(Err((since, "172.18.0.10:2379: connection refused".to_owned())));
    let said = fixture.status();
    let cluster = said.cluster.as_ref().expect("a cluster");
    assert_eq!((cluster.connected, cluster.revision), (false, 8841));
    assert!((192..200).contains(&cluster.away.expect("since when")), "{cluster:?}");
    assert_eq!(cluster.reason.as_deref(), Some("172.18.0.10:2379: connection refused"));
    let subnet = &said.subnets[0];
    assert_eq!((subnet.subnet.as_str(), subnet.lease.as_str()), ("10.0.1.0/24", "leased"));
    let day = 24 * 3600 - 192;
    assert!((day - 8..=day).contains(&subnet.expires.expect("it ends")), "{subnet:?}");
    // Nobody is dead for that, and this node is as ready as before.
    assert_eq!(ready(&fixture.node("n2")), "Unknown");
    assert_eq!(ready(&fixture.node("n1")), "True");
    assert_eq!(said.warnings, [""; 0]);
    assert!(super::super::health::Health::of(&fixture.state).healthy);
    fixture.connection(Ok(()));
    let back = fixture.status();
    assert_eq!((back.cluster.expect("a cluster").away, back.subnets[0].expires), (None, None));
}

/// Rows: O-48
#[test]
fn two_nodes_of_one_address_are_a_degradation_that_names_both() {
    let mut fixture = Fixture::cluster();
    fixture.state.peers.get_mut("n3").expect("n3").ips = vec![ip("192.0.2.2")];
    let said = fixture.status();
    assert_eq!(said.degraded.len(), 2, "{:?}", said.degraded);
    for (line, name) in said.degraded.iter().zip(["n2", "n3"]) {
        let wanted = format!("node {name}: nodes n2 and n3 publish the same address 192.0.2.2;");
        assert!(line.starts_with(&wanted) && line.contains("--node-ip"), "{line}");
    }
    let unreachable = &fixture.node("n3")["status"]["conditions"][1];
    assert_eq!(
        (&unreachable["type"], &unreachable["status"]),
        (&json!("NetworkUnavailable"), &json!("True"))
    );
    assert!(said.peers.iter().all(|peer| peer.problem.is_some() && peer.state == "Ready"));
    // One that is gone left it.
    fixture.state.peers.get_mut("n2").expect("n2").record = None;
    assert_eq!(fixture.status().degraded, [""; 0]);
    // This node's own.
    fixture.state.peers.get_mut("n3").expect("n3").ips = vec![ip("192.0.2.1")];
    assert!(fixture.status().degraded[0].contains("nodes n1 and n3 publish the same address"));
    // What the overlay found is said instead, and once.
    let why = "its address is also that of this node".to_owned();
    let overlay = fixture.state.overlay.as_mut().expect("an overlay");
    overlay.problems.insert("n3".to_owned(), why.clone());
    let said = format!("no route\nnode n3: {why}");
    fixture.state.conditions.set(Concern::Overlay, said);
    let lines = fixture.status().degraded;
    assert_eq!(lines, ["overlay: no route".to_owned(), format!("overlay: node n3: {why}")]);
}

/// Rows: O-47
#[test]
fn a_node_that_has_published_nothing_yet_is_waited_for_by_name() {
    let mut fixture = Fixture::cluster();
    let n2 = fixture.state.peers.get_mut("n2").expect("n2");
    (n2.subnets, n2.vtep, n2.mtu) = (Vec::new(), None, None);
    let said = fixture.status();
    let problem = said.peers[0].problem.as_deref().expect("a problem");
    assert!(problem.starts_with("waiting for node n2 to publish its subnet"), "{problem}");
    assert_eq!(said.degraded, [format!("node n2: {problem}")]);
    assert_eq!(fixture.node("n2").get("spec"), None);
    // No problem for a moment, and shown all the same.
    fixture.state.waiting.insert("n2".to_owned(), Some(clock::now()));
    let moment = fixture.status();
    assert_eq!((moment.degraded.len(), &moment.peers[0].problem), (0, &said.peers[0].problem));
    let network = &fixture.node("n2")["status"]["conditions"][1];
    assert_eq!(network["message"].as_str(), Some(problem));
    fixture.state.waiting.insert("n2".to_owned(), None);
    assert_eq!(fixture.status().degraded, said.degraded);
}

#[test]
fn a_subnet_that_is_lost_or_refused_is_told_with_what_to_do() {
    let mut fixture = Fixture::cluster();
    let owner = NodeIdentity { node: "n9".to_owned(), machine_id: "m".to_owned() };
    let subnet = "10.0.1.0/24".parse().expect("a network");
    let mut set = |subnets, own: &[&str]| {
        let own = own.iter().map(|subnet| subnet.parse().expect("a network"));
        fixture.state.node.subnets = own.collect();
        fixture.state.cluster.as_mut().expect("a cluster").subnets = subnets;
        (fixture.status(), fixture.node("n1"))
    };
    let (lost, node) = set(Some(Subnets::Lost { subnet, owner }), &[]);
    assert_eq!(lost.subnets[0].owner.as_deref(), Some("n9"));
    assert_eq!(lost.subnets[0].lease, "lost");
    assert_eq!(node.get("spec"), None);
    let problem = node["status"]["conditions"][1]["message"].as_str().expect("why");
    assert!(problem.contains("node n9 (machine m) took 10.0.1.0/24"), "{problem}");
    let why = "no subnet of length 24 is free in 10.0.0.0/16; enlarge --cluster-cidr".to_owned();
    let (none, _) = set(Some(Subnets::None(why.clone())), &[]);
    assert_eq!(none.subnets, []);
    assert_eq!(none.cluster.expect("a cluster").subnet_refused, Some(why.clone()));
    let (early, node) = set(None, &["10.0.1.0/24"]);
    assert_eq!(early.subnets[0].lease, "unconfirmed");
    assert_eq!((early.degraded.len(), &node["spec"]["podCIDR"]), (0, &json!("10.0.1.0/24")));
}

#[test]
fn nodes_of_a_peers_file_are_neither_ready_nor_dead() {
    let mut fixture = Fixture::cluster();
    fixture.state.cluster = None;
    fixture.state.settings.store = StoreKind::Embedded;
    fixture.state.settings.peers_file = Some("/etc/causeway/peers.toml".into());
    fixture.state.peers.values_mut().for_each(|peer| peer.record = None);
    assert_eq!(ready(&fixture.node("n2")), "Unknown");
    let said = fixture.status();
    assert_eq!((said.cluster, said.degraded.len(), said.warnings.len()), (None, 0, 0));
    assert_eq!(said.subnets[0].lease, "static");
    assert_eq!(said.peers[1].state, "Unknown");
    assert!(said.peers[1].problem.as_deref().expect("why").contains("peers file"));
}

#[test]
fn a_node_alone_says_nothing_of_others() {
    let said = json!(Fixture::new().status());
    for field in ["cluster", "subnets", "overlay", "peers"] {
        assert_eq!(said.get(field), None, "{field}");
    }
}

#[test]
fn what_keeps_this_node_out_or_is_held_is_told() {
    let mut fixture = Fixture::cluster();
    let cluster = fixture.state.cluster.as_mut().expect("a cluster");
    cluster.excluded = Some("vxlan-port: 4789 here, 8472 in the store".to_owned());
    cluster.held_nodes = ["n2".to_owned()].into();
    cluster.held_objects = 3;
    let said = fixture.status();
    let cluster = said.cluster.expect("a cluster");
    assert_eq!(cluster.excluded.as_deref(), Some("vxlan-port: 4789 here, 8472 in the store"));
    assert_eq!((cluster.held_nodes, cluster.held_objects), (vec!["n2".to_owned()], 3));
    assert_eq!(ready(&fixture.node("n1")), "False");
    assert_eq!(ready(&fixture.node("n2")), "Unknown");
    assert_eq!(ready(&fixture.node("n3")), "True");
}
