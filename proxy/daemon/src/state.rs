//! The state that answers are rendered from: settings, facts, plan and what happened so far. The
//! engine alone changes it, between answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_api::NamesStatus;
use causeway_dns::{Asker, Counters};
use causeway_kernel::Mac;
use causeway_model::{
    EndpointKey, Index, Labels, MacAddress, Object, ObjectKey, ObjectKind, Peer, Service,
};
use causeway_ruleset::plan::{Delta, Plan};
use causeway_source::Stored;
use causeway_source::cluster::Subnets;
use ipnetwork::IpNetwork;

use crate::balancers::Balancers;
use crate::clock;
use crate::conditions::Conditions;
use crate::config::Settings;
use crate::host_ports;
use crate::left_out;

/// Kind and key of an object.
pub(crate) type ObjectId = (ObjectKind, ObjectKey);

/// Kind and key of a stored object.
pub(crate) fn id_of(stored: &Stored) -> ObjectId {
    (stored.object.kind(), stored.object.key().clone())
}

/// An object as the index has it.
pub(crate) fn stored(index: &Index, (kind, key): &ObjectId) -> Option<Object> {
    match kind {
        ObjectKind::Service => {
            index.services().get(key).map(|one| Object::Service((**one).clone()))
        }
        ObjectKind::EndpointSlice => {
            index.slices().get(key).map(|one| Object::EndpointSlice((**one).clone()))
        }
        ObjectKind::Node => index.nodes().get(&*key.name).map(|one| Object::Node((**one).clone())),
    }
}

/// Whether the index has an object.
pub(crate) fn has_stored(index: &Index, (kind, key): &ObjectId) -> bool {
    match kind {
        ObjectKind::Service => index.services().contains_key(key),
        ObjectKind::EndpointSlice => index.slices().contains_key(key),
        ObjectKind::Node => index.nodes().contains_key(&*key.name),
    }
}

/// The state.
#[derive(Debug)]
pub(crate) struct State {
    /// Settings of this run.
    pub settings: Settings,
    /// This node.
    pub node: Node,
    /// All facts.
    pub index: Index,
    /// All decisions, as they are in the kernel when [`Progress::behind`] is `None`.
    pub plan: Plan,
    /// Host ports of this node's attachments.
    pub host_ports: host_ports::Records,
    /// Stored objects that a file of the manifest directory holds, with its name.
    pub files: BTreeMap<ObjectId, String>,
    /// When what happened, and how often.
    pub progress: Progress,
    /// The other nodes, by name: of the cluster store or of the peers file.
    pub peers: BTreeMap<String, Peer>,
    /// Those of them that have joined and not said yet how their containers are reached. `Some`: that
    /// is no problem until then.
    pub waiting: BTreeMap<String, Option<Instant>>,
    /// The cluster store; `None` without one.
    pub cluster: Option<ClusterState>,
    /// The overlay; `None` without one.
    pub overlay: Option<OverlayState>,
    /// The name server; `None` if it is switched off, and before it is started.
    pub names: Option<NamesState>,
    /// Load balancer addresses: pools, and services that wait.
    pub balancers: Balancers,
    /// Addresses of load balancers that this node announces; `None` if it announces none.
    pub announced: Option<AnnounceState>,
    /// What does not work, and what to know of.
    pub conditions: Conditions,
    /// Services and endpoints without rules, and why.
    pub left_out: left_out::LeftOutServices,
}

/// The name server, as answers need it.
#[derive(Clone, Debug)]
pub(crate) struct NamesState {
    /// Its service, if it has an address of its own, for lists without an object of that name.
    pub service: Option<Arc<Service>>,
    /// What `status` has of it.
    pub status: NamesStatus,
    /// Asks it.
    pub asker: Asker,
    /// What it counts.
    pub counters: Arc<Counters>,
}

/// Where the name server can be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameAddresses {
    /// Gateways of containers, with the networks of these.
    pub gateways: BTreeSet<IpNetwork>,
    /// Service addresses that are this node's.
    pub vips: BTreeSet<IpAddr>,
    /// All addresses of this node.
    pub own: BTreeSet<IpAddr>,
    /// Containers of this node outside the networks of gateways and cluster.
    pub containers: BTreeSet<IpAddr>,
    /// Why a service address is not this node's, with the remedy.
    pub failure: Option<String>,
}

/// The connection to the cluster store, and what it gave this node.
#[derive(Clone, Debug)]
pub(crate) struct ClusterState {
    /// `Err`: the store does not answer, since when and why.
    pub connection: Result<(), (Instant, String)>,
    /// Newest revision seen.
    pub revision: i64,
    /// Subnets of this node; `None` before the first word of the store.
    pub subnets: Option<Subnets>,
    /// What keeps this node out of the cluster, with the remedy.
    pub excluded: Option<String>,
    /// Nodes that disappeared together and are held for now (C-10).
    pub held_nodes: BTreeSet<String>,
    /// Objects that the store lost and that are held, by number (C-10).
    pub held_objects: usize,
}

