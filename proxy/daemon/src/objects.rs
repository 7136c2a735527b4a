//! Objects of users: completed with addresses and ports, checked, staged. What is staged is written
//! and adopted by the engine. Reads no disk and no kernel but through [`StagingContext`].
//!
//! | module | charter |
//! |---|---|
//! | [`stage`] | what `apply` and `delete` ask for, to what is to be stored |
//! | [`balancers`] | who is to have which load balancer address |
//! | [`manifests`] | the manifest directory, likewise |
//! | [`ports`] | node ports on which a process of this node listens |
//! | [`removal`] | which nodes may be deleted |
//! | [`room`] | whether what is staged stays within the limits of services |
//! | [`writes`] | changes on their way to the cluster store, one at a time |

mod balancers;
mod manifests;
pub(crate) mod ports;
mod removal;
mod room;
mod stage;
pub(crate) mod writes;

pub(crate) use manifests::Pass;
pub(crate) use stage::Stage;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use causeway_model::allocate::{Allocator, PoolUse, Pools, Standing};
use causeway_model::manifest::Refusal;
use causeway_model::{Index, Object, ObjectKey, ObjectKind, Service};
use causeway_source::{Origin, Stored};
use ipnetwork::IpNetwork;

use self::ports::Listening;
use self::room::Room;
use crate::config::{Settings, store_url};
use crate::log;
use crate::membership::Membership;
use crate::node::NodeInfo;
use crate::state::{ObjectId, State, id_of};

/// Addresses and ports of services, and whose manifest directory has what.
#[derive(Debug)]
pub(crate) struct Objects {
    /// Where addresses and ports come from.
    pub pools: Pools,
    allocator: Allocator,
    /// Objects of other nodes' manifest directories, with node and file.
    pub elsewhere: BTreeMap<ObjectId, (String, String)>,
    /// Those of them that our manifest directory has, too.
    shadowed: BTreeSet<ObjectId>,
    /// How much of the load balancer pools is used, by the version of what is held.
    pool_use: Option<(u64, Vec<PoolUse>)>,
}

/// What staging goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StagingContext<'a> {
    /// What is stored, and from which file.
    pub state: &'a State,
    /// What the cluster store has lost, and which nodes may live.
    pub membership: &'a Membership,
    /// Reads on which ports of this node a process listens.
    pub listening: fn() -> Listening,
    /// The time, in seconds since 1970.
    pub now: u64,
}

impl Objects {
    /// Nothing is allocated. Who has which load balancer address is settled once all is known.
    pub(crate) fn new(pools: Pools) -> Self {
        let (elsewhere, shadowed) = (BTreeMap::new(), BTreeSet::new());
        let mut allocator = Allocator::default();
        allocator.set_standing(Standing::Unsettled);
        Self { pools, allocator, elsewhere, shadowed, pool_use: None }
    }

    /// A stored service has its addresses and ports.
    pub(crate) fn claim(&mut self, service: &Service) {
        self.allocator.claim(service);
    }

    /// A service is gone.
    pub(crate) fn release(&mut self, key: &ObjectKey) {
        self.allocator.release(key);
    }

    /// Claims what the services of the index have, and nothing else: staging has claimed more.
    pub(crate) fn claim_anew(&mut self, index: &Index) {
        self.allocator = Allocator::default();
        self.allocator.set_standing(Standing::Unsettled);
        self.pool_use = None;
        for service in index.services().values() {
            self.allocator.claim(service);
        }
    }

    /// Takes in whose the addresses of services of the cluster store are. Whether the manifest
    /// directory is to be compared with them.
    pub(crate) fn adopt(&mut self, put: &[Stored], gone: &[ObjectId]) -> bool {
        // What one gives back another may have taken.
        let services = || put.iter().filter_map(|stored| as_service(&stored.object));
        services().for_each(|service| self.allocator.release(&service.key));
        services().for_each(|service| self.allocator.claim(service));
        if services().next().is_some() || gone.iter().any(|(kind, _)| *kind == ObjectKind::Service)
        {
            // This may be what was owed, or the end of whoever it was owed to.
            self.unsettle_owed();
        }
        put.iter().map(id_of).chain(gone.iter().cloned()).any(|id| self.shadowed.contains(&id))
    }

