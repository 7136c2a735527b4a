//! What the store has, compared with what is known. Everything is compared by value (rows C-06,
//! O-40): what is as it was costs nothing and is not written.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use causeway_model::{EndpointKey, NodeRecord, ObjectKind, SubnetRecord};
use causeway_source::cluster::{Change, Container, Known, View};
use causeway_source::{Origin, Stored};
use ipnetwork::IpNetwork;

use super::node_grace::Cause;
use super::{Effect, LocalState, LogRule, Membership, Placed, tenure};
use crate::conditions::Concern;
use crate::log;
use crate::state::{self, ObjectId, id_of};

/// So many keys that do not decode are named, with so many characters each.
const FEW: usize = 5;
const LONG: usize = 300;

/// What came together, in a report.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    local: LocalState<'a>,
    now: Instant,
    /// What was not as it was.
    pub(super) new: Vec<Change>,
    /// Containers that it is about: where in `new` they are; `None`: they are gone.
    containers: BTreeMap<(String, EndpointKey), Option<usize>>,
    /// Objects that are new, changed (`Some`) or gone.
    objects: BTreeMap<ObjectId, Option<Stored>>,
}

impl<'a> Batch<'a> {
    /// Nothing is new.
    pub(super) fn new(local: LocalState<'a>, now: Instant) -> Self {
        let (new, containers, objects) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { local, now, new, containers, objects }
    }

    /// Whether a container is there, with what is new.
    fn has_container(&self, node: &str, key: &EndpointKey) -> bool {
        match self.told(node, key) {
            Some(told) => told.is_some(),
            None => self.local.index.container(node, key).is_some(),
        }
    }

    /// Whether a container is there as it is told, with what is new.
    fn is_as(&self, node: &str, container: &Container) -> bool {
        let Container { record, healthy } = container;
        match self.told(node, &record.key) {
            Some(told) => told == Some(container),
            None => {
                let known = self.local.index.container(node, &record.key);
                known.is_some_and(|(one, was)| *one.record == *record && was == *healthy)
            }
        }
    }

    /// What is new of a container: `Some(None)`: it is gone.
    fn told(&self, node: &str, key: &EndpointKey) -> Option<Option<&Container>> {
        if self.containers.is_empty() {
            return None;
        }
        let at = self.containers.get(&(node.to_owned(), key.clone()))?;
        Some(at.and_then(|at| match self.new.get(at) {
            Some(Change::Container(_, container)) => Some(container),
            _ => None,
        }))
    }
}

impl Membership {
    /// What an earlier run left, all of it on disk.
    pub(crate) fn on_snapshot(
        &mut self,
        view: View,
        known: Known,
        local: LocalState<'_>,
        now: Instant,
    ) -> Vec<Effect> {
        if !view.unreadable.is_empty() {
            // The store lists them again.
            let unreadable = named(&view.unreadable);
            tracing::warn!("the snapshot does not decode in part: {unreadable}");
        }
        self.cluster.revision = known.revision;
        let mut effects = Vec::new();
        self.known = known;
        if self.known.store.is_none() {
            // Of the embedded store: nobody has asked to share them.
            self.missing_in_store = objects(local).collect();
            effects.push(self.describe_missing());
        }
        let mut batch = Batch::new(local, now);
        for record in view.nodes.into_values() {
            self.put_node(record, &mut batch);
        }
        self.subnets = view.subnets;
        for (node, container) in view.containers {
            self.put_container(node, container, &mut batch);
        }
        effects.push(Effect::Adopt { changes: batch.new, on_disk: true });
        effects.extend(self.describe_peers(local));
        effects
    }

