//! Who lives, who is believed dead and whose records count, without store, kernel or root.

use std::time::Duration;

use causeway_model::{
    EndpointRecord, Event as Fact, Home, Labels, NodeIdentity, ObjectKey, ObjectKind, manifest,
};
use causeway_source::cluster::{Container, View};
use causeway_source::{Origin, Stored};
use serde_json::json;

use super::*;

const TTL: Duration = Duration::from_secs(40);

/// What an engine would have made of the effects.
struct World {
    membership: Membership,
    index: Index,
    peers: BTreeMap<String, Peer>,
    elsewhere: BTreeMap<ObjectId, (String, String)>,
    conditions: BTreeMap<String, String>,
    published: Vec<Command>,
    known: Option<Known>,
    written: usize,
    now: Instant,
    revision: i64,
}

impl World {
    fn new() -> Self {
        let now = clock::now();
        let cluster = ClusterState::new(Err((now, "it has not answered".to_owned())));
        let endpoints = ["http://192.0.2.9:2379".to_owned()];
        Self {
            membership: Membership::new("n1".into(), TTL, &endpoints, cluster),
            index: Index::at(Home { node: "n1".into(), ..Home::default() }),
            peers: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            conditions: BTreeMap::new(),
            published: Vec::new(),
            known: None,
            written: 0,
            now,
            revision: 0,
        }
    }

    /// One of a store that answers and knows these nodes.
    fn of(nodes: &[&str]) -> Self {
        let mut world = Self::new();
        world.report(Report::Connection(Ok(())));
        world.reset(view(nodes), "store-1", false);
        world
    }

    fn ask(&mut self, ask: impl FnOnce(&mut Membership, LocalState<'_>, Instant) -> Vec<Effect>) {
        let files = BTreeMap::new();
        let local = LocalState {
            index: &self.index,
            peers: &self.peers,
            files: &files,
            elsewhere: &self.elsewhere,
        };
        for effect in ask(&mut self.membership, local, self.now) {
            match effect {
                Effect::Adopt { changes, on_disk } => {
                    self.written += if on_disk { 0 } else { changes.len() };
                    changes.into_iter().for_each(|change| self.adopt(change));
                }
                Effect::Peers(peers) => self.peers = peers,
                Effect::Publish(command) => self.published.push(command),
                Effect::KeepKnown(known) => self.known = Some(known),
                Effect::Condition(concern, Some(text), _) => {
                    self.conditions.insert(concern.to_string(), text);
                }
                Effect::Condition(concern, None, _) => {
                    self.conditions.remove(&concern.to_string());
                }
                Effect::TouchNodes(_)
                | Effect::SubnetsChanged
                | Effect::Listed
                | Effect::StoreIsBack
                | Effect::WritesMayGoOn
                | Effect::RevisionSeen => {}
            }
        }
    }

    fn adopt(&mut self, change: Change) {
        let fact = match change {
            Change::NodeGone(name) => Fact::NodeGone(name),
            Change::Container(node, one) => Fact::Attach { node: node.into(), record: one.record },
            Change::ContainerGone(node, key) => Fact::Detach { node: node.into(), key },
            Change::Object(stored) => Fact::Apply(stored.object),
            Change::ObjectGone(kind, key) => Fact::Delete(kind, key),
            Change::Node(_) | Change::Subnet(_) | Change::SubnetGone(_) => return,
        };
        self.index.apply(fact);
    }

    fn report(&mut self, report: Report) {
        self.ask(|membership, local, now| membership.on_report(report, local, now));
    }

    fn changed(&mut self, changes: Vec<Change>) {
        self.revision += 1;
        self.report(Report::Changed { changes, revision: self.revision });
    }

    fn reset(&mut self, view: View, store: &str, same: bool) {
        self.revision += 1;
        let known = Known {
            store: Some(store.to_owned()),
            revision: self.revision,
            lease: None,
            lost: false,
        };
        self.report(Report::Reset { view, known, same });
    }

    /// So much later.
    fn after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.ask(|membership, local, now| membership.on_time(local, now));
    }

    fn peers(&self) -> Vec<String> {
        let word = |peer: &Peer| if peer.record.is_some() { "lives" } else { "silent" };
        self.peers.values().map(|peer| format!("{} {}", peer.name, word(peer))).collect()
    }

    fn containers(&self) -> Vec<String> {
        let all = self.index.containers();
        let mut all: Vec<String> =
            all.map(|(one, _)| format!("{}/{}", one.node, one.record.key.container_id)).collect();
        all.sort();
        all
    }
}

fn view(nodes: &[&str]) -> View {
    View {
        nodes: nodes.iter().map(|name| ((*name).to_owned(), node(name))).collect(),
        ..View::default()
    }
}

fn node(name: &str) -> NodeRecord {
    NodeRecord {
        identity: NodeIdentity { node: name.to_owned(), machine_id: format!("machine-{name}") },
        boot_id: String::new(),
        ips: vec!["192.0.2.2".parse().unwrap()],
        labels: Labels::new(),
        version: String::new(),
        started: 1,
        config: String::new(),
        created: 0,
    }
}

