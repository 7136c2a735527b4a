//! Events to facts to resolved services.

mod containers;
mod home;
mod lookup;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

pub use containers::Container;
use containers::Containers;
pub use home::Home;
use lookup::{Selectors, SlicesOf};

use crate::limits::{Excess, Load};
use crate::names::Names;
use crate::{
    EndpointKey, EndpointRecord, EndpointSlice, HeldRecord, Labels, Node, Object, ObjectKey,
    ObjectKind, Resolved, Service,
};

/// A fact from a source.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object is new or changed.
    Apply(Object),
    /// An object is gone.
    Delete(ObjectKind, ObjectKey),
    /// All objects there are; what is not among them is gone. Containers stay.
    Reset(Vec<Object>),
    /// A container of the named node is attached or its labels changed.
    Attach {
        /// Name of the node.
        node: Arc<str>,
        /// The container.
        record: EndpointRecord,
    },
    /// A container is gone.
    Detach {
        /// Name of the node.
        node: Arc<str>,
        /// The container.
        key: EndpointKey,
    },
    /// All containers of the named node are gone. Its labels stay.
    NodeGone(String),
    /// What a node says of its labels by itself, or `None`: nothing any more. A [`Node`] document
    /// of its name comes over them.
    NodeLabels {
        /// Name of the node.
        node: String,
        /// All of them.
        labels: Option<Labels>,
    },
    /// Result of health probing: an endpoint that does not answer is not ready until it does. Counts
    /// for services with [`Service::health_check`]. Forgotten when the container is attached again,
    /// not when its labels change.
    Health {
        /// Name of the node.
        node: Arc<str>,
        /// The container.
        key: EndpointKey,
        /// Whether it answers.
        healthy: bool,
    },
}

/// Which services an event concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services whose [`Resolved`] may be another one now, deleted ones among them.
    pub services: BTreeSet<ObjectKey>,
    /// Nodes whose labels may have changed.
    pub nodes: BTreeSet<String>,
}

/// All facts. `apply` costs what the event concerns, not what there is: selectors are looked up by
/// label, slices by service.
#[derive(Clone, Debug, Default)]
pub struct Index {
    services: BTreeMap<ObjectKey, Arc<Service>>,
    slices: BTreeMap<ObjectKey, Arc<EndpointSlice>>,
    nodes: BTreeMap<String, Arc<Node>>,
    published: BTreeMap<String, Labels>,
    containers: Containers,
    slices_of: SlicesOf,
    selectors: Selectors,
    names: Names,
    home: Home,
}

impl Index {
    /// An empty one of this node.
    pub fn at(home: Home) -> Self {
        Self { home, ..Self::default() }
    }

    /// What this node can reach.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Takes in what this node can reach now. Costs what there are containers of other nodes.
    pub fn set_home(&mut self, home: Home) -> Changes {
        let before = std::mem::replace(&mut self.home, home);
        let mut changes = Changes::default();
        for (one, _) in self.containers.all() {
            let other =
                |ip: &IpAddr| before.reaches(&one.node, *ip) != self.home.reaches(&one.node, *ip);
            if one.record.ips_by_family().any(|ip| other(&ip)) {
                self.selected(&one.pod, &one.record, &mut changes);
                self.selected_with(one, &mut changes);
            }
        }
        changes
    }

    /// Containers of other nodes with an address that is none that a container can have, and what it
    /// is.
    pub fn refused(&self) -> impl Iterator<Item = (&Container, IpAddr, String)> {
        self.containers.all().filter_map(move |(one, _)| {
            let mut ips = one.record.ips_by_family();
            ips.find_map(|ip| Some((one, ip, self.home.refusal(&one.node, ip)?)))
        })
    }

    /// Takes a fact in and says what it concerns. A fact that was known already concerns nothing.
    pub fn apply(&mut self, event: Event) -> Changes {
        let mut changes = Changes::default();
        match event {
            Event::Apply(object) => self.put(object, &mut changes),
            Event::Delete(kind, key) => self.delete(kind, &key, &mut changes),
            Event::Reset(objects) => self.reset(objects, &mut changes),
            Event::Attach { node, record } => self.attach(node, record, &mut changes),
            Event::Detach { node, key } => {
                if let Some((gone, _)) = self.containers.remove(&node, &key) {
                    self.selected(&gone.pod, &gone.record, &mut changes);
                    self.selected_with(&gone, &mut changes);
                }
            }
            Event::NodeGone(node) => {
                for gone in self.containers.remove_node(&node) {
                    self.selected(&gone.pod, &gone.record, &mut changes);
                }
            }
            Event::NodeLabels { node, labels } => self.publish(node, labels, &mut changes),
            Event::Health { node, key, healthy } => {
                self.health((&node, &key), healthy, &mut changes);
            }
        }
        changes
    }

    /// A service with its endpoints as they are now.
    pub fn resolve(&self, key: &ObjectKey) -> Option<Resolved> {
        Some(resolve::resolve(self, self.services.get(key)?))
    }

