//! What the cluster store says, and what this node says to it.

mod doubt;
mod publish;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use causeway_model::{ClusterConfig, NodeIdentity, NodeRecord, SubnetRecord};
use causeway_source::cluster::{Cluster, ClusterSettings, Command, Known, Report, Subnets};
use ipnetwork::IpNetwork;
use tokio::sync::mpsc;

use super::Engine;
use super::hold::Hold;
use super::objects::Id;
use super::tenure::{self, Newcomers};
use crate::clock;
use crate::conditions::{Change, Concern};
use crate::config::Settings;
use crate::event::{Event, Events};

/// Reports that wait for the engine before the task does.
const QUEUE: usize = 64;
/// How long a planned end waits for the task.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the engine knows of the cluster beyond what answers are rendered from. Empty without one.
#[derive(Debug)]
pub(super) struct Membership {
    /// `/etc/machine-id` or what stands for it.
    machine_id: String,
    /// What the next run is to know.
    known: Known,
    /// Nodes as they say they are; those that are held, too.
    nodes: BTreeMap<String, NodeRecord>,
    /// Who has which part of the cluster network.
    subnets: BTreeMap<IpNetwork, SubnetRecord>,
    /// Objects of other nodes' manifest directories, with node and file.
    pub(super) elsewhere: BTreeMap<Id, (String, String)>,
    /// Those of them that our manifest directory has, too.
    pub(super) shadowed: BTreeSet<Id>,
    /// Objects that the store has lost and this node holds (C-10).
    pub(super) lost: BTreeSet<Id>,
    /// Which nodes count as there though they are not heard of.
    hold: Hold,
    /// Parts of the cluster network that may be gone, and when they are, unless their node says
    /// otherwise before.
    doubtful_subnets: BTreeMap<IpNetwork, Instant>,
    /// Records that are in the store and do not count.
    newcomers: Newcomers,
    /// The manifest directory is to be read when the store is back.
    pub(super) manifests_wait: bool,
    /// The task has said whether the store answers.
    pub(super) answered: bool,
    /// The store has said what there is.
    pub(super) viewed: bool,
    /// The node was told of a subnet that another has: whether it may take another one was said.
    moved_on: bool,
}

impl Membership {
    /// Of a machine that knows of no others. What is in doubt is so for `ttl`.
    pub(super) fn new(machine_id: String, ttl: Duration) -> Self {
        Self {
            machine_id,
            known: Known::default(),
            nodes: BTreeMap::new(),
            subnets: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            shadowed: BTreeSet::new(),
            lost: BTreeSet::new(),
            hold: Hold::new(ttl),
            doubtful_subnets: BTreeMap::new(),
            newcomers: Newcomers::default(),
            manifests_wait: false,
            answered: false,
            viewed: false,
            moved_on: false,
        }
    }
}

impl Engine {
    /// Connects to the cluster store, where there is to be one. Inside the runtime, once what the
    /// disk holds is in the kernel (rows C-05, O-67).
    pub(crate) fn start_cluster(&mut self, events: Events, previous: Vec<IpNetwork>) {
        if self.state.cluster.is_none() {
            return;
        }
        let (sender, mut reports) = mpsc::channel(QUEUE);
        self.join(Cluster::start(self.cluster_settings(previous), sender));
        let endpoints = self.state.settings.etcd_endpoints.clone();
        tokio::spawn(super::guard::look_up(endpoints, events.clone()));
        tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                if events.send(Event::Cluster(report)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// A planned end: what is on its way to the store gets there, where that answers. Nothing is
    /// given up.
    pub(crate) async fn leave(&mut self) {
        let Some(cluster) = self.cluster.take() else { return };
        cluster.send(Command::Stop);
        if tokio::time::timeout(FAREWELL, cluster.ended()).await.is_err() {
            tracing::warn!("the cluster store has not taken all that this node had to say");
        }
    }

    /// Speaks to a cluster from now on: says what this node is and has.
    pub(super) fn join(&mut self, cluster: Cluster) {
        self.cluster = Some(cluster);
        self.publish_self();
        self.publish_all_containers();
        self.peers_changed();
    }

    fn cluster_settings(&self, previous: Vec<IpNetwork>) -> ClusterSettings {
        let (settings, known) = (&self.state.settings, &self.membership.known);
        ClusterSettings {
            asked: settings.node_subnets.clone(),
            // What a run without a store chose by itself may be another node's.
            previous: if known.store.is_some() { previous } else { Vec::new() },
            known: known.clone(),
            ..cluster_settings(settings, self.identity())
        }
    }

    /// Whether a node's record is missing and the node may live.
    pub(super) fn is_held(&self, node: &str) -> bool {
        self.membership.hold.holds(node)
    }

    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            node: self.facts.name.to_string(),
            machine_id: self.membership.machine_id.clone(),
        }
    }

