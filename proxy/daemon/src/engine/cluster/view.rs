//! What is there by the store, taken into index, peers and snapshot. Everything is compared by value
//! (rows C-06, O-40): what is as it was costs nothing and is not written.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use causeway_model::{EndpointKey, Event as Fact, NodeRecord, Object, ObjectKind, SubnetRecord};
use causeway_source::cluster::{Change, Container, Known, View};
use causeway_source::{Origin, Stored};
use ipnetwork::IpNetwork;

use super::super::hold::Cause;
use super::super::objects::Id;
use super::super::{Engine, tenure};
use super::Membership;
use crate::clock;
use crate::conditions::{Change as Condition, Concern};
use crate::log;

/// So many keys that do not decode are named, with so many characters each.
const FEW: usize = 5;
const LONG: usize = 300;

/// What came together, in a report.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// What was not as it was: for the snapshot.
    pub(super) new: Vec<Change>,
    /// Objects that are new, changed (`Some`) or gone.
    objects: BTreeMap<Id, Option<Stored>>,
}

impl Engine {
    /// What an earlier run left.
    ///
    /// # Errors
    /// The snapshot cannot be read.
    pub(in super::super) fn read_snapshot(&mut self) -> Result<(), causeway_source::Error> {
        let (view, known) = self.store.cluster()?;
        if !view.unreadable.is_empty() {
            // The store lists them again.
            let unreadable = named(&view.unreadable);
            tracing::warn!("the snapshot does not decode in part: {unreadable}");
        }
        if let Some(cluster) = &mut self.state.cluster {
            cluster.revision = known.revision;
        }
        self.membership.known = known;
        if self.membership.known.store.is_none() {
            // Of the embedded store: nobody has asked to share them.
            self.membership.lost = self.objects().collect();
            self.describe_lost();
        }
        let mut batch = Batch::default();
        for record in view.nodes.into_values() {
            self.put_node(record, &mut batch);
        }
        self.membership.subnets = view.subnets;
        for (node, container) in view.containers {
            self.put_container(&node, &container);
        }
        self.describe_peers();
        Ok(())
    }

    /// Everything there is.
    pub(super) fn take_view(&mut self, view: View, known: Known, same: bool) {
        // What this node knows without a store, or of another one, is not missing from this one.
        let before = &self.membership.known;
        let same = same && !before.lost && before.store == known.store;
        tracing::info!(
            revision = known.revision,
            same,
            nodes = view.nodes.len(),
            objects = view.objects.len(),
            "listed the cluster store"
        );
        let mut batch = Batch::default();
        self.take_unreadable(&view.unreadable);
        let unreadable = below_root(&view.unreadable);
        let mut nodes = view.nodes;
        for (name, record) in &self.membership.nodes {
            if unreadable.contains(&*format!("nodes/{name}")) {
                nodes.entry(name.clone()).or_insert_with(|| record.clone());
            }
        }
        let dead = self.view_nodes(nodes, same, &mut batch);
        self.view_subnets(view.subnets, &unreadable, same, &mut batch);
        self.view_containers(view.containers, &unreadable, &dead, &mut batch);
        self.remove_nodes(dead, &mut batch.new);
        self.view_objects(view.objects, &unreadable, same, &mut batch);
        self.membership.known =
            Known { lease: known.lease.or(self.membership.known.lease), lost: false, ..known };
        self.membership.viewed = true;
        let revision = self.membership.known.revision;
        self.take_batch(batch, revision);
        self.pending.manifests = true;
        self.listed = true;
    }

    /// Says which keys do not decode, as far as anybody reads that.
    pub(super) fn take_unreadable(&mut self, unreadable: &BTreeMap<String, String>) {
        let conditions = &mut self.state.conditions;
        if unreadable.is_empty() {
            conditions.clear(&Concern::ClusterKeys);
            return;
        }
        let text = format!(
            "keys of the cluster store that do not decode or do not count: {}; a newer causewayd may \
             have written them: update this one; else remove them",
            named(unreadable)
        );
        if conditions.set(Concern::ClusterKeys, text.clone()) != Condition::Same {
            tracing::error!("{text}");
        }
    }

