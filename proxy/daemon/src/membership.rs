//! Who is in the cluster, who lives, and what the cluster store has: reports of the store and the time
//! in, effects out, for the engine to carry out in their order. Reads neither clock, disk nor kernel;
//! what it learns of the store is a line of the log here.
//!
//! | module | charter |
//! |---|---|
//! | [`changes`] | what the store has, compared with what is known |
//! | [`grace`] | what is missing from the store and may be there all the same |
//! | [`node_grace`] | the same of nodes and their containers |
//! | [`tenure`] | whose word about a node or a part of the cluster network counts |
//! | [`waiting`] | nodes that have joined and not said yet how they are reached |

mod changes;
mod grace;
mod node_grace;
mod tenure;
#[cfg(test)]
mod tests;
pub(crate) mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway_model::{EndpointKey, Index, NodeRecord, Peer, SubnetRecord};
use causeway_source::cluster::{Change, Command, Known, Report, Subnets};
use ipnetwork::IpNetwork;

use crate::clock;
use crate::conditions::Concern;
use crate::state::{ClusterState, ObjectId};

use self::node_grace::NodeGrace;
use self::tenure::Newcomers;

/// What the engine is to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// These are facts now: for the index and, if they are not from there, for the snapshot on disk.
    Adopt {
        /// In their order; objects are the last of them.
        changes: Vec<Change>,
        /// They are on disk already.
        on_disk: bool,
    },
    /// What the next run is to know.
    KeepKnown(Known),
    /// The other nodes, if they are not as before.
    Peers(BTreeMap<String, Peer>),
    /// Something of these nodes may be different.
    TouchNodes(Vec<String>),
    /// This node's parts of the cluster network may be different.
    SubnetsChanged,
    /// For the cluster store.
    Publish(Command),
    /// Something does not work; `None`: it works.
    Condition(Concern, Option<String>, LogRule),
    /// Everything was listed: the manifest directory is to be compared with it.
    Listed,
    /// The store may take writes again.
    StoreIsBack,
    /// Writes that wait are refused, if the store is away, or begin.
    WritesMayGoOn,
    /// What the store has up to this revision is known.
    RevisionSeen,
}

/// When a condition is a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogRule {
    /// Not here.
    Never,
    /// When there was none of its concern.
    Appeared,
    /// When its text is a different one.
    Changed,
    /// Each time, now and then: others bring it about as fast as they like.
    Paced,
    /// When there was none of its concern, now and then.
    AppearedPaced,
}

/// What this node has, for comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalState<'a> {
    /// Services, containers and nodes.
    pub index: &'a Index,
    /// The other nodes, as they are told.
    pub peers: &'a BTreeMap<String, Peer>,
    /// Objects of this node's manifest directory, with the file.
    pub files: &'a BTreeMap<ObjectId, String>,
    /// Objects of other nodes' manifest directories, with node and file.
    pub elsewhere: &'a BTreeMap<ObjectId, (String, String)>,
}

/// What is known of the cluster.
#[derive(Debug)]
pub(crate) struct Membership {
    /// Name of this node.
    own: Arc<str>,
    /// How long what is missing may be there: lifetime of a node's record after its last word.
    ttl: Duration,
    /// Addresses of the store, in words.
    endpoints: String,
    /// What answers say of the cluster.
    cluster: ClusterState,
    /// What the next run is to know.
    known: Known,
    /// Nodes as they say they are; those in their grace, too.
    nodes: BTreeMap<String, NodeRecord>,
    /// Who has which part of the cluster network.
    subnets: BTreeMap<IpNetwork, SubnetRecord>,
    /// Objects that the store has lost and this node holds (C-10).
    missing_in_store: BTreeSet<ObjectId>,
    /// Which nodes count as there though they are not heard of.
    nodes_grace: NodeGrace,
    /// Parts of the cluster network that may be gone, and when they are, unless their node says
    /// otherwise before.
    subnets_grace: BTreeMap<IpNetwork, Instant>,
    /// Records that are in the store and do not count.
    newcomers: Newcomers,
    /// The task has said whether the store answers.
    answered: bool,
    /// The store has said what there is.
    viewed: bool,
    /// The node was told of a subnet that another has: whether it may take another one was said.
    moved_on: bool,
}