    /// Takes in what the store says.
    pub(super) fn take_report(&mut self, report: Report) {
        match report {
            Report::Reset { view, known, same } => self.take_view(view, known, same),
            Report::Changed { changes, revision } => self.take_changes(changes, revision),
            Report::Written { id, result } => self.take_written(id, result),
            Report::Connection(connection) => self.take_connection(connection),
            Report::Lease(lease) => {
                self.membership.known.lease = Some(lease);
                self.keep_known();
            }
            Report::Subnets(subnets) => self.take_subnets(subnets),
            Report::Excluded(why) => self.take_excluded(why),
            Report::Denied(why) => self.take_denied(why),
            Report::Unreadable(unreadable) => self.take_unreadable(&unreadable),
        }
    }

    fn take_connection(&mut self, connection: Result<(), String>) {
        let Some(cluster) = &mut self.state.cluster else { return };
        let first = !std::mem::replace(&mut self.membership.answered, true);
        match (connection, &mut cluster.connection) {
            (Ok(()), now) => {
                if let Err((since, _)) = now {
                    let away = clock::words(clock::now().saturating_duration_since(*since));
                    tracing::info!(after = away, "the cluster store answers");
                }
                *now = Ok(());
                // A node that never knew of others cannot have missed that they live.
                if self.membership.known.store.is_some() {
                    self.doubt_anew();
                }
                self.store_is_back();
            }
            (Err(why), Err((_, before))) if !first => *before = why,
            (Err(why), now) => {
                tracing::warn!(why, "the cluster store does not answer; all goes on as it is");
                *now = Err((clock::now(), why));
            }
        }
        // Whether they live is not known while the store is away.
        self.pending.touched.nodes.extend(self.state.peers.keys().cloned());
        self.describe_connection();
        self.refuse_writes();
        self.advance_writes();
    }

    fn store_is_back(&mut self) {
        if std::mem::take(&mut self.membership.manifests_wait) {
            self.pending.manifests = true;
        }
    }

    /// Says in `State::conditions` how long the store has been away: for whoever asks now.
    pub(super) fn describe_connection(&mut self) {
        let state = &mut self.state;
        let Some(cluster) = &state.cluster else { return };
        let Err((since, why)) = &cluster.connection else {
            state.conditions.clear(&Concern::Store);
            return;
        };
        let away = clock::words(clock::now().saturating_duration_since(*since));
        let revision = cluster.revision;
        let endpoints = state.settings.etcd_endpoints.join(" ");
        let text = format!(
            "etcd {endpoints} unreachable for {away}, serving from the snapshot of revision \
             {revision}: {why}"
        );
        state.conditions.set(Concern::Store, text);
    }

    fn take_excluded(&mut self, why: Option<String>) {
        let Some(cluster) = &mut self.state.cluster else { return };
        if let Some(why) = &why {
            tracing::error!("this node is kept out of the cluster: {why}");
        }
        self.state.conditions.update(Concern::Cluster, why.clone());
        cluster.excluded = why;
        self.refuse_writes();
        self.store_is_back();
        self.advance_writes();
    }

    /// What this node says of itself goes on: what it may not write are objects.
    fn take_denied(&mut self, why: Option<String>) {
        let change = self.state.conditions.update(Concern::ClusterWrites, why.clone());
        if let (Change::Appeared | Change::Changed, Some(why)) = (change, why) {
            tracing::error!("{why}");
        }
    }