    /// Which nodes are dead.
    fn view_nodes(
        &mut self,
        nodes: BTreeMap<String, NodeRecord>,
        same: bool,
        batch: &mut Batch,
    ) -> BTreeSet<String> {
        let known: BTreeSet<String> = self.membership.nodes.keys().cloned().collect();
        let missing = known.iter().filter(|name| !nodes.contains_key(*name)).cloned().collect();
        let dead = match same {
            true => self.nodes_gone(missing, Cause::Reset),
            // Those that are there may have said only half of it yet.
            false => self.nodes_gone(known, Cause::OtherStore),
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
        batch: &mut Batch,
    ) {
        let until = clock::now() + self.state.settings.endpoint_ttl;
        let missing = self.membership.subnets.keys().filter(|known| !subnets.contains_key(*known));
        for subnet in missing.copied().collect::<Vec<_>>() {
            let end = format!("subnets/{}-{}", subnet.network(), subnet.prefix());
            if undecoded.contains(&*end) {
                continue;
            }
            if !same {
                self.membership.doubtful_subnets.insert(subnet, until);
            } else if !self.membership.doubtful_subnets.contains_key(&subnet) {
                self.subnet_gone(subnet, &mut batch.new);
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
        batch: &mut Batch,
    ) {
        let there: BTreeSet<(&str, &EndpointKey)> =
            containers.iter().map(|(node, one)| (node.as_str(), &one.record.key)).collect();
        let own = &self.facts.name;
        let known = self.state.index.containers().filter(|(one, _)| one.node != *own);
        let missing: Vec<(Arc<str>, EndpointKey)> = known
            .filter(|(one, _)| !dead.contains(&*one.node))
            .filter(|(one, _)| !there.contains(&(&*one.node, &one.record.key)))
            .map(|(one, _)| (Arc::clone(&one.node), one.record.key.clone()))
            .collect();
        drop(there);
        for (node, key) in missing {
            let EndpointKey { network, container_id, ifname } = &key;
            let end = format!("containers/{node}/{network}/{container_id}/{ifname}");
            if !self.membership.hold.doubts(&node) && !undecoded.contains(&*end) {
                self.remove_container(&node, key, &mut batch.new);
            }
        }
        for (node, container) in containers {
            self.update_container(node, container, batch);
        }
    }

    fn view_objects(
        &mut self,
        objects: Vec<Stored>,
        undecoded: &BTreeSet<&str>,
        same: bool,
        batch: &mut Batch,
    ) {
        let there: BTreeSet<Id> = objects.iter().map(id).collect();
        let missing: Vec<Id> = self.objects().filter(|id| !there.contains(id)).collect();
        for id in missing {
            let end = format!("objects/{}/{}/{}", id.0.name(), id.1.namespace, id.1.name);
            if undecoded.contains(&*end) {
                continue;
            }
            if same && !self.membership.lost.contains(&id) {
                batch.objects.insert(id, None);
            } else {
                self.membership.lost.insert(id);
            }
        }
        for stored in objects {
            let id = id(&stored);
            if !self.is_stored(&id, &stored) {
                batch.objects.insert(id, Some(stored));
            } else {
                self.membership.lost.remove(&id);
            }
        }
    }

    /// All objects.
    fn objects(&self) -> impl Iterator<Item = Id> {
        let index = &self.state.index;
        let services = index.services().keys().map(|key| (ObjectKind::Service, key.clone()));
        let slices = index.slices().keys().map(|key| (ObjectKind::EndpointSlice, key.clone()));
        let nodes = index.nodes().values().map(|node| (ObjectKind::Node, node.key.clone()));
        services.chain(slices).chain(nodes)
    }

    /// Whether an object is as it is here already.
    fn is_stored(&self, id: &Id, stored: &Stored) -> bool {
        let origin = match (self.state.files.get(id), self.membership.elsewhere.get(id)) {
            (Some(file), _) => Origin::Manifest(file.clone()),
            (None, Some((node, file))) => {
                Origin::Elsewhere { node: node.clone(), file: file.clone() }
            }
            (None, None) => Origin::Api,
        };
        origin == stored.origin && self.stored(id).as_ref() == Some(&stored.object)
    }

    /// What changed.
    pub(super) fn take_changes(&mut self, changes: Vec<Change>, revision: i64) {
        let mut batch = Batch::default();
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
        let index = &self.state.index;
        let keeps =
            |name: &&String| !with.contains(name) && index.containers_of(name).next().is_some();
        let (alone, whole): (Vec<&String>, Vec<&String>) = gone.keys().partition(keeps);
        let [alone, whole] = [alone, whole].map(|all| all.into_iter().cloned().collect());
        for name in gone.keys() {
            self.membership.newcomers.node_gone(name);
        }
        let mut dead = self.nodes_gone(whole, Cause::Change);
        dead.extend(self.nodes_gone(alone, Cause::Alone));
        self.remove_nodes(dead, &mut batch.new);
        for (at, change) in changes.into_iter().enumerate() {
            // What a node said before its end is no sign of life.
            let of_node = says_that_it_lives(&change).and_then(|node| gone.get(node));
            if of_node.is_none_or(|end| *end < at) {
                self.take_change(change, &mut batch);
            }
        }
        self.membership.known.revision = revision;
        self.take_batch(batch, revision);
    }

    fn take_change(&mut self, change: Change, batch: &mut Batch) {
        match change {
            Change::Node(record) => self.put_node(record, batch),
            Change::NodeGone(_) => {}
            Change::Subnet(record) => self.put_subnet(record, batch),
            Change::SubnetGone(subnet) => self.subnet_gone(subnet, &mut batch.new),
            Change::Container(node, container) => self.update_container(node, container, batch),
            Change::ContainerGone(node, key) => {
                if self.membership.hold.container_gone(&node, &key) {
                    self.remove_container(&node, key, &mut batch.new);
                }
            }
            Change::Object(stored) => drop(batch.objects.insert(id(&stored), Some(stored))),
            Change::ObjectGone(kind, key) => drop(batch.objects.insert((kind, key), None)),
        }
    }

    /// Takes objects in, and keeps all of it for the next start.
    fn take_batch(&mut self, mut batch: Batch, revision: i64) {
        self.drop_given_up(&mut batch.new);
        self.take_objects(mem::take(&mut batch.objects), &mut batch.new);
        self.keep(&batch.new);
        if batch.new.iter().any(concerns_peers) {
            self.describe_peers();
        }
        self.describe_held();
        self.describe_newcomers();
        if let Some(cluster) = &mut self.state.cluster {
            cluster.revision = revision;
        }
        self.describe_lost();
        self.keep_known();
        self.seen_writes();
    }

    fn take_objects(&mut self, objects: BTreeMap<Id, Option<Stored>>, new: &mut Vec<Change>) {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (id, stored) in objects {
            self.membership.lost.remove(&id);
            self.pending.manifests |= self.membership.shadowed.contains(&id);
            match stored {
                Some(mut stored) => {
                    // Ours, as it came back.
                    if let Origin::Elsewhere { node, file } = &stored.origin
                        && **node == *self.facts.name
                    {
                        stored.origin = Origin::Manifest(file.clone());
                    }
                    new.push(Change::Object(stored.clone()));
                    put.push(stored);
                }
                None => {
                    new.push(Change::ObjectGone(id.0, id.1.clone()));
                    gone.push(id);
                }
            }
        }
        // What one gives back another may have taken.
        for stored in &put {
            if let Object::Service(service) = &stored.object {
                self.allocator.release(&service.key);
            }
        }
        for stored in &put {
            if let Object::Service(service) = &stored.object {
                self.allocator.claim(service);
            }
        }
        self.adopt(put, gone);
    }

    /// Objects that the store has lost, in words.
    fn describe_lost(&mut self) {
        let lost = &self.membership.lost;
        if let Some(cluster) = &mut self.state.cluster {
            cluster.held_objects = lost.len();
        }
        let Some((_, first)) = lost.first() else {
            self.state.conditions.clear(&Concern::LostObjects);
            return;
        };
        let kinds: BTreeSet<&str> = lost.iter().map(|(kind, _)| plural(*kind)).collect();
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(",");
        let text = format!(
            "{} objects of this node are not in the cluster store, {first} the first of them: it \
             was wiped or restored, or they are of another one or of --store embedded; they go on \
             here. To share them: `causeway get {kinds} -A -o yaml | causeway apply -f -`; else \
             `causeway delete` them",
            lost.len()
        );
        let change = self.state.conditions.set(Concern::LostObjects, text.clone());
        if change == Condition::Appeared {
            tracing::error!("{text}");
        }
    }

    /// Objects that the store has lost and nobody wants back.
    pub(in super::super) fn forget_lost(&mut self, lost: Vec<Id>) {
        if lost.is_empty() {
            return;
        }
        let mut new = Vec::new();
        self.take_objects(lost.into_iter().map(|id| (id, None)).collect(), &mut new);
        self.keep(&new);
        self.describe_lost();
        self.keep_known();
    }

    pub(super) fn keep(&mut self, new: &[Change]) {
        if new.is_empty() {
            return;
        }
        self.written += new.len();
        let kept = self.store.write_cluster(new);
        self.snapshot_kept(kept);
    }

    fn put_node(&mut self, record: NodeRecord, batch: &mut Batch) {
        let until = clock::now() + self.state.settings.endpoint_ttl;
        let known = self.membership.nodes.get(&record.identity.node);
        // This node's own record is the task's business.
        let known = known.filter(|known| *known.identity.node != *self.facts.name);
        if self.membership.newcomers.node(known, &record, until) {
            self.take_node(record, batch);
        }
    }

    pub(super) fn take_node(&mut self, record: NodeRecord, batch: &mut Batch) {
        let node = record.identity.node.clone();
        self.node_returns(&node);
        if self.membership.nodes.get(&node) == Some(&record) {
            return;
        }
        if node != *self.facts.name {
            let labels = Some(record.labels.clone());
            let changes = self.state.index.apply(Fact::NodeLabels { node: node.clone(), labels });
            self.note(changes);
        }
        self.membership.nodes.insert(node, record.clone());
        batch.new.push(Change::Node(record));
    }

    fn put_subnet(&mut self, record: SubnetRecord, batch: &mut Batch) {
        let until = clock::now() + self.state.settings.endpoint_ttl;
        let Membership { nodes, subnets, newcomers, .. } = &mut self.membership;
        let known = subnets.get(&record.subnet);
        let holds = known.is_some_and(|known| tenure::holds(known, nodes, subnets));
        if newcomers.subnet(known, &record, holds, until) {
            self.take_subnet(record, batch);
        }
    }

    pub(super) fn take_subnet(&mut self, record: SubnetRecord, batch: &mut Batch) {
        self.membership.doubtful_subnets.remove(&record.subnet);
        let record = tenure::aged(self.membership.subnets.get(&record.subnet), record);
        let before = self.membership.subnets.insert(record.subnet, record.clone());
        if before.as_ref() != Some(&record) {
            batch.new.push(Change::Subnet(record));
        }
    }

    fn update_container(&mut self, node: String, container: Container, batch: &mut Batch) {
        self.membership.hold.confirm(&node, &container.record.key);
        if self.put_container(&node, &container) {
            batch.new.push(Change::Container(node, container));
        }
    }

    /// `true`: it was not there, or otherwise.
    fn put_container(&mut self, node: &str, container: &Container) -> bool {
        let Container { record, healthy } = container;
        let known = self.state.index.container(node, &record.key);
        if node == &*self.facts.name
            || known.is_some_and(|(one, was)| *one.record == *record && was == *healthy)
        {
            return false;
        }
        let home = self.state.index.home();
        self.pending.left_out |= record.ips.iter().any(|ip| home.refusal(node, *ip).is_some());
        let node: Arc<str> = node.into();
        let (key, healthy) = (record.key.clone(), *healthy);
        self.tell_container(Fact::Attach { node: Arc::clone(&node), record: record.clone() }, &key);
        self.tell_container(Fact::Health { node, key: key.clone(), healthy }, &key);
        true
    }

    pub(super) fn remove_container(&mut self, node: &str, key: EndpointKey, new: &mut Vec<Change>) {
        if node == &*self.facts.name || self.state.index.container(node, &key).is_none() {
            return;
        }
        let fact = Fact::Detach { node: node.into(), key: key.clone() };
        self.tell_container(fact, &key);
        new.push(Change::ContainerGone(node.to_owned(), key));
    }

    fn tell_container(&mut self, fact: Fact, key: &EndpointKey) {
        self.state.progress.endpoint_changes += 1;
        self.pending.touched.containers.insert(key.clone());
        let changes = self.state.index.apply(fact);
        self.note(changes);
    }

    pub(super) fn remove_nodes(&mut self, dead: BTreeSet<String>, new: &mut Vec<Change>) {
        for name in dead {
            if self.membership.nodes.remove(&name).is_none() {
                continue;
            }
            tracing::warn!(node = name, "a node is not heard of any more: its containers are out");
            let of_node = self.state.index.containers_of(&name);
            let keys: Vec<EndpointKey> = of_node.map(|(one, _)| one.record.key.clone()).collect();
            self.pending.touched.containers.extend(keys);
            if name != *self.facts.name {
                let changes = self.state.index.apply(Fact::NodeGone(name.clone()));
                self.note(changes);
                let labels = Fact::NodeLabels { node: name.clone(), labels: None };
                let changes = self.state.index.apply(labels);
                self.note(changes);
            }
            new.push(Change::NodeGone(name));
        }
    }
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

fn id(stored: &Stored) -> Id {
    (stored.object.kind(), stored.object.key().clone())
}

/// A kind as `causeway get` takes it.
fn plural(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Service => "services",
        ObjectKind::EndpointSlice => "endpointslices",
        ObjectKind::Node => "nodes",
    }
}