fn key(name: &str) -> EndpointKey {
    let ifname = "eth0".to_owned();
    EndpointKey { network: "net".to_owned(), container_id: name.to_owned(), ifname }
}

fn there(node: &str, name: &str) -> Change {
    let record = EndpointRecord {
        key: key(name),
        netns: None,
        ips: vec!["10.0.2.2".parse().unwrap()],
        labels: Labels::new(),
        created: 1,
    };
    Change::Container(node.to_owned(), Container { record, healthy: true })
}

fn gone(node: &str, name: &str) -> Change {
    Change::ContainerGone(node.to_owned(), key(name))
}

fn subnet(node_name: &str, subnet: &str) -> SubnetRecord {
    let NodeRecord { identity: owner, ips, .. } = node(node_name);
    SubnetRecord { subnet: subnet.parse().unwrap(), owner, ips, vtep: None, mtu: None, created: 0 }
}

fn service(name: &str) -> Stored {
    let document = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "clusterIP": "10.96.0.7", "ports": [{ "port": 80 }] },
    });
    let object = manifest::from_json(&document).unwrap().remove(0);
    Stored { object, origin: Origin::Api }
}

/// Rows: C-13
#[test]
fn a_node_whose_lease_runs_out_is_dead_at_once() {
    let mut world = World::of(&["n1", "n2", "n3"]);
    world.changed(vec![there("n2", "b"), there("n3", "c")]);
    world.after(60);
    world.changed(vec![gone("n2", "b"), Change::NodeGone("n2".to_owned())]);
    assert_eq!(world.containers(), ["n3/c"]);
    assert_eq!(world.peers(), ["n3 lives"]);
    assert_eq!(world.membership.due(), None);
}

/// Rows: C-10
#[test]
fn nodes_that_vanish_together_after_an_outage_have_a_grace() {
    let mut world = World::of(&["n1", "n2", "n3"]);
    world.changed(vec![there("n2", "b"), there("n3", "c")]);
    world.report(Report::Connection(Err("refused".to_owned())));
    assert!(world.conditions["store"].contains("unreachable for 0s"), "{:?}", world.conditions);
    world.report(Report::Connection(Ok(())));
    assert!(!world.conditions.contains_key("store"));
    let ends = ["n2", "n3"].map(|name| Change::NodeGone(name.to_owned()));
    world.changed([vec![gone("n2", "b"), gone("n3", "c")], ends.to_vec()].concat());
    assert_eq!(world.containers(), ["n2/b", "n3/c"]);
    assert!(
        world.conditions["held nodes"].contains("n2, n3 disappeared"),
        "{:?}",
        world.conditions
    );
    assert!(world.membership.may_live("n2"));
    // One of them is heard of, with its container.
    world.changed(vec![Change::Node(node("n2")), there("n2", "b")]);
    assert!(world.conditions["held nodes"].starts_with("n3 disappeared"), "{:?}", world.conditions);
    world.after(39);
    assert_eq!(world.containers(), ["n2/b", "n3/c"]);
    world.after(1);
    assert_eq!(world.containers(), ["n2/b"]);
    assert_eq!(world.peers(), ["n2 lives"]);
    assert!(!world.conditions.contains_key("held nodes"));
}

/// Rows: C-10
#[test]
fn nobody_is_given_up_while_the_store_is_away() {
    let mut world = World::of(&["n1", "n2"]);
    world.changed(vec![there("n2", "b")]);
    world.report(Report::Connection(Ok(())));
    world.reset(view(&["n1"]), "store-2", false);
    assert!(world.membership.due().is_some());
    world.report(Report::Connection(Err("refused".to_owned())));
    assert_eq!(world.membership.due(), None);
    world.after(3600);
    assert_eq!(world.containers(), ["n2/b"]);
    // Back: it has all the time to be heard of.
    world.report(Report::Connection(Ok(())));
    world.after(39);
    assert_eq!(world.containers(), ["n2/b"]);
    world.after(2);
    assert_eq!(world.containers(), [""; 0]);
}

/// Rows: C-06, O-40
#[test]
fn what_is_as_it_was_is_not_written() {
    let mut world = World::of(&["n1", "n2"]);
    world.changed(vec![there("n2", "b"), Change::Subnet(subnet("n2", "10.0.2.0/24"))]);
    let written = world.written;
    world.changed(vec![there("n2", "b"), Change::Node(node("n2"))]);
    world.changed(vec![Change::Subnet(subnet("n2", "10.0.2.0/24")), gone("n2", "x")]);
    // This node's own containers are known better here.
    world.changed(vec![there("n1", "a"), gone("n1", "a")]);
    assert_eq!(world.written, written);
    assert_eq!(world.containers(), ["n2/b"]);
}

