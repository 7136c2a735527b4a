//! What lists are rendered from, taken out of the state: shared pointers, so that rendering and
//! writing thousands of objects happens beside the event loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use causeway_model::{Container, Index, ObjectKey, Service};
use serde_json::Value;

use super::nodes;
use super::render::{self, Pod};
pub(crate) use crate::request::answer::{Item, Kind};
use crate::state::State;

impl Kind {
    /// As it appears in paths.
    pub(crate) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "services" => Self::Services,
            "endpoints" => Self::Endpoints,
            "endpointslices" => Self::EndpointSlices,
            "pods" => Self::Pods,
            "nodes" => Self::Nodes,
            _ => return None,
        })
    }

    /// One of it, as in messages.
    pub(crate) fn singular(self) -> &'static str {
        match self {
            Self::Services => "service",
            Self::Endpoints => "endpoints",
            Self::EndpointSlices => "endpointslice",
            Self::Pods => "pod",
            Self::Nodes => "node",
        }
    }
}

impl Item {
    /// The object in JSON; `None` for endpoints of a service that has none by its type.
    pub(crate) fn render(&self) -> Option<Value> {
        Some(match self {
            Self::Service(service) => render::service(service),
            Self::Endpoints(resolved) => return render::endpoints(resolved),
            Self::Slice(slice) => render::slice(slice),
            Self::Pod(pod) => render::pod(pod),
            Self::Node(node) => render::node(node),
        })
    }
}

/// All objects of a kind, ascending by namespace and name; of one namespace if it is given.
pub(crate) fn all(state: &State, kind: Kind, namespace: Option<&str>) -> Vec<Item> {
    let index = &state.index;
    let within = |key: &ObjectKey| namespace.is_none_or(|namespace| *key.namespace == *namespace);
    match kind {
        Kind::Services => {
            // Without the name server's: lists are carried to other stores.
            let services = index.services().iter().filter(|(key, _)| within(key));
            services.map(|(_, service)| Item::Service(Arc::clone(service))).collect()
        }
        Kind::Endpoints => {
            let keys = index.services().keys().filter(|key| within(key));
            keys.filter_map(|key| index.resolve(key)).map(Item::Endpoints).collect()
        }
        Kind::EndpointSlices => {
            let slices = index.slices().iter().filter(|(key, _)| within(key));
            slices.map(|(_, slice)| Item::Slice(Arc::clone(slice))).collect()
        }
        Kind::Pods => {
            let pods = pods(index).into_iter().filter(|((key, ..), _)| within(key));
            pods.map(|(_, pod)| Item::Pod(pod)).collect()
        }
        Kind::Nodes => {
            nodes::all(state).into_values().map(|node| Item::Node(Box::new(node))).collect()
        }
    }
}

/// One object. Of several containers of one name the one that was attached last.
pub(crate) fn one(state: &State, kind: Kind, key: &ObjectKey) -> Option<Item> {
    let index = &state.index;
    match kind {
        Kind::Services => {
            let names = || names(state).filter(|one| one.key == *key);
            let service = index.services().get(key).or_else(names)?;
            Some(Item::Service(Arc::clone(service)))
        }
        Kind::Endpoints => index.resolve(key).map(Item::Endpoints),
        Kind::EndpointSlices => index.slices().get(key).map(|one| Item::Slice(Arc::clone(one))),
        Kind::Pods => {
            let pods = pods(index).into_iter().filter(|((pod, ..), _)| pod == key);
            let last = pods.max_by_key(|(_, pod)| pod.records[0].created);
            last.map(|(_, pod)| Item::Pod(pod))
        }
        Kind::Nodes => nodes::one(state, &key.name).map(|node| Item::Node(Box::new(node))),
    }
}

/// The service of the name server.
fn names(state: &State) -> Option<&Arc<Service>> {
    state.names.as_ref()?.service.as_ref()
}

/// Which pod: namespace and name, container id, name of the node.
pub(crate) type PodName = (ObjectKey, String, Arc<str>);

/// The attached containers, by pod.
pub(crate) fn pods(index: &Index) -> BTreeMap<PodName, Pod> {
    let mut pods: BTreeMap<PodName, Pod> = BTreeMap::new();
    let mut containers: Vec<_> = index.containers().collect();
    // The attachment that stands for the pod comes first.
    containers.sort_by_cached_key(|(one, _)| one.rank());
    for (Container { node, record, pod }, healthy) in containers {
        let name = (ObjectKey::clone(pod), record.key.container_id.clone(), Arc::clone(node));
        let pod = pods.entry(name).or_insert_with(|| Pod {
            node: Arc::clone(node),
            records: Vec::new(),
            healthy: true,
        });
        pod.records.push(Arc::clone(record));
        pod.healthy &= healthy;
    }
    pods
}