    /// What a service would take with the containers and slices of here, other than those that
    /// are `replaced`, and with the slices that replace them.
    ///
    /// # Errors
    /// Which limit it would exceed.
    pub fn load<'a, S: Deref<Target = Service> + Clone>(
        &self,
        service: &S,
        replaced: &BTreeSet<ObjectKey>,
        by: impl Iterator<Item = &'a EndpointSlice>,
    ) -> Result<Load<S>, Excess> {
        resolve::load(self, service, replaced, by)
    }

    /// Containers that a service selects and that this node cannot reach, by node; those that are
    /// refused among them.
    pub fn out_of_reach(&self, key: &ObjectKey) -> Vec<(Arc<str>, IpAddr)> {
        let service = self.services.get(key).into_iter();
        let selected = service.flat_map(|service| self.containers.selected(service));
        let all = selected.flat_map(|(one, _)| one.record.ips.iter().map(|ip| (&one.node, *ip)));
        let away = all.filter(|(node, ip)| !self.home.reaches(node, *ip));
        away.map(|(node, ip)| (Arc::clone(node), ip)).collect()
    }

    /// All services.
    pub fn services(&self) -> &BTreeMap<ObjectKey, Arc<Service>> {
        &self.services
    }

    /// All slices.
    pub fn slices(&self) -> &BTreeMap<ObjectKey, Arc<EndpointSlice>> {
        &self.slices
    }

    /// The slices of a service, by name, whether the service exists or not.
    pub fn slices_of<'a>(
        &'a self,
        service: &'a ObjectKey,
    ) -> impl Iterator<Item = &'a Arc<EndpointSlice>> {
        self.slices_of
            .of(service)
            .filter_map(|key| self.slices.get(key))
            .filter(|slice| slice.service() == Some(&service.name))
    }

    /// All nodes that documents name, by name.
    pub fn nodes(&self) -> &BTreeMap<String, Arc<Node>> {
        &self.nodes
    }

    /// Labels of a node: what it published, and over it those of the document of its name.
    pub fn node_labels(&self, name: &str) -> Labels {
        let mut labels = self.published.get(name).cloned().unwrap_or_default();
        if let Some(node) = self.nodes.get(name) {
            labels.extend(node.labels.to_map());
        }
        labels
    }

    /// All attached containers and whether they are healthy, ascending by node and key.
    pub fn containers(&self) -> impl Iterator<Item = (&Container, bool)> {
        self.containers.all()
    }

    /// Those of a node, ascending by key.
    pub fn containers_of(&self, node: &str) -> impl Iterator<Item = (&Container, bool)> {
        self.containers.of_node(node)
    }

    /// One of a node.
    pub fn container(&self, node: &str, key: &EndpointKey) -> Option<(&Container, bool)> {
        self.containers.get(node, key)
    }

    /// How many there are, of all nodes.
    pub fn container_count(&self) -> usize {
        self.containers.len()
    }

    fn put(&mut self, object: Object, changes: &mut Changes) {
        match object {
            Object::Service(service) => self.put_service(service, changes),
            Object::EndpointSlice(slice) => self.put_slice(slice, changes),
            Object::Node(node) => self.put_node(node, changes),
        }
    }

    fn put_service(&mut self, mut service: Service, changes: &mut Changes) {
        if let Some(old) = self.services.get(&service.key) {
            if **old == service {
                return;
            }
            // Whoever holds the key shares it with us.
            service.key = old.key.clone();
            if old.selector != service.selector {
                self.selectors.remove(old);
                self.selectors.add(&service);
            }
        } else {
            self.names.share(&mut service.key.namespace);
            self.selectors.add(&service);
        }
        let key = service.key.clone();
        self.services.insert(key.clone(), Arc::new(service));
        changes.services.insert(key);
    }

    fn put_slice(&mut self, mut slice: EndpointSlice, changes: &mut Changes) {
        if let Some(old) = self.slices.get(&slice.key) {
            if **old == slice {
                return;
            }
            slice.key = old.key.clone();
            let old = Arc::clone(old);
            self.serves(&old, changes);
            if old.service() != slice.service() {
                self.slices_of.remove(&old);
                self.slices_of.add(&slice);
            }
        } else {
            self.names.share(&mut slice.key.namespace);
            self.slices_of.add(&slice);
        }
        for endpoint in &mut slice.endpoints {
            let names = endpoint.node.iter_mut().chain(&mut endpoint.zone);
            names.for_each(|name| self.names.share(name));
        }
        self.serves(&slice, changes);
        self.slices.insert(slice.key.clone(), Arc::new(slice));
    }

    fn put_node(&mut self, node: Node, changes: &mut Changes) {
        let name = node.key.name.to_string();
        if self.nodes.get(&name).is_some_and(|old| **old == node) {
            return;
        }
        self.relabel(name, changes, |index, name| {
            index.nodes.insert(name.to_owned(), Arc::new(node));
        });
    }

    fn publish(&mut self, name: String, labels: Option<Labels>, changes: &mut Changes) {
        if self.published.get(&name) == labels.as_ref() {
            return;
        }
        self.relabel(name, changes, |index, name| match labels {
            Some(labels) => drop(index.published.insert(name.to_owned(), labels)),
            None => drop(index.published.remove(name)),
        });
    }

    /// Does what gives a node other labels. Another zone concerns the services of its containers.
    fn relabel(&mut self, name: String, changes: &mut Changes, work: impl FnOnce(&mut Self, &str)) {
        let before = self.zone(&name).map(str::to_owned);
        work(self, &name);
        if before.as_deref() != self.zone(&name) {
            for (one, _) in self.containers.of_node(&name) {
                // Each attachment of a pod is among them.
                self.selected(&one.pod, &one.record, changes);
            }
        }
        changes.nodes.insert(name);
    }

    /// Zone of a node by its labels.
    fn zone(&self, name: &str) -> Option<&str> {
        let document = self.nodes.get(name).and_then(|node| node.labels.get(resolve::ZONE));
        let published = || self.published.get(name)?.get(resolve::ZONE).map(String::as_str);
        document.or_else(published)
    }

    fn delete(&mut self, kind: ObjectKind, key: &ObjectKey, changes: &mut Changes) {
        match kind {
            ObjectKind::Service => {
                if let Some(service) = self.services.remove(key) {
                    self.selectors.remove(&service);
                    changes.services.insert(service.key.clone());
                }
            }
            ObjectKind::EndpointSlice => {
                if let Some(slice) = self.slices.remove(key) {
                    self.slices_of.remove(&slice);
                    self.serves(&slice, changes);
                }
            }
            ObjectKind::Node => {
                if self.nodes.contains_key(&*key.name) {
                    self.relabel(key.name.to_string(), changes, |index, name| {
                        index.nodes.remove(name);
                    });
                }
            }
        }
    }

    /// Objects that are equal to those there stay as they are.
    fn reset(&mut self, objects: Vec<Object>, changes: &mut Changes) {
        let named: BTreeSet<_> =
            objects.iter().map(|object| (object.kind(), object.key().clone())).collect();
        let services = self.services.keys().map(|key| (ObjectKind::Service, key.clone()));
        let slices = self.slices.keys().map(|key| (ObjectKind::EndpointSlice, key.clone()));
        let nodes = self.nodes.values().map(|node| (ObjectKind::Node, node.key.clone()));
        let gone: Vec<_> =
            services.chain(slices).chain(nodes).filter(|object| !named.contains(object)).collect();
        for (kind, key) in gone {
            self.delete(kind, &key, changes);
        }
        for object in objects {
            self.put(object, changes);
        }
        self.names.prune();
        // Maps that grew entry by entry in order are half empty; a collected one is full.
        self.services = std::mem::take(&mut self.services).into_iter().collect();
        self.slices = std::mem::take(&mut self.slices).into_iter().collect();
        self.selectors.pack();
        self.slices_of.pack();
    }

    fn attach(&mut self, node: Arc<str>, record: EndpointRecord, changes: &mut Changes) {
        if let Some((old, _)) = self.containers.get(&node, &record.key) {
            if *old.record == record {
                return;
            }
            let new_pod = record.pod();
            self.selected(&old.pod, &old.record, changes);
            if *old.pod != new_pod {
                self.selected_with(old, changes);
            }
        }
        let key = record.key.clone();
        let record = HeldRecord::from(record);
        self.selected(&record.pod(), &record, changes);
        self.containers.put(Arc::clone(&node), record, &mut self.names);
        if let Some((one, _)) = self.containers.get(&node, &key) {
            self.selected_with(one, changes);
        }
    }

    fn health(&mut self, (node, key): (&str, &EndpointKey), healthy: bool, changes: &mut Changes) {
        let Some(one) = self.containers.set_health(node, key, healthy) else { return };
        let mut selecting = Changes::default();
        self.selected(&one.pod, &one.record, &mut selecting);
        self.selected_with(&one, &mut selecting);
        let checked = |key: &ObjectKey| self.services.get(key).is_some_and(|one| one.health_check);
        changes.services.extend(selecting.services.into_iter().filter(checked));
    }

    /// Services that select a container by another one of its attachments: which of them stands for it
    /// may be another one now.
    fn selected_with(&self, one: &Container, changes: &mut Changes) {
        for (other, _) in self.containers.of_pod(one) {
            if other.record.key != one.record.key {
                self.selected(&other.pod, &other.record, changes);
            }
        }
    }

    /// Services that select a container.
    fn selected(&self, pod: &ObjectKey, record: &HeldRecord, changes: &mut Changes) {
        for key in self.selectors.candidates(&pod.namespace, &record.labels) {
            if let Some(service) = self.services.get(key)
                && lookup::selects(service, &pod.namespace, record)
            {
                changes.services.insert(key.clone());
            }
        }
    }

    /// The service that a slice serves, if it exists.
    fn serves(&self, slice: &EndpointSlice, changes: &mut Changes) {
        let Some(name) = slice.service() else { return };
        let key = ObjectKey::new(Arc::clone(&slice.key.namespace), name);
        if let Some((key, _)) = self.services.get_key_value(&key) {
            changes.services.insert(key.clone());
        }
    }
}

#[cfg(test)]
mod tests;
