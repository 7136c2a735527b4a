//! Attached containers, by node and key and by label.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::lookup::{pair, selects};
use crate::names::Names;
use crate::{EndpointKey, EndpointRecord, HeldRecord, ObjectKey, Service};

/// An attached container. Its node and the key of its record say which: nodes give names of their
/// own, so two nodes may have containers of one key.
#[derive(Clone, Debug)]
pub struct Container {
    /// Name of its node.
    pub node: Arc<str>,
    /// What its node's plugin said.
    pub record: Arc<HeldRecord>,
    /// Namespace and name of its pod.
    pub pod: Arc<ObjectKey>,
}

impl Container {
    /// Which attachment of a pod stands for it, the lowest one: `eth0`, as every other program takes
    /// it, else the earliest. The time is in seconds, in which runtimes attach a container to all its
    /// networks, in the order of its interfaces.
    pub fn rank(&self) -> impl Ord {
        let key = &self.record.key;
        let (ifname, network) = (key.ifname.clone(), key.network.clone());
        (ifname != "eth0", self.record.created, ifname.len(), ifname, network)
    }
}

impl PartialEq for Container {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Container {}

impl PartialOrd for Container {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Container {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.node, &self.record.key).cmp(&(&other.node, &other.record.key))
    }
}

/// A container among those of its node.
#[derive(Clone, Debug)]
struct OfNode(Arc<Container>);

impl PartialEq for OfNode {
    fn eq(&self, other: &Self) -> bool {
        self.0.record.key == other.0.record.key
    }
}

impl Eq for OfNode {}

impl PartialOrd for OfNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OfNode {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.record.key.cmp(&other.0.record.key)
    }
}

impl Borrow<EndpointKey> for OfNode {
    fn borrow(&self) -> &EndpointKey {
        &self.0.record.key
    }
}

/// Containers of a label. A name is the label of one.
#[derive(Clone, Debug)]
enum Labelled {
    One(Arc<Container>),
    Many(BTreeSet<Arc<Container>>),
}

impl Default for Labelled {
    fn default() -> Self {
        Self::Many(BTreeSet::new())
    }
}

impl Labelled {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(all) => all.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Container>> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(all) => (None, Some(all)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, new: &Arc<Container>) {
        match self {
            Self::One(one) => {
                *self = Self::Many([Arc::clone(one), Arc::clone(new)].into());
            }
            Self::Many(all) if all.is_empty() => *self = Self::One(Arc::clone(new)),
            Self::Many(all) => drop(all.insert(Arc::clone(new))),
        }
    }

    fn remove(&mut self, gone: &Container) {
        match self {
            Self::One(one) if **one == *gone => *self = Self::default(),
            Self::One(_) => {}
            Self::Many(all) => drop(all.remove(gone)),
        }
    }
}

/// All containers, each with whether it is healthy.
#[derive(Clone, Debug, Default)]
pub(super) struct Containers {
    by_node: BTreeMap<Arc<str>, BTreeMap<OfNode, bool>>,
    by_label: BTreeMap<u64, Labelled>,
    count: usize,
}

