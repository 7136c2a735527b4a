//! The snapshot of the cluster.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use causeway_model::{EndpointRecord, Labels, NodeIdentity, NodeRecord, ObjectKind, SubnetRecord};

use super::super::tests::{event, service};
use super::*;
use crate::Stored;
use crate::cluster::Container;

fn identity(node: &str) -> NodeIdentity {
    NodeIdentity { node: node.into(), machine_id: format!("machine of {node}") }
}

fn node(name: &str) -> NodeRecord {
    NodeRecord {
        identity: identity(name),
        boot_id: "boot".into(),
        ips: vec!["172.18.0.3".parse().expect("an address")],
        labels: Labels::from([("zone".to_owned(), "a".to_owned())]),
        version: "1".into(),
        started: 7,
        config: "c".into(),
        created: 0,
    }
}

fn subnet(text: &str, owner: &str) -> SubnetRecord {
    SubnetRecord {
        subnet: text.parse().expect("a network"),
        owner: identity(owner),
        ips: vec!["172.18.0.3".parse().expect("an address")],
        vtep: Some(causeway_model::MacAddress::of_vtep(owner, 1)),
        mtu: Some(1450),
        created: 0,
    }
}

fn container(id: &str, created: u64) -> Container {
    let record = event(id, 1, "boot").record.expect("a record");
    Container { record: EndpointRecord { created, ..record }, healthy: created.is_multiple_of(2) }
}

fn put(node: &str, container: Container) -> Change {
    Change::Container(node.into(), container)
}

#[track_caller]
fn read_view(store: &Store) -> View {
    let (view, _) = store.cluster().expect("readable");
    assert!(view.unreadable.is_empty(), "{:?}", view.unreadable);
    view
}

/// Rows: C-05
#[test]
fn the_cluster_is_there_again_after_a_restart_beside_what_is_this_nodes_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let known = Known { store: Some("id".into()), revision: 9, lease: Some(-1), lost: true };
    let wanted = View {
        nodes: [("n2".to_owned(), node("n2"))].into(),
        subnets: ["10.0.2.0/24", "fd00::/64"]
            .map(|text| (text.parse().expect("a network"), subnet(text, "n2")))
            .into(),
        containers: vec![("n2".into(), container("a", 2)), ("n3".into(), container("a", 3))],
        ..View::default()
    };
    {
        let store = Store::open(folder.path()).expect("opened");
        assert_eq!(store.cluster().expect("readable"), (View::default(), Known::default()));
        store.write(&[service("mine", 80)], &[]).expect("written");
        store.put_container(&event("a", 1, "old")).expect("stored");
        store.put_container(&event("b", 2, "new")).expect("stored");
        let mut changes = vec![Change::Node(node("n2")), put("n2", container("a", 1))];
        changes.extend(wanted.subnets.values().cloned().map(Change::Subnet));
        changes.push(Change::Subnet(subnet("10.0.9.0/24", "n9")));
        changes.push(Change::Object(service("theirs", 81)));
        store.write_cluster(&changes).expect("written");
        // The last counts, within a batch and between them.
        store
            .write_cluster(&[
                put("n2", container("b", 1)),
                put("n2", container("a", 2)),
                Change::ContainerGone("n2".into(), container("b", 1).record.key),
                put("n3", container("a", 3)),
                Change::SubnetGone("10.0.9.0/24".parse().expect("a network")),
            ])
            .expect("written");
        store.set_known(&Known { revision: 8, ..known.clone() }).expect("written");
        store.set_known(&known).expect("written");
        store.flush().expect("flushed");
    }
    let store = Store::open(folder.path()).expect("opened");
    // Boots of this node sift its own containers alone.
    assert_eq!(store.containers("new").expect("readable"), [event("b", 2, "new")]);
    assert_eq!(store.cluster().expect("readable"), (wanted, known));
    let (objects, unreadable) = store.objects().expect("readable");
    assert_eq!((objects, unreadable), (vec![service("mine", 80), service("theirs", 81)], vec![]));
    let gone = Change::ObjectGone(ObjectKind::Service, service("mine", 80).object.key().clone());
    store.write_cluster(&[gone]).expect("written");
    assert_eq!(store.objects().expect("readable").0, [service("theirs", 81)]);
}

#[test]
fn with_a_node_go_its_containers_and_nobody_elses() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opened");
    store
        .write_cluster(&[
            Change::Node(node("n")),
            Change::Node(node("n2")),
            Change::Subnet(subnet("10.0.2.0/24", "n")),
            put("n", container("a", 1)),
            put("n2", container("a", 2)),
        ])
        .expect("written");
    store
        .write_cluster(&[
            put("n", container("b", 1)),
            Change::NodeGone("n".into()),
            put("n", container("c", 3)),
        ])
        .expect("written");
    let view = read_view(&store);
    assert_eq!(view.nodes.into_keys().collect::<Vec<_>>(), ["n2"]);
    // It came back with this one.
    let left = [("n".into(), container("c", 3)), ("n2".into(), container("a", 2))];
    assert_eq!(view.containers, left);
    // Where its network is outlives it.
    assert_eq!(view.subnets.len(), 1);
}