    /// Everything there is.
    pub(super) fn on_view(
        &mut self,
        view: View,
        known: Known,
        same: bool,
        mut batch: Batch<'_>,
    ) -> Vec<Effect> {
        // What this node knows without a store, or of another one, is not missing from this one.
        let same = same && !self.known.lost && self.known.store == known.store;
        tracing::info!(
            revision = known.revision,
            same,
            nodes = view.nodes.len(),
            objects = view.objects.len(),
            "listed the cluster store"
        );
        let mut effects = vec![unreadable_keys(&view.unreadable)];
        let unreadable = below_root(&view.unreadable);
        let mut nodes = view.nodes;
        for (name, record) in &self.nodes {
            if unreadable.contains(&*format!("nodes/{name}")) {
                nodes.entry(name.clone()).or_insert_with(|| record.clone());
            }
        }
        let dead = self.view_nodes(nodes, same, &mut batch);
        self.view_subnets(view.subnets, &unreadable, same, &mut batch);
        self.view_containers(view.containers, &unreadable, &dead, &mut batch);
        self.remove_nodes(dead, &mut batch);
        self.view_objects(view.objects, &unreadable, same, &mut batch);
        self.known = Known { lease: known.lease.or(self.known.lease), lost: false, ..known };
        self.viewed = true;
        let revision = self.known.revision;
        effects.extend(self.end_batch(batch, revision));
        effects.push(Effect::Listed);
        effects
    }

    /// Which nodes are dead.
    fn view_nodes(
        &mut self,
        nodes: BTreeMap<String, NodeRecord>,
        same: bool,
        batch: &mut Batch<'_>,
    ) -> BTreeSet<String> {
        let known: BTreeSet<String> = self.nodes.keys().cloned().collect();
        let missing = known.iter().filter(|name| !nodes.contains_key(*name)).cloned().collect();
        let dead = match same {
            true => self.nodes_gone(missing, Cause::Reset, batch.now),
            // Those that are there may have said only half of it yet.
            false => self.nodes_gone(known, Cause::OtherStore, batch.now),
        };
        for record in nodes.into_values() {
            self.put_node(record, batch);
        }
        dead
    }

    fn view_subnets(
        &mut self,
        subnets: BTreeMap<IpNetwork, SubnetRecord>,
        undecoded: &BTreeSet<&str>,
        same: bool,
        batch: &mut Batch<'_>,
    ) {
        let until = batch.now + self.ttl;
        let missing = self.subnets.keys().filter(|known| !subnets.contains_key(*known));
        for subnet in missing.copied().collect::<Vec<_>>() {
            let end = format!("subnets/{}-{}", subnet.network(), subnet.prefix());
            if undecoded.contains(&*end) {
                continue;
            }
            if !same {
                self.subnets_grace.insert(subnet, until);
            } else if !self.subnets_grace.contains_key(&subnet) {
                self.subnet_gone(subnet, batch.now, &mut batch.new);
            }
        }
        for record in subnets.into_values() {
            self.put_subnet(record, batch);
        }
    }

    fn view_containers(
        &mut self,
        containers: Vec<(String, Container)>,
        undecoded: &BTreeSet<&str>,
        dead: &BTreeSet<String>,
        batch: &mut Batch<'_>,
    ) {
        let there: BTreeSet<Placed<'_>> =
            containers.iter().map(|(node, one)| (node.as_str(), &one.record.key)).collect();
        let known = batch.local.index.containers().filter(|(one, _)| one.node != self.own);
        let missing: Vec<(Arc<str>, EndpointKey)> = known
            .filter(|(one, _)| !dead.contains(&*one.node))
            .filter(|(one, _)| !there.contains(&(&*one.node, &one.record.key)))
            .map(|(one, _)| (Arc::clone(&one.node), one.record.key.clone()))
            .collect();
        drop(there);
        for (node, key) in missing {
            let EndpointKey { network, container_id, ifname } = &key;
            let end = format!("containers/{node}/{network}/{container_id}/{ifname}");
            if !self.nodes_grace.doubts(&node) && !undecoded.contains(&*end) {
                self.remove_container(&node, key, batch);
            }
        }
        for (node, container) in containers {
            self.update_container(node, container, batch);
        }
    }