    fn take_subnets(&mut self, subnets: Subnets) {
        self.membership.moved_on = false;
        if let Subnets::Held(subnets) = &subnets {
            let all: Vec<String> = subnets.iter().map(ToString::to_string).collect();
            tracing::info!("node subnets: {}", all.join(", "));
        }
        let refused = subnets.refused();
        if let Some(why) = &refused {
            tracing::error!("no subnet: {why}");
        }
        self.state.conditions.update(Concern::Subnet, refused);
        if let Some(cluster) = &mut self.state.cluster {
            cluster.subnets = Some(subnets);
        }
        self.peers_changed();
        self.look_for_another_subnet();
    }

    /// Once no container has an address of a subnet that another node took, this node may take
    /// another one.
    pub(super) fn look_for_another_subnet(&mut self) {
        let Some(cluster) = &self.state.cluster else { return };
        let Some(Subnets::Lost { subnet, .. }) = &cluster.subnets else { return };
        let mut own = self.state.index.containers_of(&self.facts.name);
        if self.membership.moved_on
            || own.any(|(one, _)| one.record.ips.iter().any(|ip| subnet.contains(*ip)))
        {
            return;
        }
        drop(own);
        self.membership.moved_on = true;
        self.say(Command::TakeAnotherSubnet);
    }

    /// The other nodes, for overlay and answers.
    fn describe_peers(&mut self) {
        let own = &self.state.node.name;
        let mut peers = tenure::peers(&self.membership.nodes, &self.membership.subnets);
        peers.remove(own);
        let before = &self.state.peers;
        let names = before.keys().chain(peers.keys());
        let changed: Vec<String> =
            names.filter(|name| before.get(*name) != peers.get(*name)).cloned().collect();
        if changed.is_empty() {
            return;
        }
        self.pending.touched.nodes.extend(changed);
        self.state.peers = peers;
        self.peers_changed();
    }

    /// What the next run is to know, on disk.
    fn keep_known(&mut self) {
        // What is held the next run holds, too.
        let lost = !self.membership.lost.is_empty();
        let known = Known { lost, ..self.membership.known.clone() };
        let kept = self.store.set_known(&known);
        self.snapshot_kept(kept);
    }

    /// Says whether the snapshot is written.
    fn snapshot_kept(&mut self, kept: Result<(), causeway_source::Error>) {
        match kept {
            Ok(()) => {
                self.state.conditions.clear(&Concern::Snapshot);
                let at = clock::now() + super::FLUSH_PERIOD;
                self.due.flush.set_if_unset(at);
            }
            Err(error) => {
                let text = causeway_api::chain(&error);
                tracing::error!(error = text, "write the snapshot of the cluster");
                self.state.conditions.set(Concern::Snapshot, text);
            }
        }
    }
}

/// The cluster store of `settings`, for a node that asks for nothing and knows nothing.
pub(crate) fn cluster_settings(settings: &Settings, identity: NodeIdentity) -> ClusterSettings {
    ClusterSettings {
        endpoints: settings.etcd_endpoints.clone(),
        prefix: settings.etcd_prefix.clone(),
        tls: settings.etcd_tls.clone(),
        user: settings.etcd_user.clone(),
        endpoint_ttl: settings.endpoint_ttl,
        subnet_ttl: settings.subnet_ttl,
        identity,
        config: cluster_config(settings),
        asked: Vec::new(),
        previous: Vec::new(),
        known: Known::default(),
    }
}

/// What all nodes must agree on, as this node has it.
fn cluster_config(settings: &Settings) -> ClusterConfig {
    ClusterConfig {
        schema: ClusterConfig::SCHEMA,
        cluster_cidrs: settings.cluster_cidrs.clone(),
        service_cidrs: settings.service_cidrs.clone(),
        node_subnet_len: settings.node_subnet_len,
        node_ports: settings.node_port_range,
        overlay: settings.overlay.name().to_owned(),
        vxlan_id: settings.vxlan_id,
        vxlan_port: settings.vxlan_port,
    }
}

#[cfg(test)]
mod tests;