#[test]
fn what_is_not_understood_stays_and_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("opened");
    store
        .write_cluster(&[Change::Node(node("n2")), put("n2", container("a", 1))])
        .expect("written");
    let bad: [(&[u8], &str); 4] = [
        (b"nold", "{}"),
        (b"s10.0.2.0/24", "{\"subnet\": 7}"),
        (b"rn2\0net\0b\0eth0", "not JSON"),
        (b"known", "7"),
    ];
    for (key, value) in bad {
        store.with("write", |db| db.insert(key, value)).expect("written");
    }
    for _ in 0..2 {
        let (view, known) = store.cluster().expect("readable");
        assert_eq!((view.nodes.len(), view.containers.len(), known), (1, 1, Known::default()));
        let names: Vec<&str> = view.unreadable.keys().map(String::as_str).collect();
        let wanted =
            ["container n2/net/b/eth0", "known of the cluster", "node old", "subnet 10.0.2.0/24"];
        assert_eq!(names, wanted);
    }
    // A good value takes its place.
    store.write_cluster(&[put("n2", container("b", 1))]).expect("written");
    assert_eq!(store.cluster().expect("readable").0.containers.len(), 2);
}

/// How a test binary is told to be the process that is killed.
const VICTIM: &str = "CAUSEWAY_TEST_STORE_VICTIM";

/// Writes until it is killed. File `flushed` says which round is on disk for certain.
fn write_for_ever(folder: &Path) {
    let store = Store::open(folder).expect("opened");
    store.write(&[service("mine", 80)], &[]).expect("written");
    for round in 1.. {
        let mut changes: Vec<Change> =
            (0..100).map(|id| put("n2", container(&format!("c{id}"), round))).collect();
        changes.push(Change::Node(NodeRecord { started: round, ..node("n2") }));
        store.write_cluster(&changes).expect("written");
        store
            .set_known(&Known { revision: i64::try_from(round).expect("few"), ..Known::default() })
            .expect("written");
        if round.is_multiple_of(5) {
            store.flush().expect("flushed");
            std::fs::write(folder.join("new"), round.to_string()).expect("written");
            std::fs::rename(folder.join("new"), folder.join("flushed")).expect("renamed");
        }
    }
}

fn flushed(folder: &Path) -> u64 {
    let text = std::fs::read_to_string(folder.join("flushed")).unwrap_or_default();
    text.parse().unwrap_or(0)
}

/// Rows: C-05
#[test]
#[expect(clippy::disallowed_methods, reason = "this very test, killed, and a bound on waiting")]
fn a_kill_loses_what_was_not_flushed_and_leaves_whole_changes() {
    const NAME: &str =
        "store::cluster::tests::a_kill_loses_what_was_not_flushed_and_leaves_whole_changes";
    if let Some(folder) = std::env::var_os(VICTIM) {
        return write_for_ever(Path::new(&folder));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut rounds = 0;
    for _ in 0..3 {
        let mut victim = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", NAME])
            .env(VICTIM, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        std::fs::write(folder.path().join("flushed"), "0").expect("written");
        let started = Instant::now();
        while flushed(folder.path()) < 10 && started.elapsed() < Duration::from_secs(60) {
            assert!(victim.try_wait().expect("a child").is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        victim.kill().expect("killed");
        victim.wait().expect("ended");
        let certain = flushed(folder.path());
        assert!(certain >= 10, "it does not write");
        let store = Store::open(folder.path()).expect("opened");
        let view = read_view(&store);
        let found = view.nodes["n2"].started;
        assert!(found >= certain, "round {certain} was on disk, {found} is there");
        assert_eq!(view.containers.len(), 100);
        assert!(view.containers.iter().all(|(_, one)| one.record.created == found));
        let revision = store.cluster().expect("readable").1.revision.unsigned_abs();
        assert!(revision == found || revision + 1 == found, "{revision} of {found}");
        let objects: Vec<Stored> = store.objects().expect("readable").0;
        assert_eq!(objects, [service("mine", 80)]);
        rounds += found;
    }
    assert!(rounds >= 30);
}

/// The seal counts writes of this node's objects: a torn end behind the last of them is not damage.
#[test]
fn a_torn_end_costs_the_end_of_the_snapshot_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store/db");
    {
        let store = Store::open(folder.path()).expect("opened");
        store.write(&[service("mine", 80)], &[]).expect("written");
        for round in 0..2000 {
            store.write_cluster(&[put("n2", container("a", round))]).expect("written");
        }
        store.flush().expect("flushed");
    }
    let mut bytes = std::fs::read(&path).expect("the log");
    let newest = b"\"created\":1999";
    let at = bytes.windows(newest.len()).rposition(|part| part == newest).expect("written last");
    bytes[at..at + newest.len()].fill(0);
    std::fs::write(&path, bytes).expect("written");
    let store = Store::open(folder.path()).expect("opened");
    let found = read_view(&store).containers[0].1.record.created;
    assert!((1000..1999).contains(&found), "{found}");
    assert_eq!(store.objects().expect("readable").0, [service("mine", 80)]);
}