    fn view_objects(
        &mut self,
        stored: Vec<Stored>,
        undecoded: &BTreeSet<&str>,
        same: bool,
        batch: &mut Batch<'_>,
    ) {
        let there: BTreeSet<ObjectId> = stored.iter().map(id_of).collect();
        let missing: Vec<ObjectId> =
            objects(batch.local).filter(|id| !there.contains(id)).collect();
        for id in missing {
            let end = format!("objects/{}/{}/{}", id.0.name(), id.1.namespace, id.1.name);
            if undecoded.contains(&*end) {
                continue;
            }
            if same && !self.missing_in_store.contains(&id) {
                batch.objects.insert(id, None);
            } else {
                self.missing_in_store.insert(id);
            }
        }
        for stored in stored {
            let id = id_of(&stored);
            if !is_stored(batch.local, &id, &stored) {
                batch.objects.insert(id, Some(stored));
            } else {
                self.missing_in_store.remove(&id);
            }
        }
    }

    /// What changed.
    pub(super) fn on_changes(
        &mut self,
        changes: Vec<Change>,
        revision: i64,
        local: LocalState<'_>,
        now: Instant,
    ) -> Vec<Effect> {
        let mut batch = Batch::new(local, now);
        // The end of a node and of its containers is one fact.
        let mut gone: BTreeMap<String, usize> = BTreeMap::new();
        for (at, change) in changes.iter().enumerate() {
            if let Change::NodeGone(name) = change {
                gone.insert(name.clone(), at);
            } else if let Change::Node(record) = change {
                gone.remove(&record.identity.node);
            }
        }
        let with: BTreeSet<&String> = changes.iter().filter_map(loses_a_container).collect();
        let keeps = |name: &&String| {
            !with.contains(name) && local.index.containers_of(name).next().is_some()
        };
        let (alone, whole): (Vec<&String>, Vec<&String>) = gone.keys().partition(keeps);
        let [alone, whole] = [alone, whole].map(|all| all.into_iter().cloned().collect());
        for name in gone.keys() {
            self.newcomers.node_gone(name);
        }
        let mut dead = self.nodes_gone(whole, Cause::Change, now);
        dead.extend(self.nodes_gone(alone, Cause::Alone, now));
        self.remove_nodes(dead, &mut batch);
        for (at, change) in changes.into_iter().enumerate() {
            // What a node said before its end is no sign of life.
            let of_node = says_that_it_lives(&change).and_then(|node| gone.get(node));
            if of_node.is_none_or(|end| *end < at) {
                self.on_change(change, &mut batch);
            }
        }
        self.known.revision = revision;
        self.end_batch(batch, revision)
    }

    fn on_change(&mut self, change: Change, batch: &mut Batch<'_>) {
        match change {
            Change::Node(record) => self.put_node(record, batch),
            Change::NodeGone(_) => {}
            Change::Subnet(record) => self.put_subnet(record, batch),
            Change::SubnetGone(subnet) => self.subnet_gone(subnet, batch.now, &mut batch.new),
            Change::Container(node, container) => self.update_container(node, container, batch),
            Change::ContainerGone(node, key) => {
                if self.nodes_grace.container_gone(&node, &key) {
                    self.remove_container(&node, key, batch);
                }
            }
            Change::Object(stored) => drop(batch.objects.insert(id_of(&stored), Some(stored))),
            Change::ObjectGone(kind, key) => drop(batch.objects.insert((kind, key), None)),
        }
    }

    /// What follows from all that is new: it is kept for the next start, too.
    fn end_batch(&mut self, mut batch: Batch<'_>, revision: i64) -> Vec<Effect> {
        self.drop_given_up(&mut batch.new);
        let about_peers = batch.new.iter().any(concerns_peers);
        self.take_objects(mem::take(&mut batch.objects), &mut batch.new);
        let mut effects = vec![Effect::Adopt { changes: batch.new, on_disk: false }];
        if about_peers {
            effects.extend(self.describe_peers(batch.local));
        }
        effects.extend(self.describe_held());
        effects.push(self.describe_newcomers());
        self.cluster.revision = revision;
        effects.extend([self.describe_missing(), self.keep_known(), Effect::RevisionSeen]);
        effects
    }