    /// Notes who an object came from. `files` are those of our manifest directory.
    pub(crate) fn comes_from(
        &mut self,
        files: &mut BTreeMap<ObjectId, String>,
        id: ObjectId,
        origin: Origin,
    ) {
        files.remove(&id);
        self.elsewhere.remove(&id);
        match origin {
            Origin::Api => {}
            Origin::Manifest(file) => drop(files.insert(id, file)),
            Origin::Elsewhere { node, file } => drop(self.elsewhere.insert(id, (node, file))),
        }
    }
}

/// Where addresses and ports of services come from.
pub(crate) fn pools(settings: &Settings, facts: &NodeInfo) -> Pools {
    let mut foreign = settings.cluster_cidrs.clone();
    foreign.extend(facts.ips.iter().copied().map(IpNetwork::from));
    let clusters = settings.cluster_cidrs.iter().map(|one| (*one, "the cluster network"));
    let own = facts.ips.iter().map(|ip| (IpNetwork::from(*ip), "the address of this node"));
    let routers = facts.routers.iter();
    let routers = routers.map(|ip| (IpNetwork::from(*ip), "the address of this node's router"));
    let stores = store_url::literals(&settings.etcd_endpoints);
    let stores = stores.map(|ip| (IpNetwork::from(ip), "the address of the store"));
    let neighbours = clusters.chain(own).chain(routers).chain(stores);
    Pools {
        service_cidrs: settings.service_cidrs.clone(),
        node_ports: settings.node_port_range,
        reserved: settings.dns_vips(),
        foreign,
        // The engine fills it.
        guarded: Arc::default(),
        balancers: settings.balancer_pools.clone(),
        neighbours: neighbours.map(|(network, what)| (network, what.to_owned())).collect(),
    }
}

/// What is to be stored (`Some`) or deleted, not written yet.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    objects: BTreeMap<ObjectId, Option<Stored>>,
    /// Slices that are wanted as the `Endpoints` of services, by service. They may come as one
    /// document, or, as `get` prints them, each by itself.
    endpoints: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Nodes that are gone and are to be forgotten.
    nodes: BTreeSet<String>,
    /// Read when it is first asked for.
    listening: Option<Listening>,
    room: Room,
}

impl Staged {
    /// Marks an object as gone.
    pub(crate) fn delete(&mut self, id: ObjectId) {
        self.objects.insert(id, None);
    }

    fn want_endpoints(&mut self, object: &Object) {
        if let Object::EndpointSlice(slice) = object
            && slice.from_endpoints()
            && let Some(service) = slice.service()
        {
            let service = ObjectKey::new(Arc::clone(&slice.key.namespace), service);
            self.endpoints.entry(service).or_default().insert(slice.key.clone());
        }
    }

    /// Whether the objects of a document stay within the limits together.
    ///
    /// # Errors
    /// They do not.
    pub(crate) fn together(&self, index: &Index, objects: &[Object]) -> Result<(), Refusal> {
        self.room.take_together((index, &self.objects), objects)
    }

    /// The nodes that are to be forgotten, taken out.
    pub(crate) fn take_nodes(&mut self) -> BTreeSet<String> {
        mem::take(&mut self.nodes)
    }

    /// What is to be stored and what is to go.
    pub(crate) fn parts(self) -> (Vec<Stored>, Vec<ObjectId>) {
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for (id, stored) in self.objects {
            match stored {
                Some(stored) => put.push(stored),
                None => gone.push(id),
            }
        }
        (put, gone)
    }
}

/// A line of the log for what was stored, and one for what was deleted.
pub(crate) fn tell_written(
    put: impl ExactSizeIterator<Item = ObjectId>,
    gone: impl ExactSizeIterator<Item = ObjectId>,
) {
    let name = |(kind, key): ObjectId| format!("{} {key}", kind.name());
    if put.len() > 0 {
        tracing::info!("stored {}", log::names(put.map(name)));
    }
    if gone.len() > 0 {
        tracing::info!("deleted {}", log::names(gone.map(name)));
    }
}

fn as_service(object: &Object) -> Option<&Service> {
    match object {
        Object::Service(service) => Some(service),
        Object::EndpointSlice(_) | Object::Node(_) => None,
    }
}

#[cfg(test)]
mod tests;