impl Membership {
    /// Of a node that knows of no others. What is in doubt is so for `ttl`. `endpoints` are those of
    /// the store, which has not answered yet.
    pub(crate) fn new(
        own: Arc<str>,
        ttl: Duration,
        endpoints: &[String],
        cluster: ClusterState,
    ) -> Self {
        Self {
            own,
            ttl,
            endpoints: endpoints.join(" "),
            cluster,
            known: Known::default(),
            nodes: BTreeMap::new(),
            subnets: BTreeMap::new(),
            missing_in_store: BTreeSet::new(),
            nodes_grace: NodeGrace::new(ttl),
            subnets_grace: BTreeMap::new(),
            newcomers: Newcomers::default(),
            answered: false,
            viewed: false,
            moved_on: false,
        }
    }

    /// Takes in what the store says.
    pub(crate) fn on_report(
        &mut self,
        report: Report,
        local: LocalState<'_>,
        now: Instant,
    ) -> Vec<Effect> {
        match report {
            Report::Reset { view, known, same } => {
                self.on_view(view, known, same, changes::Batch::new(local, now))
            }
            Report::Changed { changes, revision } => self.on_changes(changes, revision, local, now),
            // The engine alone knows of writes.
            Report::Written { .. } => Vec::new(),
            Report::Connection(connection) => self.on_connection(connection, local, now),
            Report::Lease(lease) => {
                self.known.lease = Some(lease);
                vec![self.keep_known()]
            }
            Report::Subnets(subnets) => self.on_subnets(subnets, local),
            Report::Excluded(why) => self.on_excluded(why),
            // What this node says of itself goes on: what it may not write are objects.
            Report::Denied(why) => {
                vec![Effect::Condition(Concern::ClusterWrites, why, LogRule::Changed)]
            }
            Report::Unreadable(unreadable) => vec![changes::unreadable_keys(&unreadable)],
        }
    }

    fn on_connection(
        &mut self,
        connection: Result<(), String>,
        local: LocalState<'_>,
        now: Instant,
    ) -> Vec<Effect> {
        let first = !std::mem::replace(&mut self.answered, true);
        let mut effects = Vec::new();
        match (connection, &mut self.cluster.connection) {
            (Ok(()), before) => {
                if let Err((since, _)) = before {
                    let away = clock::words(now.saturating_duration_since(*since));
                    tracing::info!(after = away, "the cluster store answers");
                }
                *before = Ok(());
                // A node that never knew of others cannot have missed that they live.
                if self.known.store.is_some() {
                    self.renew_grace(now);
                }
                effects.push(Effect::StoreIsBack);
            }
            (Err(why), Err((_, before))) if !first => *before = why,
            (Err(why), before) => {
                tracing::warn!(
                    why,
                    "cluster store unreachable; continuing with the last known state"
                );
                *before = Err((now, why));
            }
        }
        effects.extend([
            // Whether they live is not known while the store is away.
            Effect::TouchNodes(local.peers.keys().cloned().collect()),
            self.describe_connection(now),
            Effect::WritesMayGoOn,
        ]);
        effects
    }

    /// How long the store has been away, for whoever asks now.
    pub(crate) fn describe_connection(&self, now: Instant) -> Effect {
        let text = self.cluster.connection.as_ref().err().map(|(since, why)| {
            let away = clock::words(now.saturating_duration_since(*since));
            let (endpoints, revision) = (&self.endpoints, self.cluster.revision);
            format!(
                "etcd {endpoints} unreachable for {away}, serving from the snapshot of revision \
                 {revision}: {why}"
            )
        });
        Effect::Condition(Concern::Store, text, LogRule::Never)
    }