    fn take_objects(&mut self, objects: BTreeMap<ObjectId, Option<Stored>>, new: &mut Vec<Change>) {
        for (id, stored) in objects {
            self.missing_in_store.remove(&id);
            new.push(match stored {
                Some(mut stored) => {
                    // Ours, as it came back.
                    if let Origin::Elsewhere { node, file } = &stored.origin
                        && **node == *self.own
                    {
                        stored.origin = Origin::Manifest(file.clone());
                    }
                    Change::Object(stored)
                }
                None => Change::ObjectGone(id.0, id.1),
            });
        }
    }

    /// Objects that the store has lost, in words.
    pub(super) fn describe_missing(&mut self) -> Effect {
        let missing = &self.missing_in_store;
        self.cluster.held_objects = missing.len();
        let text = missing.first().map(|(_, first)| {
            let kinds: BTreeSet<&str> = missing.iter().map(|(kind, _)| plural(*kind)).collect();
            let kinds = kinds.into_iter().collect::<Vec<_>>().join(",");
            format!(
                "{} objects of this node are not in the cluster store, {first} the first of them: it \
                 was wiped or restored, or they are of another one or of --store embedded; they go \
                 on here. To share them: `causeway get {kinds} -A -o yaml | causeway apply -f -`; \
                 else `causeway delete` them",
                missing.len()
            )
        });
        Effect::Condition(Concern::LostObjects, text, LogRule::Appeared)
    }

    fn put_node(&mut self, record: NodeRecord, batch: &mut Batch<'_>) {
        let known = self.nodes.get(&record.identity.node);
        // This node's own record is the task's business.
        let known = known.filter(|known| *known.identity.node != *self.own);
        if self.newcomers.node(known, &record, batch.now + self.ttl) {
            self.take_node(record, batch);
        }
    }

    pub(super) fn take_node(&mut self, record: NodeRecord, batch: &mut Batch<'_>) {
        let node = record.identity.node.clone();
        self.node_returns(&node, batch.local, batch.now);
        if self.nodes.get(&node) == Some(&record) {
            return;
        }
        self.nodes.insert(node, record.clone());
        batch.new.push(Change::Node(record));
    }

    fn put_subnet(&mut self, record: SubnetRecord, batch: &mut Batch<'_>) {
        let known = self.subnets.get(&record.subnet);
        let holds = known.is_some_and(|known| tenure::holds(known, &self.nodes, &self.subnets));
        if self.newcomers.subnet(known, &record, holds, batch.now + self.ttl) {
            self.take_subnet(record, batch);
        }
    }

    pub(super) fn take_subnet(&mut self, record: SubnetRecord, batch: &mut Batch<'_>) {
        self.subnets_grace.remove(&record.subnet);
        let record = tenure::aged(self.subnets.get(&record.subnet), record);
        let before = self.subnets.insert(record.subnet, record.clone());
        if before.as_ref() != Some(&record) {
            batch.new.push(Change::Subnet(record));
        }
    }

    fn update_container(&mut self, node: String, container: Container, batch: &mut Batch<'_>) {
        self.nodes_grace.confirm(&node, &container.record.key);
        self.put_container(node, container, batch);
    }

    /// A container is there. It is new if it was not, or otherwise.
    fn put_container(&self, node: String, container: Container, batch: &mut Batch<'_>) {
        if node == *self.own || batch.is_as(&node, &container) {
            return;
        }
        let key = (node.clone(), container.record.key.clone());
        batch.containers.insert(key, Some(batch.new.len()));
        batch.new.push(Change::Container(node, container));
    }

    pub(super) fn remove_container(&self, node: &str, key: EndpointKey, batch: &mut Batch<'_>) {
        if node == &*self.own || !batch.has_container(node, &key) {
            return;
        }
        batch.containers.insert((node.to_owned(), key.clone()), None);
        batch.new.push(Change::ContainerGone(node.to_owned(), key));
    }

