//! Events to facts to resolved services.

mod containers;
mod lookup;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use containers::Containers;
use lookup::{Selectors, SlicesOf};

use crate::names::Names;
use crate::{
    EndpointKey, EndpointRecord, EndpointSlice, Node, Object, ObjectKey, ObjectKind, Resolved,
    Service,
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
    Detach(EndpointKey),
    /// Result of health probing: an endpoint that does not answer is not ready until it does. Counts
    /// for services with [`Service::health_check`]. Forgotten when the container is attached anew,
    /// not when its labels change.
    Health {
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
    /// Nodes whose labels may be others.
    pub nodes: BTreeSet<String>,
}

/// All facts. `apply` costs what the event concerns, not what there is: selectors are looked up by
/// label, slices by service.
#[derive(Clone, Debug, Default)]
pub struct Index {
    services: BTreeMap<ObjectKey, Arc<Service>>,
    slices: BTreeMap<ObjectKey, Arc<EndpointSlice>>,
    nodes: BTreeMap<String, Arc<Node>>,
    containers: Containers,
    slices_of: SlicesOf,
    selectors: Selectors,
    names: Names,
}

impl Index {
    /// Takes a fact in and says what it concerns. A fact that was known already concerns nothing.
    pub fn apply(&mut self, event: Event) -> Changes {
        let mut changes = Changes::default();
        match event {
            Event::Apply(object) => self.put(object, &mut changes),
            Event::Delete(kind, key) => self.delete(kind, &key, &mut changes),
            Event::Reset(objects) => self.reset(objects, &mut changes),
            Event::Attach { node, record } => self.attach(node, record, &mut changes),
            Event::Detach(key) => {
                if let Some((_, record, _)) = self.containers.remove(&key) {
                    self.selected(&record, &mut changes);
                }
            }
            Event::Health { key, healthy } => self.health(&key, healthy, &mut changes),
        }
        changes
    }

    /// A service with its endpoints as they are now.
    pub fn resolve(&self, key: &ObjectKey) -> Option<Resolved> {
        Some(resolve::resolve(self, self.services.get(key)?))
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

    /// All attached containers with the name of their node and whether they are healthy.
    pub fn containers(&self) -> &BTreeMap<EndpointKey, (Arc<str>, Arc<EndpointRecord>, bool)> {
        self.containers.all()
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
        let old = self.nodes.get(&name);
        if old.is_some_and(|old| **old == node) {
            return;
        }
        let zone = |node: &Node| node.labels.get(resolve::ZONE).map(str::to_owned);
        if old.and_then(|old| zone(old)) != zone(&node) {
            self.on_node(&name, changes);
        }
        self.nodes.insert(name.clone(), Arc::new(node));
        changes.nodes.insert(name);
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
                if self.nodes.remove(&*key.name).is_some() {
                    self.on_node(&key.name, changes);
                    changes.nodes.insert(key.name.to_string());
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
        if let Some((other, old, _)) = self.containers.all().get(&record.key) {
            if *other == node && **old == record {
                return;
            }
            let old = Arc::clone(old);
            self.selected(&old, changes);
        }
        let record = Arc::new(record);
        self.selected(&record, changes);
        self.containers.put(node, record);
    }

    fn health(&mut self, key: &EndpointKey, healthy: bool, changes: &mut Changes) {
        let Some(record) = self.containers.set_health(key, healthy) else { return };
        let mut selecting = Changes::default();
        self.selected(&record, &mut selecting);
        let checked = |key: &ObjectKey| self.services.get(key).is_some_and(|one| one.health_check);
        changes.services.extend(selecting.services.into_iter().filter(checked));
    }

    /// Services that select a container.
    fn selected(&self, record: &EndpointRecord, changes: &mut Changes) {
        let pod = record.pod();
        for key in self.selectors.candidates(&pod.namespace, &record.labels) {
            if let Some(service) = self.services.get(key)
                && lookup::selects(service, &pod.namespace, record)
            {
                changes.services.insert(key.clone());
            }
        }
    }

    /// The service that a slice serves, where it exists.
    fn serves(&self, slice: &EndpointSlice, changes: &mut Changes) {
        let Some(name) = slice.service() else { return };
        let key = ObjectKey::new(Arc::clone(&slice.key.namespace), name);
        if let Some((key, _)) = self.services.get_key_value(&key) {
            changes.services.insert(key.clone());
        }
    }

    /// Services that select containers of a node.
    fn on_node(&self, name: &str, changes: &mut Changes) {
        for (node, record, _) in self.containers.all().values() {
            if **node == *name {
                self.selected(record, changes);
            }
        }
    }
}

#[cfg(test)]
mod tests;