impl Containers {
    /// Ascending by node and key.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Container, bool)> {
        self.by_node.values().flatten().map(|(one, healthy)| (&*one.0, *healthy))
    }

    /// Those of a node, ascending by key.
    pub(super) fn of_node(&self, node: &str) -> impl Iterator<Item = (&Container, bool)> {
        let of_node = self.by_node.get(node).into_iter().flatten();
        of_node.map(|(one, healthy)| (&*one.0, *healthy))
    }

    pub(super) fn get(&self, node: &str, key: &EndpointKey) -> Option<(&Container, bool)> {
        let (one, healthy) = self.by_node.get(node)?.get_key_value(key)?;
        Some((&*one.0, *healthy))
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// In place of what there was under its node and key. One that differs in labels only is as
    /// healthy as before.
    pub(super) fn put(&mut self, node: Arc<str>, record: HeldRecord, names: &mut Names) {
        let same = |old: &HeldRecord| (&old.ips, old.created) == (&record.ips, record.created);
        let old = self.remove(&node, &record.key);
        let healthy = old.is_none_or(|(old, healthy)| healthy || !same(&old.record));
        let node = match self.by_node.get_key_value(&node) {
            Some((shared, _)) => Arc::clone(shared),
            None => node,
        };
        let mut pod = record.pod();
        names.share(&mut pod.namespace);
        let one = Arc::new(Container {
            node: Arc::clone(&node),
            record: Arc::new(record),
            pod: Arc::new(pod),
        });
        for hash in hashes(&one) {
            self.by_label.entry(hash).or_default().insert(&one);
        }
        self.by_node.entry(node).or_default().insert(OfNode(one), healthy);
        self.count += 1;
    }

    pub(super) fn remove(
        &mut self,
        node: &str,
        key: &EndpointKey,
    ) -> Option<(Arc<Container>, bool)> {
        let of_node = self.by_node.get_mut(node)?;
        let (OfNode(one), healthy) = of_node.remove_entry(key)?;
        if of_node.is_empty() {
            self.by_node.remove(node);
        }
        self.unlabel(&one);
        self.count -= 1;
        Some((one, healthy))
    }

    /// All of a node.
    pub(super) fn remove_node(&mut self, node: &str) -> Vec<Arc<Container>> {
        let gone = self.by_node.remove(node).unwrap_or_default();
        let gone: Vec<_> = gone.into_keys().map(|OfNode(one)| one).collect();
        gone.iter().for_each(|one| self.unlabel(one));
        self.count -= gone.len();
        gone
    }

    /// The attachments of a container, by which it is one pod; itself among them.
    pub(super) fn of_pod<'a>(
        &'a self,
        one: &'a Container,
    ) -> impl Iterator<Item = (&'a Container, bool)> {
        let named = self.by_label.get(&named(&one.pod)).into_iter().flat_map(Labelled::iter);
        let same = named.filter(|other| {
            other.node == one.node
                && other.pod == one.pod
                && other.record.key.container_id == one.record.key.container_id
        });
        same.filter_map(|other| self.get(&other.node, &other.record.key))
    }

    /// Of the attachments of a container's pod the one that stands for it in a service: the pod's
    /// first, or the first of the network that the service asks for.
    fn standing<'a>(
        &'a self,
        one: &'a Container,
        network: Option<&str>,
    ) -> Option<(&'a Container, bool)> {
        let wanted =
            |other: &Container| network.is_none_or(|network| other.record.key.network == network);
        let wanted = self.of_pod(one).filter(|(other, _)| wanted(other));
        wanted.min_by_key(|(one, _)| one.rank())
    }

    fn unlabel(&mut self, one: &Container) {
        for hash in hashes(one) {
            if let Some(set) = self.by_label.get_mut(&hash) {
                set.remove(one);
                if set.len() == 0 {
                    self.by_label.remove(&hash);
                }
            }
        }
    }

    /// The container if its health is another one now.
    pub(super) fn set_health(
        &mut self,
        node: &str,
        key: &EndpointKey,
        healthy: bool,
    ) -> Option<Arc<Container>> {
        let of_node = self.by_node.get_mut(node)?;
        let now = of_node.get_mut(key)?;
        if std::mem::replace(now, healthy) == healthy {
            return None;
        }
        of_node.get_key_value(key).map(|(one, _)| Arc::clone(&one.0))
    }

    /// The pods that a service selects, each by the attachment that stands for it: looked for under
    /// that pair of its selector which the fewest containers have.
    pub(super) fn selected<'a>(&'a self, service: &'a Service) -> Vec<(&'a Container, bool)> {
        let namespace = &service.key.namespace;
        let mut rarest: Option<&Labelled> = None;
        for (key, value) in service.selector.iter() {
            match self.by_label.get(&pair(namespace, key, value)) {
                None => {
                    rarest = None;
                    break;
                }
                Some(set) if rarest.is_none_or(|other| set.len() < other.len()) => {
                    rarest = Some(set);
                }
                Some(_) => {}
            }
        }
        let network = service.annotations.get(Service::NETWORK).filter(|name| !name.is_empty());
        let selected = rarest
            .into_iter()
            .flat_map(Labelled::iter)
            .filter(|one| selects(service, &one.pod.namespace, &one.record))
            .filter_map(|one| self.standing(one, network));
        let mut pods: Vec<_> = selected.collect();
        // A pod that several attachments are selected of is one.
        pods.sort_by_key(|(one, _)| *one);
        pods.dedup_by(|(one, _), (other, _)| one == other);
        pods
    }
}

fn hashes(one: &Container) -> impl Iterator<Item = u64> {
    let labels = one.record.labels.iter();
    let hashes = labels.map(|(key, value)| pair(&one.pod.namespace, key, value));
    // By which the other attachments of its pod are found.
    let unnamed = one.record.labels.get(EndpointRecord::POD_NAME) != Some(&*one.pod.name);
    hashes.chain(unnamed.then(|| named(&one.pod)))
}

/// The hash that all containers of a pod's name are under.
fn named(pod: &ObjectKey) -> u64 {
    pair(&pod.namespace, EndpointRecord::POD_NAME, &pod.name)
}