    pub(super) fn remove_nodes(&mut self, dead: BTreeSet<String>, batch: &mut Batch<'_>) {
        for name in dead {
            if self.nodes.remove(&name).is_none() {
                continue;
            }
            tracing::warn!(node = name, "a node stopped responding; its endpoints were removed");
            // What is told of them afterwards is new.
            let of_node = batch.local.index.containers_of(&name);
            let keys: Vec<EndpointKey> = of_node.map(|(one, _)| one.record.key.clone()).collect();
            let gone = keys.into_iter().map(|key| ((name.clone(), key), None));
            batch.containers.extend(gone);
            batch.new.push(Change::NodeGone(name));
        }
    }
}

/// Says which keys do not decode, as far as anybody reads that.
pub(super) fn unreadable_keys(unreadable: &BTreeMap<String, String>) -> Effect {
    let text = (!unreadable.is_empty()).then(|| {
        format!(
            "keys of the cluster store that do not decode or do not count: {}; a newer causewayd may \
             have written them: update this one; else remove them",
            named(unreadable)
        )
    });
    Effect::Condition(Concern::ClusterKeys, text, LogRule::Changed)
}

/// All objects.
fn objects(local: LocalState<'_>) -> impl Iterator<Item = ObjectId> {
    let index = local.index;
    let services = index.services().keys().map(|key| (ObjectKind::Service, key.clone()));
    let slices = index.slices().keys().map(|key| (ObjectKind::EndpointSlice, key.clone()));
    let nodes = index.nodes().values().map(|node| (ObjectKind::Node, node.key.clone()));
    services.chain(slices).chain(nodes)
}

/// Whether an object is as it is here already.
fn is_stored(local: LocalState<'_>, id: &ObjectId, stored: &Stored) -> bool {
    let origin = match (local.files.get(id), local.elsewhere.get(id)) {
        (Some(file), _) => Origin::Manifest(file.clone()),
        (None, Some((node, file))) => Origin::Elsewhere { node: node.clone(), file: file.clone() },
        (None, None) => Origin::Api,
    };
    let known = state::stored(local.index, id);
    origin == stored.origin && known.as_ref() == Some(&stored.object)
}

/// The node that it takes a container from.
fn loses_a_container(change: &Change) -> Option<&String> {
    if let Change::ContainerGone(node, _) = change { Some(node) } else { None }
}

/// Whether it says where nodes are or whether they live.
fn concerns_peers(change: &Change) -> bool {
    match change {
        Change::Node(_) | Change::NodeGone(_) | Change::Subnet(_) | Change::SubnetGone(_) => true,
        Change::Container(..)
        | Change::ContainerGone(..)
        | Change::Object(_)
        | Change::ObjectGone(..) => false,
    }
}

/// The node that says so of itself.
fn says_that_it_lives(change: &Change) -> Option<&String> {
    match change {
        Change::Node(record) => Some(&record.identity.node),
        Change::Container(node, _) => Some(node),
        Change::NodeGone(_)
        | Change::Subnet(_)
        | Change::SubnetGone(_)
        | Change::ContainerGone(..)
        | Change::Object(_)
        | Change::ObjectGone(..) => None,
    }
}

/// What is left of keys that do not decode (row C-14): a newer version wrote them, and what this one
/// knows of them goes on.
fn below_root(unreadable: &BTreeMap<String, String>) -> BTreeSet<&str> {
    unreadable.keys().filter_map(|key| Some(key.split_once("/v1/")?.1)).collect()
}

fn named(unreadable: &BTreeMap<String, String>) -> String {
    few(unreadable.iter().map(|(key, why)| format!("{key}: {why}")))
}

/// The first of many, and no more of each than anybody reads: others than causewayd write what is
/// named here.
pub(super) fn few(all: impl Iterator<Item = impl AsRef<str>>) -> String {
    log::few(all.map(|text| log::short(text.as_ref(), LONG)), FEW)
}

/// A kind as `causeway get` takes it.
fn plural(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Service => "services",
        ObjectKind::EndpointSlice => "endpointslices",
        ObjectKind::Node => "nodes",
    }
}