#[test]
fn within_a_report_the_last_word_counts() {
    let mut world = World::of(&["n1", "n2"]);
    world.after(60);
    world.changed(vec![there("n2", "b"), gone("n2", "b"), there("n2", "c"), gone("n2", "x")]);
    assert_eq!(world.containers(), ["n2/c"]);
    world.changed(vec![gone("n2", "c"), there("n2", "c"), there("n2", "c")]);
    assert_eq!(world.containers(), ["n2/c"]);
    // What it says after its end it says as a new one.
    world.changed(vec![
        gone("n2", "c"),
        Change::NodeGone("n2".to_owned()),
        there("n2", "c"),
        Change::Node(node("n2")),
    ]);
    assert_eq!(world.containers(), ["n2/c"]);
    // What it said before is no sign of life.
    world.changed(vec![
        Change::Node(node("n2")),
        there("n2", "d"),
        gone("n2", "c"),
        Change::NodeGone("n2".to_owned()),
    ]);
    assert_eq!(world.containers(), [""; 0]);
}

/// Rows: C-10
#[test]
fn objects_that_the_store_has_lost_stay_and_are_named() {
    let mut world = World::of(&["n1"]);
    world.changed(vec![Change::Object(service("web"))]);
    let id = (ObjectKind::Service, ObjectKey::new("default", "web"));
    world.reset(view(&["n1"]), "store-2", false);
    assert!(world.membership.is_missing_in_store(&id));
    assert!(world.conditions["lost objects"].contains("1 objects of this node"));
    assert!(world.known.as_ref().unwrap().lost, "the next run knows it, too");
    assert_eq!(world.index.services().len(), 1);
    world.ask(|membership, _, _| membership.forget_missing(&[id]));
    assert!(!world.conditions.contains_key("lost objects"));
    assert!(!world.known.as_ref().unwrap().lost);
    assert_eq!(world.index.services().len(), 0);
}

/// Rows: C-14
#[test]
fn what_does_not_decode_stays_as_it_was() {
    let mut world = World::of(&["n1", "n2"]);
    world.changed(vec![there("n2", "b"), Change::Object(service("web"))]);
    world.after(60);
    let why = "missing field".to_owned();
    let undecoded = [
        "/causeway/v1/nodes/n2",
        "/causeway/v1/containers/n2/net/b/eth0",
        "/causeway/v1/objects/service/default/web",
    ];
    let unreadable = undecoded.map(|key| (key.to_owned(), why.clone())).into();
    world.reset(View { unreadable, ..view(&["n1"]) }, "store-1", true);
    assert_eq!(
        (world.containers(), world.peers()),
        (vec!["n2/b".to_owned()], vec!["n2 lives".to_owned()])
    );
    assert_eq!(world.index.services().len(), 1);
    assert!(world.conditions["cluster keys"].contains("nodes/n2: missing field"));
    world.report(Report::Unreadable(BTreeMap::new()));
    assert!(!world.conditions.contains_key("cluster keys"));
}

#[test]
fn another_subnet_is_asked_for_once_no_container_needs_the_lost_one() {
    let mut world = World::of(&["n1"]);
    let Change::Container(_, ours) = there("n1", "a") else { panic!("not a container") };
    world.index.apply(Fact::Attach { node: "n1".into(), record: ours.record });
    let owner = node("n2").identity;
    let lost = Subnets::Lost { subnet: "10.0.2.0/24".parse().unwrap(), owner };
    world.report(Report::Subnets(lost));
    assert!(world.conditions["subnet"].contains("n2"), "{:?}", world.conditions);
    assert!(world.published.is_empty());
    world.index.apply(Fact::Detach { node: "n1".into(), key: key("a") });
    for _ in 0..2 {
        world.ask(|membership, local, _| membership.another_subnet(local).into_iter().collect());
    }
    assert!(matches!(world.published[..], [Command::TakeAnotherSubnet]), "{:?}", world.published);
}

#[test]
fn a_node_that_joins_may_be_silent_for_a_moment() {
    let now = clock::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    let mut world = World::of(&["n1", "n2"]);
    let mut waiting = waiting::follow(&BTreeMap::new(), &world.peers, false, now);
    assert_eq!(waiting::due(&waiting), Some(after(10)));
    waiting = waiting::follow(&waiting, &world.peers, false, after(5));
    assert!(waiting::end(&mut waiting, after(9)).is_empty());
    assert_eq!(waiting::end(&mut waiting, after(10)), ["n2"]);
    assert!(waiting::end(&mut waiting, after(11)).is_empty(), "said once");
    waiting = waiting::follow(&waiting, &world.peers, false, after(12));
    assert_eq!(waiting, BTreeMap::from([("n2".to_owned(), None)]));
    world.changed(vec![Change::Subnet(subnet("n2", "10.0.2.0/24"))]);
    assert!(waiting::follow(&waiting, &world.peers, false, after(13)).is_empty());
    let vxlan = waiting::follow(&waiting, &world.peers, true, after(13));
    assert_eq!(vxlan.len(), 1, "with vxlan it has to say the address of its device");
}
