//! Events to facts to resolved services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
    /// Result of health probing: an endpoint that does not answer is not ready until it does.
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
}

impl Index {
    /// Takes a fact in and says what it concerns.
    pub fn apply(&mut self, _event: Event) -> Changes {
        todo!()
    }

    /// A service with its endpoints as they are now.
    pub fn resolve(&self, _key: &ObjectKey) -> Option<Resolved> {
        todo!()
    }

    /// All services.
    pub fn services(&self) -> &BTreeMap<ObjectKey, Arc<Service>> {
        &self.services
    }

    /// All slices.
    pub fn slices(&self) -> &BTreeMap<ObjectKey, Arc<EndpointSlice>> {
        todo!()
    }

    /// All nodes that documents name, by name.
    pub fn nodes(&self) -> &BTreeMap<String, Arc<Node>> {
        todo!()
    }

    /// All attached containers with the name of their node and whether they are healthy.
    pub fn containers(&self) -> &BTreeMap<EndpointKey, (Arc<str>, Arc<EndpointRecord>, bool)> {
        todo!()
    }
}