    fn on_excluded(&mut self, why: Option<String>) -> Vec<Effect> {
        if let Some(why) = &why {
            tracing::error!("this node is kept out of the cluster: {why}");
        }
        self.cluster.excluded.clone_from(&why);
        vec![
            Effect::Condition(Concern::Cluster, why, LogRule::Never),
            Effect::StoreIsBack,
            Effect::WritesMayGoOn,
        ]
    }

    fn on_subnets(&mut self, subnets: Subnets, local: LocalState<'_>) -> Vec<Effect> {
        self.moved_on = false;
        if let Subnets::Held(subnets) = &subnets {
            let all: Vec<String> = subnets.iter().map(ToString::to_string).collect();
            tracing::info!("node subnets: {}", all.join(", "));
        }
        let refused = subnets.refused();
        if let Some(why) = &refused {
            tracing::error!("no subnet: {why}");
        }
        self.cluster.subnets = Some(subnets);
        let mut effects = vec![
            Effect::Condition(Concern::Subnet, refused, LogRule::Never),
            Effect::SubnetsChanged,
        ];
        effects.extend(self.another_subnet(local));
        effects
    }

    /// Once no container has an address of a subnet that another node took, this node may take
    /// another one.
    pub(crate) fn another_subnet(&mut self, local: LocalState<'_>) -> Option<Effect> {
        let Some(Subnets::Lost { subnet, .. }) = &self.cluster.subnets else { return None };
        let mut own = local.index.containers_of(&self.own);
        if self.moved_on || own.any(|(one, _)| one.record.ips.iter().any(|ip| subnet.contains(*ip)))
        {
            return None;
        }
        self.moved_on = true;
        Some(Effect::Publish(Command::TakeAnotherSubnet))
    }

    /// The other nodes, for overlay and answers, if they are not as before.
    fn describe_peers(&self, local: LocalState<'_>) -> Option<Effect> {
        let mut peers = tenure::peers(&self.nodes, &self.subnets);
        peers.remove(&*self.own);
        (peers != *local.peers).then_some(Effect::Peers(peers))
    }

    fn keep_known(&self) -> Effect {
        // What this node holds the next run holds, too.
        let lost = !self.missing_in_store.is_empty();
        Effect::KeepKnown(Known { lost, ..self.known.clone() })
    }

    /// Objects that the store has lost and nobody wants back.
    pub(crate) fn forget_missing(&mut self, ids: &[ObjectId]) -> Vec<Effect> {
        if ids.is_empty() {
            return Vec::new();
        }
        let changes = ids.iter().map(|(kind, key)| Change::ObjectGone(*kind, key.clone()));
        let changes = changes.collect();
        for id in ids {
            self.missing_in_store.remove(id);
        }
        let mut effects = vec![Effect::Adopt { changes, on_disk: false }];
        effects.extend([self.describe_missing(), self.keep_known()]);
        effects
    }

    /// What answers say of the cluster.
    pub(crate) fn cluster(&self) -> &ClusterState {
        &self.cluster
    }

    /// What the task is to know of an earlier run.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// Whether a node's record is missing and the node may live.
    pub(crate) fn may_live(&self, node: &str) -> bool {
        self.nodes_grace.is_missing(node)
    }

    /// Whether the store has lost an object that this node holds.
    pub(crate) fn is_missing_in_store(&self, id: &ObjectId) -> bool {
        self.missing_in_store.contains(id)
    }

    /// Whether the task has said if the store answers.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Whether the store has said what there is.
    pub(crate) fn has_viewed(&self) -> bool {
        self.viewed
    }
}

/// A container of a node.
type Placed<'a> = (&'a str, &'a EndpointKey);

#[cfg(test)]
impl Membership {
    /// The store has answered for long.
    pub(crate) fn forget_connection(&mut self, ttl: Duration) {
        self.nodes_grace = NodeGrace::new(ttl);
    }

    /// Parts of the cluster network have been in doubt for long enough.
    pub(crate) fn end_grace_of_subnets(&mut self, now: Instant) {
        self.subnets_grace.values_mut().for_each(|until| *until = now);
    }
}