impl ClusterState {
    /// Nothing was heard yet but what the connection is like.
    pub(crate) fn new(connection: Result<(), (Instant, String)>) -> Self {
        Self {
            connection,
            revision: 0,
            subnets: None,
            excluded: None,
            held_nodes: BTreeSet::new(),
            held_objects: 0,
        }
    }
}

/// The overlay, as last reported by its thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OverlayState {
    /// `vxlan id 1 port 8472` or `host-gw`
    pub kind: String,
    /// Name of the underlay device.
    pub underlay: String,
    /// Address of the vxlan device.
    pub vtep: Option<MacAddress>,
    /// MTU for containers; 0 while nothing is known.
    pub mtu: u32,
    /// Peers that cannot be reached, by name, with why and the remedy.
    pub problems: BTreeMap<String, String>,
    /// What failed for the whole of it.
    pub failure: Option<String>,
    /// Repairs of what other processes had changed.
    pub repairs: u64,
}

/// What was counted for an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldCounts {
    /// Questions that came.
    pub requests: u64,
    /// Answers that were sent.
    pub responses: u64,
    /// Announcements nobody asked for.
    pub gratuitous: u64,
}

/// How it is with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldAddress {
    /// The interface that it is armed on.
    pub interface: Option<String>,
    /// Why it is not, or what else is wrong with it.
    pub reason: Option<String>,
    /// That is something to put right.
    pub broken: bool,
    /// What was counted since it was gained.
    pub counts: HeldCounts,
}

/// How it is with what this node announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AnnounceState {
    /// Addresses that are to be held.
    pub addresses: BTreeMap<IpAddr, HeldAddress>,
    /// When something was asked last, by the interface that addresses are held on (row L-44).
    pub heard: BTreeMap<String, Option<Instant>>,
    /// Interfaces that were named and are not there (row L-09).
    pub missing: Vec<String>,
    /// Interfaces on which nobody has asked for anything for ten minutes.
    pub silent: Vec<String>,
    /// Claims of other machines that were not told of within the last hour (row L-33).
    pub claims: Vec<(IpAddr, Mac)>,
    /// What failed for the whole of it.
    pub failure: Option<String>,
}

impl AnnounceState {
    /// Whether nothing but what is counted differs.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let addresses = |state: &Self| -> Vec<(IpAddr, Option<String>, Option<String>)> {
            let all = state.addresses.iter();
            all.map(|(at, held)| (*at, held.interface.clone(), held.reason.clone())).collect()
        };
        self.claims == other.claims
            && self.failure == other.failure
            && self.missing == other.missing
            && self.silent == other.silent
            && addresses(self) == addresses(other)
    }
}

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Name.
    pub name: String,
    /// Its addresses that other nodes reach it by, at most one per IP family.
    pub ips: Vec<IpAddr>,
    /// Labels by settings; a `v1 Node` document of the name comes over them.
    pub labels: Labels,
    /// Its subnets of the cluster network, as `node.json` has them.
    pub subnets: Vec<IpNetwork>,
}

/// When what happened, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Start of the daemon.
    pub started: Instant,
    /// The same by the clock on the wall, seconds since 1970.
    pub born: u64,
    /// When the rules were last committed or found to be right.
    pub synced: Option<Instant>,
    /// When the oldest change came that is not in the kernel yet.
    pub behind: Option<Instant>,
    /// Transactions that went through, full ones among them.
    pub syncs: u64,
    /// Of them, those that compared everything.
    pub full_syncs: u64,
    /// Transactions or reads that failed.
    pub failures: u64,
    /// Times that our rules were changed by another process and restored.
    pub repairs: u64,
    /// Changes of services that came.
    pub service_changes: u64,
    /// Changes of slices and containers that came.
    pub endpoint_changes: u64,
    /// Writes of this node accepted by the cluster store.
    pub writes: u64,
    /// Writes of this node that were decided again because another node wrote first.
    pub conflicts: u64,
}

impl Progress {
    /// Nothing has happened yet.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            born: clock::unix().saturating_sub(started.elapsed()).as_secs(),
            synced: None,
            behind: None,
            syncs: 0,
            full_syncs: 0,
            failures: 0,
            repairs: 0,
            service_changes: 0,
            endpoint_changes: 0,
            writes: 0,
            conflicts: 0,
        }
    }
}

/// What a commit concerned, for those who follow.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Objects stored, changed or deleted.
    pub objects: BTreeSet<ObjectId>,
    /// Containers attached, changed or gone.
    pub containers: BTreeSet<EndpointKey>,
    /// Services whose endpoints or rules may have changed.
    pub services: BTreeSet<ObjectKey>,
    /// Nodes of which something may be other: record, subnets, whether they are reached; all nodes
    /// if the store goes away or comes back.
    pub nodes: BTreeSet<String>,
}

/// A commit.
#[derive(Debug)]
pub(crate) struct Committed {
    /// What it concerned.
    pub touched: Touched,
    /// What changed in the plan; all of it if `full` is the first of this process.
    pub delta: Delta,
    /// Everything was compared, not what changed alone.
    pub full: bool,
    /// How long planning and committing took.
    pub took: Duration,
    /// From the arrival of the oldest change to the end of the commit.
    pub latency: Duration,
}
